//! Interrupts from a device to the vector that the CPU would get, through [`Machine::service`], on
//! the virtual clock.

use machine::clock::ClockSource;
use machine::devices::{Key, KeyEvent, PIT_FREQUENCY};
use machine::{Machine, MachineConfig, Vector};
use std::time::Duration;

/// A machine whose controllers are programmed as kernels do, with these lines unmasked.
fn machine(unmasked: u16) -> Machine {
    let config = MachineConfig { clock: ClockSource::Virtual, ..MachineConfig::default() };
    let mut machine = Machine::new(&config).unwrap();
    let [low, high] = (!unmasked).to_le_bytes();
    for (port, words) in [(0x20, [0x20, 4, 1, low]), (0xa0, [0x28, 2, 1, high])] {
        machine.bus.port_write(port, 1, 0x11);
        for word in words {
            machine.bus.port_write(port + 1, 1, u32::from(word));
        }
    }
    assert_eq!(machine.service(), None);
    machine
}

fn program_timer(machine: &mut Machine, mode: u32, count: u32) {
    machine.bus.port_write(0x43, 1, 0x30 | mode << 1);
    machine.bus.port_write(0x40, 1, count & 0xff);
    machine.bus.port_write(0x40, 1, count >> 8);
    assert!(machine.signals().attention(), "a write that moves an event is noticed");
    machine.service();
}

fn end_of_interrupt(machine: &mut Machine) {
    machine.bus.port_write(0xa0, 1, 0x20);
    machine.bus.port_write(0x20, 1, 0x20);
}

#[test]
fn the_timer_interrupts_a_halted_guest_at_its_rate() {
    let mut machine = machine(1);
    program_timer(&mut machine, 2, 11932);
    for tick in 1..=100 {
        machine.wait_for_event(Duration::from_secs(1));
        machine.service();
        assert!(machine.interrupt_requested());
        assert_eq!(machine.acknowledge_interrupt(), Vector(0x20));
        assert!(!machine.interrupt_requested());
        end_of_interrupt(&mut machine);
        machine.service();
        assert!(!machine.interrupt_requested());
        let expected = (1 + 11932 * tick) * 1_000_000_000 / PIT_FREQUENCY;
        assert!((expected..=expected + 1).contains(&machine.clock().now()));
    }
}

#[test]
fn a_guest_that_was_not_served_gets_one_tick_and_no_flood() {
    let mut machine = machine(1);
    program_timer(&mut machine, 3, 1193);
    machine.clock().skip_to(1_000_000_000);
    machine.service();
    assert_eq!(machine.acknowledge_interrupt(), Vector(0x20));
    end_of_interrupt(&mut machine);
    machine.service();
    assert!(!machine.interrupt_requested());
}

#[test]
fn unmasking_and_end_of_interrupt_are_noticed_at_once() {
    let mut machine = machine(0);
    program_timer(&mut machine, 0, 100);
    machine.wait_for_event(Duration::from_secs(1));
    machine.service();
    assert!(!machine.interrupt_requested());
    machine.bus.port_write(0x21, 1, 0xfe);
    assert!(machine.signals().attention());
    machine.service();
    assert!(machine.interrupt_requested());
}

#[test]
fn serial_input_from_another_thread_wakes_a_halted_guest() {
    let mut machine = machine(1 << 4);
    machine.bus.port_write(0x3fc, 1, 0x0b);
    machine.bus.port_write(0x3f9, 1, 1);
    machine.service();
    let input = machine.bus.devices.input().clone();
    let sender = std::thread::spawn(move || input.send_serial(b"x"));
    while !machine.interrupt_requested() {
        machine.wait_for_event(Duration::from_secs(10));
        machine.service();
    }
    assert_eq!(sender.join().unwrap(), 1);
    assert_eq!(machine.acknowledge_interrupt(), Vector(0x24));
    assert_eq!(machine.bus.port_read(0x3f8, 1), u32::from(b'x'));
}

#[test]
fn keys_interrupt_on_line_1_once_a_byte() {
    let mut machine = machine(1 << 1);
    let input = machine.bus.devices.input().clone();
    let press = |pressed| KeyEvent { key: Key::ENTER, pressed };
    assert_eq!(input.send_keys(&[press(true), press(false)]), 2);
    for code in [0x1c, 0x9c] {
        machine.service();
        assert_eq!(machine.acknowledge_interrupt(), Vector(0x21));
        assert_eq!(machine.bus.port_read(0x60, 1), code);
        end_of_interrupt(&mut machine);
    }
    machine.service();
    assert!(!machine.interrupt_requested());
}

#[test]
fn the_clock_s_interrupt_comes_through_the_slave() {
    let mut machine = machine(1 << 2 | 1 << 8);
    for (index, value) in [(0x0a, 0x26), (0x0b, 0x42)] {
        machine.bus.port_write(0x70, 1, index);
        machine.bus.port_write(0x71, 1, value);
    }
    machine.service();
    for _ in 0..10 {
        machine.wait_for_event(Duration::from_secs(1));
        machine.service();
        assert_eq!(machine.acknowledge_interrupt(), Vector(0x28));
        machine.bus.port_write(0x70, 1, 0x0c);
        assert_eq!(machine.bus.port_read(0x71, 1) & 0xc0, 0xc0);
        end_of_interrupt(&mut machine);
        machine.service();
    }
    assert_eq!(machine.clock().now() / 1_000_000, 9, "ten periods of 1/1024 s");
}

#[test]
fn a_reset_silences_every_device() {
    let mut machine = machine(0xffff);
    program_timer(&mut machine, 2, 1000);
    machine.bus.port_write(0x3fc, 1, 0x0b);
    machine.bus.port_write(0x3f9, 1, 2);
    machine.clock().skip_to(1_000_000_000);
    machine.service();
    assert!(machine.interrupt_requested());
    machine.reset();
    assert_eq!(machine.service(), None);
    assert!(!machine.interrupt_requested());
    assert_eq!((machine.signals().levels(), machine.next_event()), (0, None));
}
