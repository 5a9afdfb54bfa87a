//! Guest ring 3 alone, in stretches among what another engine runs: as VMware ran it beside its
//! translated kernel code.
//!
//! User code needs no translation as long as it is content with ring 3, and where it is not the
//! same instructions go wrong as everywhere: what reads the host's tables, selectors and flags. RDTSC
//! is among them here: to make it trap would cost more at each stretch than the stretch.

use crate::code::GuestBytes;
use crate::engine::Engine;
use crate::exit::Exit;
use crate::shadow::Shadow;
use crate::watch::Divergence;
use crate::world;
use emulator::Outcome;
use host::compatibility::CompatibilityMode;
use machine::Machine;
use machine::tlb::Forgotten;
use strategy::{Error, ExitCounts, ExitKind, StrategyId};

/// Flushed pages that are remembered one by one between two stretches.
const MOST_PAGES: usize = 256;

/// Runs the guest's ring 3 natively.
pub struct UserCode {
    engine: Engine<GuestBytes>,
    /// What the guest has flushed since the last stretch.
    flushed: Forgotten,
}

impl UserCode {
    /// For the strategy `id`, which has run nothing yet.
    #[must_use]
    pub fn new(id: StrategyId) -> UserCode {
        let mut engine = Engine::new(id, GuestBytes);
        engine.only_user = true;
        UserCode { engine, flushed: Forgotten::default() }
    }

    /// A run begins: the window at linear address 0 is taken, and shows nothing yet.
    ///
    /// # Errors
    /// When the process has such a window already, or the host refuses.
    pub fn begin(&mut self) -> Result<(), Error> {
        self.end();
        let shadow = Shadow::new(true).map_err(|error| self.engine.failure(error))?;
        self.engine.shadow = Some(shadow);
        self.flushed = Forgotten::default();
        Ok(())
    }

    /// The run has ended: another engine of this process may want the addresses.
    pub fn end(&mut self) {
        self.engine.shadow = None;
    }

    /// Notes that the guest has flushed single pages.
    pub fn forget(&mut self, flushed: &Forgotten) {
        self.flushed.all |= flushed.all || self.flushed.pages.len() > MOST_PAGES;
        if !self.flushed.all {
            self.flushed.pages.extend_from_slice(&flushed.pages);
        }
    }

    /// Notes that the guest has flushed everything.
    pub fn forget_all(&mut self) {
        self.flushed.all = true;
    }

    /// From now on no write to the guest's page at `offset` goes unseen.
    ///
    /// # Errors
    /// When the host refuses.
    pub fn withhold_writes(&mut self, offset: u64) -> Result<(), Error> {
        let shadow = self.engine.shadow.as_mut();
        let withheld = shadow.map_or(Ok(()), |shadow| shadow.withhold_writes(offset));
        withheld.map_err(|error| self.engine.failure(error))
    }

    /// Whether the guest is where this runs it.
    #[inline]
    #[must_use]
    pub fn can_run(m: &Machine) -> bool {
        m.cpu.cpl == 3 && world::can_stay(m)
    }

    /// Runs ring 3 until it is left, or the machine or the other engine has something to look at; the
    /// answer is nothing where this thread was kicked.
    ///
    /// # Errors
    /// When the host fails.
    pub fn run(
        &mut self,
        m: &mut Machine,
        mode: &mut CompatibilityMode,
    ) -> Result<Option<Outcome>, Error> {
        self.follow(m)?;
        let generation = m.tlb.generation();
        loop {
            let exit = self.engine.native(m, mode, false)?;
            if exit == Exit::Timer {
                self.engine.exits.count(ExitKind::Host);
                return Ok(None);
            }
            let outcome = self.engine.handle(m, exit)?;
            let due = m.signals().attention()
                || m.interrupt_requested() && m.cpu.interruptible()
                || m.memory.code_was_written()
                || m.tlb.generation() != generation;
            if mode.is_kicked() && outcome == Outcome::Continue {
                return Ok(None);
            }
            if outcome != Outcome::Continue || due || !UserCode::can_run(m) {
                return Ok(Some(outcome));
            }
        }
    }

    fn follow(&mut self, m: &mut Machine) -> Result<(), Error> {
        let flushed = std::mem::take(&mut self.flushed);
        let shadow = self.engine.shadow.as_mut();
        let followed = shadow.map_or(Ok(()), |shadow| shadow.follow(m, &flushed));
        followed.map_err(|error| self.engine.failure(error))
    }

    /// Exits by kind, those of the emulator's counters aside, since the last call.
    pub fn take_exits(&mut self) -> ExitCounts {
        std::mem::take(&mut self.engine.exits)
    }

    /// Runs the guest one instruction at a time, for at most `most` of them, and returns the first
    /// that ring 3 executes otherwise than the architecture says.
    ///
    /// # Errors
    /// When the host fails.
    pub fn watch(&mut self, m: &mut Machine, most: u64) -> Result<Option<Divergence>, Error> {
        self.engine.watch(m, most)
    }
}
