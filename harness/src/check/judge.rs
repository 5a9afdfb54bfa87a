//! What a difference comes to: a finding, or one that is stated, or left open by the architecture.

use super::repertoire::{
    NEWER, X87_POINTERS, exclusion, leads_astray, runs_natively, stores_data_selector,
};
use super::worker::Verdict;
use crate::lockstep::{Finding, Place, What};
use crate::strategies::{self, Variant};
use iced_x86::{Code, CpuidFeature, Instruction, Mnemonic, OpAccess, OpKind};
use machine::cpu::{Cr4, Eflags, SegmentRegister, register};
use machine::tap::{Divergence, Event, Expected, Found};
use machine::{Cpu, Difference};
use strategy::StrategyId;
use workloads::programs::layout;

/// What a difference comes to: a finding, or one that is stated, or left open by the architecture.
pub(super) fn judge(strategy: Variant, finding: &Finding) -> Verdict {
    if runs_natively(strategy) && are_marked_nulls(finding) {
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
    if strategy.id == StrategyId::CodePatching && finding.way.jumps_into_itself {
        let why = "a jump into the middle of an instruction that was examined is not noticed";
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
    if runs_natively(strategy) && loads_from_the_host(strategy, finding) {
        let why = "a selector that the host's own tables have is loaded without a trap";
        return Verdict::Stated(why.to_owned());
    }
    if runs_natively(strategy) && has_sse_without_osfxsr(finding) {
        return Verdict::Stated(
            "SSE does not trap where only the guest's CR4.OSFXSR is 0".to_owned(),
        );
    }
    if runs_natively(strategy) && has_wrapped(finding) {
        let why = "how an x87 state is read or stored around 64 KiB is the CPU's choice";
        return Verdict::Open(why.to_owned());
    }
    if let Some(verdict) = finding.culprit().and_then(|it| judge_culprit(strategy, finding, &it)) {
        return verdict;
    }
    if runs_natively(strategy) && is_vector_code(finding) {
        return Verdict::Stated(format!("AVX or its like: {NEWER}"));
    }
    if runs_natively(strategy) && has_popped_in_part(finding) {
        let why = "POPA or POPAD: how much is loaded before a fault is the CPU's choice";
        return Verdict::Open(why.to_owned());
    }
    let astray = |it: &Instruction| Some((it.mnemonic(), leads_astray(strategy, it)?));
    if let Some((mnemonic, why)) = finding.way.executed.iter().find_map(astray) {
        return Verdict::Stated(format!("{mnemonic:?}: {why}"));
    }
    judge_way(finding)
}

/// The same where it is known which instruction goes wrong; nothing if there is no excuse for that.
fn judge_culprit(strategy: Variant, finding: &Finding, culprit: &Instruction) -> Option<Verdict> {
    let named = |why: &str| format!("{:?}: {why}", culprit.mnemonic());
    if let Some(why) = exclusion(strategy, culprit) {
        return Some(Verdict::Stated(named(&why)));
    }
    if finding.what != What::State || !runs_natively(strategy) {
        return None;
    }
    is_prefixed_trap(culprit).then(|| {
        Verdict::Stated(named("the CPU tells where it ends, and not where its prefixes begin"))
    })
}

/// The same by the instructions from there on that raised exceptions, or left something else behind: what
/// they do wrong may be gone when they are executed again, and an instruction may be found too early.
fn judge_way(finding: &Finding) -> Verdict {
    if is_state(finding) && are_x87_pointers(finding) {
        return Verdict::Stated(format!("FNSTENV or its like: {X87_POINTERS}"));
    }
    let last = finding.way.faults.last().map(|fault| fault.instruction);
    let half = finding.culprit().into_iter().chain(last).find(may_be_half_done);
    match half.filter(|_| finding.what == What::State && are_memory(finding)) {
        Some(instruction) => Verdict::Open(half_done(&instruction)),
        None => Verdict::Different(finding.to_string()),
    }
}

/// Whether it is the instruction that was found, or one behind it: that one may be found too early which
/// shows by chance of where its stretch ends.
fn has_sse_without_osfxsr(finding: &Finding) -> bool {
    let culprit = finding.culprit().map(|instruction| (instruction, finding.before.cr4));
    let faults = finding.way.faults.iter().map(|fault| (fault.instruction, fault.cr4));
    faults.chain(culprit).any(|(instruction, cr4)| is_sse_without_osfxsr(&instruction, cr4))
}

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
    let is_about_devices = matches!(finding.what, What::Unasked(_) | What::Inputs(_));
    if code || is_fetch(finding) || is_about_devices && finding.way.runs_devices {
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

/// Whether nothing differs but words in memory that are selectors of the LDT with RPL 3; or where one was
/// stored on the way, some word or register, and what the guest made of it.
fn are_shadow_selectors(finding: &Finding) -> bool {
    const LOCAL_RING_3: u8 = 7;
    let is_shadow = |low: u8| low & LOCAL_RING_3 == LOCAL_RING_3;
    let is_word = |difference: &Difference| {
        matches!(difference, Difference::Memory { length: 1..=2, values: [native, _], .. }
            if native.first().is_some_and(|&low| is_shadow(low)))
    };
    let is_register = |difference: &Difference| {
        matches!(difference, Difference::Cpu { values: [native, _], .. }
            if *native <= u128::from(u16::MAX) && is_shadow(*native as u8))
    };
    let differences = || finding.differences.iter();
    is_state(finding)
        && !finding.differences.is_empty()
        && match finding.way.executed.iter().any(stores_data_selector) {
            true => differences().any(|each| is_word(each) || is_register(each)),
            false => differences().all(is_word),
        }
}

/// Whether the machines differ, rather than what they asked of the world outside.
fn is_state(finding: &Finding) -> bool {
    matches!(finding.what, What::State | What::StrayWrites)
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
    let asks_for_code = |Divergence { expected, found, .. }: &Divergence| {
        matches!(found, Found::MmioRead { address, size } if is_code(*address, *size))
            || matches!(expected, Expected::Event(event) if reads_code(event))
    };
    match &finding.what {
        What::Unasked(event) => reads_code(event),
        What::Inputs(divergence) => asks_for_code(divergence),
        // Having asked more often, it was not where the strategy is.
        _ => finding.asked.as_ref().is_some_and(asks_for_code),
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
    if finding.way.meets_taken {
        return true;
    }
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

/// Whether code that runs as it is loaded what the host's tables have: code patching looks for such loads in
/// the guest's kernel only.
fn loads_from_the_host(strategy: Variant, finding: &Finding) -> bool {
    let runs_as_it_is = |cpl: u8| cpl == 3 || strategies::can_watch(strategy);
    let mut loads = finding.way.selectors.iter();
    loads.any(|&(cpl, selector)| runs_as_it_is(cpl) && is_the_hosts(selector))
}

/// Whether ring 3 can load this selector on the host: one of the LDT, in which the monitor has descriptors
/// of its own, or one of Linux's GDT (arch/x86/include/asm/segment.h) for 32-bit code, data and 64-bit
/// code, a thread's own three, and the one with the CPU's number.
fn is_the_hosts(selector: u16) -> bool {
    const LOCAL: u16 = 4;
    selector & LOCAL != 0 || matches!(selector >> 3, 4..=6 | 12..=15)
}

/// Whether what was found, or raised an exception behind it, is a state that wraps around.
fn has_wrapped(finding: &Finding) -> bool {
    let culprit = finding.culprit().map(|instruction| (instruction, finding.before.registers));
    let faults = finding.way.faults.iter().map(|fault| (fault.instruction, fault.registers));
    culprit.into_iter().chain(faults).any(|(it, registers)| wraps_within(&it, &registers))
}

/// Whether the instruction loads or stores a state of x87 or SSE by 16-bit addresses, and reaches beyond
/// the last of them: some CPUs check each part of it against the limit, and some begin again at 0.
fn wraps_within(instruction: &Instruction, registers: &[u32; 8]) -> bool {
    const SMALLEST_STATE: usize = 14;
    let size = instruction.memory_size().size();
    let offset = instruction.virtual_address(0, 0, |register, _, _| {
        Some(match register.is_segment_register() {
            true => 0,
            false => registers[register.number()].into(),
        })
    });
    let is_16bit = instruction.memory_base().size() == 2
        || instruction.memory_index().size() == 2
        || instruction.memory_displ_size() == 2;
    size >= SMALLEST_STATE
        && size != 16
        && is_16bit
        && offset.is_some_and(|offset| (offset & 0xffff) + size as u64 > 0x1_0000)
}

/// Whether what was found begins as AVX's and XOP's instructions do, and is none that a decoder knows: CPUs
/// are content with bits that it is not content with.
fn is_vector_code(finding: &Finding) -> bool {
    const FIRST_BYTES: [&str; 4] = ["62 ", "8f ", "c4 ", "c5 "];
    finding.culprit().is_some_and(|culprit| culprit.is_invalid())
        && finding.block.first().is_some_and(|line| {
            FIRST_BYTES.iter().any(|first| line.text.trim_start().starts_with(first))
        })
}

/// Whether all registers were to be popped, and that was found or raised an exception.
fn has_popped_in_part(finding: &Finding) -> bool {
    let mut faults = finding.way.faults.iter().map(|fault| fault.instruction);
    let pops_all = |it: Instruction| matches!(it.mnemonic(), Mnemonic::Popa | Mnemonic::Popad);
    is_state(finding) && (finding.culprit().is_some_and(pops_all) || faults.any(pops_all))
}

/// Whether nothing differs but the RPL of null selectors, in registers, or in memory where one was loaded on
/// the way.
fn are_marked_nulls(finding: &Finding) -> bool {
    const RPL: u8 = 3;
    let loaded = finding.way.selectors.iter().any(|&(_, selector)| selector <= RPL.into());
    let is_null = |difference: &Difference| match difference {
        Difference::Cpu { field, values } => {
            field.part == "selector" && values.iter().all(|&value| value <= RPL.into())
        }
        Difference::Memory { length: 1, values, .. } => {
            loaded && values.iter().flatten().all(|&low| low <= RPL)
        }
        _ => false,
    };
    is_state(finding) && !finding.differences.is_empty() && finding.differences.iter().all(is_null)
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

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn wraps(bits: u32, bytes: &[u8], di: u32) -> bool {
        let instruction = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
        let mut registers = [0; 8];
        registers[register::EDI] = di;
        wraps_within(&instruction, &registers)
    }

    #[test]
    fn a_state_beyond_the_last_16_bit_address_is_the_cpus_choice() {
        let frstor = [0xdd, 0x65, 0xe0]; // [di-20h], or [ebp-20h] in 32-bit code
        assert!(wraps(16, &frstor, 0));
        assert!(wraps(16, &frstor, 0x1_0000), "the upper half does not count");
        assert!(!wraps(16, &frstor, 0x20));
        assert!(!wraps(32, &frstor, 0));
        let movups = [0x0f, 0x10, 0x45, 0xf8]; // [di-8]: an operand, no state
        assert!(!wraps(16, &movups, 0));
    }
}
