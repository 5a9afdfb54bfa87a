//! Code patching: guest code runs natively in ring 3, but none before it has been examined, and what
//! ring 3 would execute wrongly or only by a trap is rewritten.
//!
//! This is Virtual PC's way (Connectix) and that of VirtualBox's raw mode, on direct execution
//! ([`direct_execution`]), which asks [`Code`](direct_execution::Code) around each stay:
//!
//! - No page of the guest is executable. A fetch is a fault; the code that is reached from there is
//!   examined (`view`), and an executable *copy* of the page is shown in its place, in which only what
//!   was examined stands and all else traps. Where control comes to such a place, the examination goes
//!   on from there.
//! - A sensitive instruction (`class`) becomes a jump to a *stub* (`stub`), and takes neighbours along
//!   where it is shorter than the jump (`plan`). Stubs work on a *virtual CPU* (`virtual_cpu`), a page
//!   that only guest ring 0 reaches, or leave for the monitor by a far jump
//!   ([`host::crossing`]), at a fraction of a signal's price. Where there is no room, one byte traps.
//! - Loads of segment registers, which a kernel makes at each entry and exit, are repeated by stubs as
//!   long as the guest's descriptor is what it was (`loads`); RDTSC adds the guest's offset
//!   (`time_stamp`).
//! - Segment limits keep guest ring 3 out of the kernel's pages, and would keep it from thread-local
//!   storage at negative offsets of GS. So GS shows what is below its base, and FS, which the guest does
//!   not use, what is above: instructions that are seen to mean that have FS's prefix in the copy.
//! - The copies are execute-only memory, where the CPU has protection keys: a guest that reads its
//!   code faults, and the emulator reads the guest's own bytes for it. Elsewhere the copies are shown
//!   where the guest uses nothing, and its code segment gets a base that leads there: fetches see the
//!   copy, and loads the guest's page (`place`). A page with code in it is not writable; the emulator
//!   writes, and what was examined there is examined anew.
//! - Control may come to an instruction that was moved, by a jump that nobody could see. The bytes
//!   there are such that they trap (`area`).
//! - A fault or a signal within a stub is seen as one between two of the guest's instructions: stubs
//!   are described by steps that say what has to be put back.
//!
//! A page before and after. `cli` at 0x1000 has one byte, and takes three neighbours along; `6c` in the
//! jump's displacement is INSB, which traps:
//!
//! ```text
//! guest's page                          executable copy
//! 1000  fa           cli                e9 6c 6c 6c ed   jmp ed6c7c71
//! 1001  50           push eax
//! 1002  43           inc ebx
//! 1003  89 d8        mov eax, ebx
//! 1005  74 f9        jz 1000            74 f9            jz 1000
//! 1007  c3           ret                c3               ret
//! 1008  (data)                          f4 f4 f4 f4 ..   hlt: not examined
//!
//! stub at ed6c7c71
//! 36 c7 05 20 00 80 ff 00 00 00 00      mov dword ss:[virtual IF], 0
//! 50 43 89 d8                           push eax; inc ebx; mov eax, ebx
//! e9 ..                                 jmp 1005
//! ```
//!
//! In *on-trap* mode ([`Mode::OnTrap`]) pages run as they are until an instruction has trapped often
//! enough, and only that is patched (US patent 7,210,144); what does not trap goes wrong, as under
//! trap-and-emulate.
//!
//! Of each site it is known what it became, why it has no stub if it has none, and how often it ran
//! ([`CodePatching::sites`], `records`): the monitor counts crossings and traps, and stubs count where the
//! run is to be looked at ([`CodePatching::watched`]). [`survey`] says the same of code that nobody runs.
//!
//! What is left: where a guest comes to use the linear addresses that copies, stubs and the virtual CPU
//! have taken, that is looked for at each change to its ring 3, and everything moves elsewhere; until then
//! it may see them. A guest's ring 0 can see and write the virtual CPU's page, if it looks for memory where
//! it has mapped none, and a jump into the middle of an examined instruction is not noticed. The RPL of a
//! null selector is lost: the host's next return to ring 3 clears it. Guests whose segments are not flat,
//! and 16-bit code, get trap bytes and no stubs. Without protection keys, each jump that is taken costs what
//! the CPU asks where the code segment has a base: some 20 cycles on Zen 4.

mod area;
mod class;
mod code;
mod count;
mod emit;
mod history;
mod loads;
mod options;
mod patches;
mod place;
mod plan;
mod records;
mod sites;
mod stub;
mod survey;
mod time_stamp;
mod view;
mod virtual_cpu;

pub use options::{Mode, Options};
pub use sites::{Became, Jump, Moment, Need, Obstacle, Runs, Site, Statistics, Way};

pub use survey::survey;

use code::PatchedCode;
use direct_execution::Engine;
use machine::Machine;
use std::ops::Range;
use strategy::{Error, ExitCounts, Limit, Stop, Strategy, StrategyId, Support};

/// Whether this host can run guests so.
#[must_use]
pub fn support() -> Support {
    direct_execution::support()
}

/// The strategy of Virtual PC and VirtualBox.
pub struct CodePatching {
    engine: Engine<PatchedCode>,
}

impl CodePatching {
    /// A monitor that has run nothing yet. The window at linear address 0 is the process's only one,
    /// and taken while a guest runs.
    ///
    /// # Errors
    /// When the host has no memory for it.
    pub fn new(options: Options) -> Result<CodePatching, Error> {
        CodePatching::with(options, false)
    }

    /// The same, to be looked at: stubs count how often they run, which makes them slower, and what
    /// was counted is noted at moments of the run.
    ///
    /// # Errors
    /// As [`CodePatching::new`].
    pub fn watched(options: Options) -> Result<CodePatching, Error> {
        CodePatching::with(options, true)
    }

    fn with(options: Options, watched: bool) -> Result<CodePatching, Error> {
        let code = PatchedCode::new(options, watched).map_err(|error| match error {
            host::Error::Host { what, source } => Error::Host { what, source },
            other => {
                Error::Unsupported { strategy: StrategyId::CodePatching, reason: other.to_string() }
            }
        })?;
        Ok(CodePatching { engine: Engine::new(StrategyId::CodePatching, code) })
    }

    /// Counts of what was patched.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.engine.code().patches.statistics
    }

    /// All sites that were found, by address, with how often each ran.
    #[must_use]
    pub fn sites(&self) -> Vec<Site> {
        self.engine.code().patches.records.sites()
    }

    /// What was counted as the guest ran, if it was watched.
    #[must_use]
    pub fn moments(&self) -> &[Moment] {
        self.engine.code().patches.records.moments()
    }
}

impl Strategy for CodePatching {
    fn id(&self) -> StrategyId {
        StrategyId::CodePatching
    }

    fn run(&mut self, machine: &mut Machine, limit: &Limit) -> Result<Stop, Error> {
        let stop = self.engine.run(machine, limit);
        self.engine.code_mut().patches.note_moment(true);
        stop
    }

    fn exits(&self) -> &ExitCounts {
        self.engine.exits()
    }

    fn taken(&self) -> Vec<Range<u64>> {
        self.engine.code().patches.taken()
    }
}
