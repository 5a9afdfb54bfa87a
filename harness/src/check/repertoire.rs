//! Which instructions a strategy is asked to get right, and for each other one, why not.
//!
//! The same says what programs are made of and, where a program came to such an instruction after
//! all (it jumped into the middle of another, or changed its code), that this is no finding.

use crate::expectations;
use crate::lockstep::stores_x87_pointers;
use crate::strategies::{self, Variant};
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};
use strategy::{Error, StrategyId};
use workloads::programs::KeptOut;

/// Why an instruction is not asked of a strategy, or nothing if it is.
pub(super) fn exclusion(strategy: Variant, instruction: &Instruction) -> Option<String> {
    let stated = sensitive_workload(instruction)
        .and_then(|workload| expectations::stated(strategy.name(), workload))
        .filter(|expectation| expectation.goes_wrong())
        .map(|expectation| expectation.why.clone());
    let mnemonic = instruction.mnemonic();
    let is_wrong_by_design = strategies::can_watch(strategy);
    let by_nature = match mnemonic {
        Mnemonic::Syscall | Mnemonic::Sysenter if is_wrong_by_design => Some(ENTERS_THE_HOST),
        Mnemonic::Pusha | Mnemonic::Pushad | Mnemonic::Enter if is_wrong_by_design => Some(
            "how much is stored before a fault is the CPU's choice, and later it cannot be told",
        ),
        Mnemonic::Smsw if is_wrong_by_design => {
            Some("it does not trap, and shows the host's CR0, which is the guest's by luck only")
        }
        Mnemonic::Rdtsc if !strategies::records_time(strategy.id) => {
            Some("it gives the host's counter without an exit, so nobody can record what it gave")
        }
        _ => any_strategy(instruction),
    };
    stated.or_else(|| by_nature.map(str::to_owned))
}

/// Why a guest of a strategy that goes wrong by design may be astray behind an instruction. Selectors of data
/// segments that are stored are not among it: every handler stores them, and loads them again.
pub(super) fn leads_astray(strategy: Variant, instruction: &Instruction) -> Option<String> {
    use Mnemonic::{Enter, Pusha, Pushad};
    let is_left_open = matches!(instruction.mnemonic(), Enter | Pusha | Pushad);
    match strategies::can_watch(strategy) && !stores_data_selector(instruction) && !is_left_open {
        true => exclusion(strategy, instruction),
        false => None,
    }
}

const ENTERS_THE_HOST: &str = "it does not trap, but enters the host's kernel";

/// Why a strategy has given up a guest, where that is stated of it.
pub(super) fn lost(error: &Error) -> Option<String> {
    match error {
        Error::Lost { what, .. } => Some(format!("{what}: {ENTERS_THE_HOST}")),
        _ => None,
    }
}

/// Whether guest code runs in ring 3 as it is, that of user programs at least.
pub(super) fn runs_natively(strategy: Variant) -> bool {
    matches!(strategy.id, StrategyId::TrapAndEmulate | StrategyId::CodePatching)
}

/// What programs for a strategy keep away from.
pub(super) fn kept_out(strategy: Variant) -> KeptOut {
    KeptOut {
        beyond_ring_3: strategies::can_watch(strategy),
        rare: strategies::is_substituted(strategy.id),
    }
}

/// The same in words, for those who read the result.
pub(super) fn remark(strategy: Variant) -> Option<String> {
    let support = strategies::support(strategy.id);
    let remark = support.qualification()?;
    let without = match strategies::is_substituted(strategy.id) {
        true => "without 16-bit code, EFLAGS.AC, device memory and paging that is off: ",
        false => "",
    };
    Some(format!("{without}{remark}"))
}

pub(super) const NEWER: &str =
    "it is newer than SSE2: the host has it, and no monitor can take it away";

pub(super) const X87_POINTERS: &str = "it stores the x87 pointers, which nobody keeps";

