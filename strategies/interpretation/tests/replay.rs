//! Runs that were recorded on the host's clock, and repeated.

mod support;

use machine::clock::ClockSource;
use machine::tap::{Divergence, Event, Expected, Found};
use machine::{Fingerprint, Machine, RestoreOptions};
use std::fs::File;
use std::io::{BufReader, BufWriter};
use strategy::{Limit, Stop};
use support::{a_minute, boot, checksum, console, run};

/// Guests that have to do with devices, and iterations that take some ten milliseconds.
const GUESTS: [(&str, u32); 5] =
    [("timer", 400), ("disk", 8), ("console", 5_000), ("idle", 20), ("demand-paging", 20)];

/// A recorded run and how it ended.
struct Recording {
    /// The machine before it.
    saved: Vec<u8>,
    events: Vec<Event>,
    stop: Stop,
    instructions: u64,
    fingerprint: Fingerprint,
    // The disk has to be there for the replay.
    guest: support::Guest,
}

fn record(name: &str, iterations: u32, limit: &Limit) -> Recording {
    let mut guest = boot(name, iterations, ClockSource::Host);
    let machine = &mut guest.machine;
    let mut saved = Vec::new();
    machine.save(&mut saved).unwrap();
    machine.record(1 << 22);
    let stop = run(machine, limit);
    let events = machine.finish_recording().unwrap();
    let (instructions, fingerprint) =
        (machine.counters.instructions, machine.fingerprint().unwrap());
    Recording { saved, events, stop, instructions, fingerprint, guest }
}

fn before(recording: &Recording) -> Machine {
    Machine::restore(&mut recording.saved.as_slice(), &RestoreOptions::default()).unwrap()
}

/// Replays a log, and tells the machine afterwards.
fn replay(recording: &Recording, events: Vec<Event>) -> (Machine, Stop, Option<Divergence>) {
    let mut machine = before(recording);
    machine.replay(events);
    let stop = run(&mut machine, &a_minute());
    let divergence = machine.finish_replay().unwrap();
    (machine, stop, divergence)
}

fn interrupts(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Interrupt { .. })).count()
}

#[test]
fn a_replay_ends_as_its_recording_did() {
    for (name, iterations) in GUESTS {
        let mut recording = record(name, iterations, &a_minute());
        assert_eq!(recording.stop, Stop::Exit(0), "{name}");
        let written = console(&mut recording.guest.machine);
        assert_eq!(checksum(&written), Some(recording.guest.image.checksum), "{name}");
        let (machine, stop, divergence) = replay(&recording, recording.events.clone());
        assert_eq!(divergence, None, "{name}");
        assert_eq!(stop, recording.stop, "{name}");
        assert_eq!(machine.counters.instructions, recording.instructions, "{name}");
        assert_eq!(machine.fingerprint().unwrap(), recording.fingerprint, "{name}");
        println!("{name}: {} events", recording.events.len());
    }
}

#[test]
fn there_are_interrupts_in_what_is_replayed() {
    for (name, iterations) in [("timer", 400), ("disk", 8), ("idle", 20)] {
        let recording = record(name, iterations, &a_minute());
        let count = interrupts(&recording.events);
        assert!(count > 3, "{name}: {count}");
    }
}

#[test]
fn a_recording_that_stops_anywhere_is_replayed_up_to_there() {
    for count in [0, 1, 777, 123_456, 1_000_000] {
        let recording = record("timer", 400, &Limit::instructions(count));
        assert_eq!(recording.stop, Stop::Limit);
        let (machine, stop, divergence) = replay(&recording, recording.events.clone());
        assert_eq!((divergence, stop), (None, Stop::Requested), "{count}");
        assert_eq!(machine.fingerprint().unwrap(), recording.fingerprint, "{count}");
    }
}

#[test]
fn a_replay_goes_through_a_file_as_well() {
    let folder = tempfile::tempdir().unwrap();
    for (name, iterations) in [("timer", 400), ("console", 40_000)] {
        let path = folder.path().join(name);
        let mut guest = boot(name, iterations, ClockSource::Host);
        let mut saved = Vec::new();
        guest.machine.save(&mut saved).unwrap();
        let file = BufWriter::new(File::create(&path).unwrap());
        guest.machine.record_to(Box::new(file)).unwrap();
        assert_eq!(run(&mut guest.machine, &a_minute()), Stop::Exit(0));
        assert_eq!(guest.machine.finish_recording().unwrap(), []);

        let mut machine =
            Machine::restore(&mut saved.as_slice(), &RestoreOptions::default()).unwrap();
        machine.replay_from(Box::new(BufReader::new(File::open(&path).unwrap()))).unwrap();
        assert_eq!(run(&mut machine, &a_minute()), Stop::Exit(0));
        assert_eq!(machine.finish_replay().unwrap(), None, "{name}");
        assert_eq!(machine.fingerprint().unwrap(), guest.machine.fingerprint().unwrap());

        // The machine is not any more what it was.
        let file = File::open(&path).unwrap();
        let message = machine.replay_from(Box::new(file)).unwrap_err().to_string();
        assert!(message.starts_with("the recording began in another state"), "{message}");
    }
}

