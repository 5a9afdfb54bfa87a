//! Which instructions a strategy is asked to get right, and for each other one, why not.
//!
//! The same says what programs are made of and, where a program came to such an instruction after
//! all (it jumped into the middle of another, or changed its code), that this is no finding.

use super::worker::Verdict;
use crate::expectations;
use crate::lockstep::{Fault, Finding, Place, What, stores_x87_pointers};
use crate::strategies::{self, Variant};
use iced_x86::{Code, CpuidFeature, Instruction, Mnemonic, OpAccess, OpKind, Register};
use machine::cpu::{Cr4, Eflags, SegmentRegister, register};
use machine::tap::{Divergence, Event, Expected, Found};
use machine::{Cpu, Difference};
use strategy::{Error, StrategyId};
use workloads::programs::{KeptOut, layout};

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

const ENTERS_THE_HOST: &str = "it does not trap, but enters the host's kernel";

/// Why a strategy has given up a guest, where that is stated of it.
pub(super) fn lost(error: &Error) -> Option<String> {
    match error {
        Error::Lost { what, .. } => Some(format!("{what}: {ENTERS_THE_HOST}")),
        _ => None,
    }
}

/// Whether guest code runs in ring 3 as it is, that of user programs at least.
fn runs_natively(strategy: Variant) -> bool {
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

const X87_POINTERS: &str = "it stores the x87 pointers, which nobody keeps";

/// Whether nothing differs, when the way is gone once more, but where x87 pointers were stored.
fn are_x87_pointers(finding: &Finding) -> bool {
    let stored = &finding.way.x87_pointers;
    let is_there = |difference: &Difference| {
        matches!(difference, Difference::Memory { address, length, .. }
        if stored.iter().any(|all| {
            all.start <= address.0 && address.0 + *length as u64 <= all.end
        }))
    };
    !stored.is_empty() && finding.differences.iter().all(is_there)
}

/// What is asked of no strategy.
fn any_strategy(instruction: &Instruction) -> Option<&'static str> {
    use Mnemonic as M;
    if !emulator::is_ia32(instruction) {
        return Some("it is newer than SSE2: the host has it, and no monitor can take it away");
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

/// The segment register that a MOV or PUSH stores.
fn segment_register_read(instruction: &Instruction) -> Option<Register> {
    let operand = instruction.op_count().checked_sub(1)?;
    let is_register = instruction.op_kind(operand) == OpKind::Register;
    let register = instruction.op_register(operand);
    (is_register && register.is_segment_register()).then_some(register)
}

/// What a difference comes to: a finding, or one that is stated, or left open by the architecture.
pub(super) fn judge(strategy: Variant, finding: &Finding) -> Verdict {
    if strategies::can_watch(strategy) && are_marked_nulls(finding) {
        return Verdict::Stated("a null selector does not trap, and loses its RPL".to_owned());
    }
    if strategies::can_watch(strategy) && are_shadow_selectors(finding) {
        let why = "a selector that was stored does not trap, and is the shadow segment's";
        return Verdict::Stated(why.to_owned());
    }
    if strategy.id == StrategyId::CodePatching && is_beyond_memory(finding) {
        let why = "where the guest has nothing, it sees what the monitor has put there";
        return Verdict::Stated(why.to_owned());
    }
    if let Some(why) = left_open(finding) {
        return Verdict::Open(why.to_owned());
    }
    if finding.what == What::StrayWrites
        && let Some(last) = finding.block.first().and_then(|line| line.instruction)
        && are_memory(finding)
        && may_be_half_done(&last)
    {
        // The guest stopped over it, with a triple fault.
        return Verdict::Open(half_done(&last));
    }
    let Some(culprit) = finding.culprit() else { return judge_unlocated(strategy, finding) };
    if let Some(why) = exclusion(strategy, &culprit) {
        return Verdict::Stated(format!("{:?}: {why}", culprit.mnemonic()));
    }
    if runs_natively(strategy) && is_sse_without_osfxsr(&culprit, finding.before.cr4) {
        return Verdict::Stated(SSE_WITHOUT_OSFXSR.to_owned());
    }
    if finding.what == What::State && is_pop_of_all(&culprit) && runs_natively(strategy) {
        let why = "how much is loaded before a fault is the CPU's choice";
        return Verdict::Open(format!("{:?}: {why}", culprit.mnemonic()));
    }
    if finding.what == What::State && runs_natively(strategy) && is_prefixed_trap(&culprit) {
        let why = "the CPU tells where it ends, and not where its prefixes begin";
        return Verdict::Stated(format!("{:?}: {why}", culprit.mnemonic()));
    }
    if finding.what == What::State && are_memory(finding) && may_be_half_done(&culprit) {
        return Verdict::Open(half_done(&culprit));
    }
    Verdict::Different(finding.to_string())
}

/// The same where it is not known which instruction goes wrong: by those that raised exceptions, for what
/// these leave behind may be gone when they were executed again.
fn judge_unlocated(strategy: Variant, finding: &Finding) -> Verdict {
    let without_osfxsr = |fault: &Fault| is_sse_without_osfxsr(&fault.instruction, fault.cr4);
    if runs_natively(strategy) && finding.way.faults.iter().any(without_osfxsr) {
        return Verdict::Stated(SSE_WITHOUT_OSFXSR.to_owned());
    }
    if finding.what == What::State && are_x87_pointers(finding) {
        return Verdict::Stated(format!("FNSTENV or its like: {X87_POINTERS}"));
    }
    match finding.way.faults.last() {
        Some(Fault { instruction, .. })
            if finding.what == What::State
                && are_memory(finding)
                && may_be_half_done(instruction) =>
        {
            Verdict::Open(half_done(instruction))
        }
        _ => Verdict::Different(finding.to_string()),
    }
}

const SSE_WITHOUT_OSFXSR: &str = "SSE does not trap where only the guest's CR4.OSFXSR is 0";

fn is_sse_without_osfxsr(instruction: &Instruction, cr4: Cr4) -> bool {
    let mut features = instruction.cpuid_features().iter();
    features.any(|feature| matches!(feature, CpuidFeature::SSE | CpuidFeature::SSE2))
        && !cr4.contains(Cr4::OSFXSR)
}

/// Why a difference of any instruction is none.
fn left_open(finding: &Finding) -> Option<&'static str> {
    if let Some(open) = &finding.open {
        return Some(open.kind());
    }
    if finding.culprit().is_some_and(|culprit| writes_over_itself(&culprit, &finding.before)) {
        return Some("how far a repetition goes that writes over itself is the CPU's choice");
    }
    // In device memory, reads show.
    let is_device = |cpu: &Cpu| cpu.paging() && u64::from(cpu.cr3) >= layout::MEMORY;
    // Bytes of code that are in no memory.
    let code = finding.block.first().is_some_and(|line| line.text.contains("??"));
    if code || is_fetch(finding) {
        Some("how often code is fetched from device memory is the CPU's choice")
    } else if is_device(&finding.before) || is_device(&finding.stopped) {
        Some("how often page tables in device memory are read is the CPU's choice")
    } else {
        None
    }
}

/// Whether a repeated string instruction stores to its own bytes: a CPU may look at them again after
/// each iteration (Intel SDM volume 3, 11.6).
fn writes_over_itself(instruction: &Instruction, before: &Cpu) -> bool {
    use Mnemonic as M;
    let stores = matches!(
        instruction.mnemonic(),
        M::Stosb
            | M::Stosw
            | M::Stosd
            | M::Movsb
            | M::Movsw
            | M::Movsd
            | M::Insb
            | M::Insw
            | M::Insd
    );
    let repeats = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    if !stores || !instruction.is_string_instruction() || !repeats {
        return false;
    }
    let wide = instruction.op0_kind() != OpKind::MemoryESDI;
    let mask = if wide { u32::MAX } else { 0xffff };
    let size = instruction.memory_size().size() as u32;
    let count = before.registers[register::ECX] & mask;
    let bytes = u64::from(count) * u64::from(size);
    let start = before
        .segment(SegmentRegister::Es)
        .base
        .wrapping_add(before.registers[register::EDI] & mask);
    let start = match before.flags.contains(Eflags::DF) {
        true => start.wrapping_add(size).wrapping_sub(bytes as u32),
        false => start,
    };
    let here = before.instruction_address().0;
    (0..instruction.len() as u32)
        .any(|at| u64::from(here.wrapping_add(at).wrapping_sub(start)) < bytes)
}

/// Whether nothing differs but words in memory that are selectors of the LDT with RPL 3.
fn are_shadow_selectors(finding: &Finding) -> bool {
    const LOCAL_RING_3: u8 = 7;
    let is_selector = |difference: &Difference| {
        matches!(difference, Difference::Memory { length: 1..=2, values: [native, _], .. }
            if native.first().is_some_and(|low| low & LOCAL_RING_3 == LOCAL_RING_3))
    };
    finding.what == What::State
        && !finding.differences.is_empty()
        && finding.differences.iter().all(is_selector)
}

/// Whether nothing differs but memory.
fn are_memory(finding: &Finding) -> bool {
    let mut differences = finding.differences.iter();
    !finding.differences.is_empty()
        && differences.all(|each| matches!(each, Difference::Memory { .. }))
}

fn half_done(instruction: &Instruction) -> String {
    format!("{:?}: how much is stored before a fault is the CPU's choice", instruction.mnemonic())
}

/// Bytes that a decoder asks for at once, and no instruction's operand has.
const FETCHED: usize = 15;

/// Whether what one side reads and the other does not is code, from device memory: as much as a decoder asks
/// for at once, or as there is up to the end of the instruction's page.
fn is_fetch(finding: &Finding) -> bool {
    const WITHIN: u64 = 0xfff;
    let places = [&finding.before, &finding.stopped].map(|cpu| cpu.instruction_address().0);
    let is_cut = |address: u64, size: usize| {
        (address + size as u64) & WITHIN == 0
            && places.iter().any(|&place| (u64::from(place) ^ address) & WITHIN == 0)
    };
    let is_code = |address: u64, size: usize| size == FETCHED || is_cut(address, size);
    let reads_code = |event: &Event| matches!(event, Event::MmioRead { address, data } if is_code(*address, data.bytes().len()));
    match &finding.what {
        What::Unasked(event) => reads_code(event),
        What::Inputs(Divergence { expected, found, .. }) => {
            matches!(found, Found::MmioRead { address, size } if is_code(*address, *size))
                || matches!(expected, Expected::Event(event) if reads_code(event))
        }
        _ => false,
    }
}

/// Whether the sides differ in an access where neither memory nor a device is, or come from where the guest
/// met what the monitor has put there.
fn is_beyond_memory(finding: &Finding) -> bool {
    let is_beyond = |event: &Event| match event {
        Event::MmioRead { address, .. } | Event::MmioWrite { address, .. } => {
            *address >= layout::MEMORY
        }
        _ => false,
    };
    match &finding.what {
        What::Unasked(event) => is_beyond(event),
        What::Inputs(Divergence { expected, found, .. }) => {
            let (Found::MmioRead { address, .. } | Found::MmioWrite { address, .. }) = found else {
                return false;
            };
            *address >= layout::MEMORY
                && match expected {
                    Expected::Event(event) => is_beyond(event),
                    _ => true,
                }
        }
        What::State => finding.way.meets_taken,
        _ => false,
    }
}

/// Whether the host reports the end of an instruction that has prefixes. The bytes before it may belong
/// to another instruction as well, and are taken for that where a path leads through it; then a fault in
/// delivering the interrupt pushes an EIP behind the prefixes.
fn is_prefixed_trap(instruction: &Instruction) -> bool {
    let length = match instruction.code() {
        Code::Int1 | Code::Int3 | Code::Into => 1,
        Code::Int_imm8 if matches!(instruction.immediate8(), 3 | 4 | 0x80) => 2,
        _ => return false,
    };
    instruction.len() > length
}

fn is_pop_of_all(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Popa | Mnemonic::Popad)
}

