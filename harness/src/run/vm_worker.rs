//! The hidden `ringside vm-worker`: the process in which a virtual machine runs. Serial input comes
//! from its standard input, serial output goes to its standard output, and how the guest ended goes
//! into a file.

use super::screen::{FRAME_TIME, frame, keys};
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
use std::os::unix::fs::FileExt;
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
    /// Where it is written, some times a second, what the screen shows
    #[arg(long)]
    frames: Option<PathBuf>,
    /// The standard input goes to the keyboard; the serial port is left open
    #[arg(long)]
    keyboard: bool,
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
    let end = match Guest::new(&vm, arguments) {
        Ok(guest) => {
            let end = guest.confine_and_run(&vm, arguments);
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
    /// Where the screen goes, and what it last was.
    frames: Option<(File, [u8; frame::SIZE])>,
}

impl Guest {
    fn new(vm: &Vm, arguments: &WorkerArguments) -> anyhow::Result<Guest> {
        let (mut machine, source) = machine(vm)?;
        let devices = &mut machine.bus.devices;
        if !arguments.keyboard {
            devices.serial.set_output(Box::new(std::io::stdout()));
        }
        if vm.debug_console {
            devices.debug_console.set_output(Box::new(std::io::stderr()));
        }
        let frames = arguments.frames.as_ref().map(|path| File::options().write(true).open(path));
        let frames = frames.transpose()?.map(|file| (file, [0; frame::SIZE]));
        Ok(Guest { machine, source, frames })
    }

    /// Gives up what the guest's process does not need any more, and runs the guest.
    fn confine_and_run(self, vm: &Vm, arguments: &WorkerArguments) -> anyhow::Result<VmEnd> {
        let strategy = strategies::make(vm.strategy)?;
        let policy = Policy { file_bytes: file_bound(vm)?, ..strategies::policy(vm.strategy) };
        let prepared = (!arguments.no_sandbox).then(|| strategies::confine(&policy)).transpose()?;
        // Between the two steps: it has the rights that are left, and later no thread can be made.
        forward_input(self.machine.bus.devices.input().clone(), arguments.keyboard);
        if let Some(prepared) = prepared {
            let applied = prepared.seal()?;
            tracing::debug!(target: "sandbox", "{applied}");
        }
        self.run(vm, strategy)
    }

    /// Shows the screen to the process that waits for us, if it has changed.
    fn write_frame(&mut self) -> std::io::Result<()> {
        let Some((file, last)) = &mut self.frames else { return Ok(()) };
        let now = frame::encode(&self.machine.bus.devices.vga.text_screen());
        if now != *last {
            file.write_all_at(&now, 0)?;
            *last = now;
        }
        Ok(())
    }

    /// Runs the guest to its end, through resets.
    fn run(mut self, vm: &Vm, mut strategy: Box<dyn Strategy>) -> anyhow::Result<VmEnd> {
        let deadline = vm.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            // The screen is looked at between two runs.
            let next_frame = self.frames.as_ref().map(|_| Instant::now() + FRAME_TIME);
            let limit = Limit { instructions: None, deadline: earlier(deadline, next_frame) };
            let stop = strategy.run(&mut self.machine, &limit)?;
            self.write_frame()?;
            if stop == Stop::Limit && deadline.is_none_or(|deadline| Instant::now() < deadline) {
                continue;
            }
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

/// The earlier of two moments, where there are any.
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// Where a CPU is, for messages.
fn place(cpu: &Cpu) -> String {
    let selector = cpu.segment(machine::cpu::SegmentRegister::Cs).selector;
    format!("CS:EIP {:04x}:{:08x}", selector, cpu.eip)
}

/// The machine of a description, booted, with what it was booted from.
pub(crate) fn machine(vm: &Vm) -> anyhow::Result<(Machine, BootSource)> {
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
    machine::boot::load(&mut machine, &source)?;
    Ok((machine, source))
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

/// Passes the standard input to the serial port or the keyboard, in a thread that ends with the process. When this
/// returns, the thread has begun, and with that made the system calls that are its library's.
fn forward_input(input: HostInput, keyboard: bool) {
    let (begin, begun) = mpsc::channel();
    std::thread::spawn(move || {
        // The receiver waits for this, so it is there.
        let _ = begin.send(());
        let mut part = [0; 1024];
        while let Ok(length @ 1..) = std::io::stdin().read(&mut part) {
            if keyboard {
                send_all(&keys::strokes(&part[..length]), |events| input.send_keys(events));
            } else {
                send_all(&part[..length], |bytes| input.send_serial(bytes));
            }
        }
    });
    // An error means that the thread has ended already: nothing to wait for.
    let _ = begun.recv();
}

/// Sends all items through a port that may take only some at a time.
fn send_all<T>(mut rest: &[T], send: impl Fn(&[T]) -> usize) {
    while !rest.is_empty() {
        rest = &rest[send(rest)..];
        if !rest.is_empty() {
            std::thread::sleep(RETRY);
        }
    }
}
