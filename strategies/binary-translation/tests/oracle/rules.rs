//! What the generator leaves out: far less than against the real CPU, for both sides here are the
//! project's own.

use iced_x86::{Instruction, Mnemonic};

#[expect(dead_code, reason = "what only the real CPU may do in several ways is not asked here")]
#[path = "../../../emulator/tests/oracle/rules.rs"]
mod real_cpu;

pub(crate) use real_cpu::{always_faults, is_floating_point, is_indirect};

/// Why an instruction is not compared, or nothing if it is.
pub(crate) fn exclusion(instruction: &Instruction) -> Option<&'static str> {
    use Mnemonic as M;
    if instruction.is_invalid() {
        return None;
    }
    match instruction.mnemonic() {
        M::Fnsave | M::Fnstenv | M::Fxsave => Some("stores the x87 pointers, which nobody keeps"),
        M::Rdtsc | M::Rdmsr => Some("shows the time, of which a translator has another idea"),
        _ => None,
    }
}

/// Whether its effects depend on devices, or it waits for them.
pub(crate) fn is_device_access(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(
        instruction.mnemonic(),
        M::In | M::Out | M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd | M::Hlt
    )
}

/// Whether a fault may come when part of the instruction's stores is done: what is then in memory
/// is anybody's guess (Intel SDM volume 3, 6.5 says only that it can be executed again).
fn stores_in_parts(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    matches!(instruction.mnemonic(), M::Pusha | M::Pushad | M::Sgdt | M::Sidt | M::Enter)
}

/// Whether it is a string instruction with a REP prefix.
pub(crate) fn repeats(instruction: &Instruction) -> bool {
    instruction.is_string_instruction()
        && (instruction.has_rep_prefix() || instruction.has_repne_prefix())
}

/// Whether what is left in memory by a fault of the instruction is the CPU's choice.
pub(crate) fn may_be_half_done(instruction: &Instruction) -> bool {
    stores_in_parts(instruction) || real_cpu::accesses_in_any_order(instruction)
}
