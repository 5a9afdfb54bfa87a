//! The hidden `ringside vm-worker`: the process in which a virtual machine runs. Serial input comes
//! from its standard input, serial output goes to its standard output, and how the guest ended goes
//! into a file.

use crate::config::{Vm, split_module};
use crate::strategies;
use anyhow::Context;
use machine::boot::{BootSource, Kernel, Module};
use machine::config::DiskConfig;
use machine::devices::HostInput;
use machine::{Cpu, Machine, MachineConfig};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use strategy::{Limit, Stop};

/// How long a full serial port is waited for.
const RETRY: Duration = Duration::from_millis(2);

/// What a worker is told.
#[derive(clap::Args, Debug)]
pub struct WorkerArguments {
    /// The virtual machine
    plan: PathBuf,
    /// Where it is written how the guest ended
    report: PathBuf,
}

/// How a guest ended. Tagged, because a TOML document is a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "end", content = "detail", rename_all = "kebab-case")]
pub(super) enum VmEnd {
    /// It wrote this value to the exit port.
    Exit(u8),
    /// It switched itself off, or reset itself and was not to be booted again.
    PowerOff,
    /// Its CPU shut down, here.
    TripleFault(String),
    /// It halted for ever, here.
    Halted(String),
    /// Its time was over.
    Timeout,
    /// It could not be set up.
    Setup(String),
    /// The host failed.
    Failed(String),
}

/// The worker itself.
///
/// # Errors
/// When the files by which it is told, or tells, cannot be used.
pub fn main(arguments: &WorkerArguments) -> anyhow::Result<ExitCode> {
    let plan = std::fs::read_to_string(&arguments.plan).context("the plan cannot be read")?;
    let vm: Vm = toml::from_str(&plan).context("the plan is damaged")?;
    let end = match Guest::new(&vm) {
        Ok(guest) => guest.run(&vm).unwrap_or_else(|error| VmEnd::Failed(format!("{error:#}"))),
        Err(error) => VmEnd::Setup(format!("{error:#}")),
    };
    std::fs::write(&arguments.report, toml::to_string(&end)?)?;
    Ok(ExitCode::SUCCESS)
}

struct Guest {
    machine: Machine,
    source: BootSource,
}

impl Guest {
    fn new(vm: &Vm) -> anyhow::Result<Guest> {
        let source = source(vm)?;
        let rom = if vm.rom.is_some() { source.kernel.bytes.clone() } else { Vec::new() };
        if let Some(path) = &vm.rom {
            machine::boot::check_rom(path, &rom)?;
        }
        let disk = vm.disk.clone();
        let config = MachineConfig {
            memory_bytes: vm.memory_bytes,
            cpu: vm.cpu,
            clock: vm.clock,
            disk: disk.map(|path| DiskConfig { path, read_only: vm.disk_read_only }),
            rom,
        };
        let mut machine = Machine::new(&config)?;
        let devices = &mut machine.bus.devices;
        devices.serial.set_output(Box::new(std::io::stdout()));
        if vm.debug_console {
            devices.debug_console.set_output(Box::new(std::io::stderr()));
        }
        forward_input(devices.input().clone());
        machine::boot::load(&mut machine, &source)?;
        Ok(Guest { machine, source })
    }

    /// Runs the guest to its end, through resets.
    fn run(mut self, vm: &Vm) -> anyhow::Result<VmEnd> {
        let deadline = vm.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let limit = Limit { instructions: None, deadline };
        loop {
            // A new one for each boot: nothing of the old guest's code is left in it.
            let mut strategy = strategies::make(vm.strategy)?;
            let stop = strategy.run(&mut self.machine, &limit)?;
            tracing::debug!(target: "run", "{stop} at {}", place(&self.machine.cpu));
            match stop {
                Stop::Reset if vm.reboot => {
                    self.machine.reset();
                    machine::boot::load(&mut self.machine, &self.source)?;
                }
                Stop::Reset | Stop::PowerOff => return Ok(VmEnd::PowerOff),
                Stop::Exit(value) => return Ok(VmEnd::Exit(value)),
                Stop::Limit | Stop::Requested => return Ok(VmEnd::Timeout),
                Stop::TripleFault => return Ok(VmEnd::TripleFault(place(&self.machine.cpu))),
                Stop::Halted => return Ok(VmEnd::Halted(place(&self.machine.cpu))),
            }
        }
    }
}

/// Where a CPU is, for messages.
fn place(cpu: &Cpu) -> String {
    let selector = cpu.segment(machine::cpu::SegmentRegister::Cs).selector;
    format!("CS:EIP {:04x}:{:08x}", selector, cpu.eip)
}

fn source(vm: &Vm) -> anyhow::Result<BootSource> {
    let kernel = vm.kernel.as_deref().or(vm.rom.as_deref()).context("nothing to boot")?;
    let (kind, flat) = vm.format();
    let mut modules = Vec::new();
    if let Some(initrd) = &vm.initrd {
        modules.push(Module::read(initrd, "")?);
    }
    for module in &vm.modules {
        let (file, arguments) = split_module(module);
        modules.push(Module::read(Path::new(file), arguments)?);
    }
    Ok(BootSource {
        kernel: Kernel::read(kernel)?,
        kind,
        modules,
        command_line: vm.append.clone(),
        flat,
        boot_disk: vm.disk.is_some(),
    })
}

/// Passes the standard input to the serial port, in a thread that ends with the process.
fn forward_input(input: HostInput) {
    std::thread::spawn(move || {
        let mut part = [0; 1024];
        while let Ok(length @ 1..) = std::io::stdin().read(&mut part) {
            let mut rest = &part[..length];
            while !rest.is_empty() {
                rest = &rest[input.send_serial(rest)..];
                if !rest.is_empty() {
                    std::thread::sleep(RETRY);
                }
            }
        }
    });
}
