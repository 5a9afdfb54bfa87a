//! Workloads that are saved and restored in the middle of their run.

mod support;

use machine::clock::ClockSource;
use machine::{Machine, RestoreOptions, difference};
use strategy::{Limit, Stop};
use support::{a_minute, boot, checksum, console, run};

const GUESTS: [(&str, u32); 7] = [
    ("timer", 100),
    ("disk", 6),
    ("console", 3_000),
    ("context-switch", 100),
    ("forkwait", 4),
    ("self-modify", 50),
    ("matmul", 2),
];

/// Instructions that a guest executes without interruption, on the virtual clock.
fn length(name: &str, iterations: u32) -> u64 {
    let mut guest = boot(name, iterations, ClockSource::Virtual);
    assert_eq!(run(&mut guest.machine, &a_minute()), Stop::Exit(0), "{name}");
    guest.machine.counters.instructions
}

fn save_and_restore(machine: &Machine) -> Machine {
    let mut file = Vec::new();
    machine.save(&mut file).unwrap();
    Machine::restore(&mut file.as_slice(), &RestoreOptions::default()).unwrap()
}

#[test]
fn a_workload_gets_its_checksum_across_many_restores() {
    for clock in [ClockSource::Virtual, ClockSource::Host] {
        for (name, iterations) in GUESTS {
            let mut guest = boot(name, iterations, clock);
            let stretch = Limit::instructions(length(name, iterations) / 9 + 1);
            let mut written = Vec::new();
            let mut restores = 0;
            let stop = loop {
                let stop = run(&mut guest.machine, &stretch);
                written.extend(console(&mut guest.machine));
                if stop != Stop::Limit {
                    break stop;
                }
                guest.machine = save_and_restore(&guest.machine);
                restores += 1;
            };
            assert_eq!(stop, Stop::Exit(0), "{name}");
            assert_eq!(checksum(&written), Some(guest.image.checksum), "{name}");
            assert!(restores > 2, "{name}: {restores}");
        }
    }
}

#[test]
fn a_restored_guest_does_on_the_virtual_clock_what_it_would_have_done() {
    for (name, iterations) in GUESTS {
        let mut guest = boot(name, iterations, ClockSource::Virtual);
        let half = Limit::instructions(length(name, iterations) / 2);
        assert_eq!(run(&mut guest.machine, &half), Stop::Limit, "{name}");
        let mut restored = save_and_restore(&guest.machine);
        let stops = [&mut guest.machine, &mut restored].map(|machine| run(machine, &a_minute()));
        assert_eq!(stops, [Stop::Exit(0); 2], "{name}");
        assert_eq!(difference(&guest.machine, &restored).unwrap(), [], "{name}");
        assert_eq!(guest.machine.counters.interrupts, restored.counters.interrupts, "{name}");
        assert_eq!(guest.machine.clock().now(), restored.clock().now(), "{name}");
    }
}
