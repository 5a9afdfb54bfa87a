//! The hidden `ringside compare-worker`: the process in which strategies are compared.

use super::{Arguments, DIFFERENT_STATUS, UNDECIDED_STATUS};
use crate::cli::Failure;
use crate::config::{Vm, VmOptions};
use crate::lockstep::{End, Lockstep, Options};
use crate::strategies::{self, Variant};
use anyhow::{Context, bail};
use host::sandbox::Policy;
use machine::boot::{BootSource, ImageKind, Kernel};
use machine::config::DiskConfig;
use machine::{Machine, MachineConfig, RestoreOptions};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use strategy::{Limit, Stop, Strategy, StrategyId, Support};
use tempfile::NamedTempFile;

/// Where a comparison begins.
enum From {
    /// Behind so many instructions.
    Instruction(u64),
    /// Where this machine was saved.
    Saved(std::path::PathBuf),
}

/// No difference was found.
const SAME_STATUS: u8 = 0;

/// When to save, and where to.
struct SaveAt {
    instructions: u64,
    file: File,
}

/// Machines in the same state: a strategy's and the reference's for each comparison.
type Machines = Vec<[Machine; 2]>;

/// Whether what was asked for makes sense.
///
/// # Errors
/// When it does not.
pub(super) fn check(arguments: &Arguments) -> anyhow::Result<()> {
    for variant in variants(arguments)? {
        if let Support::Missing(why) = strategies::support(variant.id) {
            bail!("{variant} is not usable on this host: {why}");
        }
    }
    split_save(arguments)?;
    machines(arguments, 1).map(|_| ())
}

/// The worker itself.
///
/// # Errors
/// When something cannot be set up, or the host fails.
pub fn main(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let variants = variants(arguments).map_err(Failure::setup)?;
    let machines = machines(arguments, variants.len()).map_err(Failure::setup)?;
    let save = split_save(arguments).and_then(create).map_err(Failure::setup)?;
    // Made now, for later there is no right to.
    let made = |&variant: &Variant| Ok((variant, strategies::make(variant)?));
    let made = variants.iter().map(made).collect::<anyhow::Result<Vec<_>>>()?;
    let ids: Vec<_> = variants.iter().map(|variant| variant.id).collect();
    let policy = Policy {
        file_bytes: if save.is_some() { None } else { Policy::SOFTWARE.file_bytes },
        ..strategies::joint_policy(&ids)
    };
    if !arguments.no_sandbox {
        let applied = strategies::confine(&policy)?.seal()?;
        tracing::debug!(target: "sandbox", "{applied}");
    }
    let mut save = save;
    for (strategy, machines) in made.into_iter().zip(machines) {
        let status = compare(arguments, strategy, machines, save.take())?;
        if status != SAME_STATUS {
            return Ok(ExitCode::from(status));
        }
    }
    Ok(ExitCode::from(SAME_STATUS))
}

fn compare(
    arguments: &Arguments,
    (variant, strategy): (Variant, Box<dyn Strategy>),
    [mut leader, mut reference]: [Machine; 2],
    save: Option<SaveAt>,
) -> anyhow::Result<u8> {
    if let Some(From::Instruction(count)) = from(arguments) {
        go_to(&mut leader, &mut reference, count)?;
    }
    let options = Options {
        stretch: arguments.stretch.max(1),
        seed: arguments.seed,
        all_memory: arguments.all_memory,
        patience: None,
    };
    let mut lockstep = Lockstep::new(strategy, leader, reference, options)?;
    let begun = Instant::now();
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    let mut end = End::Limit;
    if let Some(SaveAt { instructions, file }) = save.filter(|save| save.instructions <= left) {
        end = lockstep.run(instructions)?;
        left -= instructions;
        if matches!(end, End::Limit) {
            let mut file = BufWriter::new(file);
            lockstep.machine().save(&mut file)?;
            file.flush()?;
        }
    }
    if matches!(end, End::Limit) {
        end = lockstep.run(left)?;
    }
    let progress = lockstep.progress();
    let rate = progress.instructions as f64 / begun.elapsed().as_secs_f64() / 1e6;
    let summary = format!(
        "{} instructions in {} stretches, {} interrupts, {rate:.1} million instructions a second",
        progress.instructions, progress.stretches, progress.interrupts
    );
    let (text, status) = match end {
        End::Stopped(stop) => {
            (format!("{variant}: no difference up to the end ({stop}): {summary}"), SAME_STATUS)
        }
        End::Limit => (format!("{variant}: no difference: {summary}"), SAME_STATUS),
        End::Undecided => {
            let why = "the reference takes too long to where the strategy is";
            (format!("{variant}: undecided from there on, for {why}: {summary}"), UNDECIDED_STATUS)
        }
        End::Different(finding) => (format!("{variant}: {finding}\n{summary}"), DIFFERENT_STATUS),
    };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(status)
}

