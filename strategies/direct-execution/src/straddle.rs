//! Accesses that reach from one page into the next.
//!
//! IA-32 looks at both pages before it writes to either: where the second refuses, the first is left
//! as it was, its accessed and dirty bits included. The host's CPU does that for the host's tables,
//! but reports the first page alone when neither is shown. Whether that page may be marked then
//! depends on how long the access is, which the instruction tells.

use host::runs::PAGE;
use iced_x86::OpKind;
use machine::cpu::Cr0;
use machine::{LinearAddress, Machine};

/// Bytes of the longest access, FXSAVE's.
const LONGEST_ACCESS: u64 = 512;

/// Whether the access of the instruction at EIP to `address` goes on into a page that refuses it,
/// while this one is not marked yet. The guest is to get a page fault then, which the emulator
/// raises, and nothing is to be marked.
pub(crate) fn is_refused_behind(m: &mut Machine, address: u32, write: bool) -> bool {
    let in_page = PAGE - (u64::from(address) & (PAGE - 1));
    if in_page >= LONGEST_ACCESS || is_marked(m, address, write) {
        return false;
    }
    let behind = LinearAddress(address.wrapping_add(in_page as u32));
    refuses(m, behind, write) && longest_access(m) > in_page
}

fn is_marked(m: &mut Machine, address: u32, write: bool) -> bool {
    let found = emulator::mapping(m, LinearAddress(address));
    found.is_none_or(|found| found.accessed && (found.dirty || !write))
}

fn refuses(m: &mut Machine, address: LinearAddress, write: bool) -> bool {
    let is_user = m.cpu.cpl == 3;
    let is_protected = is_user || m.cpu.cr0.contains(Cr0::WP);
    emulator::mapping(m, address)
        .is_none_or(|found| is_user && !found.user || write && is_protected && !found.writable)
}

/// Bytes that the instruction at EIP accesses in one place, at most.
fn longest_access(m: &mut Machine) -> u64 {
    let Some(instruction) = emulator::instruction(m) else { return LONGEST_ACCESS };
    let operand = instruction.memory_size().size() as u64;
    let names_memory =
        (0..instruction.op_count()).any(|number| instruction.op_kind(number) == OpKind::Memory);
    if names_memory && operand == 0 {
        return LONGEST_ACCESS;
    }
    operand.max(u64::from(instruction.stack_pointer_increment().unsigned_abs()))
}
