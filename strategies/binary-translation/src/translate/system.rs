//! Sensitive instructions that are emulated inside the cache: CLI, STI, SGDT, SIDT, SLDT, STR, SMSW,
//! reads of control and segment registers, and what the modules beside this one do. The rest of what
//! is sensitive is the emulator's.

use super::{Cold, Translator};
use crate::context::{Exit, at, cpu};
use crate::emit::{Address, R8, R9, R10, R12, RAX, RBX, RCX, RDX, context};
use iced_x86::{Code, FlowControl, Instruction, Mnemonic, OpKind, Register};
use machine::cpu::Eflags;

/// Whether nothing behind the instruction is executed next, or not in this mode.
pub(super) fn ends_unit(i: &Instruction) -> bool {
    use Mnemonic::*;
    i.flow_control() != FlowControl::Next || matches!(i.mnemonic(), Hlt | Rsm | Into | Bound)
}

/// Whether the emulator's execution changes nothing but what translated code finds in the machine
/// itself and the arithmetic flags, unless it raises an exception.
pub(super) fn is_light(i: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(
        i.mnemonic(),
        In | Out
            | Insb
            | Insw
            | Insd
            | Outsb
            | Outsw
            | Outsd
            | Lar
            | Lsl
            | Verr
            | Verw
            | Lldt
            | Ltr
            | Invlpg
            | Bt
            | Bts
            | Btr
            | Btc
            | Aaa
            | Aas
            | Aam
            | Aad
            | Daa
            | Das
            | Salc
            | Rdtsc
            | Rdmsr
            | Wbinvd
            | Invd
            | Enter
    )
}

