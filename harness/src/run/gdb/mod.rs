//! A guest under gdb, whatever strategy runs it.
//!
//! ```text
//! gdb ── TCP, 127.0.0.1 ── relay (this program) ── Unix socket ── wire ── Debugger (guest's process)
//! ```
//!
//! The guest's process has no right to make connections: the program that started it relays.
//!
//! While the guest is stopped, its memory holds nothing of the debugger's. A single step is the
//! emulator's, without interrupts. To go on, INT3 is planted in the page that each breakpoint's
//! address shows just then (`planted`), and the strategy runs the guest: every strategy leaves
//! INT3 to the emulator, which stops there ([`machine::Breakpoints`]). A breakpoint whose page is
//! not there yet, as of a kernel that has still to turn paging on, cannot be planted: until it can, the
//! emulator runs the guest and compares addresses. Both are looked at anew every [`SLICE`].
//!
//! What follows from that: a guest that reads its own code sees the INT3 in it while it runs; an
//! address that comes to show another page within a slice (another process's, for one) is noticed at
//! the slice's end; and PC is EIP, so that it is the breakpoint's address only where CS's base is 0.

mod planted;
mod registers;
mod relay;
mod running;
mod target;

pub(super) use relay::Relay;

use super::session::{Session, Slice};
use super::vm_worker::VmEnd;
use super::wire::Wire;
use gdbstub::stub::{DisconnectReason, GdbStub};
use running::{Debugger, Loop};
use std::time::Duration;

/// How long the guest runs before it is looked anew where its breakpoints lie.
const SLICE: Duration = Duration::from_millis(50);

/// Runs a guest under the gdb at the other end of the wire; when that leaves, without.
///
/// # Errors
/// When the host fails.
pub(super) fn serve(session: Session, wire: Wire) -> anyhow::Result<VmEnd> {
    let mut debugger = Debugger::new(session);
    wire.wake(debugger.signals());
    let ended = GdbStub::new(wire).run_blocking::<Loop>(&mut debugger);
    match ended {
        Ok(DisconnectReason::Kill) => return Ok(VmEnd::PowerOff),
        Ok(_) => {}
        Err(error) if error.is_target_error() => {
            let error = error.into_target_error();
            return Err(error.unwrap_or_else(|| anyhow::anyhow!("the debugger failed")));
        }
        // The wire is cut: gdb is gone without a word.
        Err(error) if error.is_connection_error() => {}
        Err(error) => tracing::warn!("gdb: {error}"),
    }
    if let Some(end) = debugger.take_end() {
        return Ok(end);
    }
    let mut session = debugger.release();
    loop {
        // A request is what the last words from gdb have left.
        if let Slice::Ended(end) = session.run()? {
            return Ok(end);
        }
    }
}
