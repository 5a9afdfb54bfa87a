//! What is recorded of each site, and how often it ran.

use crate::guest::{CODE, Guest};
use crate::patches::{as_interpreted_by, sensitive_code};
use code_patching::{Became, CodePatching, Mode, Need, Obstacle, Options, Site, Way};
use strategy::{Limit, Stop, Strategy};

guest_code! {
    // CLI and STI 5,000 times, and IN as often: at 5, 15 and 24.
    loops: ".code32",
        "mov ecx, 5000", "2:", "cli", "inc ebx", "inc ebx", "nop", "nop", "nop", "nop", "nop", "nop", "nop",
        "sti", "inc ebx", "nop", "nop", "nop", "nop", "nop", "nop", "nop", "in al, 0x61", "nop", "nop", "nop",
        "dec ecx", "jnz 2b", "mov al, 1", "out 0xf4, al";
    // CLI between two places that are branched to: at 7.
    crowded: ".code32",
        "mov ecx, 100", "jmp 3f", "3:", "cli", "2:", "nop", "dec ecx", "jnz 2b", "mov al, 1", "out 0xf4, al";
}

fn run(options: Options, code: &[u8]) -> Guest {
    let mut guest = Guest::with(code);
    guest.strategy = CodePatching::watched(options).unwrap();
    assert_eq!(guest.run(), Stop::Exit(1));
    guest
}

fn site(guest: &Guest, offset: u32) -> Site {
    let sites = guest.strategy.sites();
    let found = sites.iter().find(|site| site.address == CODE + offset).cloned();
    found.unwrap_or_else(|| panic!("no site at {offset}: {sites:x?}"))
}

/// A signal while a stub counts has it count twice: that is rare.
fn is_about(count: u64, expected: u64) -> bool {
    (expected..expected + expected / 50 + 5).contains(&count)
}

#[test]
fn runs_of_stubs_are_counted_where_that_is_asked_for() {
    let guest = run(Options::default(), loops());
    for (offset, byte) in [(5, 0xfa), (15, 0xfb)] {
        let site = site(&guest, offset);
        assert_eq!((site.bytes.as_slice(), site.need), (&[byte][..], Need::Stub));
        assert!(is_about(site.runs.in_stub.unwrap(), 5000), "{site:?}");
        let Became::Stub(jump) = site.became else { panic!("{site:?}") };
        assert_eq!((jump.way, jump.padding), (Way::Virtual, 0));
        assert!(jump.covers >= 5 && jump.moved > 0, "{jump:?}");
    }
    drop(guest);
    let mut unwatched = Guest::with(loops());
    assert_eq!(unwatched.run(), Stop::Exit(1));
    assert_eq!(site(&unwatched, 5).runs.in_stub, None);
    assert!(unwatched.strategy.moments().is_empty());
}

#[test]
fn crossings_are_counted_by_the_monitor() {
    for strategy in [CodePatching::new, CodePatching::watched] {
        let mut guest = Guest::with(loops());
        guest.strategy = strategy(Options::default()).unwrap();
        assert_eq!(guest.run(), Stop::Exit(1));
        let input = site(&guest, 24);
        assert_eq!((input.bytes.as_slice(), input.need), (&[0xe4, 0x61][..], Need::Monitor));
        assert!(matches!(input.became, Became::Stub(jump) if jump.way == Way::Crossing));
        assert_eq!((input.runs.crossings, input.runs.traps, input.runs.total()), (5000, 0, 5000));
    }
}

#[test]
fn a_site_without_room_says_why_and_how_often_it_trapped() {
    let guest = run(Options::default(), crowded());
    let site = site(&guest, 7);
    assert_eq!(site.became, Became::TrapByte(Obstacle::Target));
    assert_eq!((site.runs.traps, site.runs.total()), (1, 1));
    assert_eq!(guest.strategy.statistics().without_room, 1);
}

#[test]
fn on_trap_mode_has_sites_before_and_after_the_threshold() {
    let options = Options { mode: Mode::OnTrap, threshold: 20.try_into().unwrap() };
    let guest = run(options, loops());
    let (cli, input) = (site(&guest, 5), site(&guest, 24));
    assert_eq!(cli.runs.traps, 20);
    assert!(is_about(cli.runs.total(), 5000), "{cli:?}");
    assert_eq!((input.runs.traps, input.runs.crossings), (20, 4980));
    let last = guest.strategy.sites().pop().unwrap();
    assert_eq!((last.bytes, last.became, last.runs.traps), (vec![0xe6, 0xf4], Became::Left, 1));
}

#[test]
fn moments_tell_how_the_guest_warms_up() {
    for mode in Mode::ALL {
        let guest = run(Options { mode, threshold: 20.try_into().unwrap() }, loops());
        let moments = guest.strategy.moments();
        assert!(moments.len() > 3, "{moments:?}");
        assert!(moments.is_sorted_by(|a, b| {
            a.at <= b.at
                && a.traps <= b.traps
                && a.crossings <= b.crossings
                && a.patches <= b.patches
        }));
        let last = moments[moments.len() - 1];
        assert_eq!(last.patches, guest.strategy.statistics().stubs);
        assert!((4900..5100).contains(&last.crossings), "{last:?}");
        let traps = if mode == Mode::OnTrap { 60..80 } else { 0..20 };
        assert!(traps.contains(&last.traps), "{last:?}");
    }
}

#[test]
fn counting_changes_nothing_for_the_guest() {
    let guest =
        as_interpreted_by(CodePatching::watched(Options::default()).unwrap(), sensitive_code());
    let counted = guest.strategy.sites().into_iter().filter_map(|site| site.runs.in_stub);
    assert!(counted.clone().count() > 10);
    assert!(
        counted.clone().all(|count| is_about(count, 2000)),
        "{:?}",
        counted.collect::<Vec<_>>()
    );
}

#[test]
fn counts_go_on_behind_another_strategy() {
    let mut guest = Guest::with(loops());
    guest.strategy = CodePatching::watched(Options::default()).unwrap();
    let mut other = interpretation::Interpretation::new();
    let (machine, strategy) = guest.machine_and_strategy();
    let mut stop = Stop::Limit;
    while stop == Stop::Limit {
        stop = strategy.run(machine, &Limit::instructions(100_000)).unwrap();
        if stop == Stop::Limit {
            stop = other.run(machine, &Limit::instructions(10)).unwrap();
        }
    }
    assert_eq!(stop, Stop::Exit(1));
    let sites = guest.strategy.sites();
    let addresses: std::collections::HashSet<u32> = sites.iter().map(|site| site.address).collect();
    assert_eq!(addresses.len(), sites.len(), "a site is there twice");
    let cli = site(&guest, 5).runs.total();
    assert!((4000..5100).contains(&cli), "{cli}");
}
