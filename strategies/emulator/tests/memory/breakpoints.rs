//! Breakpoints of a debugger: the guest is before the instruction, and knows nothing of it.

use crate::guest::{CODE, Guest};
use emulator::Outcome;
use machine::LinearAddress;
use machine::cpu::register::*;
use machine::signals::Request;

/// Takes note of a hit, which there must be, with a request to stop.
#[track_caller]
fn take_hit(guest: &mut Guest) {
    assert!(guest.breakpoints.take_hit());
    assert_eq!(guest.signals().take_request(), Some(Request::Stop));
    guest.signals().take_attention();
}

#[test]
fn a_run_stops_within_a_block_and_before_it() {
    let mut guest = Guest::new();
    // Five times inc eax, then jmp to the start: decoded as one block first.
    guest.write(CODE, &[0x40, 0x40, 0x40, 0x40, 0x40, 0xeb, 0xf9]);
    guest.run(12);
    assert_eq!((guest.get(EAX), guest.cpu.eip), (10, CODE));
    guest.breakpoints.set([CODE + 3, CODE + 0x1000].map(LinearAddress));
    for _ in 0..2 {
        // The second time it is there already: nothing is executed.
        assert_eq!(guest.run(100), Outcome::Continue);
        assert_eq!((guest.get(EAX), guest.cpu.eip), (13, CODE + 3));
        take_hit(&mut guest);
    }
    assert_eq!(guest.counters.instructions, 15);
    assert_eq!(guest.step(), Outcome::Continue);
    assert_eq!(guest.get(EAX), 14);
    guest.breakpoints.clear();
    guest.run(2);
    assert!(!guest.breakpoints.is_hit());
}

#[test]
fn an_int3_is_left_alone_while_there_are_breakpoints() {
    let mut guest = Guest::new();
    guest.write(CODE, &[0x40, 0xcc, 0x40]);
    guest.breakpoints.set([LinearAddress(0)]);
    guest.run(100);
    assert_eq!((guest.get(EAX), guest.cpu.eip), (1, CODE + 1));
    take_hit(&mut guest);
    // Nor does a single step go over it.
    assert_eq!(guest.step(), Outcome::Continue);
    assert_eq!((guest.cpu.eip, guest.raised()), (CODE + 1, None));
    take_hit(&mut guest);
    guest.breakpoints.clear();
    guest.step();
    assert_eq!(guest.raised(), Some(3));
}
