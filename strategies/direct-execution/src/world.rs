//! One stay in the guest: its state onto the host's CPU, and back.

use crate::exit::Exit;
use crate::peek;
use crate::segments::{Loaded, ShadowSegments};
use host::compatibility::{CompatibilityMode, IntegerState, Selectors};
use machine::Machine;
use machine::cpu::{Cr0, Descriptor, Eflags, Segment, SegmentRegister, access};
use machine::{LinearAddress, Selector};

/// The flags that guest code can change at CPL 3, TF aside; the others stay as the machine has them.
const NATIVE_FLAGS: Eflags =
    Eflags::ARITHMETIC.union(Eflags::DF).union(Eflags::NT).union(Eflags::AC).union(Eflags::ID);

/// How the guest is entered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Where.
    pub(crate) eip: u32,
    /// Whether to execute one instruction at most.
    pub(crate) single_step: bool,
    /// The host's selectors for its segments.
    pub(crate) selectors: [u16; 6],
}

/// Runs native code until something traps or `mode`'s timer fires. What the host's CPU refuses to
/// begin is a fault at EIP: the machine is unchanged then.
pub(crate) fn stay(
    m: &mut Machine,
    mode: &mut CompatibilityMode,
    segments: &ShadowSegments,
    entry: Entry,
) -> Result<Exit, host::Error> {
    let single_step = entry.single_step;
    let mut state = IntegerState {
        registers: m.cpu.registers,
        eip: entry.eip,
        eflags: m.cpu.flags.bits() | if single_step { Eflags::TF.bits() } else { 0 },
        selectors: arrange(entry.selectors),
        has_16bit_stack: !m.cpu.segment(SegmentRegister::Ss).is_32bit(),
    };
    // SAFETY: below 4 GiB there is nothing but the window, into which no Rust reference points.
    // Guest code can leave 32-bit mode through the host's selectors: that is what the sandbox of
    // the process is for.
    let exit = match unsafe { mode.run_with(&mut state, &mut m.cpu.fpu) } {
        Err(host::Error::EntryRefused { .. }) => return Ok(Exit::Fault),
        exit => exit?,
    };
    m.cpu.registers = state.registers;
    m.cpu.eip = state.eip;
    // POPF sets TF without a trap; the one that we set is not the guest's.
    let trace = if single_step { Eflags::empty() } else { Eflags::TF };
    m.cpu.flags.merge(state.eflags, NATIVE_FLAGS | trace);
    take_segments(m, segments, &state.selectors);
    Ok(Exit::of(&exit, single_step))
}

/// From encoding order to the host's structure.
fn arrange([es, cs, ss, ds, fs, gs]: [u16; 6]) -> Selectors {
    Selectors { cs, ss, ds, es, fs, gs }
}

/// Takes over segment registers that the guest loaded without a trap.
fn take_segments(m: &mut Machine, segments: &ShadowSegments, now: &Selectors) {
    let now = [now.es, now.cs, now.ss, now.ds, now.fs, now.gs];
    for (register, selector) in SegmentRegister::ALL.into_iter().zip(now) {
        match segments.loaded(register, selector) {
            None => {}
            Some(Loaded::Known(segment)) => *m.cpu.segment_mut(register) = segment,
            Some(Loaded::Foreign(selector)) => {
                *m.cpu.segment_mut(register) = from_guest_tables(m, Selector(selector));
            }
        }
    }
}

/// What the guest's own tables say about a selector that the host's CPU took for its own. The guest
/// has gone wrong already; the machine must be left in a state that exists.
fn from_guest_tables(m: &mut Machine, selector: Selector) -> Segment {
    let (base, limit) = if selector.is_local() {
        (m.cpu.ldtr.base, m.cpu.ldtr.limit)
    } else {
        (m.cpu.gdtr.base, u32::from(m.cpu.gdtr.limit))
    };
    let null = Segment::null(selector.0 & 3);
    if selector.table_offset().saturating_add(7) > limit {
        return null;
    }
    let address = base.wrapping_add(selector.table_offset());
    let mut bytes = [0; 8];
    for (at, byte) in bytes.iter_mut().enumerate() {
        match peek::byte(m, LinearAddress(address.wrapping_add(at as u32))) {
            Some(read) => *byte = read,
            None => return null,
        }
    }
    Descriptor(u64::from_le_bytes(bytes)).to_segment(selector)
}

/// Whether the CPU's state can be put onto the host's CPU: protected mode, segments that the LDT can
/// express (those left over from real mode are not code), nothing that has to be done instruction by
/// instruction, and no FPU trap (which ring 3 cannot arrange).
pub(crate) fn can_stay(m: &Machine) -> bool {
    let cpu = &m.cpu;
    let code = cpu.segment(SegmentRegister::Cs);
    cpu.in_protected_mode()
        && !cpu.halted
        && !cpu.flags.single_steps()
        && cpu.interrupt_shadow == machine::cpu::InterruptShadow::None
        && cpu.pending_debug == 0
        && cpu.debug[7] & machine::cpu::Dr7::ENABLED == 0
        && !cpu.cr0.intersects(Cr0::EM | Cr0::TS)
        && code.has(access::PRESENT | access::NOT_SYSTEM | access::CODE)
        && cpu.eip <= code.limit
        && cpu.segment(SegmentRegister::Ss).is_writable()
        && cpu.segments.iter().all(crate::segments::is_expressible)
}
