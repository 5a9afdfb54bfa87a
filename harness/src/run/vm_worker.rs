//! The hidden `ringside vm-worker`: the process in which a virtual machine runs. Serial input comes
//! from its standard input, serial output goes to its standard output, and how the guest ended goes
//! into a file.

use super::gdb;
use super::plan::Plan;
use super::recorded::{self, Log};
use super::screen::keys;
use super::session::{Session, Slice};
use super::wire::Wire;
use crate::config::{Vm, split_module};
use crate::strategies;
use anyhow::Context;
use host::sandbox::Policy;
use host::sandbox::record::CrashRecord;
use machine::boot::{BootSource, Kernel, Module};
use machine::config::DiskConfig;
use machine::devices::HostInput;
use machine::{Cpu, Machine, MachineConfig, RestoreOptions};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

/// How long a full serial port is waited for.
const RETRY: Duration = Duration::from_millis(2);

/// What a saved machine takes beside its memory, at most: the ROM and the devices.
const SAVED_BESIDE_MEMORY: u64 = 64 << 20;

/// What a worker is told.
#[derive(clap::Args, Debug)]
pub struct WorkerArguments {
    /// The virtual machine, and what is done with it
    plan: PathBuf,
    /// Where it is written how the guest ended
    report: PathBuf,
    /// The file for the crash record
    record: PathBuf,
    /// Where it is written, some times a second, what the screen shows
    #[arg(long)]
    frames: Option<PathBuf>,
    /// Where it is written, a byte each, that machines were saved
    #[arg(long)]
    saved: Option<PathBuf>,
    /// The standard input goes to the keyboard; the serial port is left open
    #[arg(long)]
    keyboard: bool,
    /// Where to find gdb, or who asks a recorded guest to end
    #[arg(long)]
    line: Option<PathBuf>,
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
    /// It was asked to end.
    Left,
    /// It could not be set up.
    Setup(String),
    /// A log was replayed up to its end.
    Replayed,
    /// A replay left its log, or a recorded strategy the architecture.
    Diverged(String),
    /// The host failed.
    Failed(String),
}

impl VmEnd {
    /// The exit status that it leads to.
    pub(super) fn status(&self) -> u8 {
        match self {
            // As a process status has it: the low eight bits.
            VmEnd::Exit(value) => value.wrapping_mul(2).wrapping_add(1),
            VmEnd::PowerOff | VmEnd::Left | VmEnd::Replayed => 0,
            VmEnd::Setup(_) => 2,
            VmEnd::TripleFault(_) => 4,
            VmEnd::Halted(_) => 6,
            VmEnd::Failed(_) => 8,
            VmEnd::Diverged(_) => 10,
            // As timeout(1) has it.
            VmEnd::Timeout => 124,
        }
    }
}

/// What the worker tells in the end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Report {
    /// How the guest ended.
    pub(super) end: VmEnd,
    /// The checksum of its last state, where that was asked for.
    pub(super) state: Option<String>,
}

impl From<VmEnd> for Report {
    fn from(end: VmEnd) -> Report {
        Report { end, state: None }
    }
}

