//! What the architecture leaves open: code that uses flags which are undefined makes no difference
//! where the strategy runs it on the CPU that the emulator follows, and is told from an error where a
//! strategy has other values in them. So it is with translations that nobody has flushed.

use iced_x86::RflagsBits;
use machine::boot::{BootSource, ImageKind, Kernel};
use machine::cpu::Eflags;
use machine::{Machine, MachineConfig};
use ringside::lockstep::{End, Finding, Lockstep, Open, Options};
use ringside::strategies;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use strategy::{Error, ExitCounts, Limit, Stop, Strategy, StrategyId};
use workloads::programs::{Program, layout};

/// A process has one window at linear address 0.
static ONE_WINDOW: Mutex<()> = Mutex::new(());

/// AAA, and what shows the flags that it leaves undefined: an interrupt, a fault, PUSHF, Jcc, ADC.
const USES: [(&str, &str); 6] = [
    ("user", "37 cd 04"),
    ("user", "37 0f 0b"),
    ("user", "37 9c 5b"),
    ("user", "37 78 01 90"),
    ("user", "f7 e1 78 01 40"),
    ("kernel", "37 cd 04 c1 c0 07 9c 59"),
];

/// A program of one block.
fn program(mode: &str, code: &str) -> Machine {
    paged_program("plain", mode, code)
}

