//! Stubs: what stands in for a run of guest instructions that a jump has taken the place of.
//!
//! Each instruction of the run is a *part*. Ordinary ones are copied (IA-32 code has no addresses
//! relative to itself, but for branches, which are encoded anew); sensitive ones work on the virtual CPU, or leave for the
//! monitor. A fault or a signal may end a stay anywhere in a stub; what the guest's state is there
//! says the last *step* before: which guest instruction it is at, and which registers lie in the
//! virtual CPU meanwhile. So the guest is always seen between two of its own instructions.

use crate::class::{Flow, Treatment, Work};
use crate::count;
use crate::emit::{self, EAX, EBX, ECX, EDX, Emitter, Register, short};
use crate::virtual_cpu::Word;
use host::crossing;
use iced_x86::{Code, Encoder, Instruction, MemoryOperand, OpKind, Register as Named};
use machine::cpu::{CpuModel, CpuidLeaf, Eflags};

/// How much a stub may do by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Level {
    /// No stubs: a byte that traps at each site.
    Trap,
    /// Everything is left for the monitor, without a signal: for guest ring 3, and for stacks that are
    /// not flat.
    Crossing,
    /// Work on the virtual CPU: for flat guest ring 0.
    Virtual,
}

/// One guest instruction of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    pub(crate) instruction: Instruction,
    pub(crate) bytes: &'a [u8],
    pub(crate) treatment: Treatment,
    pub(crate) flow: Flow,
    /// Where it is counted that the stub does its work, if it is.
    pub(crate) counter: Option<u32>,
}

/// What the guest's state is from some place of a stub on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Step {
    /// From this offset in the stub.
    pub(crate) offset: u32,
    /// The guest instruction that comes next.
    pub(crate) eip: u32,
    /// Registers (bit by number) that lie in the virtual CPU.
    pub(crate) saved: u8,
    /// Bytes that the stack pointer is too low by.
    pub(crate) pushed: u32,
    /// Whether the arithmetic flags lie in EDX's word, as LAHF and SETO give them.
    pub(crate) flags_saved: bool,
    /// Whether IF is still to be taken from EAX.
    pub(crate) loads_if: bool,
    /// Whether the instruction before was STI: one more is executed before an interrupt.
    pub(crate) behind_sti: bool,
}

/// A stub, made for one place.
#[derive(Clone, Debug)]
pub(crate) struct Stub {
    pub(crate) code: Vec<u8>,
    /// Where each part begins: guest EIP and offset.
    pub(crate) parts: Vec<(u32, u32)>,
    pub(crate) steps: Vec<Step>,
}

/// What stubs are made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) level: Level,
    /// Where the virtual CPU's page lies.
    pub(crate) page: u32,
    /// How far above its EIP code lies in the host's linear addresses.
    pub(crate) shift: u32,
    pub(crate) model: CpuModel,
}

/// The stub for `parts` that lies at `base`. Its length does not depend on `base`.
pub(crate) fn assemble(parts: &[Part<'_>], base: u32, setting: &Setting) -> Stub {
    let mut assembly = Assembly {
        e: Emitter::new(base, setting.page),
        setting: *setting,
        parts: Vec::new(),
        steps: Vec::new(),
        state: Step::default(),
    };
    for part in parts {
        assembly.part(part);
    }
    if let Some(last) = parts.last().filter(|last| last.falls_through()) {
        assembly.e.jump(last.next());
    }
    assembly.finish()
}

impl Part<'_> {
    pub(crate) fn eip(&self) -> u32 {
        self.instruction.ip32()
    }

    pub(crate) fn next(&self) -> u32 {
        self.instruction.next_ip32()
    }

    /// Whether control can come to the end of the part in the stub. What the monitor does does not come back here.
    fn falls_through(&self) -> bool {
        !matches!(self.flow, Flow::Jump(_) | Flow::Call(_) | Flow::Ends)
    }
}

pub(crate) struct Assembly {
    pub(crate) e: Emitter,
    pub(crate) setting: Setting,
    parts: Vec<(u32, u32)>,
    steps: Vec<Step>,
    state: Step,
}

/// A register's bit in a set of them.
pub(crate) const fn bit(register: Register) -> u8 {
    1 << register
}

impl Assembly {
    fn finish(self) -> Stub {
        Stub { code: self.e.finish(), parts: self.parts, steps: self.steps }
    }

