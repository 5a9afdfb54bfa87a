//! The tap, driven by hand: what was recorded comes back without a device being touched.

use crate::hostile::Random;
use machine::clock::ClockSource;
use machine::signals::Request;
use machine::tap::{Choice, Event, Expected, Found, Position};
use machine::{Machine, MachineConfig, PhysicalAddress};

fn machine(clock: ClockSource) -> Machine {
    let config = MachineConfig { memory_bytes: 1 << 20, clock, ..MachineConfig::default() };
    Machine::new(&config).unwrap()
}

/// Makes accesses as some guest would, an instruction each, and gives all that it sees.
fn drive(machine: &mut Machine, seed: u64, accesses: usize) -> Vec<u64> {
    let mut random = Random(seed << 32 | 5);
    let mut seen = Vec::new();
    machine.cpu.flags.set_bits(0x202);
    for _ in 0..accesses {
        let size = 1 << random.below(3);
        match random.below(8) {
            0..=2 => seen.push(u64::from(machine.bus.port_read(random.port(), size))),
            3..=4 => machine.bus.port_write(random.port(), size, random.next() as u32),
            5 => seen.push(machine.read_tsc()),
            _ => {
                let address = PhysicalAddress(0xb_7ff0 + random.below(0x30));
                let mut data = [0; 600];
                let length = 1 + random.below(600) as usize;
                machine.bus.mmio_write(address, &random.next().to_le_bytes());
                machine.bus.mmio_read(address, &mut data[..length]);
                seen.extend(data.map(u64::from));
            }
        }
        machine.counters.instructions += 1;
        machine.cpu.eip = random.next() as u32;
        match machine.service() {
            Some(Request::Exit(value)) => seen.push(0x100 | u64::from(value)),
            Some(Request::Stop) => break,
            Some(_) => seen.push(0x200),
            None => {}
        }
        if machine.interrupt_requested() {
            seen.push(u64::from(machine.acknowledge_interrupt().0));
        }
    }
    seen
}

/// Timer on, controllers programmed, all unmasked.
const SET_UP: [(u16, u32); 14] = [
    (0x20, 0x11),
    (0x21, 0x20),
    (0x21, 4),
    (0x21, 3),
    (0x21, 0),
    (0xa0, 0x11),
    (0xa1, 0x28),
    (0xa1, 2),
    (0xa1, 3),
    (0xa1, 0),
    (0x43, 0x34),
    (0x40, 0x40),
    (0x40, 0x00),
    (0x3fc, 0x0b),
];

#[test]
fn what_devices_gave_comes_back_without_devices() {
    let mut interrupts = 0;
    for seed in 1..=20 {
        let mut recorded = machine(ClockSource::Host);
        for (port, value) in SET_UP {
            recorded.bus.port_write(port, 1, value);
        }
        recorded.record(1 << 20);
        let seen = drive(&mut recorded, seed, 2_000);
        let events = recorded.finish_recording().unwrap();
        interrupts += events.iter().filter(|e| matches!(e, Event::Interrupt { .. })).count();

        let mut replayed = machine(ClockSource::Host);
        replayed.replay(events);
        let seen_again = drive(&mut replayed, seed, 2_000);
        assert_eq!(replayed.divergence(), None, "seed {seed}");
        assert!(seen == seen_again, "seed {seed}");
        assert_eq!(replayed.bus.devices.vga.text_screen().lines()[0], "");
        assert_eq!(replayed.finish_replay().unwrap(), None, "seed {seed}");
        assert!(replayed.bus.tap.is_off());
    }
    // How many depends on how fast the host is.
    assert!(interrupts > 20, "{interrupts}");
}

#[test]
fn the_first_divergence_is_kept_and_stops_the_run() {
    let mut machine = machine(ClockSource::Virtual);
    let read = Event::PortRead { port: 0x60, size: 1, value: 0x1c };
    machine.replay(vec![read, Event::TimeStamp(7)]);
    assert_eq!(machine.bus.port_read(0x60, 1), 0x1c);
    assert_eq!(machine.bus.port_read(0x64, 2), 0xffff);
    assert_eq!(machine.service(), Some(Request::Stop));
    machine.bus.port_write(0x80, 1, 3);
    assert_eq!(machine.read_tsc(), u64::MAX);
    let divergence = machine.divergence().unwrap();
    assert_eq!(divergence.index, 1);
    assert_eq!(divergence.expected, Expected::Event(Event::TimeStamp(7)));
    assert_eq!(divergence.found, Found::PortRead { port: 0x64, size: 2 });
    assert_eq!(
        divergence.to_string(),
        "event 1: expected a read of the time-stamp counter, 7, \
         found a read of 2 bytes at port 0x64"
    );
}

