//! How the probes observe: a recorder of exceptions, and regions of code in which one may happen.
//!
//! Inside [`Guest::guarded`] an exception is recorded (vector, error code, and what the processor
//! pushed) and execution goes on at the region's end, with the stack as it was at its beginning.
//! Outside, it is reported as a fault, as the runtime does.
//!
//! What an exception pushes is the one view of CS and EFLAGS that every monitor has to get right,
//! so it also serves to see the effect of an instruction without a second sensitive instruction:
//! [`Guest::observe`] is a guarded UD2.

use crate::runtime::prelude::*;

/// The record, and where the guard keeps its state: a block of the workload's variables.
const RESUME: i32 = layout::SCRATCH as i32;
const STACK: i32 = RESUME + 4;
const VECTOR: i32 = RESUME + 8;
const ERROR: i32 = RESUME + 12;
/// EIP as the last recorded exception pushed it.
pub(super) const SEEN_EIP: i32 = RESUME + 16;
/// CS as the last recorded exception pushed it, with 16 zero bits.
pub(super) const SEEN_CS: i32 = RESUME + 20;
/// EFLAGS as the last recorded exception pushed it.
pub(super) const SEEN_EFLAGS: i32 = RESUME + 24;

/// From here on, variables are the workload's own.
pub(super) const VARIABLES: i32 = RESUME + 64;

/// What [`VECTOR`] holds where no exception came.
const NO_VECTOR: i32 = 0xFF;
/// What a probe shows where no exception came.
const NO_TRAP: u32 = u32::MAX;

/// The exceptions that are recorded: all that an instruction can cause (Intel SDM vol. 3,
/// table 7-1).
const RECORDED: [u8; 15] = [0, 1, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19];

/// EFLAGS.IF.
pub(super) const IF: u32 = 1 << 9;
/// EFLAGS.IOPL.
pub(super) const IOPL: u32 = 3 << 12;

/// The exception that the architecture demands of an instruction.
#[derive(Clone, Copy)]
pub(super) enum Trap {
    /// None.
    None,
    /// This one.
    Exception {
        vector: u8,
        error: u16,
        /// Where the EIP pushed stands: bytes from the instruction's beginning.
        offset: u8,
    },
}

impl Trap {
    /// #NM.
    pub(super) const NM: Trap = Trap::fault(7, 0);
    /// #GP(0): what a privileged instruction raises in ring 3.
    pub(super) const GP0: Trap = Trap::gp(0);

    /// A fault: EIP is the instruction's own.
    pub(super) const fn fault(vector: u8, error: u16) -> Trap {
        Trap::Exception { vector, error, offset: 0 }
    }

    /// #GP with `error`.
    pub(super) const fn gp(error: u16) -> Trap {
        Trap::fault(13, error)
    }

    /// #NP with `error`.
    pub(super) const fn np(error: u16) -> Trap {
        Trap::fault(11, error)
    }

    /// The word that a probe shows: vector, distance of EIP, error code.
    fn word(self) -> u32 {
        match self {
            Trap::None => NO_TRAP,
            Trap::Exception { vector, error, offset } => {
                u32::from(vector) << 24 | u32::from(offset) << 16 | u32::from(error)
            }
        }
    }
}

/// The ring in which a probe runs.
#[derive(Clone, Copy)]
pub(super) enum Ring {
    /// The kernel.
    Zero,
    /// User code, with EFLAGS chosen: IF and IOPL matter.
    Three(u32),
}

impl Ring {
    /// User code with interrupts off and IOPL 0.
    pub(super) const USER: Ring = Ring::Three(layout::EFLAGS_NONE);
    /// User code with interrupts off that may do I/O.
    pub(super) const USER_IOPL3: Ring = Ring::Three(layout::EFLAGS_NONE | IOPL);
}

// The recorder.
impl Guest {
    /// Puts the recorder behind the exception vectors.
    pub(super) fn record_traps(&mut self) {
        let (over, record) = (self.label(), self.label());
        x86!(self ; jmp =>over);
        for vector in RECORDED {
            let handler = self.label();
            self.gate(vector, Gate::Interrupt, handler);
            x86!(self ; =>handler);
            if !matches!(vector, 10..=14 | 17) {
                x86!(self ; push 0);
            }
            x86!(self ; push DWORD i32::from(vector) ; jmp =>record);
        }
        x86!(self ; =>record);
        self.emit_recorder();
        x86!(self ; =>over);
    }

    /// On the stack: vector, error code, EIP, CS, EFLAGS.
    fn emit_recorder(&mut self) {
        let fault = self.label();
        x86!(self
            ; cmp DWORD [RESUME], 0
            ; je =>fault
            ; push eax
        );
        for (slot, variable) in
            [(4, VECTOR), (8, ERROR), (12, SEEN_EIP), (16, SEEN_CS), (20, SEEN_EFLAGS)]
        {
            x86!(self ; mov eax, [esp + slot] ; mov [variable], eax);
        }
        x86!(self
            ; movzx eax, WORD [SEEN_CS]
            ; mov [SEEN_CS], eax
            ; mov eax, [RESUME]
            ; mov [esp + 12], eax
            // The code segment may have been one of the probe's: go on in the usual one.
            ; mov eax, i32::from(layout::KERNEL_CODE)
            ; test BYTE [SEEN_CS], 3
            ; jz >kernel
            ; mov eax, i32::from(layout::USER_CODE)
            ; kernel:
            ; mov [esp + 16], eax
            ; pop eax
            ; add esp, 8
            ; iretd
            ; =>fault
        );
        self.report_fault();
    }