    /// From here on the guest's state is what `change` makes of the last step's.
    pub(crate) fn step(&mut self, change: impl FnOnce(&mut Step)) {
        change(&mut self.state);
        self.state.offset = self.e.length();
        match self.steps.last_mut().filter(|last| last.offset == self.state.offset) {
            Some(last) => *last = self.state,
            None => self.steps.push(self.state),
        }
    }

    /// From here on the part is done, but for registers that lie in the virtual CPU.
    pub(crate) fn done(&mut self, part: &Part<'_>) {
        self.step(|step| *step = Step { eip: part.next(), saved: step.saved, ..Step::default() });
    }

    pub(crate) fn save(&mut self, register: Register) {
        self.e.store(Word::Saved(register), register);
        self.step(|step| step.saved |= bit(register));
    }

    pub(crate) fn restore(&mut self, register: Register) {
        self.e.load(register, Word::Saved(register));
        self.step(|step| step.saved &= !bit(register));
    }

    fn part(&mut self, part: &Part<'_>) {
        let behind_sti = self.state.behind_sti;
        self.parts.push((part.eip(), self.e.length()));
        self.step(|step| *step = Step { eip: part.eip(), behind_sti, ..Step::default() });
        if let Some(counter) = part.counter {
            self.count(counter);
        }
        match part.treatment {
            Treatment::Native => self.native(part),
            Treatment::Stub(work) if self.setting.level == Level::Virtual => self.work(part, work),
            _ => self.cross(part),
        }
        // Whatever the part was, it is over; STI says itself that it was one.
        let behind_sti = part.treatment == Treatment::Stub(Work::Sti);
        self.step(|step| *step = Step { eip: part.next(), behind_sti, ..Step::default() });
    }

    fn count(&mut self, counter: u32) {
        self.save(ECX);
        self.e.raw(&count::increment(counter));
        self.restore(ECX);
    }

    fn native(&mut self, part: &Part<'_>) {
        match part.flow {
            Flow::Jump(target) => self.e.jump(target),
            Flow::Branch(target) => {
                let condition = part.instruction.code().condition_code() as u8 - 1;
                self.e.jump_by(&[0x0f, 0x80 | condition], target);
            }
            Flow::Call(target) => {
                self.e.push_constant(part.next());
                self.step(|step| step.pushed = 4);
                self.e.jump(target);
            }
            _ => self.e.raw(part.bytes),
        }
    }

    /// Leaves for the monitor, which executes the instruction.
    pub(crate) fn cross(&mut self, part: &Part<'_>) {
        const FAR_JUMP: u32 = 7;
        let pad = self.e.here().wrapping_add(FAR_JUMP).wrapping_add(self.setting.shift);
        self.e.far_jump(crossing::CODE_SELECTOR, pad);
        self.e.raw(&crossing::pad(part.eip()));
    }

    fn work(&mut self, part: &Part<'_>, work: Work) {
        match work {
            Work::Cli => self.e.store_constant(Word::InterruptFlag, 0),
            Work::Sti => self.sti(part),
            Work::Pushf => self.pushf(part),
            Work::Popf => self.popf(part),
            Work::Push(word) => self.push_selector(word),
            Work::Store(word) => self.store(part, word),
            Work::StoreTable(limit, base) => self.store_table(part, limit, base),
            Work::Cpuid => self.cpuid(part),
            Work::Load(register) => self.load_segment(part, register),
            Work::Rdtsc => self.rdtsc(part),
            Work::Verw => self.verify_writable(part),
        }
    }

    /// As the host's own PUSH of a segment register does it.
    fn push_selector(&mut self, word: Word) {
        if emulator::pushes_selectors_by_half() {
            self.e.raw(&emit::LOWER_ESP_BY_2);
            self.step(|step| step.pushed = 2);
            self.e.push_half(word);
        } else {
            self.e.push(word);
        }
    }

    /// Without touching the flags: JECXZ is the only branch.
    fn sti(&mut self, part: &Part<'_>) {
        self.save(ECX);
        self.e.load(ECX, Word::Pending);
        let none = self.e.short(short::IF_ECX_IS_0);
        self.restore(ECX);
        self.cross(part);
        self.e.land(none);
        self.step(|step| step.saved = bit(ECX));
        self.e.store_constant(Word::InterruptFlag, Eflags::IF.bits());
        self.done(part);
        self.step(|step| step.behind_sti = true);
        self.restore(ECX);
    }