#[test]
fn a_damaged_log_is_replayed_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut guest = boot("console", 40_000, ClockSource::Host);
    let mut saved = Vec::new();
    guest.machine.save(&mut saved).unwrap();
    guest.machine.record_to(Box::new(File::create(&path).unwrap())).unwrap();
    run(&mut guest.machine, &a_minute());
    guest.machine.finish_recording().unwrap();
    let whole = std::fs::read(&path).unwrap();
    for (damage, expected) in [(whole.len() / 2, "truncated in section events"), (20, "truncated")]
    {
        std::fs::write(&path, &whole[..damage]).unwrap();
        let mut machine =
            Machine::restore(&mut saved.as_slice(), &RestoreOptions::default()).unwrap();
        let begun = machine.replay_from(Box::new(File::open(&path).unwrap()));
        let message = match begun {
            Err(error) => error.to_string(),
            Ok(()) => {
                assert_eq!(run(&mut machine, &a_minute()), Stop::Requested);
                machine.divergence().unwrap().to_string()
            }
        };
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_changed_entry_is_where_the_replay_diverges() {
    let recording = record("disk", 8, &a_minute());
    let changed = |index: usize, event: Event| {
        let mut events = recording.events.clone();
        events[index] = event;
        replay(&recording, events).2.expect("a divergence")
    };
    let find = |wanted: fn(&Event) -> bool| recording.events.iter().position(wanted).unwrap();

    let index = find(|event| matches!(event, Event::PortWrite { port: 0x1f7, .. }));
    let Event::PortWrite { port, size, value } = recording.events[index] else { unreachable!() };
    let event = Event::PortWrite { port, size, value: value ^ 1 };
    let divergence = changed(index, event);
    assert_eq!(divergence.index, index as u64);
    assert_eq!(divergence.expected, Expected::Event(event));
    assert_eq!(divergence.found, Found::PortWrite { port, size, value });

    let index = find(|event| matches!(event, Event::Interrupt { .. }));
    let Event::Interrupt { vector, mut at } = recording.events[index] else { unreachable!() };
    at.eip ^= 0x8000_0000;
    let divergence = changed(index, Event::Interrupt { vector, at });
    assert_eq!(divergence.index, index as u64, "{divergence}");
    assert!(matches!(divergence.found, Found::Passed(_) | Found::Halt(_)), "{divergence}");

    // What was read goes into the checksum, so the guest writes another one.
    let data = |event: &Event| matches!(event, Event::PortRead { port: 0x1f0, .. });
    let index = find(data);
    let Event::PortRead { port, size, value } = recording.events[index] else { unreachable!() };
    let divergence = changed(index, Event::PortRead { port, size, value: value ^ 0x10 });
    assert!(divergence.index > index as u64, "{divergence}");
    assert!(matches!(divergence.found, Found::PortWrite { port: 0xe9, .. }), "{divergence}");
}

#[test]
fn a_log_that_is_cut_short_ends_the_run() {
    // A guest that never waits: one in HLT stops at the end of its log without a divergence.
    let recording = record("console", 500, &a_minute());
    for cut in [0, 1, recording.events.len() / 2, recording.events.len() - 3] {
        let (_, stop, divergence) = replay(&recording, recording.events[..cut].to_vec());
        assert_eq!(stop, Stop::Requested);
        let divergence = divergence.expect("a divergence");
        assert_eq!((divergence.index, divergence.expected), (cut as u64, Expected::Nothing));
    }
}

#[test]
fn a_log_comes_in_parts_as_well() {
    let mut leader = boot("timer", 100, ClockSource::Host);
    let mut saved = Vec::new();
    leader.machine.save(&mut saved).unwrap();
    let mut follower = Machine::restore(&mut saved.as_slice(), &RestoreOptions::default()).unwrap();
    leader.machine.record(1 << 20);
    follower.replay(Vec::new());
    loop {
        let stretch = Limit::instructions(10_007);
        let stop = run(&mut leader.machine, &stretch);
        follower.replay_more(leader.machine.take_events());
        let followed = run(&mut follower, &stretch);
        assert_eq!((follower.divergence(), followed), (None, stop));
        assert!(follower.cpu.is_same(&leader.machine.cpu));
        if stop != Stop::Limit {
            break;
        }
    }
    assert_eq!(machine::difference(&leader.machine, &follower).unwrap(), []);
}

#[test]
fn a_full_recording_stops_the_run_and_says_so() {
    let mut guest = boot("console", 4_000, ClockSource::Host);
    guest.machine.record(100);
    assert_eq!(run(&mut guest.machine, &a_minute()), Stop::Requested);
    let message = guest.machine.finish_recording().unwrap_err().to_string();
    assert_eq!(message, "section events: more than the 100 that are to be kept");
}

#[test]
fn random_logs_do_no_harm() {
    let recording = record("disk", 2, &a_minute());
    let mut random = 88_172_645_463_325_252u64;
    let mut next = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize % bound
    };
    for _ in 0..100 {
        let mut events = recording.events.clone();
        for _ in 0..=next(4) {
            let (a, b) = (next(events.len()), next(events.len()));
            match next(3) {
                0 => events.swap(a, b),
                1 => drop(events.remove(a)),
                _ => events.insert(a, events[b]),
            }
        }
        let mut machine = before(&recording);
        machine.replay(events);
        // A guest that waits for what is not in the log any more may wait for ever.
        run(&mut machine, &Limit::instructions(2 * recording.instructions));
        machine.finish_replay().unwrap();
    }
}