impl Translator<'_> {
    /// Translates what is emulated in the cache; false if it is not.
    pub(super) fn system(&mut self, i: &Instruction) -> bool {
        let kernel = !self.request.mode.is_user();
        match i.mnemonic() {
            Mnemonic::Cli if kernel => self.e.store_constant(context(at::INTERRUPT_FLAG), 0),
            Mnemonic::Sti if kernel => self.sti(i),
            Mnemonic::Cld => self.direction(0, 0xfc),
            Mnemonic::Std => self.direction(Eflags::DF.bits(), 0xfd),
            Mnemonic::Pushfd if !self.is_soft(i) => self.pushf(),
            Mnemonic::Popfd if !self.is_soft(i) => self.popf(i),
            Mnemonic::Mov if kernel && i.code() == Code::Mov_r32_cr => return self.read_control(i),
            Mnemonic::Mov if kernel && i.code() == Code::Mov_cr_r32 => match i.op0_register() {
                Register::CR2 => self.write_fault_address(i),
                Register::CR4 => self.write_control_4(i),
                _ => return false,
            },
            Mnemonic::Mov if i.op1_kind() == OpKind::Register => {
                let from = i.op1_register();
                return from.is_segment_register()
                    && self.read_word(i, cpu::selector(from.number()));
            }
            Mnemonic::Smsw => return self.read_word(i, cpu::control(0)),
            Mnemonic::Sldt => return self.read_word(i, cpu::LDTR_SELECTOR),
            Mnemonic::Str => return self.read_word(i, cpu::TR_SELECTOR),
            Mnemonic::Sgdt => return self.read_table(i, cpu::GDTR),
            Mnemonic::Sidt => return self.read_table(i, cpu::IDTR),
            Mnemonic::Lgdt if kernel => return self.load_table(i, cpu::GDTR),
            Mnemonic::Lidt if kernel => return self.load_table(i, cpu::IDTR),
            // TS is clear where floating-point instructions run.
            Mnemonic::Clts if kernel => return self.request.mode.has_fpu(),
            Mnemonic::Cpuid => self.cpuid(),
            Mnemonic::Rdtsc if self.request.mode.has_time_stamps() => self.rdtsc(),
            Mnemonic::Lar | Mnemonic::Lsl | Mnemonic::Verr | Mnemonic::Verw if !self.is_soft(i) => {
                return self.inspect(i);
            }
            Mnemonic::In | Mnemonic::Out | Mnemonic::Lldt if kernel => return self.called(i),
            Mnemonic::Xlatb => return self.translate_byte(i),
            _ => return false,
        }
        true
    }

    fn direction(&mut self, flag: u32, opcode: u8) {
        self.e.store_constant(context(at::DIRECTION), flag);
        self.e.raw(&[opcode]);
    }

    /// STI; an interrupt that waits is taken behind the next instruction.
    fn sti(&mut self, i: &Instruction) {
        self.e.store_constant(context(at::INTERRUPT_FLAG), Eflags::IF.bits());
        self.e.copy64(R12, RCX);
        self.e.load(RCX, context(at::PENDING));
        let next = i.next_ip32();
        self.e.unless_zero(|e| {
            e.store_constant(context(at::EXIT_EIP), next);
            e.store_constant(context(at::REASON), Exit::Shadow as u32);
            e.jump_through(context(at::EXIT));
        });
    }

    pub(super) fn step_from(&mut self, i: &Instruction, hole: usize) {
        self.cold.push(Cold::Step {
            hole,
            eip: i.ip32(),
            next: i.next_ip32(),
            back: None,
            exit: Exit::Step,
            borrowed: false,
        });
    }

    fn read_control(&mut self, i: &Instruction) -> bool {
        let number = i.op1_register().number();
        if !matches!(number, 0 | 2 | 3 | 4) {
            return false;
        }
        let to = self.register(i.op0_register());
        let from = self.cpu(R8, cpu::control(number));
        self.e.load(to, from);
        true
    }

    /// Stores a selector or machine status word: 16 bits, or as many as a register has.
    fn read_word(&mut self, i: &Instruction, field: i32) -> bool {
        // Of CR0 a register of 32 bits takes all.
        let wide = field == cpu::control(0);
        let load = |t: &mut Self, to| {
            let from = t.cpu(R9, field);
            if wide { t.e.load(to, from) } else { t.e.load16(to, from) }
        };
        match i.op0_kind() {
            OpKind::Register if i.op0_register().is_gpr32() => {
                let to = self.register(i.op0_register());
                load(self, to);
            }
            OpKind::Register if i.op0_register().is_gpr16() => {
                let to = self.register(i.op0_register());
                load(self, R8);
                self.e.copy_low16(to, R8);
            }
            OpKind::Memory if self.can_reach(i) && !self.is_soft(i) => {
                let to = self.guest_address(i, 0);
                load(self, R9);
                self.e.guest_store(to, R9, 2);
            }
            _ => return false,
        }
        true
    }

    fn read_table(&mut self, i: &Instruction, from: i32) -> bool {
        let is_wide = matches!(i.code(), Code::Sgdt_m1632 | Code::Sidt_m1632);
        if !is_wide || !self.can_reach(i) || self.is_soft(i) {
            return false;
        }
        let to = self.guest_address(i, 0);
        self.e.copy(R9, R8);
        self.borrow_flags(i);
        self.give_up_across_pages(i, Address::new(R9, 0), 6);
        self.e.take_flags_back();
        self.e.copy(R8, R9);
        let base = self.cpu(R10, from + cpu::BASE);
        self.e.load16(R9, Address::new(R10, from + cpu::LIMIT));
        self.e.load(R10, base);
        self.e.guest_store(to, R9, 2);
        self.e.guest_store(Address::new(to.base, 2), R10, 4);
        self.come_back(i);
        true
    }

    /// LGDT and LIDT: nothing of what they change is looked at before the next exit.
    fn load_table(&mut self, i: &Instruction, to: i32) -> bool {
        let is_wide = matches!(i.code(), Code::Lgdt_m1632 | Code::Lidt_m1632);
        if !is_wide || !self.can_reach(i) || self.is_soft(i) {
            return false;
        }
        let from = self.guest_address(i, 0);
        self.e.guest_load(R9, from, 2);
        self.e.guest_load(R10, Address::new(from.base, 2), 4);
        let limit = self.cpu(R8, to + cpu::LIMIT);
        self.e.store16(limit, R9);
        self.e.store(Address::new(R8, to + cpu::BASE), R10);
        true
    }

    /// CPUID: leaf 0, or the one that all others show.
    fn cpuid(&mut self) {
        self.e.copy(RCX, RAX);
        let zero = self.e.short(&[0xe3]);
        self.load_leaf(1);
        let over = self.e.short(&[0xeb]);
        self.e.land_short(zero);
        self.load_leaf(0);
        self.e.land_short(over);
    }

    fn load_leaf(&mut self, number: i32) {
        for (index, register) in (0..).zip([RAX, RCX, RDX, RBX]) {
            self.e.load(register, context(at::CPUID + 16 * number + 4 * index));
        }
    }

    /// RDTSC, with the guest's offset added.
    fn rdtsc(&mut self) {
        self.e.raw(&[0x0f, 0x31]);
        self.e.raw(&[0xc4, 0xe3, 0xfb, 0xf0, 0xd2, 0x20]); // rorx rdx, rdx, 32
        self.e.lea64(RAX, Address::indexed(RAX, RDX, 1, 0));
        self.e.load64(R8, context(at::TIME_STAMP_OFFSET));
        self.e.lea64(RAX, Address::indexed(RAX, R8, 1, 0));
        self.e.raw(&[0xc4, 0xe3, 0xfb, 0xf0, 0xd0, 0x20]); // rorx rdx, rax, 32
        self.e.copy(RAX, RAX);
        self.e.copy(RDX, RDX);
    }

    /// DIV and IDIV that have divided by zero before: looked at first.
    pub(super) fn divide(&mut self, i: &Instruction) -> bool {
        let register = i.op0_register();
        let known = i.op0_kind() == OpKind::Register
            && (register.is_gpr32() || register.is_gpr16())
            && !self.is_hopeless(i);
        if !known {
            return false;
        }
        let from = self.register(register);
        self.e.copy64(R12, RCX);
        if register.is_gpr16() {
            self.e.copy16(RCX, from)
        } else {
            self.e.copy(RCX, from)
        }
        let zero = self.e.short(&[0xe3]);
        self.e.copy64(RCX, R12);
        let over = self.e.short(&[0xeb]);
        self.e.land_short(zero);
        self.e.copy64(RCX, R12);
        let hole = self.e.jump();
        self.step_from(i, hole);
        self.e.land_short(over);
        self.operands_plainly(i)
    }

    /// XLAT: AL from DS:[EBX + AL].
    fn translate_byte(&mut self, i: &Instruction) -> bool {
        let flat = !matches!(i.memory_segment(), Register::CS | Register::FS | Register::GS);
        if !flat || i.memory_base() != Register::EBX || self.is_soft(i) {
            return false;
        }
        self.e.raw(&[0x65, 0x67, 0xd7]);
        true
    }
}
