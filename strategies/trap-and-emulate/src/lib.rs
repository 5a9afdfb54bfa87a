//! Trap-and-emulate: everything runs natively in ring 3, and what traps is emulated.
//!
//! This is the textbook's monitor (Popek & Goldberg 1974), and IA-32 does not meet its condition:
//! SGDT shows the host's table, POPF loses the interrupt flag, a read of CS shows ring 3, and a selector
//! that the host's own tables have for ring 3 (0x23, 0x2b, 0x33, 0x7b) is loaded without a trap. Nothing is
//! done about that here. A guest kernel that avoids those instructions runs right; one that does not
//! goes wrong, and is reported so.

pub use direct_execution::Divergence;

use direct_execution::{Engine, GuestBytes};
use machine::Machine;
use strategy::{Error, ExitCounts, Limit, Stop, Strategy, StrategyId, Support};

/// The textbook's strategy.
pub struct TrapAndEmulate {
    engine: Engine<GuestBytes>,
}

/// Whether this host can run guests so.
#[must_use]
pub fn support() -> Support {
    direct_execution::support()
}

impl TrapAndEmulate {
    /// A monitor that has run nothing yet. The window at linear address 0 is the process's only one,
    /// and taken while a guest runs.
    #[must_use]
    pub fn new() -> TrapAndEmulate {
        TrapAndEmulate { engine: Engine::new(StrategyId::TrapAndEmulate, GuestBytes) }
    }

    /// Runs the guest one instruction at a time, for at most `most` of them, and returns the first
    /// that ring 3 executes otherwise than the architecture says. Some microseconds an instruction.
    ///
    /// # Errors
    /// When the host fails.
    pub fn watch(&mut self, machine: &mut Machine, most: u64) -> Result<Option<Divergence>, Error> {
        self.engine.watch(machine, most)
    }
}

impl Default for TrapAndEmulate {
    fn default() -> TrapAndEmulate {
        TrapAndEmulate::new()
    }
}

impl Strategy for TrapAndEmulate {
    fn id(&self) -> StrategyId {
        StrategyId::TrapAndEmulate
    }

    fn run(&mut self, machine: &mut Machine, limit: &Limit) -> Result<Stop, Error> {
        self.engine.run(machine, limit)
    }

    fn exits(&self) -> &ExitCounts {
        self.engine.exits()
    }
}