/// Lets interpretation execute the first `count` instructions.
fn go_to(leader: &mut Machine, reference: &mut Machine, count: u64) -> anyhow::Result<()> {
    let mut alone = strategies::make(StrategyId::Interpretation)?;
    match alone.run(leader, &Limit::instructions(count))? {
        Stop::Limit => {}
        stop => bail!("the guest ended before instruction {count}: {stop}"),
    }
    reference.take_memory(leader)?;
    reference.cpu = leader.cpu.clone();
    Ok(())
}

/// The strategies that are held against the reference: interpretation is the same.
fn variants(arguments: &Arguments) -> anyhow::Result<Vec<Variant>> {
    let find = |name: &str| {
        crate::config::variant(name, &Default::default())
            .map_err(|message| anyhow::anyhow!(message))
    };
    let mut variants = vec![find(&arguments.leader)?, find(&arguments.follower)?];
    variants.dedup();
    if variants.len() > 1 {
        variants.retain(|variant| variant.id != StrategyId::Interpretation);
    }
    Ok(variants)
}

fn from(arguments: &Arguments) -> Option<From> {
    let text = arguments.from.as_deref()?;
    Some(match text.replace('_', "").parse() {
        Ok(count) => From::Instruction(count),
        Err(_) => From::Saved(text.into()),
    })
}

fn split_save(arguments: &Arguments) -> anyhow::Result<Option<(u64, &str)>> {
    let Some(text) = &arguments.save_at else { return Ok(None) };
    let split = text.split_once('=').and_then(|(count, file)| {
        let count = count.replace('_', "").parse().ok()?;
        (!file.is_empty()).then_some((count, file))
    });
    Ok(Some(split.with_context(|| format!("--save-at {text}: NUMBER=FILE is expected"))?))
}

fn create(save: Option<(u64, &str)>) -> anyhow::Result<Option<SaveAt>> {
    save.map(|(instructions, path)| {
        let file = File::create(path).with_context(|| format!("{path} cannot be written"))?;
        Ok(SaveAt { instructions, file })
    })
    .transpose()
}

/// The machines of so many comparisons.
fn machines(arguments: &Arguments, count: usize) -> anyhow::Result<Machines> {
    let pairs = |boot: &dyn Fn() -> anyhow::Result<Machine>| {
        (0..count).map(|_| Ok([boot()?, boot()?])).collect()
    };
    if let Some(From::Saved(path)) = from(arguments) {
        return pairs(&|| restore(&path));
    }
    if let Some(name) = &arguments.workload {
        return workload(name, arguments.iterations, pairs);
    }
    let vm = Vm::load(arguments.vm.as_deref(), &VmOptions::default())?;
    let mut machines: Machines = pairs(&|| crate::run::machine(&vm).map(|(machine, _)| machine))?;
    for [leader, _] in &mut machines {
        leader.bus.devices.serial.set_output(Box::new(std::io::stderr()));
    }
    Ok(machines)
}

fn restore(path: &Path) -> anyhow::Result<Machine> {
    let open = File::open(path).with_context(|| format!("{} cannot be read", path.display()));
    Machine::restore(&mut BufReader::new(open?), &RestoreOptions::default())
        .with_context(|| format!("{}", path.display()))
}

fn workload(
    name: &str,
    iterations: Option<u32>,
    pairs: impl Fn(&dyn Fn() -> anyhow::Result<Machine>) -> anyhow::Result<Machines>,
) -> anyhow::Result<Machines> {
    let all = workloads::all();
    let workload = all.iter().find(|each| each.name == name);
    let workload = workload.with_context(|| format!("no workload {name:?}"))?;
    let image = workload.assemble(iterations.unwrap_or(workload.first_iterations))?;
    let disk = match image.disk_sectors {
        0 => None,
        sectors => {
            let file = NamedTempFile::new()?;
            std::fs::write(file.path(), workloads::disk_image(sectors))?;
            Some(file)
        }
    };
    // The file goes when this returns: the machines have it open, and later there is no right to.
    let boot = || -> anyhow::Result<Machine> {
        let disk = disk.as_ref().map(|disk| disk.path().to_owned());
        let config = MachineConfig {
            memory_bytes: workload.memory_bytes,
            disk: disk.map(|path| DiskConfig { path, read_only: true }),
            ..MachineConfig::default()
        };
        let mut machine = Machine::new(&config)?;
        let kernel = Kernel { path: name.into(), bytes: image.bytes.clone() };
        let kind = Some(ImageKind::Multiboot);
        machine::boot::load(&mut machine, &BootSource { kernel, kind, ..Default::default() })?;
        Ok(machine)
    };
    pairs(&boot)
}
