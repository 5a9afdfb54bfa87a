//! The hidden `ringside vm-worker`: the process in which a virtual machine runs. Serial input comes
//! from its standard input, serial output goes to its standard output, and how the guest ended goes
//! into a file.

use crate::config::{Vm, split_module};
use crate::strategies;
use anyhow::Context;
use host::sandbox::Policy;
use host::sandbox::record::CrashRecord;
use machine::boot::{BootSource, Kernel, Module};
use machine::config::DiskConfig;
use machine::devices::HostInput;
use machine::{Cpu, Machine, MachineConfig};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use strategy::{Limit, Stop, Strategy};

/// How long a full serial port is waited for.
const RETRY: Duration = Duration::from_millis(2);

/// What a worker is told.
#[derive(clap::Args, Debug)]
pub struct WorkerArguments {
    /// The virtual machine
    plan: PathBuf,
    /// Where it is written how the guest ended
    report: PathBuf,
    /// The file for the crash record
    record: PathBuf,
    /// Keep all rights
    #[arg(long)]
    no_sandbox: bool,
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
    // Later there is no right to make it.
    let mut report = File::create(&arguments.report).context("the report cannot be made")?;
    let record =
        File::options().read(true).write(true).create(true).truncate(true).open(&arguments.record);
    CrashRecord::keep_in(&record?).context("the crash record cannot be kept")?;
    let end = match Guest::new(&vm) {
        Ok(guest) => {
            let end = guest.confine_and_run(&vm, arguments.no_sandbox);
            end.unwrap_or_else(|error| VmEnd::Failed(format!("{error:#}")))
        }
        Err(error) => VmEnd::Setup(format!("{error:#}")),
    };
    report.write_all(toml::to_string(&end)?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The size beyond which the guest's process cannot write a file: the disk's, unless output goes to
/// a file whose size nobody knows.
fn file_bound(vm: &Vm) -> anyhow::Result<Option<u64>> {
    for stream in [std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
        if File::from(stream.try_clone_to_owned()?).metadata()?.is_file() {
            return Ok(None);
        }
    }
    let disk = vm.disk.as_ref().map(std::fs::metadata).transpose()?;
    let disk = disk.map_or(0, |disk| disk.len());
    Ok(Policy::SOFTWARE.file_bytes.map(|bytes| bytes.max(disk)))
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
        machine::boot::load(&mut machine, &source)?;
        Ok(Guest { machine, source })
    }

    /// Gives up what the guest's process does not need any more, and runs the guest.
    fn confine_and_run(self, vm: &Vm, no_sandbox: bool) -> anyhow::Result<VmEnd> {
        let strategy = strategies::make(vm.strategy)?;
        let policy = Policy { file_bytes: file_bound(vm)?, ..strategies::policy(vm.strategy) };
        let prepared = (!no_sandbox).then(|| strategies::confine(&policy)).transpose()?;
        // Between the two steps: it has the rights that are left, and later no thread can be made.
        forward_input(self.machine.bus.devices.input().clone());
        if let Some(prepared) = prepared {
            let applied = prepared.seal()?;
            tracing::debug!(target: "sandbox", "{applied}");
        }
        self.run(vm, strategy)
    }

    /// Runs the guest to its end, through resets.
    fn run(mut self, vm: &Vm, mut strategy: Box<dyn Strategy>) -> anyhow::Result<VmEnd> {
        let deadline = vm.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let limit = Limit { instructions: None, deadline };
        loop {
            let stop = strategy.run(&mut self.machine, &limit)?;
            tracing::debug!(target: "run", "{stop} at {}", place(&self.machine.cpu));
            match stop {
                Stop::Reset if vm.reboot => {
                    self.machine.reset();
                    // The new image is written past the strategy, which may know the old one's code.
                    self.machine.memory.forget_code();
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

/// Passes the standard input to the serial port, in a thread that ends with the process. When this
/// returns, the thread has begun, and with that made the system calls that are its library's.
fn forward_input(input: HostInput) {
    let (begin, begun) = mpsc::channel();
    std::thread::spawn(move || {
        // The receiver waits for this, so it is there.
        let _ = begin.send(());
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
    // An error means that the thread has ended already: nothing to wait for.
    let _ = begun.recv();
}
