//! Errors that are planted into a strategy, and how far they are narrowed down.

use super::{Pair, make};
use libtest_mimic::{Failed, Trial};
use machine::{LinearAddress, Machine, PhysicalAddress};
use ringside::lockstep::{End, Finding, Lockstep, Options, Place, What};
use strategy::{Error, ExitCounts, Limit, Stop, Strategy, StrategyId};

pub(crate) fn trials(_usable: &[StrategyId]) -> Vec<Trial> {
    let trial = |name: &str, test: fn() -> Result<(), String>| {
        Trial::test(format!("planted/{name}"), move || test().map_err(Failed::from))
    };
    vec![
        trial("a wrong flag is found at its instruction", wrong_flag),
        trial("a wrong byte of memory is found at its instruction", wrong_store),
        trial("a stray write is found", stray_write),
        trial("a wrong answer to the world outside is found", wrong_output),
    ]
}

/// A strategy that executes one instruction of its guest wrong.
struct Wrong {
    inner: Box<dyn Strategy>,
    /// The first bytes of that instruction.
    bytes: &'static [u8],
    damage: fn(&mut Machine),
    /// Instructions after which it does so.
    sound: u64,
}

impl Strategy for Wrong {
    fn id(&self) -> StrategyId {
        StrategyId::BinaryTranslation
    }

    fn run(&mut self, machine: &mut Machine, limit: &Limit) -> Result<Stop, Error> {
        let end = machine.counters.instructions + limit.instructions.unwrap_or(u64::MAX / 2);
        while machine.counters.instructions < end {
            let found = code(machine).starts_with(self.bytes);
            let stop = self.inner.run(machine, &Limit::instructions(1))?;
            if found && machine.counters.instructions > self.sound {
                (self.damage)(machine);
            }
            if stop != Stop::Limit {
                return Ok(stop);
            }
        }
        Ok(Stop::Limit)
    }

    fn exits(&self) -> &ExitCounts {
        self.inner.exits()
    }
}

fn code(machine: &mut Machine) -> [u8; 2] {
    let mut bytes = [0; 2];
    let address: LinearAddress = machine.cpu.instruction_address();
    if let Some(mapping) = emulator::mapping(machine, address) {
        machine.memory.read(mapping.physical, &mut bytes);
    }
    bytes
}

fn find(
    workload: &str,
    iterations: u32,
    bytes: &'static [u8],
    damage: fn(&mut Machine),
) -> Result<Finding, String> {
    let Pair { leader, reference, disk: _disk } = Pair::boot(workload, iterations);
    let inner = make(StrategyId::Interpretation);
    let wrong: Box<dyn Strategy> = Box::new(Wrong { inner, bytes, damage, sound: 60_000 });
    let options = Options { stretch: 5_000, ..Options::default() };
    let mut lockstep =
        Lockstep::new(wrong, leader, reference, options).map_err(|error| error.to_string())?;
    match lockstep.run(u64::MAX).map_err(|error| error.to_string())? {
        End::Different(finding) => {
            println!("{finding}");
            Ok(*finding)
        }
        end => Err(format!("not found: {end:?} after {:?}", lockstep.progress())),
    }
}

fn expect(finding: &Finding, what: &What, text: &str) -> Result<(), String> {
    let located = matches!(finding.place, Place::Instruction(_));
    let first = finding.block.first().map_or("", |line| &line.text);
    if located && finding.what == *what && first.contains(text) {
        Ok(())
    } else {
        Err(format!("{text} was to be found, and it was\n{finding}"))
    }
}

/// A flag that the code behind it looks at, or not.
fn wrong_flag() -> Result<(), String> {
    let damage = |machine: &mut Machine| {
        let flags = machine.cpu.flags.bits();
        machine.cpu.flags.set_bits(flags ^ 0x10);
    };
    let finding = find("fib", 2, &[0x48], damage)?;
    expect(&finding, &What::State, "dec eax")?;
    // By itself the flag lives for a few instructions only.
    let text = finding.to_string();
    if text.contains("eflags") && text.contains("-->") { Ok(()) } else { Err(text) }
}

/// PUSH EBX that pushes something else.
fn wrong_store() -> Result<(), String> {
    let damage = |machine: &mut Machine| {
        let stack = LinearAddress(machine.cpu.registers[4]);
        if let Some(mapping) = emulator::mapping(machine, stack) {
            machine.memory.write(mapping.physical, &[0x77, 0x66]);
        }
    };
    expect(&find("fib", 2, &[0x53], damage)?, &What::State, "push ebx")
}

fn stray_write() -> Result<(), String> {
    let damage = |machine: &mut Machine| {
        machine.memory.write(PhysicalAddress(0x3_0000), &[0x5a]);
    };
    let finding = find("fib", 2, &[0x48], damage)?;
    match finding.what {
        What::StrayWrites => Ok(()),
        _ => Err(format!("a stray write was to be found, and it was\n{finding}")),
    }
}

/// OUT to the debug console with another byte.
fn wrong_output() -> Result<(), String> {
    let damage = |machine: &mut Machine| machine.bus.port_write(0x80, 1, 0x55);
    let finding = find("fib", 2, &[0x48], damage)?;
    match &finding.what {
        What::Inputs(_) | What::Unasked(_) => Ok(()),
        _ => Err(format!("a write to a port was to be found, and it was\n{finding}")),
    }
}