    /// Emits `body` so that an exception in it is recorded and leads to its end. The stack is at
    /// the end as at the beginning in any case. Changes neither registers nor flags of its own. Not
    /// to be nested.
    pub(super) fn guarded(&mut self, body: impl FnOnce(&mut Guest)) {
        let end = self.label();
        x86!(self
            ; push eax
            ; lea eax, [=>end]
            ; mov [RESUME], eax
            ; pop eax
            ; mov [STACK], esp
            ; mov DWORD [VECTOR], NO_VECTOR
        );
        body(self);
        x86!(self
            ; =>end
            ; mov esp, [STACK]
            ; mov DWORD [RESUME], 0
        );
    }

    /// Records CS, EIP and EFLAGS as they are, by an exception. Changes nothing.
    pub(super) fn observe(&mut self) {
        self.guarded(|g| x86!(g ; ud2));
    }

    /// Emits `body` for `ring`. Registers pass through both ways, flags do not. After ring 3 the
    /// system flags are as at the beginning of a workload.
    pub(super) fn inside(&mut self, ring: Ring, body: impl FnOnce(&mut Guest)) {
        match ring {
            Ring::Zero => body(self),
            Ring::Three(eflags) => {
                self.ring3_with(eflags, layout::USER_STACK, body);
                self.clear_flags();
            }
        }
    }

    /// Clears the system flags: the way back to ring 0 leaves IOPL as it was. By IRET, because POPF
    /// is one of those that are probed.
    fn clear_flags(&mut self) {
        let here = self.label();
        x86!(self
            ; push DWORD layout::EFLAGS_NONE as i32
            ; push DWORD i32::from(layout::KERNEL_CODE)
            ; push eax
            ; lea eax, [=>here]
            ; xchg eax, [esp]
            ; iretd
            ; =>here
        );
    }
}

// Probes.
impl Guest {
    /// Reports whether `instruction` raises `trap` in `ring`, after `prepare` has run there.
    /// Registers reach both, and pass out; then EAX and EDX are changed.
    pub(super) fn probe_trap_after(
        &mut self,
        ring: Ring,
        name: &str,
        trap: Trap,
        prepare: impl FnOnce(&mut Guest),
        instruction: impl FnOnce(&mut Guest),
    ) {
        let at = self.label();
        self.inside(ring, |g| {
            g.guarded(|g| {
                prepare(g);
                x86!(g ; =>at);
                instruction(g);
            });
        });
        x86!(self
            ; mov eax, NO_TRAP as i32
            ; cmp DWORD [VECTOR], NO_VECTOR
            ; je >none
            ; lea eax, [=>at]
            ; mov edx, [SEEN_EIP]
            ; sub edx, eax
            ; movzx edx, dl
            ; shl edx, 16
            ; movzx eax, WORD [ERROR]
            ; or eax, edx
            ; mov edx, [VECTOR]
            ; shl edx, 24
            ; or eax, edx
            ; none:
        );
        self.probe(name, trap.word());
    }

    /// [`probe_trap_after`](Self::probe_trap_after) without preparation.
    pub(super) fn probe_trap(
        &mut self,
        ring: Ring,
        name: &str,
        trap: Trap,
        instruction: impl FnOnce(&mut Guest),
    ) {
        self.probe_trap_after(ring, name, trap, |_| {}, instruction);
    }

    /// Reports `variable`, as far as `mask` goes. Changes EAX.
    pub(super) fn probe_variable(&mut self, name: &str, variable: i32, mask: u32, expected: u32) {
        x86!(self ; mov eax, [variable] ; and eax, mask as i32);
        self.probe(name, expected);
    }
}

// What most workloads have in common.
impl Guest {
    /// The usual guest, with exceptions recorded and no interrupt let in.
    pub(super) fn for_probes(name: &'static str) -> Guest {
        let mut g = Guest::boot(name, Setup::USUAL);
        g.set_up_pics(0);
        g.record_traps();
        g
    }

    /// Measures `body` in ring 0, with EBX = 0 at its beginning and as the result.
    pub(super) fn measure(&mut self, iterations: u32, body: impl FnOnce(&mut Guest)) {
        self.begin();
        x86!(self ; xor ebx, ebx);
        self.repeat(iterations, body);
        self.end();
        x86!(self ; mov eax, ebx);
    }

    /// Writes a descriptor into the table at `table`.
    pub(super) fn descriptor_in(&mut self, table: u32, selector: u16, descriptor: u64) {
        let at = (table + u32::from(selector & !7)) as i32;
        x86!(self
            ; mov DWORD [at], descriptor as i32
            ; mov DWORD [at + 4], (descriptor >> 32) as i32
        );
    }

    /// Writes a descriptor into the GDT.
    pub(super) fn descriptor(&mut self, selector: u16, descriptor: u64) {
        self.descriptor_in(layout::GDT, selector, descriptor);
    }

    /// Copies `words` doublewords. Changes ESI, EDI and ECX.
    pub(super) fn copy(&mut self, from: u32, to: u32, words: u32) {
        x86!(self
            ; mov esi, from as i32
            ; mov edi, to as i32
            ; mov ecx, words as i32
            ; rep movsd
        );
    }

    /// A far pointer as the operand of a far jump or call: the opcode goes before.
    pub(super) fn far_pointer(&mut self, selector: u16, offset: DynamicLabel) {
        x86!(self ; .abs32 =>offset ; .u16 selector);
    }
}
