//! What the architecture leaves open in the middle of a stretch, so that a difference behind it is
//! none: flags that are undefined and used all the same, translations that have become stale, and copies
//! that overlap unseen.

use super::chase::Chase;
use super::locate::Attempt;
use super::reference::{Origin, Reference};
use super::stale::Watch;
use super::undefined;
use iced_x86::{Instruction, OpKind};
use machine::cpu::{Eflags, SegmentRegister, register};
use machine::host_time::processor_nanos;
use machine::tap::Event;
use machine::{LinearAddress, Machine};
use std::collections::BTreeMap;
use std::fmt;

/// Instructions that are gone through for it.
pub(super) const MOST: u64 = 1 << 17;

/// Pages of each side of a copy that are looked at.
const MOST_PAGES: u64 = 64;

/// What is left open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Open {
    /// The strategy has the result of other values in flags that an instruction leaves undefined.
    Flags {
        /// Which.
        flags: Eflags,
        /// The first instruction that uses them, if it is not an exception that does.
        user: Option<LinearAddress>,
    },
    /// Entries of the page tables were changed that had been in use, and not flushed.
    Translations,
    /// A repeated copy reads by one linear address what it has written by another.
    AliasedCopy,
}

impl Open {
    /// What it is, without the place.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Open::Flags { .. } => "flags that are undefined are used",
            Open::Translations => "page tables are written and not flushed",
            Open::AliasedCopy => {
                "a repeated copy overlaps by two linear addresses of the same memory"
            }
        }
    }
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Open::Flags { flags, user } => {
                let names: Vec<_> = flags.iter_names().map(|(name, _)| name).collect();
                write!(f, "{} undefined", names.join(", "))?;
                match user {
                    Some(user) => write!(f, ", and used by the instruction at {user}"),
                    None => f.write_str(", and stored with the flags by an exception"),
                }
            }
            Open::Translations => f.write_str(
                "page tables were written and not flushed: the CPU may still use what was in them",
            ),
            Open::AliasedCopy => f.write_str(
                "a repeated copy reads what it has just written by another linear address: CPUs that \
                 move many bytes at once look at linear addresses only",
            ),
        }
    }
}

/// Whether an attempt that goes wrong comes out right with other values in the flags that the
/// instruction at its beginning leaves undefined.
pub(super) fn undefined_flags(
    reference: &mut Reference,
    leader: &Machine,
    origin: &Origin<'_>,
    attempt: &Attempt,
    deadline: u64,
) -> Option<Open> {
    let begun = reference.go_to(origin);
    let instruction = emulator::instruction(&mut reference.machine)?;
    let flags = undefined::flags(instruction.rflags_undefined());
    let behind = Origin { count: origin.count + 1, ..*origin };
    if flags.is_empty() || reference.go_to(&behind) != begun {
        return None;
    }
    let emulated = reference.machine.cpu.flags.bits();
    let values = values(flags).filter(|value| value.bits() != emulated & flags.bits());
    for value in values.collect::<Vec<_>>() {
        if processor_nanos() >= deadline {
            break;
        }
        reference.go_to(&behind);
        reference.machine.cpu.flags.merge(value.bits(), flags);
        if let Chase::Reached(_) = reference.chase(leader, &attempt.stretch) {
            let differing = Eflags::from_bits_truncate(value.bits() ^ emulated) & flags;
            let user = user(reference, &behind, &attempt.stretch.events, differing);
            return Some(Open::Flags { flags: differing, user });
        }
    }
    None
}

/// Whether the instruction is a repeated MOVS, about to be executed, whose source and target are the same memory by linear
/// addresses that are not.
fn is_aliased_copy(machine: &mut Machine, instruction: &Instruction) -> bool {
    use iced_x86::Mnemonic::{Movsb, Movsd, Movsw};
    let repeats = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    let moves = matches!(instruction.mnemonic(), Movsb | Movsw | Movsd);
    if !moves || !instruction.is_string_instruction() || !repeats {
        return false;
    }
    let is_wide = instruction.op0_kind() == OpKind::MemoryESEDI;
    let mask = if is_wide { u32::MAX } else { 0xffff };
    let registers = machine.cpu.registers;
    let count = u64::from(registers[register::ECX] & mask);
    let bytes = count * instruction.memory_size().size() as u64;
    let source = instruction.memory_segment().number();
    let [from, to] = [
        (machine.cpu.segments[source].base, registers[register::ESI]),
        (machine.cpu.segment(SegmentRegister::Es).base, registers[register::EDI]),
    ]
    .map(|(base, offset)| base.wrapping_add(offset & mask));
    let backwards = machine.cpu.flags.contains(Eflags::DF);
    let mut pages = |start: u32| -> BTreeMap<u64, u32> {
        // Whole pages, a few at most: what overlaps by more is in the first of them.
        let pages = (u64::from(start & 0xfff) + bytes).div_ceil(0x1000).min(MOST_PAGES) as u32;
        let page = |number: u32| {
            let away = number.wrapping_mul(0x1000);
            let linear =
                if backwards { start.wrapping_sub(away) } else { start.wrapping_add(away) };
            let found = emulator::mapping(machine, LinearAddress(linear & !0xfff))?;
            Some((found.physical.0, linear & !0xfff))
        };
        (0..pages).filter_map(page).collect()
    };
    let (from, to) = (pages(from), pages(to));
    let is_alias =
        |(physical, linear): (&u64, &u32)| to.get(physical).is_some_and(|other| other != linear);
    from.iter().any(is_alias)
}

/// All values of some flags.
fn values(flags: Eflags) -> impl Iterator<Item = Eflags> {
    let flags: Vec<_> = flags.iter().collect();
    (0..1u32 << flags.len()).map(move |number| {
        let set = flags.iter().enumerate().filter(|(at, _)| number & 1 << at != 0);
        set.map(|(_, &flag)| flag).collect()
    })
}

/// The first instruction from `origin` on that reads `flags`.
fn user(
    reference: &mut Reference,
    origin: &Origin<'_>,
    events: &[Event],
    flags: Eflags,
) -> Option<LinearAddress> {
    reference.go_to(origin);
    let mut left = flags;
    let mut found = None;
    reference.walk(events, MOST, |machine, instruction| {
        let instruction = instruction?;
        if undefined::reads(instruction).intersects(left) {
            found = Some(machine.cpu.instruction_address());
            return None;
        }
        left &= !undefined::flags(instruction.rflags_modified());
        (!left.is_empty()).then_some(())
    });
    found
}

/// What is left open in the first `count` instructions from `origin` on: whether the CPU could choose
/// between translations, or to see an overlap.
pub(super) fn on_the_way(
    reference: &mut Reference,
    origin: &Origin<'_>,
    events: &[Event],
    count: u64,
) -> Option<Open> {
    reference.go_to(origin);
    let mut watch = Watch::new(&reference.machine);
    let (mut last, mut copies) = (None, false);
    reference.walk(events, count.min(MOST), |machine, instruction| {
        watch.look(machine, last.as_ref());
        last = instruction.copied();
        copies |= last.is_some_and(|instruction| is_aliased_copy(machine, &instruction));
        Some(())
    });
    watch.look(&reference.machine, last.as_ref());
    match watch.found() {
        true => Some(Open::Translations),
        false => copies.then_some(Open::AliasedCopy),
    }
}
