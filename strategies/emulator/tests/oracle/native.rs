//! The real CPU's side: a case in compatibility mode.

use crate::case::{Case, Code};
use crate::ending::{Ending, Event};
use crate::layout::{ARENA, CODE, DATA, DATA_BYTES, PAGES, STACK, STACK_BYTES, based_segment};
use host::compatibility::{CompatibilityMode, NativeExit, NativeState, Selectors};
use host::ldt::{LdtEntry, SegmentDescriptor, SegmentKind};
use host::low_memory::{LowMemory, Protection};
use machine::cpu::SegmentRegister;
use std::time::Duration;

/// Longer than any case takes that has an end.
const LIMIT: Duration = Duration::from_secs(5);
/// Enough to see that a case has none.
const SHORT_LIMIT: Duration = Duration::from_millis(20);
/// A page fault's error code says, on the host but not on CPUs without NX, whether it was a fetch.
const FETCH: u32 = 1 << 4;

/// An arena in the process's own memory.
pub(crate) struct Native {
    mode: CompatibilityMode,
    memory: LowMemory,
    state: NativeState,
    /// ES, CS, SS, DS, FS, GS, and CS with 16 bits.
    segments: Vec<LdtEntry>,
}

impl Native {
    pub(crate) fn new(arena: u32) -> Native {
        let mut memory = LowMemory::new(arena, ARENA).expect("the arena");
        memory.protect(0, ARENA, Protection::None).expect("its holes");
        for (offset, length, writable) in PAGES {
            let protection = if writable { Protection::Write } else { Protection::Read };
            memory.protect(offset as usize, length as usize, protection).expect("its pages");
        }
        let entry = |register, is_32bit| {
            let shape = based_segment(register);
            let kind = match (register, shape.writable) {
                (SegmentRegister::Cs, _) => SegmentKind::Code,
                (_, true) => SegmentKind::Data,
                (_, false) => SegmentKind::ReadOnlyData,
            };
            let base = arena + shape.base;
            LdtEntry::new(SegmentDescriptor { base, limit: shape.limit, kind, is_32bit })
                .expect("an LDT entry")
        };
        let mut segments: Vec<_> =
            SegmentRegister::ALL.into_iter().map(|register| entry(register, true)).collect();
        segments.push(entry(SegmentRegister::Cs, false));
        let mode = CompatibilityMode::new().expect("compatibility mode");
        Native { mode, memory, state: NativeState::default(), segments }
    }

    /// The selectors that a case runs with.
    pub(crate) fn selectors(&self, case: &Case) -> Selectors {
        if case.flavour.is_flat() {
            return Selectors::FLAT;
        }
        let selector = |register: SegmentRegister| self.segments[register as usize].selector();
        let wide = selector(SegmentRegister::Cs);
        Selectors {
            cs: if case.flavour.bits() == 16 { self.segments[6].selector() } else { wide },
            ss: selector(SegmentRegister::Ss),
            ds: selector(SegmentRegister::Ds),
            es: selector(SegmentRegister::Es),
            fs: selector(SegmentRegister::Fs),
            gs: selector(SegmentRegister::Gs),
        }
    }

    /// Runs a case to its end.
    pub(crate) fn run(&mut self, case: &Case, code: &Code) -> Result<Ending, String> {
        let exit = self.enter(case, code, LIMIT)?;
        if matches!(exit.signal, libc::SIGSYS | libc::SIGALRM) {
            return Err(format!("ended by signal {} at {:#x}", exit.signal, exit.eip));
        }
        Ok(self.ending(exit))
    }

    /// Whether a case has no end.
    pub(crate) fn is_endless(&mut self, case: &Case, code: &Code) -> bool {
        self.enter(case, code, SHORT_LIMIT).is_ok_and(|exit| exit.signal == libc::SIGALRM)
    }

    fn enter(&mut self, case: &Case, code: &Code, limit: Duration) -> Result<NativeExit, String> {
        self.memory.write(CODE as usize, &code.page);
        self.memory.write(DATA as usize, &case.data);
        self.memory.write(STACK as usize, &case.stack);
        self.state = NativeState {
            registers: case.registers,
            eip: case.flavour.origin(self.memory.address()).wrapping_add(case.start),
            eflags: case.eflags,
            selectors: self.selectors(case),
            fpu: case.fpu.clone(),
        };
        // SAFETY: the emulator has run the case before: it stays in the arena and executes nothing
        // that is excluded, far transfers among it.
        unsafe { self.mode.run_for(&mut self.state, limit) }
            .map_err(|error| format!("not entered: {error}"))
    }

    fn ending(&self, exit: NativeExit) -> Ending {
        let state = &self.state;
        let is_page_fault = exit.trap == 14;
        let mut memory = vec![0; (DATA_BYTES + STACK_BYTES) as usize];
        let (data, stack) = memory.split_at_mut(DATA_BYTES as usize);
        self.memory.read(DATA as usize, data);
        self.memory.read(STACK as usize, stack);
        Ending {
            event: Event {
                vector: exit.trap,
                error_code: if is_page_fault { exit.error_code & !FETCH } else { exit.error_code },
                address: if is_page_fault { exit.address } else { 0 },
            },
            eip: state.eip,
            registers: state.registers,
            eflags: state.eflags,
            fpu: state.fpu.clone(),
            memory,
        }
    }
}
