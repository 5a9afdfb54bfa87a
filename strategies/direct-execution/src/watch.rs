//! Watching for the first instruction at which a guest leaves the architecture.
//!
//! The guest is single-stepped natively. An instruction that ring 3 may execute wrongly without a
//! trap is executed twice, by the CPU and by the emulator, from the same state; the first whose
//! results differ is what was looked for. It costs microseconds an instruction: for the one run that
//! explains a wrong result.

use crate::peek;
use iced_x86::{Instruction, Mnemonic, OpKind};
use machine::cpu::{Cpu, Eflags, InterruptShadow, SegmentRegister, register};
use machine::{LinearAddress, Machine};
use std::fmt;

/// The first instruction whose native result is not the architecture's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Divergence {
    /// Its linear address.
    pub address: LinearAddress,
    /// Its disassembly.
    pub text: String,
    /// What differs: the field, what the CPU made of it in ring 3, and what it had to be.
    pub differences: Vec<(String, u32, u32)>,
}

impl Divergence {
    /// An instruction that ring 3 cannot be left from.
    pub(crate) fn at(address: LinearAddress, instruction: &Instruction) -> Divergence {
        Divergence { address, text: instruction.to_string(), differences: Vec::new() }
    }
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "left the architecture at {}: {}", self.address, self.text)?;
        for (number, (field, native, right)) in self.differences.iter().take(3).enumerate() {
            let joint = if number == 0 { ": " } else { ", " };
            write!(f, "{joint}{field} {native:#x} instead of {right:#x}")?;
        }
        Ok(())
    }
}

/// Whether the host's kernel takes the instruction for its own system call and forgets where the
/// guest was; the guest's CPU knows neither.
pub(crate) fn is_lost(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Syscall | Mnemonic::Sysenter)
}

/// Whether ring 3 may execute the instruction without a trap and yet wrongly (Intel SDM volume 3,
/// 5.9, lists what traps; Robin & Irvine 2000 list what does not).
pub(crate) fn is_sensitive(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    let names_segment = (0..instruction.op_count()).any(|number| {
        instruction.op_kind(number) == OpKind::Register
            && instruction.op_register(number).is_segment_register()
    });
    match instruction.mnemonic() {
        Sgdt | Sidt | Sldt | Str | Smsw | Lar | Lsl | Verr | Verw | Cpuid | Rdtsc => true,
        Pushf | Pushfd | Popf | Popfd | Retf | Iret | Iretd | Lds | Les | Lfs | Lgs | Lss => true,
        Call => instruction.is_call_far() || instruction.is_call_far_indirect(),
        Jmp => instruction.is_jmp_far() || instruction.is_jmp_far_indirect(),
        // The host's CPU may know it, the guest's does not.
        _ => names_segment || !emulator::is_ia32(instruction),
    }
}

/// Bytes around the stack pointer, and at a memory operand, that such an instruction may write.
const STACK_BYTES: u32 = 32;
const OPERAND_BYTES: u32 = 8;

/// What an instruction may change: the CPU and some memory.
pub(crate) struct Before {
    pub(crate) cpu: Cpu,
    memory: Vec<(LinearAddress, Vec<u8>)>,
}

impl Before {
    /// Takes what `instruction` may change.
    pub(crate) fn take(m: &mut Machine, instruction: &Instruction) -> Before {
        let stack = m.cpu.segment(SegmentRegister::Ss).base;
        let top = stack.wrapping_add(m.cpu.registers[register::ESP]).wrapping_sub(STACK_BYTES);
        let mut places = vec![(top, STACK_BYTES)];
        if (0..instruction.op_count()).any(|number| instruction.op_kind(number) == OpKind::Memory) {
            let linear = instruction.virtual_address(0, 0, |register, _, _| {
                let number = register.number();
                let value = if register.is_segment_register() {
                    m.cpu.segments.get(number)?.base
                } else {
                    *m.cpu.registers.get(number & 7)?
                };
                Some(u64::from(value))
            });
            places.extend(linear.map(|linear| (linear as u32, OPERAND_BYTES)));
        }
        let memory = places
            .into_iter()
            .map(|(at, length)| (LinearAddress(at), peek::bytes(m, LinearAddress(at), length)))
            .collect();
        Before { cpu: m.cpu.clone(), memory }
    }

