//! Whole machines in files: CPU, memory, devices, lines and time.
//!
//! A restored machine goes on where the saved one was, under any strategy: the guest's clock and
//! its time-stamp counter continue from the saved moment, and a timer keeps its phase. On the
//! virtual clock, what happens next is exactly what would have happened.
//!
//! Not in the file are the disk's contents (only what is needed to know it again), the sinks and
//! sources of the host, and what a strategy has cached: a restored machine wants a new strategy.
//!
//! ```text
//! config    sizes, CPU model, clock, disk
//! cpu  clock  lines  devices  counters
//! memory    the first page's number: u32, then whole pages      … for each run that is not zero
//! end
//! ```

mod disk;

pub(crate) use disk::DiskIdentity;

use crate::bus::Bus;
use crate::clock::{Clock, ClockSource, ClockState, LATEST};
use crate::config::DiskConfig;
use crate::contents::{self, PAGE};
use crate::counters::Counters;
use crate::cpu::{Cpu, CpuModel, CpuState};
use crate::devices::DevicesState;
use crate::machine::Parts;
use crate::memory::Memory;
use crate::sections::{Format, FormatError, Reader, Section, Writer, nonsense};
use crate::signals::{Signals, SignalsState};
use crate::{Error, Machine, MachineConfig};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

const FORMAT: Format = Format { what: "saved machine", magic: *b"RINGSAVE", version: 2 };

/// The largest ROM that a machine can have been made with.
const LARGEST_ROM: u64 = 16 << 20;

/// What to do at [`Machine::restore`].
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// Where the disk is now; without it, where it was. Its contents must be those of the moment
    /// in which the machine was saved.
    pub disk: Option<DiskConfig>,
}

/// What the machine is made of.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Config {
    memory_bytes: u64,
    rom_bytes: u64,
    cpu: CpuModel,
    clock: ClockSource,
    disk: Option<DiskIdentity>,
}

/// The lines between devices, host and CPU.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Lines {
    signals: SignalsState,
    interrupt_requested: bool,
}

impl Machine {
    /// Writes the whole machine. Call it while no strategy runs it.
    ///
    /// # Errors
    /// When `to` or the host fails.
    pub fn save(&self, to: &mut impl Write) -> Result<(), Error> {
        let mut file = Writer::new(to, FORMAT)?;
        // The first that is read and the last that is lost: time.
        let clock = self.clock().state();
        file.value("config", &self.saved_config()?)?;
        file.value("cpu", &self.cpu.state())?;
        file.value("clock", &clock)?;
        let interrupt_requested = self.interrupt_requested();
        file.value("lines", &Lines { signals: self.signals().state(), interrupt_requested })?;
        file.value("devices", &self.bus.devices.state())?;
        file.value("counters", &self.counters)?;
        save_memory(&self.memory, &mut file)?;
        file.section("end", &[])?;
        Ok(file.flush()?)
    }

    fn saved_config(&self) -> Result<Config, Error> {
        Ok(Config {
            memory_bytes: self.memory.ram_bytes(),
            rom_bytes: self.memory.rom_bytes(),
            cpu: self.cpu.model,
            clock: self.clock().source(),
            disk: self.bus.devices.disk.identity()?,
        })
    }

    /// A machine as it was saved.
    ///
    /// # Errors
    /// When the file is damaged, of another version, or of a machine with another disk, and when
    /// the host gives no memory.
    pub fn restore(from: &mut impl Read, options: &RestoreOptions) -> Result<Machine, Error> {
        let mut file = Reader::new(from, FORMAT)?;
        let saved: Config = file.value("config")?;
        let config = machine_config(&saved, options)?;
        let cpu: CpuState = file.value("cpu")?;
        let cpu = Cpu::from_state(&cpu).map_err(|reason| nonsense("cpu", reason))?;
        let clock: ClockState = file.value("clock")?;
        if clock.now >= LATEST {
            return Err(nonsense("clock", "a century has passed").into());
        }
        let clock = Clock::resumed(saved.clock, &clock);
        let lines: Lines = file.value("lines")?;
        let signals = Signals::from_state(&lines.signals);
        let memory = Memory::blank(saved.memory_bytes, saved.rom_bytes)?;
        let mut machine = Machine::assemble(&config, Parts { cpu, memory, signals, clock })?;
        disk::check(saved.disk.as_ref(), machine.bus.devices.disk.identity()?.as_ref())?;
        restore_devices(&mut machine.bus, file.value("devices")?)?;
        machine.counters = file.value::<Counters>("counters")?;
        restore_memory(&machine.memory, &mut file)?;
        machine.resume(lines.interrupt_requested);
        Ok(machine)
    }
}

/// What a machine is to be made with, so that the saved state fits into it.
fn machine_config(saved: &Config, options: &RestoreOptions) -> Result<MachineConfig, Error> {
    if saved.rom_bytes > LARGEST_ROM || !saved.rom_bytes.is_multiple_of(PAGE as u64) {
        let reason = format!("a ROM of {} bytes", saved.rom_bytes);
        return Err(nonsense("config", reason).into());
    }
    let recorded = saved.disk.as_ref().map(DiskIdentity::config);
    Ok(MachineConfig {
        memory_bytes: saved.memory_bytes,
        cpu: saved.cpu,
        clock: saved.clock,
        disk: options.disk.clone().or(recorded),
        // Its contents come with those of memory.
        rom: Vec::new(),
    })
}

fn restore_devices(bus: &mut Bus, state: DevicesState) -> Result<(), FormatError> {
    bus.devices.restore(state).map_err(|reason| nonsense("devices", reason))
}

/// What can go wrong between two files.
enum Failure {
    Format(FormatError),
    Host(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Host(error)
    }
}

fn save_memory(memory: &Memory, file: &mut Writer<impl Write>) -> Result<(), Error> {
    let mut payload = Vec::new();
    let saved = contents::for_each_run(memory.file(), memory.file_bytes(), |start, run| {
        payload.clear();
        payload.extend(((start / PAGE as u64) as u32).to_le_bytes());
        payload.extend(run);
        file.section("memory", &payload).map_err(Failure::Format)
    });
    saved.map_err(|failure| match failure {
        Failure::Format(error) => error.into(),
        Failure::Host(error) => Error::HostMemory(error.to_string()),
    })
}

fn restore_memory(memory: &Memory, file: &mut Reader<impl Read>) -> Result<(), Error> {
    loop {
        let section = file.next()?;
        match section.name.as_str() {
            "memory" => restore_pages(memory, &section)?,
            "end" => return Ok(()),
            _ => return Err(FormatError::Order { expected: "end", found: section.name }.into()),
        }
    }
}

fn restore_pages(memory: &Memory, section: &Section) -> Result<(), Error> {
    let pages = section.payload.split_first_chunk().filter(|(_, run)| run.len() % PAGE == 0);
    let Some((first, run)) = pages else {
        return Err(nonsense(&section.name, "no whole pages").into());
    };
    let start = u64::from(u32::from_le_bytes(*first)) * PAGE as u64;
    if start + run.len() as u64 > memory.file_bytes() {
        let reason = format!("pages from {start:#x} on, behind the end");
        return Err(nonsense(&section.name, reason).into());
    }
    memory.file().write_all_at(run, start).map_err(|e| Error::HostMemory(e.to_string()))
}
