//! Single steps from decoded instructions that are kept: for strategies that leave the same few
//! instructions to the emulator again and again.
//!
//! Nothing is watched for that: the bytes are read each time and compared with those that were
//! decoded. Who does watch them names the place instead ([`Stepper::step_known`]).

use crate::Outcome;
use crate::decode::{Decoded, LONGEST, decode};
use crate::fetch;
use crate::lower::Flow;
use crate::mode;
use crate::op::Op;
use crate::run;
use machine::cpu::SegmentRegister;
use machine::{LinearAddress, Machine, PhysicalAddress};

/// Decoded instructions that are kept.
const ENTRIES: usize = 4096;

/// A decoded instruction.
struct Entry {
    linear: u32,
    is_32bit: bool,
    bytes: u128,
    /// Which of the bytes are the instruction's.
    mask: u128,
    op: Op,
    falls_through: bool,
}

/// An instruction at a place whose bytes do not change.
struct Known {
    place: u64,
    op: Op,
    falls_through: bool,
}

/// Executes single instructions, each decoded once.
#[derive(Default)]
pub struct Stepper {
    entries: Vec<Option<Box<Entry>>>,
    known: Vec<Option<Box<Known>>>,
}

impl Stepper {
    /// A stepper that knows no instruction.
    #[must_use]
    pub fn new() -> Stepper {
        fn empty<T>() -> Vec<Option<T>> {
            std::iter::repeat_with(|| None).take(ENTRIES).collect()
        }
        Stepper { entries: empty(), known: empty() }
    }

    /// Executes the instruction at EIP as [`Stepper::step`] does, but without a look at its bytes if
    /// one was executed by this name of its place before; `physical` says where they are. Whoever gives
    /// the name stands for it that the bytes have stayed the same, all in one page of memory, that the
    /// mode is the same, and that neither single steps nor data breakpoints nor alignment checks are on.
    #[inline]
    pub fn step_known(
        &mut self,
        m: &mut Machine,
        place: u64,
        physical: impl FnOnce() -> Option<PhysicalAddress>,
    ) -> Outcome {
        let slot = (place >> 3) as usize % ENTRIES;
        let outcome = match &self.known[slot] {
            Some(known) if known.place == place => {
                run::execute_carefully(m, &known.op, known.falls_through)
            }
            _ => self.step_first(m, place, slot, physical()),
        };
        m.clock().retire(1);
        crate::float::leave(m);
        if outcome == Outcome::Continue && m.cpu.halted { Outcome::Halted } else { outcome }
    }

    #[cold]
    fn step_first(
        &mut self,
        m: &mut Machine,
        place: u64,
        slot: usize,
        physical: Option<PhysicalAddress>,
    ) -> Outcome {
        mode::update(m);
        let mut bytes = [0; 16];
        let read = physical.filter(|&physical| {
            let in_page = (0x1000 - physical.page_offset() as usize).min(bytes.len());
            m.memory.read(physical, &mut bytes[..in_page])
        });
        let Some((op, falls_through)) = read.and_then(|_| decoded(m, &bytes)) else {
            return run::step_from_memory(m);
        };
        self.known[slot] = Some(Box::new(Known { place, op, falls_through }));
        run::execute_carefully(m, &op, falls_through)
    }

    /// To be called where the CPU's state may be another engine's work, before
    /// [`Stepper::step_known`].
    pub fn take_over(&self, m: &mut Machine) {
        mode::update(m);
    }

    /// Forgets all names of places.
    pub fn forget_places(&mut self) {
        self.known.fill_with(|| None);
    }

    /// The same as [`step`](crate::step).
    pub fn step(&mut self, m: &mut Machine) -> Outcome {
        if m.cpu.halted {
            return Outcome::Halted;
        }
        mode::update(m);
        let outcome = self.step_awake(m);
        m.clock().retire(1);
        crate::float::leave(m);
        if outcome == Outcome::Continue && m.cpu.halted { Outcome::Halted } else { outcome }
    }

    fn step_awake(&mut self, m: &mut Machine) -> Outcome {
        let linear = m.cpu.instruction_address().0;
        let code = m.cpu.segment(SegmentRegister::Cs);
        let is_32bit = code.is_32bit();
        let within = u64::from(m.cpu.eip) + LONGEST as u64 <= u64::from(code.limit);
        let user = m.cpu.cpl == 3;
        if !within || linear & 0xfff > 0xff0 {
            return run::step_from_memory(m);
        }
        let mut host = m.tlb.execute(user, linear);
        if host.is_none() && fetch::physical(m, LinearAddress(linear)).is_ok() {
            host = m.tlb.execute(user, linear);
        }
        let Some(host) = host else { return run::step_from_memory(m) };
        // SAFETY: the TLB holds pages of guest memory, and sixteen bytes from here lie within one.
        let bytes = u128::from_le_bytes(unsafe { host.cast::<[u8; 16]>().read_unaligned() });
        let slot = (linear ^ linear >> 12) as usize % ENTRIES;
        if let Some(entry) = &self.entries[slot]
            && entry.linear == linear
            && entry.is_32bit == is_32bit
            && (entry.bytes ^ bytes) & entry.mask == 0
        {
            return run::execute_carefully(m, &entry.op, entry.falls_through);
        }
        // The bytes at hand: the guest may have changed its page tables without a flush, and by those the
        // instruction would be another.
        let Some((op, falls_through)) = decoded(m, &bytes.to_le_bytes()) else {
            return run::step_from_memory(m);
        };
        let mask = u128::MAX >> (8 * (16 - u32::from(op.end.max(1)).min(15)));
        let outcome = run::execute_carefully(m, &op, falls_through);
        let entry = Entry { linear, is_32bit, bytes, mask, op, falls_through };
        self.entries[slot] = Some(Box::new(entry));
        outcome
    }
}

/// The instruction at the beginning of `bytes`, and whether it leads to the next; nothing where more are
/// needed to tell.
fn decoded(m: &Machine, bytes: &[u8; 16]) -> Option<(Op, bool)> {
    let is_32bit = m.cpu.segment(SegmentRegister::Cs).is_32bit();
    match decode(&bytes[..LONGEST], 0, is_32bit) {
        Decoded::Op(op, flow) => Some((op, flow != Flow::Jump)),
        Decoded::Incomplete => None,
    }
}