#[test]
fn what_a_write_asks_for_is_asked_for_again() {
    let mut recorded = machine(ClockSource::Virtual);
    recorded.record(10);
    recorded.bus.port_write(0xf4, 1, 0x21);
    assert_eq!(recorded.service(), Some(Request::Exit(0x21)));
    let events = recorded.take_events();
    assert_eq!(events[1..], [Event::Request(Request::Exit(0x21))]);

    let mut replayed = machine(ClockSource::Virtual);
    replayed.replay(events);
    replayed.bus.port_write(0xf4, 1, 0x21);
    assert!(replayed.signals().attention());
    assert_eq!(replayed.service(), Some(Request::Exit(0x21)));
    assert_eq!(replayed.finish_replay().unwrap(), None);
}

#[test]
fn enough_events_ask_for_the_end_and_the_next_are_kept() {
    let mut recorded = machine(ClockSource::Virtual);
    recorded.record(10);
    recorded.ask_to_stop_after(2);
    recorded.bus.port_write(0x80, 1, 1);
    assert_eq!(recorded.service(), None);
    recorded.bus.port_write(0x80, 1, 2);
    recorded.bus.port_write(0x80, 1, 3);
    assert_eq!(recorded.service(), Some(Request::Stop));
    assert_eq!(recorded.take_events().len(), 3);
    assert!(recorded.finish_recording().is_ok());
}

#[test]
fn what_is_left_of_a_log_is_a_divergence() {
    let mut machine = machine(ClockSource::Virtual);
    machine.replay(vec![Event::TimeStamp(1)]);
    let divergence = machine.finish_replay().unwrap().unwrap();
    assert_eq!(divergence.expected, Expected::Event(Event::TimeStamp(1)));
    assert!(matches!(divergence.found, Found::End { .. }));
}

#[test]
fn another_end_is_a_divergence() {
    let mut recorded = machine(ClockSource::Virtual);
    recorded.record(10);
    let end = recorded.finish_recording().unwrap();
    let mut replayed = machine(ClockSource::Virtual);
    replayed.replay(end.clone());
    replayed.cpu.registers[3] = 1;
    let divergence = replayed.finish_replay().unwrap().unwrap();
    assert_eq!((divergence.index, divergence.expected), (0, Expected::Event(end[0])));
}

#[test]
fn an_interrupt_is_due_at_its_place_only() {
    let mut machine = machine(ClockSource::Virtual);
    machine.cpu.flags.set_bits(0x202);
    machine.cpu.eip = 0x1000;
    let at = machine::tap::Position { instructions: 5, eip: 0x1010 };
    machine.replay(vec![Event::Interrupt { vector: 0x20, at }]);
    machine.service();
    assert_eq!(machine.next_replayed_interrupt(), Some((5, machine::Vector(0x20))));
    assert_eq!((machine.replay_distance(), machine.interrupt_requested()), (Some(5), false));
    machine.counters.instructions += 5;
    machine.service();
    assert_eq!((machine.replay_distance(), machine.interrupt_requested()), (Some(1), false));
    machine.cpu.eip = 0x1010;
    machine.service();
    assert_eq!((machine.replay_distance(), machine.interrupt_requested()), (Some(0), true));
    assert_eq!(machine.acknowledge_interrupt(), machine::Vector(0x20));
    machine.service();
    assert_eq!((machine.replay_distance(), machine.interrupt_requested()), (None, false));
    assert_eq!(machine.divergence(), None);
}

#[test]
fn an_interrupt_that_cannot_be_taken_is_a_divergence() {
    let mut machine = machine(ClockSource::Virtual);
    let at = machine::tap::Position { instructions: 0, eip: machine.cpu.eip };
    machine.replay(vec![Event::Interrupt { vector: 0x20, at }]);
    assert_eq!(machine.service(), Some(Request::Stop));
    assert_eq!(machine.divergence().unwrap().found, Found::Masked(at));
}

#[test]
fn a_choice_of_the_cpus_is_repeated_at_its_place() {
    let mut machine = machine(ClockSource::Virtual);
    machine.cpu.flags.set_bits(0x2);
    let at = |instructions| Position { instructions, eip: machine.cpu.eip };
    let accessed = Choice::Accessed { address: 0x2000, value: 0x27 };
    // IF is nothing that a CPU leaves undefined.
    let flags = Choice::Flags { value: 0x301, mask: 0x301 };
    let events = [(accessed, 3), (flags, 3), (Choice::Flags { value: 0, mask: 1 }, 4)];
    let events = events.map(|(choice, count)| Event::Choice { choice, at: at(count) });
    machine.replay(events.to_vec());
    let seen = |machine: &Machine| {
        let mut byte = [0];
        assert!(machine.memory.read(PhysicalAddress(0x2000), &mut byte));
        (byte[0], machine.cpu.flags.bits())
    };
    machine.service();
    assert_eq!((seen(&machine), machine.replay_distance()), ((0, 2), Some(3)));
    machine.counters.instructions += 3;
    machine.service();
    assert_eq!((seen(&machine), machine.replay_distance()), ((0x27, 3), Some(1)));
    // The last is there when the replay is ended at its place.
    machine.counters.instructions += 1;
    assert_eq!(machine.finish_replay().unwrap(), None);
    assert_eq!(seen(&machine), (0x27, 2));
}