    /// The host's image has IF set and IOPL 0, always.
    fn pushf(&mut self, part: &Part<'_>) {
        self.save(EAX);
        self.save(ECX);
        self.e.raw(&emit::PUSHF);
        self.step(|step| step.pushed = 4);
        self.e.raw(&emit::LOAD_TOP);
        self.e.load(ECX, Word::InterruptFlag);
        self.e.raw(&emit::add_ecx_and(-(Eflags::IF.bits() as i32)));
        self.e.load(ECX, Word::IoPrivilege);
        self.e.raw(&emit::ADD_ECX);
        self.e.raw(&emit::STORE_TOP);
        self.done(part);
        self.restore(EAX);
        self.restore(ECX);
    }

    /// An image with TF, with another IOPL, or that lets a waiting interrupt in is the monitor's.
    fn popf(&mut self, part: &Part<'_>) {
        self.save(EAX);
        self.e.raw(&emit::FLAGS_TO_EAX);
        self.e.store(Word::Saved(EDX), EAX);
        self.step(|step| step.flags_saved = true);
        self.e.raw(&emit::LOAD_TOP);
        self.e.xor(EAX, Word::IoPrivilege);
        self.e.raw(&emit::test_eax((Eflags::TF | Eflags::IOPL).bits()));
        let other = self.e.short(short::UNLESS_0);
        self.e.raw(&emit::test_eax(Eflags::IF.bits()));
        let off = self.e.short(short::IF_0);
        self.e.compare_with_zero(Word::Pending);
        let waits = self.e.short(short::UNLESS_0);
        self.e.land(off);
        self.e.raw(&emit::and_eax(Eflags::IF.bits()));
        self.e.raw(&emit::POPF);
        self.done(part);
        self.step(|step| step.loads_if = true);
        self.e.store(Word::InterruptFlag, EAX);
        self.step(|step| step.loads_if = false);
        self.restore(EAX);
        let over = self.e.short(short::JUMP);
        self.e.land(other);
        self.e.land(waits);
        self.step(|step| {
            *step = Step { eip: part.eip(), saved: bit(EAX), flags_saved: true, ..Step::default() };
        });
        self.e.load(EAX, Word::Saved(EAX));
        self.cross(part);
        self.e.land(over);
    }

    fn store(&mut self, part: &Part<'_>, word: Word) {
        let target = &part.instruction;
        if target.op0_kind() == OpKind::Register {
            let register = target.op0_register();
            let number = register.number() as Register;
            return match register.size() {
                4 => self.e.load(number, word),
                _ => self.e.load_half(number, word),
            };
        }
        let scratch = scratch(target);
        let Some(store) = store_operand(target, scratch, Code::Mov_rm16_r16, 0) else {
            return self.cross(part);
        };
        self.save(scratch);
        self.e.load(scratch, word);
        self.e.raw(&store);
        self.done(part);
        self.restore(scratch);
    }

    fn store_table(&mut self, part: &Part<'_>, limit: Word, base: Word) {
        let target = &part.instruction;
        let scratch = scratch(target);
        let stores = [(Code::Mov_rm16_r16, 0), (Code::Mov_rm32_r32, 2)]
            .map(|(code, distance)| store_operand(target, scratch, code, distance));
        let [Some(store_limit), Some(store_base)] = stores else { return self.cross(part) };
        self.save(scratch);
        self.e.load(scratch, limit);
        self.e.raw(&store_limit);
        self.e.load(scratch, base);
        self.e.raw(&store_base);
        self.done(part);
        self.restore(scratch);
    }

    /// The model's answer: leaf 0, or what all others give.
    fn cpuid(&mut self, part: &Part<'_>) {
        let others = self.setting.model.cpuid(1);
        let zero = self.setting.model.cpuid(0);
        [EAX, ECX, EDX, EBX].into_iter().for_each(|register| self.save(register));
        self.e.raw(&emit::COPY_EAX_TO_ECX);
        let is_zero = self.e.short(short::IF_ECX_IS_0);
        self.leaf(others);
        let over = self.e.short(short::JUMP);
        self.e.land(is_zero);
        self.leaf(zero);
        self.e.land(over);
        self.step(|step| *step = Step { eip: part.next(), ..Step::default() });
    }

    fn leaf(&mut self, leaf: CpuidLeaf) {
        for (register, value) in
            [(EAX, leaf.eax), (ECX, leaf.ecx), (EDX, leaf.edx), (EBX, leaf.ebx)]
        {
            self.e.constant(register, value);
        }
    }
}