    /// Reads the same places again.
    fn memory_now(&self, m: &mut Machine) -> Vec<Vec<u8>> {
        self.memory.iter().map(|(at, bytes)| peek::bytes(m, *at, bytes.len() as u32)).collect()
    }

    /// Puts CPU and memory back.
    fn restore(&self, m: &mut Machine) {
        m.cpu = self.cpu.clone();
        for (at, bytes) in &self.memory {
            peek::put(m, *at, bytes);
        }
    }
}

/// Compares what the CPU made of an instruction, which is what the machine holds now, with what the
/// emulator makes of it from `before`. The machine is left as the emulator has it.
pub(crate) fn compare(
    m: &mut Machine,
    before: &Before,
    instruction: &Instruction,
) -> Option<Divergence> {
    let native = (m.cpu.clone(), before.memory_now(m));
    before.restore(m);
    let _ = emulator::step(m);
    let holds_traps_off = m.cpu.interrupt_shadow == InterruptShadow::MovSs;
    if (holds_traps_off || is_faked_by_kernel(instruction)) && native.0.eip != m.cpu.eip {
        // A load of SS puts the single-step trap off, and the kernel's stand-in for an instruction
        // takes none: the CPU has executed the next one as well.
        let _ = emulator::step(m);
    }
    let right = (m.cpu.clone(), before.memory_now(m));
    let differences = differences(&native, &right, &before.memory, instruction);
    (!differences.is_empty()).then(|| Divergence {
        address: before.cpu.instruction_address(),
        text: instruction.to_string(),
        differences,
    })
}

/// Whether the host's kernel may pretend to execute the instruction, where the CPU has UMIP.
fn is_faked_by_kernel(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(instruction.mnemonic(), Sgdt | Sidt | Sldt | Smsw | Str)
}

type State = (Cpu, Vec<Vec<u8>>);

fn differences(
    native: &State,
    right: &State,
    places: &[(LinearAddress, Vec<u8>)],
    instruction: &Instruction,
) -> Vec<(String, u32, u32)> {
    const NAMES: [&str; 8] = ["EAX", "ECX", "EDX", "EBX", "ESP", "EBP", "ESI", "EDI"];
    let mut found = Vec::new();
    let mut note = |field: String, native: u32, right: u32| {
        if native != right {
            found.push((field, native, right));
        }
    };
    // The time-stamp counter differs from itself.
    if instruction.mnemonic() != Mnemonic::Rdtsc {
        for (number, name) in NAMES.iter().enumerate() {
            note((*name).to_owned(), native.0.registers[number], right.0.registers[number]);
        }
    }
    note("EIP".to_owned(), native.0.eip, right.0.eip);
    note("EFLAGS".to_owned(), native.0.flags.bits(), right.0.flags.bits());
    for segment in SegmentRegister::ALL {
        let selector = |cpu: &Cpu| u32::from(cpu.segment(segment).selector);
        note(format!("{segment:?}"), selector(&native.0), selector(&right.0));
    }
    for (number, (at, _)) in places.iter().enumerate() {
        let words = native.1[number].chunks_exact(2).zip(right.1[number].chunks_exact(2));
        for (index, (native, right)) in words.enumerate() {
            let value = |bytes: &[u8]| u32::from(bytes[0]) | u32::from(bytes[1]) << 8;
            // The step itself shows as TF in flags that were pushed.
            let step = if is_push_flags(instruction) { Eflags::TF.bits() } else { 0 };
            let address = LinearAddress(at.0.wrapping_add(2 * index as u32));
            note(format!("the word at {address}"), value(native) & !step, value(right) & !step);
        }
    }
    found
}

fn is_push_flags(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Pushf | Mnemonic::Pushfd)
}