/// Whether nothing differs but the RPL of null selectors.
fn are_marked_nulls(finding: &Finding) -> bool {
    let is_null = |difference: &Difference| {
        matches!(difference, Difference::Cpu { field, values: [left, right] }
            if field.part == "selector" && *left < 4 && *right < 4)
    };
    finding.what == What::State
        && !finding.differences.is_empty()
        && finding.differences.iter().all(is_null)
}

/// Whether a difference is of those that only the watch over a strategy can explain.
pub(super) fn is_unlocated(finding: &Finding) -> bool {
    !matches!(finding.place, Place::Instruction(_))
}

/// Whether a fault may come when part of the instruction's stores is done: it can be executed again
/// all the same (Intel SDM volume 3, 6.5).
fn may_be_half_done(instruction: &Instruction) -> bool {
    use Mnemonic as M;
    let stores = (0..instruction.op_count()).any(|operand| {
        instruction.op_kind(operand) == OpKind::Memory && instruction.memory_size().size() > 4
    });
    let written = iced_x86::InstructionInfoFactory::new()
        .info(instruction)
        .used_memory()
        .iter()
        .any(|memory| !matches!(memory.access(), OpAccess::Read | OpAccess::NoMemAccess));
    stores && written
        || matches!(
            instruction.mnemonic(),
            M::Pusha | M::Pushad | M::Sgdt | M::Sidt | M::Enter | M::Call
        )
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
