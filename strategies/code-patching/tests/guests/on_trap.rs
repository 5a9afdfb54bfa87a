//! On-trap mode: what traps is patched once it has trapped often enough; what does not goes wrong.

use crate::guest::{Guest, IDT, MORE_CODE, gate};
use code_patching::{CodePatching, Mode, Options};
use machine::cpu::register;
use strategy::{ExitKind, Stop, Strategy};

guest_code! {
    loops: ".code32",
        "mov ecx, 5000", "2:", "cli", "inc eax", "inc eax", "nop", "nop", "sti", "nop", "nop", "nop",
        "nop", "dec ecx", "jnz 2b", "pushfd", "pop ebx", "mov al, 1", "out 0xf4, al";
    // A software interrupt 500 times; its handler is an IRET.
    interrupts: ".code32",
        "mov ecx, 500", "2:", "int 0x80", "nop", "nop", "nop", "nop", "dec ecx", "jnz 2b",
        "mov al, 1", "out 0xf4, al";
    iret: ".code32", "iretd";
    silent: ".code32", "cli", "pushfd", "pop ebx", "mov al, 1", "out 0xf4, al";
}

fn guest(code: &[u8]) -> Guest {
    let mut guest = Guest::with(code);
    let options = Options { mode: Mode::OnTrap, threshold: 10.try_into().unwrap() };
    guest.strategy = CodePatching::new(options).unwrap();
    guest
}

#[test]
fn what_traps_often_is_patched() {
    let mut guest = guest(loops());
    assert_eq!(guest.run(), Stop::Exit(1));
    assert_eq!(guest.cpu.registers[register::ECX], 0);
    let traps = guest.strategy.exits().get(ExitKind::Privileged);
    assert!((20..100).contains(&traps), "{traps} traps");
    assert_eq!(guest.strategy.statistics().stubs, 2);
}

#[test]
fn a_system_call_that_came_often_comes_without_a_signal() {
    let mut guest = guest(interrupts());
    guest.write(MORE_CODE, iret());
    guest.write(IDT + 0x80 * 8, &gate(MORE_CODE, 0x8e).to_le_bytes());
    assert_eq!(guest.run(), Stop::Exit(1));
    assert_eq!(guest.cpu.registers[register::ECX], 0);
    let sites = guest.strategy.sites();
    let site = sites.iter().find(|site| site.bytes == [0xcd, 0x80]).unwrap();
    assert_eq!((site.runs.traps, site.runs.crossings), (10, 490));
}

#[test]
fn what_does_not_trap_goes_wrong() {
    let mut guest = guest(silent());
    assert_eq!(guest.run(), Stop::Exit(1));
    let flags = guest.cpu.registers[register::EBX];
    assert_ne!(flags & 0x200, 0, "PUSHF shows the host's IF");
}