/// The instruction that stores `register` where `target` has its memory operand, `distance` bytes
/// further on; nothing if it cannot be encoded.
fn store_operand(
    target: &Instruction,
    register: Register,
    code: Code,
    distance: u32,
) -> Option<Vec<u8>> {
    const NAMES: [[Named; 4]; 2] = [
        [Named::AX, Named::CX, Named::DX, Named::BX],
        [Named::EAX, Named::ECX, Named::EDX, Named::EBX],
    ];
    let wide = usize::from(code == Code::Mov_rm32_r32);
    let memory = MemoryOperand::new(
        target.memory_base(),
        target.memory_index(),
        target.memory_index_scale(),
        i64::from(target.memory_displacement32().wrapping_add(distance) as i32),
        4,
        false,
        target.memory_segment(),
    );
    let mut encoder = Encoder::new(32);
    let store = Instruction::with2(code, memory, NAMES[wide][usize::from(register)]).ok()?;
    encoder.encode(&store, 0).ok()?;
    Some(encoder.take_buffer())
}

/// Whether a stub can do an instruction's work, as far as its operand goes: 16-bit addresses would
/// wrap otherwise, and the store has to be encoded. What it cannot do is the monitor's.
pub(crate) fn can_store(instruction: &Instruction) -> bool {
    let is_wide = |register: Named| register == Named::None || register.size() == 4;
    let encodes = || store_operand(instruction, scratch(instruction), Code::Mov_rm32_r32, 2);
    is_wide(instruction.memory_base())
        && is_wide(instruction.memory_index())
        && instruction.memory_displ_size() != 2
        && (instruction.op0_kind() != OpKind::Memory || encodes().is_some())
}

/// A register that the memory operand does not name.
fn scratch(instruction: &Instruction) -> Register {
    let names = |register: Named| {
        let number = register.number() as Register;
        (register != Named::None).then_some(number)
    };
    let used = [names(instruction.memory_base()), names(instruction.memory_index())];
    [EAX, ECX, EDX].into_iter().find(|&register| !used.contains(&Some(register))).unwrap_or(EBX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class;
    use iced_x86::{Decoder, DecoderOptions};

    fn assembled(instruction: Instruction, bytes: &[u8], counter: Option<u32>) -> Stub {
        let treatment = class::treatment(&instruction);
        let flow = class::flow(&instruction);
        let setting = Setting {
            level: Level::Virtual,
            page: 0xff80_0000,
            shift: 0,
            model: CpuModel::default(),
        };
        assemble(&[Part { instruction, bytes, treatment, flow, counter }], 0x1000, &setting)
    }

    fn decode(bytes: &[u8]) -> Instruction {
        Decoder::with_ip(32, bytes, 0x2000, DecoderOptions::NONE).decode()
    }

    #[test]
    fn every_form_of_a_memory_operand_can_be_stored_to() {
        for modrm in (0..0xc0).filter(|modrm| modrm >> 3 & 7 == 0) {
            for sib in 0..=255 {
                // sgdt, with whatever operand that is
                let bytes = [0x0f, 0x01, modrm, sib, 0x12, 0x34, 0x56, 0x78];
                let instruction = decode(&bytes);
                assert!(can_store(&instruction), "{instruction}");
            }
        }
    }

    #[test]
    fn what_cannot_be_encoded_is_the_monitors() {
        // No decoder of 32-bit code gives such an operand: it names R8D.
        let memory = MemoryOperand::with_base(Named::R8D);
        for code in [Code::Smsw_rm16, Code::Sgdt_m1632] {
            let instruction = Instruction::with1(code, memory).unwrap();
            assert!(!can_store(&instruction), "{instruction}");
            let stub = assembled(instruction, &[], None);
            let crossing = stub.code.first() == Some(&0xea);
            assert!(crossing, "{code:?} is not left out, but left to the monitor");
        }
        assert!(can_store(&decode(&[0xfa])), "CLI has no operand");
    }

    #[test]
    fn a_counted_stub_puts_back_the_register_that_it_counts_in() {
        let counted = assembled(decode(&[0xfa]), &[0xfa], Some(0xff80_1000));
        let plain = assembled(decode(&[0xfa]), &[0xfa], None);
        assert_eq!(counted.code.len(), plain.code.len() + 31);
        let lies_elsewhere = counted.steps.iter().find(|step| step.saved == bit(ECX));
        let back = counted.steps.iter().find(|step| step.offset > lies_elsewhere.unwrap().offset);
        assert_eq!(back.map(|step| (step.saved, step.eip)), Some((0, 0x2000)));
    }
}
