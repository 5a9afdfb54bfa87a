//! What the architecture leaves open in the middle of a stretch, so that a difference behind it is
//! none: flags that are undefined and used all the same, and translations that have become stale.

use super::locate::Attempt;
use super::reference::{Chase, Origin, Reference};
use super::stale::Watch;
use super::undefined;
use machine::cpu::Eflags;
use machine::tap::Event;
use machine::{LinearAddress, Machine};
use std::fmt;

/// Instructions that are gone through for it.
const MOST: u64 = 1 << 17;

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
}

impl Open {
    /// What it is, without the place.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Open::Flags { .. } => "flags that are undefined are used",
            Open::Translations => "page tables are written and not flushed",
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

/// Whether the CPU could choose between translations in the first `count` instructions from `origin`
/// on.
pub(super) fn stale_translations(
    reference: &mut Reference,
    origin: &Origin<'_>,
    events: &[Event],
    count: u64,
) -> Option<Open> {
    reference.go_to(origin);
    let mut watch = Watch::new(&reference.machine);
    let mut last = None;
    reference.walk(events, count.min(MOST), |machine, instruction| {
        watch.look(machine, last.as_ref());
        last = instruction.copied();
        Some(())
    });
    watch.look(&reference.machine, last.as_ref());
    watch.found().then_some(Open::Translations)
}
