//! Small loops under the interpreter: results, limits, self-modification.

use interpretation::Interpretation;
use machine::cpu::{Cr0, Segment, SegmentRegister, register};
use machine::{Machine, MachineConfig, PhysicalAddress};
use strategy::{Limit, Stop, Strategy};

/// A machine in flat 32-bit protected mode without paging, with `code` at 1 MiB.
fn machine(code: &[u8]) -> Machine {
    let mut machine =
        Machine::new(&MachineConfig { memory_bytes: 4 << 20, ..Default::default() }).unwrap();
    machine.cpu.cr0 |= Cr0::PE;
    for register in SegmentRegister::ALL {
        let code = register == SegmentRegister::Cs;
        *machine.cpu.segment_mut(register) = Segment::flat(if code { 8 } else { 16 }, code, 0);
    }
    machine.cpu.eip = 0x10_0000;
    machine.cpu.registers[register::ESP] = 0x20_0000;
    assert!(machine.memory.write(PhysicalAddress(0x10_0000), code));
    machine
}

#[test]
fn a_counted_loop_ends_with_the_exit_port() {
    // mov ecx, 1000000; l: add eax, ecx; dec ecx; jnz l; mov al, 5; out 0xf4, al
    let code = [0xb9, 0x40, 0x42, 0x0f, 0, 0x01, 0xc8, 0x49, 0x75, 0xfb, 0xb0, 5, 0xe6, 0xf4];
    let mut machine = machine(&code);
    let stop = Interpretation::new().run(&mut machine, &Limit::none()).unwrap();
    assert_eq!(stop, Stop::Exit(5));
    let sum = (1..=1_000_000u32).fold(0u32, u32::wrapping_add);
    assert_eq!(machine.cpu.registers[register::EAX], sum & !0xff | 5);
}

#[test]
fn an_instruction_limit_is_exact() {
    let code = [0x40, 0x40, 0x40, 0xeb, 0xfb]; // inc eax (three times); jmp
    let mut machine = machine(&code);
    let mut strategy = Interpretation::new();
    for count in [1, 2, 3, 5, 1000, 12_345] {
        let before = machine.counters.instructions;
        let stop = strategy.run(&mut machine, &Limit::instructions(count)).unwrap();
        assert_eq!(stop, Stop::Limit);
        assert_eq!(machine.counters.instructions - before, count);
    }
}

#[test]
fn code_that_changes_itself_runs_as_changed() {
    // mov byte [0x100008], 0x43 ; (at 7) nop ; inc eax -> inc ebx ; out 0xf4, al
    let code = [0xc6, 0x05, 0x08, 0, 0x10, 0, 0x43, 0x90, 0x40, 0xe6, 0xf4];
    let mut machine = machine(&code);
    let stop = Interpretation::new().run(&mut machine, &Limit::none()).unwrap();
    assert_eq!(stop, Stop::Exit(0));
    assert_eq!(machine.cpu.registers[register::EBX], 1);
}
