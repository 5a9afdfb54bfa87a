//! Runs that are short, many, or not possible.

use crate::guest::{CODE, Guest};
use machine::cpu::register;
use strategy::{Limit, Stop, Strategy};

guest_code! {
    counts: ".code32",
        "mov ecx, 100", "2:", "inc dword ptr [0x18000]", "push ecx", "pop ecx", "loop 2b",
        "mov al, 1", "out 0xf4, al";
    stays: ".code32", "2:", "jmp 2b";
}

#[test]
fn a_guest_gets_on_however_short_its_runs() {
    let mut guest = Guest::with(counts());
    guest.enable_paging();
    let (machine, strategy) = guest.machine_and_strategy();
    let mut runs = 0;
    while strategy.run(machine, &Limit::instructions(1)).unwrap() == Stop::Limit {
        runs += 1;
        assert!(runs < 1000, "no progress: {:x?}", machine.cpu);
    }
    assert_eq!(guest.read_u32(0x1_8000), 100);
}

#[test]
fn an_instruction_limit_ends_a_loop() {
    let mut guest = Guest::with(stays());
    let (machine, strategy) = guest.machine_and_strategy();
    for count in [0, 1, 1000, 1_000_000] {
        assert_eq!(strategy.run(machine, &Limit::instructions(count)).unwrap(), Stop::Limit);
        assert_eq!(machine.cpu.eip, CODE);
    }
}

#[test]
fn a_process_has_one_window_and_each_run_gives_it_back() {
    let mut guest = Guest::with(counts());
    assert_eq!(guest.exits(), 1);
    let taken = host::window::LowWindow::new().expect("no guest runs");
    let mut other = crate::guest::machine();
    let mut second = crate::native();
    let refused = second.run(&mut other, &Limit::none()).unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
    drop(taken);
    let stop = second.run(&mut other, &Limit::instructions(1000));
    assert!(stop.is_ok(), "{stop:?}");
}

#[test]
fn machines_follow_one_another() {
    let mut guest = Guest::with(counts());
    for _ in 0..5 {
        guest.set(register::EBX, 0);
        assert_eq!(guest.exits(), 1);
        assert_eq!(guest.read_u32(0x1_8000), 100);
        guest.replace(counts());
    }
}