fn paged_program(paging: &str, mode: &str, code: &str) -> Machine {
    let ring = if mode == "user" { "[147, 155]" } else { "[128, 136]" };
    let text = format!(
        "seed = \"0x1\"
        rounds = 1
        paging = \"{paging}\"
        cr0 = 0
        cr4 = 0
        restores = false
        data = \"0x0000000000000000\"
        [[block]]
        mode = \"{mode}\"
        gap = 0
        flags = 2
        code_and_stack = {ring}
        data = [155, 155, 155, 155]
        registers = [205, 3, 0, 0, {}, 0, 0, 0]
        code = [\"{code}\"]",
        layout::DATA + 0x100,
    );
    let program: Program = toml::from_str(&text).unwrap();
    let config = MachineConfig { memory_bytes: layout::MEMORY, ..MachineConfig::default() };
    let mut machine = Machine::new(&config).unwrap();
    let kernel = Kernel { path: "program".into(), bytes: program.assemble().unwrap() };
    let kind = Some(ImageKind::Multiboot);
    machine::boot::load(&mut machine, &BootSource { kernel, kind, ..Default::default() }).unwrap();
    machine
}

fn compare(strategy: Box<dyn Strategy>, make: impl Fn() -> Machine, stretch: u64) -> End {
    let options = Options { stretch, all_memory: true, ..Options::default() };
    let mut lockstep = Lockstep::new(strategy, make(), make(), options).unwrap();
    lockstep.run(5_000).unwrap()
}

#[test]
fn undefined_flags_are_as_on_the_cpu_under_every_strategy() {
    let _alone = ONE_WINDOW.lock().unwrap_or_else(PoisonError::into_inner);
    for id in StrategyId::ALL {
        if strategies::is_substituted(id) || !strategies::support(id).is_usable() {
            continue;
        }
        for (mode, code) in USES {
            if code.contains("9c") && strategies::can_watch(id) {
                // PUSHF shows the host's IF, as is stated, wherever it happens to run natively.
                continue;
            }
            for stretch in [1, 20, 2_000] {
                let end = compare(strategies::make(id).unwrap(), || program(mode, code), stretch);
                match end {
                    End::Stopped(Stop::Exit(0)) => {}
                    End::Different(finding) => panic!("{id}, {code}:\n{finding}"),
                    other => panic!("{id}, {code}: {other:?}"),
                }
            }
        }
    }
}

/// Where within a repetition a CPU stops is left open, too. This one reads device memory 3.4 billion times.
#[test]
fn a_repetition_that_does_not_end_is_compared_as_far_as_time_allows() {
    // mov ecx, 0cb000000h; mov esi, 40000000h; repne lodsb
    const CODE: &str = "b9 00 00 00 cb be 00 00 00 40 f2 ac";
    let _alone = ONE_WINDOW.lock().unwrap_or_else(PoisonError::into_inner);
    for id in StrategyId::ALL {
        if strategies::is_substituted(id) || !strategies::support(id).is_usable() {
            continue;
        }
        let make = || paged_program("off", "kernel", CODE);
        let patience = Some(Duration::from_millis(300));
        let options = Options { stretch: 1_000, patience, ..Options::default() };
        let strategy = strategies::make(id).unwrap();
        let mut lockstep = Lockstep::new(strategy, make(), make(), options).unwrap();
        let end = lockstep.run(u64::MAX).unwrap();
        assert!(matches!(end, End::Limit), "{id}: {end:?}");
        let cpu = &lockstep.machine().cpu;
        let [left, next] = [cpu.registers[1], cpu.registers[6]];
        assert_eq!(next - 0x4000_0000, 0xcb00_0000 - left, "{id}");
        assert!(next > 0x4000_0000, "{id}");
    }
}

/// What a repeated copy reads that it has just written by another linear address.
#[test]
fn a_copy_that_overlaps_by_two_addresses_is_told_from_an_error() {
    // mov ecx, 1bh; mov esi, 0c01200c2h; mov edi, 1200dbh; rep movsb
    const CODE: &str = "b9 1b 00 00 00 be c2 00 12 c0 bf db 00 12 00 f3 a4";
    let _alone = ONE_WINDOW.lock().unwrap_or_else(PoisonError::into_inner);
    for id in StrategyId::ALL {
        if strategies::is_substituted(id) || !strategies::support(id).is_usable() {
            continue;
        }
        match compare(strategies::make(id).unwrap(), || program("user", CODE), 2_000) {
            End::Stopped(Stop::Exit(0)) => {}
            End::Different(found) if found.open == Some(Open::AliasedCopy) => {}
            other => panic!("{id}: {other:?}"),
        }
    }
}

/// A CPU that does otherwise than the emulator.
#[derive(Default)]
struct OtherMaker {
    /// It inverts SF and OF where an instruction leaves them undefined.
    inverts: bool,
    /// It inverts CF there as well.
    spoils: bool,
    /// It keeps no translations.
    forgets: bool,
    exits: ExitCounts,
}

impl Strategy for OtherMaker {
    fn id(&self) -> StrategyId {
        StrategyId::Interpretation
    }

    fn run(&mut self, machine: &mut Machine, limit: &Limit) -> Result<Stop, Error> {
        for _ in 0..limit.instructions.unwrap_or(u64::MAX) {
            if let Some(request) = machine.service() {
                return Ok(request.into());
            }
            if self.forgets {
                machine.tlb.flush();
            }
            let instruction = emulator::instruction(machine);
            let outcome = emulator::step(machine);
            let undefined = instruction.map_or(0, |instruction| instruction.rflags_undefined());
            let mut inverted = Eflags::empty();
            inverted.set(Eflags::SF, self.inverts && undefined & RflagsBits::SF != 0);
            inverted.set(Eflags::OF, self.inverts && undefined & RflagsBits::OF != 0);
            inverted.set(Eflags::CF, self.spoils && !inverted.is_empty());
            machine.cpu.flags.merge(!machine.cpu.flags.bits(), inverted);
            match outcome {
                emulator::Outcome::Continue => {}
                emulator::Outcome::Halted => return Ok(Stop::Halted),
                emulator::Outcome::Shutdown => return Ok(Stop::TripleFault),
            }
        }
        Ok(Stop::Limit)
    }

    fn exits(&self) -> &ExitCounts {
        &self.exits
    }
}

/// What makes it different from the emulator.
fn finding(other: OtherMaker, mode: &str, code: &str) -> Box<Finding> {
    paged_finding(other, "plain", mode, code)
}

fn paged_finding(other: OtherMaker, paging: &str, mode: &str, code: &str) -> Box<Finding> {
    match compare(Box::new(other), || paged_program(paging, mode, code), 2_000) {
        End::Different(finding) => finding,
        other => panic!("{other:?}"),
    }
}

#[test]
fn other_values_in_undefined_flags_are_told_from_errors() {
    for (mode, code) in USES {
        let inverts = OtherMaker { inverts: true, ..OtherMaker::default() };
        let found = finding(inverts, mode, code);
        let Some(Open::Flags { flags, .. }) = &found.open else { panic!("{found}") };
        assert!((Eflags::SF | Eflags::OF).contains(*flags), "{flags:?}");
        assert!(found.to_string().contains("no error, for the architecture leaves it open"));
        let spoils = OtherMaker { inverts: true, spoils: true, ..OtherMaker::default() };
        let found = finding(spoils, mode, code);
        assert_eq!(found.open, None, "{found}");
    }
}

#[test]
fn translations_that_nobody_has_flushed_are_told_from_errors() {
    const READ: &str = "a1 00 10 12 00";
    // Of the page behind it.
    const INVLPG_OTHER: &str = "0f 01 3d 00 20 12 00";
    const NOPS: &str = "90 90 90 90 90";
    let bytes = |value: u32| value.to_le_bytes().map(|byte| format!("{byte:02x}")).join(" ");
    let entry = |size| layout::TABLES + ((layout::DATA + 0x1000) >> 12) * size;
    // and byte [entry], 0feh; mov byte [entry + 4], 1
    let absent = format!("80 25 {} fe", bytes(entry(4)));
    let elsewhere = format!("c6 05 {} 01", bytes(entry(8) + 4));
    for (paging, edit, flush) in [
        ("plain", &absent, ""),
        ("plain", &absent, INVLPG_OTHER),
        ("wide", &elsewhere, ""),
        ("wide", &elsewhere, INVLPG_OTHER),
    ] {
        let code = format!("{READ} {edit} {flush} {NOPS} {READ}");
        let forgets = OtherMaker { forgets: true, ..OtherMaker::default() };
        let found = paged_finding(forgets, paging, "kernel", &code);
        assert_eq!(found.open, Some(Open::Translations), "{paging}, {flush}: {found}");
    }
}