/// What is asked of no strategy.
fn any_strategy(instruction: &Instruction) -> Option<&'static str> {
    use Mnemonic as M;
    if !emulator::is_ia32(instruction) {
        return Some(NEWER);
    }
    if matches!(
        instruction.code(),
        Code::Reservednop_rm16_r16_0F0D | Code::Reservednop_rm32_r32_0F0D
    ) {
        return Some("it is #UD on AMD's CPUs and does nothing on Intel's");
    }
    let repeats = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    match instruction.mnemonic() {
        _ if stores_x87_pointers(instruction) => Some(X87_POINTERS),
        M::Loope | M::Loopne if repeats => Some("AMD's CPUs take its condition from the prefix"),
        M::Rdpmc | M::Rsm => Some("no model of a guest's CPU has it"),
        _ => None,
    }
}

/// The workload of the group `sensitive` that probes an instruction.
fn sensitive_workload(instruction: &Instruction) -> Option<&'static str> {
    use Mnemonic as M;
    Some(match instruction.mnemonic() {
        M::Sgdt => "sgdt",
        M::Sidt => "sidt",
        M::Sldt => "sldt",
        M::Str => "str",
        M::Smsw => "smsw",
        M::Pushf | M::Pushfd => "pushf",
        M::Popf | M::Popfd => "popf",
        M::Lar => "lar",
        M::Lsl => "lsl",
        M::Verr => "verr",
        M::Verw => "verw",
        M::Cpuid => "cpuid",
        M::Rdtsc => "rdtsc",
        M::Mov | M::Push => match (instruction.mnemonic(), segment_register_read(instruction)?) {
            (M::Mov, Register::CS) => "mov-cs",
            (M::Push, Register::CS) => "push-cs",
            (M::Mov, _) => "mov-seg",
            _ => "pop-seg",
        },
        _ => return None,
    })
}

/// Whether a MOV or PUSH stores a selector other than CS.
pub(super) fn stores_data_selector(instruction: &Instruction) -> bool {
    segment_register_read(instruction).is_some_and(|register| register != Register::CS)
}

/// The segment register that a MOV or PUSH stores.
fn segment_register_read(instruction: &Instruction) -> Option<Register> {
    if !matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Push) {
        return None;
    }
    let operand = instruction.op_count().checked_sub(1)?;
    let is_register = instruction.op_kind(operand) == OpKind::Register;
    let register = instruction.op_register(operand);
    (is_register && register.is_segment_register()).then_some(register)
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn decoded(bytes: &[u8]) -> Instruction {
        Decoder::new(32, bytes, DecoderOptions::NONE).decode()
    }

    #[test]
    fn what_is_stated_of_a_strategy_is_not_asked_of_it() {
        let [trapping, other] = [StrategyId::TrapAndEmulate, StrategyId::BinaryTranslation];
        let sensitive: [&[u8]; 8] = [
            &[0x0f, 0x01, 0x03],
            &[0x9c],
            &[0x9d],
            &[0x0e],
            &[0x8c, 0xc8],
            &[0x8c, 0xd8],
            &[0x0f, 0xa2],
            &[0x0f, 0x02, 0xc1],
        ];
        for bytes in sensitive {
            let instruction = decoded(bytes);
            assert!(exclusion(trapping.into(), &instruction).is_some(), "{instruction}");
            assert_eq!(exclusion(other.into(), &instruction), None, "{instruction}");
        }
    }

    #[test]
    fn what_traps_is_asked_of_every_strategy() {
        let trapping: [&[u8]; 7] = [
            &[0xfa],
            &[0xcf],
            &[0x0f, 0x22, 0xd8],
            &[0x8e, 0xd8],
            &[0x1f],
            &[0x8e, 0xd0],
            &[0x01, 0xd8],
        ];
        for bytes in trapping {
            for id in StrategyId::ALL {
                assert_eq!(exclusion(id.into(), &decoded(bytes)), None, "{id} {bytes:02x?}");
            }
        }
    }

    #[test]
    fn what_guests_are_not_shown_is_asked_of_none() {
        // popcnt eax, ecx
        let instruction = decoded(&[0xf3, 0x0f, 0xb8, 0xc1]);
        assert!(StrategyId::ALL.iter().all(|&id| exclusion(id.into(), &instruction).is_some()));
    }
}