/// The worker itself.
///
/// # Errors
/// When the files by which it is told, or tells, cannot be used.
pub fn main(arguments: &WorkerArguments) -> anyhow::Result<ExitCode> {
    let plan = std::fs::read_to_string(&arguments.plan).context("the plan cannot be read")?;
    let plan: Plan = toml::from_str(&plan).context("the plan is damaged")?;
    // Later there is no right to make it.
    let mut report = File::create(&arguments.report).context("the report cannot be made")?;
    let record =
        File::options().read(true).write(true).create(true).truncate(true).open(&arguments.record);
    CrashRecord::keep_in(&record?).context("the crash record cannot be kept")?;
    let told = match Guest::new(&plan, arguments) {
        Ok(guest) => {
            let told = guest.confine_and_run(&plan, arguments);
            told.unwrap_or_else(|error| VmEnd::Failed(format!("{error:#}")).into())
        }
        Err(error) => VmEnd::Setup(format!("{error:#}")).into(),
    };
    report.write_all(toml::to_string(&told)?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The size beyond which the guest's process cannot write a file: the largest of those that it is to
/// write, unless nobody knows how large one may become.
fn file_bound(plan: &Plan, machine: &Machine) -> anyhow::Result<Option<u64>> {
    for stream in [std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
        if File::from(stream.try_clone_to_owned()?).metadata()?.is_file() {
            return Ok(None);
        }
    }
    if plan.course.record.is_some() {
        return Ok(None);
    }
    let saved = match plan.course.saves.as_slice() {
        [] => 0,
        // Each page that is not zero has a head of some bytes at most.
        _ => machine.memory.ram_bytes() / 64 * 65 + SAVED_BESIDE_MEMORY,
    };
    let disk = machine.bus.devices.disk.bytes();
    Ok(Policy::SOFTWARE.file_bytes.map(|bytes| bytes.max(disk).max(saved)))
}

struct Guest {
    session: Session,
    log: Log,
    wire: Option<Wire>,
}

impl Guest {
    fn new(plan: &Plan, arguments: &WorkerArguments) -> anyhow::Result<Guest> {
        let (mut machine, source) = machine(&plan.vm)?;
        let devices = &mut machine.bus.devices;
        if !arguments.keyboard {
            devices.serial.set_output(Box::new(std::io::stdout()));
        }
        if plan.vm.debug_console {
            devices.debug_console.set_output(Box::new(std::io::stderr()));
        }
        let open = |path: &Option<PathBuf>, options: &mut std::fs::OpenOptions| {
            path.as_ref().map(|path| options.open(path)).transpose()
        };
        let frames = open(&arguments.frames, File::options().write(true))?;
        // Nothing is open that is not used.
        let saved = arguments.saved.clone().filter(|_| !plan.course.saves.is_empty());
        let saved = open(&saved, File::options().append(true))?;
        let again = || self::machine(&plan.vm).map(|(machine, _)| machine);
        let log = Log::open(plan, &mut machine, again)?;
        let session = Session::new(plan, machine, source, frames, saved)?;
        let wire = arguments.line.as_deref().map(Wire::connect).transpose();
        Ok(Guest { session, log, wire: wire.context("there is no line")? })
    }

    /// Gives up what the guest's process does not need any more, and runs the guest.
    fn confine_and_run(self, plan: &Plan, arguments: &WorkerArguments) -> anyhow::Result<Report> {
        let Guest { mut session, log, mut wire } = self;
        let ids: Vec<_> = plan.strategies().iter().map(|variant| variant.id).collect();
        let policy = Policy {
            file_bytes: file_bound(plan, &session.machine)?,
            ..strategies::joint_policy(&ids)
        };
        let prepared = (!arguments.no_sandbox).then(|| strategies::confine(&policy)).transpose()?;
        // Between the two steps: it has the rights that are left, and later no thread can be made.
        forward_input(session.machine.bus.devices.input().clone(), arguments.keyboard);
        if let Some(wire) = &mut wire {
            wire.listen();
        }
        if let Some(prepared) = prepared {
            let applied = prepared.seal()?;
            tracing::debug!(target: "sandbox", "{applied}");
        }
        match (log, wire) {
            (Log::None, Some(wire)) => Ok(gdb::serve(session, wire)?.into()),
            (Log::None, None) => Ok(match session.run()? {
                Slice::Ended(end) => end.into(),
                Slice::Over | Slice::Requested => VmEnd::Left.into(),
            }),
            (Log::Written, wire) => recorded::record(session, wire.as_ref()),
            (Log::Read, _) => recorded::replay(session),
            (Log::InLockstep(reference, log), wire) => {
                recorded::record_in_lockstep(session, *reference, log, wire)
            }
        }
    }
}

/// Where a CPU is, for messages.
pub(super) fn place(cpu: &Cpu) -> String {
    let selector = cpu.segment(machine::cpu::SegmentRegister::Cs).selector;
    format!("CS:EIP {:04x}:{:08x}", selector, cpu.eip)
}

/// The machine of a description, booted or restored, with what it is booted from.
pub(crate) fn machine(vm: &Vm) -> anyhow::Result<(Machine, Option<BootSource>)> {
    let source = source(vm)?;
    match &vm.resume {
        Some(path) => Ok((restored(vm, path)?, source)),
        None => {
            let source = source.context("nothing to boot")?;
            Ok((booted(vm, &source)?, Some(source)))
        }
    }
}

fn disk(vm: &Vm) -> Option<DiskConfig> {
    vm.disk.clone().map(|path| DiskConfig { path, read_only: vm.disk_read_only })
}

fn restored(vm: &Vm, path: &Path) -> anyhow::Result<Machine> {
    let from = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    Machine::restore(&mut BufReader::new(from), &RestoreOptions { disk: disk(vm) })
        .with_context(|| path.display().to_string())
}

fn booted(vm: &Vm, source: &BootSource) -> anyhow::Result<Machine> {
    let rom = if vm.rom.is_some() { source.kernel.bytes.clone() } else { Vec::new() };
    if let Some(path) = &vm.rom {
        machine::boot::check_rom(path, &rom)?;
    }
    let config = MachineConfig {
        memory_bytes: vm.memory_bytes,
        cpu: vm.cpu,
        clock: vm.clock,
        disk: disk(vm),
        rom,
    };
    let mut machine = Machine::new(&config)?;
    machine::boot::load(&mut machine, source)?;
    Ok(machine)
}

fn source(vm: &Vm) -> anyhow::Result<Option<BootSource>> {
    let Some(kernel) = vm.kernel.as_deref().or(vm.rom.as_deref()) else { return Ok(None) };
    let (kind, flat) = vm.format();
    let mut modules = Vec::new();
    if let Some(initrd) = &vm.initrd {
        modules.push(Module::read(initrd, "")?);
    }
    for module in &vm.modules {
        let (file, arguments) = split_module(module);
        modules.push(Module::read(Path::new(file), arguments)?);
    }
    Ok(Some(BootSource {
        kernel: Kernel::read(kernel)?,
        kind,
        modules,
        command_line: vm.append.clone(),
        flat,
        boot_disk: vm.disk.is_some(),
    }))
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
