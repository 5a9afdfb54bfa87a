//! The guest's ring 3 run natively, where that was asked for.

use super::{Engine, Then};
use direct_execution::UserCode;
use emulator::Outcome;
use host::compatibility::CompatibilityMode;
use machine::Machine;
use strategy::{Error, ExitCounts};

impl Engine {
    /// From the next run on, ring 3 is run natively.
    pub(crate) fn run_user_natively(&mut self, direct: UserCode) {
        self.direct = Some(direct);
    }

    /// Whether the guest is in ring 3 and that is run natively now.
    #[inline]
    pub(super) fn is_direct(&self, m: &Machine) -> bool {
        self.direct.is_some() && UserCode::can_run(m)
    }

    /// Lets the guest's ring 3 run natively until it is left.
    pub(super) fn visit(
        &mut self,
        m: &mut Machine,
        mode: &mut CompatibilityMode,
    ) -> Result<Then, Error> {
        let Some(direct) = &mut self.direct else { return Ok(Then::Find) };
        let ended = direct.run(m, mode)?;
        // GS's base is the host's again.
        self.context.window = 0;
        if m.memory.code_was_written() {
            self.take_code_writes(m);
        }
        let outcome = ended.unwrap_or(Outcome::Continue);
        let leaves = ended.is_none() || self.is_due(m, outcome);
        Ok(if leaves { Then::Leave(outcome) } else { Then::Find })
    }

    /// What native stays were ended by, since the last call.
    pub(super) fn take_direct_exits(&mut self) -> ExitCounts {
        self.direct.as_mut().map_or_else(ExitCounts::default, UserCode::take_exits)
    }
}
