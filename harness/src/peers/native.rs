//! `native`: the host's own CPU, without a monitor. The inner functions of the compute workloads,
//! the same bytes that the guests have, are called in a process of their own. This is the limit that
//! all strategies are measured against.
//!
//! Memory is shared pages of 4 KiB, as guests have it, so that page size and paging are no
//! difference. A first call of one iteration maps every page and fills the caches; then the data
//! area is made anew and the call that is measured is made. One entry and one exit, a signal of some
//! microseconds, are measured with it.

use crate::guest::{End, Job, Report};
use crate::process::{self, Stop, Watch};
use crate::worker;
use anyhow::Context;
use host::compatibility::{CompatibilityMode, NativeExit, NativeState};
use host::low_memory::LowMemory;
use host::sandbox::record::CrashRecord;
use machine::cpu::register;
use std::process::Command;
use std::time::{Duration, Instant};
use strategy::Support;
use workloads::compute::NativeKernel;
use workloads::{Group, Workload};

/// Where the code is.
const CODE: u32 = 0x1000_0000;
const STACK_BYTES: u32 = 16 << 10;
const PAGE: u32 = 4096;
/// HLT, on which the functions return: a general protection fault at CPL 3.
const HLT: u8 = 0xF4;
const GENERAL_PROTECTION: u8 = 13;

/// How long past its deadline a process may take before it is killed.
const GRACE: Duration = Duration::from_secs(3);

/// What the process is told, as command-line arguments.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The workload
    #[arg(long)]
    workload: String,
    /// The iterations of the call that is measured
    #[arg(long)]
    iterations: u32,
    /// Milliseconds until it is stopped
    #[arg(long)]
    timeout_ms: u64,
}

/// Whether the workload has something to run without a guest around it.
pub(super) fn runs(workload: &Workload) -> bool {
    workload.group == Group::Compute
}

/// Whether this host can run 32-bit code in this process.
pub(super) fn support() -> Support {
    match CompatibilityMode::new() {
        Ok(_) => Support::Full,
        Err(error) => Support::Missing(error.to_string()),
    }
}

/// Runs the job's workload in a process of its own.
pub(super) fn run(job: &Job, stop: &Stop) -> anyhow::Result<Report> {
    let mut command = Command::new(worker::program()?);
    command.arg("native-worker").arg("--workload").arg(job.workload.name);
    command.arg("--iterations").arg(job.iterations.to_string());
    command.arg("--timeout-ms").arg(job.timeout.as_millis().to_string());
    let watch = Watch { timeout: job.timeout + GRACE, stop, fatal: None };
    let finished = process::run(&mut command, &watch).context("a process cannot be started")?;
    Ok(worker::report(&finished, &CrashRecord::default()))
}

/// The process itself: writes its report to the standard output.
///
/// # Errors
/// When there is no such workload, or the host refuses what is needed.
pub fn main(arguments: &Arguments) -> anyhow::Result<()> {
    let name = &arguments.workload;
    let workload = workloads::all().into_iter().find(|workload| workload.name == name);
    let workload = workload.with_context(|| format!("no workload {name:?}"))?;
    let kernel = workload.native(CODE)?;
    let kernel = kernel.with_context(|| format!("{name} has no inner function"))?;
    let deadline = Instant::now() + Duration::from_millis(arguments.timeout_ms);
    let report = measure(&kernel, arguments.iterations, deadline)?;
    print!("{}", toml::to_string(&report)?);
    Ok(())
}

fn measure(kernel: &NativeKernel, iterations: u32, deadline: Instant) -> anyhow::Result<Report> {
    let mut program = Program::new(kernel, deadline)?;
    let (mut checksum, mut seconds) = (0, 0.0);
    for iterations in [1, iterations] {
        program.fill_data();
        let called = match kernel.prepare {
            Some(prepare) => program.call(prepare, &[program.data])?,
            None => Called::default(),
        };
        let called = match called.failure {
            None => program.call(kernel.run, &[iterations, program.data])?,
            Some(_) => called,
        };
        if let Some(end) = called.failure {
            return Ok(Report::only(end));
        }
        (checksum, seconds) = (called.value, called.seconds);
    }
    Ok(Report { seconds: Some(seconds), checksum: Some(checksum), ..Report::only(End::Exit(0)) })
}

/// The functions in memory: code, stack, data area.
struct Program<'a> {
    kernel: &'a NativeKernel,
    mode: CompatibilityMode,
    memory: LowMemory,
    /// Where the functions return to.
    landing: u32,
    stack_top: u32,
    data: u32,
    deadline: Instant,
}

/// What a call came to.
#[derive(Default)]
struct Called {
    value: u32,
    seconds: f64,
    failure: Option<End>,
}

impl<'a> Program<'a> {
    fn new(kernel: &'a NativeKernel, deadline: Instant) -> anyhow::Result<Program<'a>> {
        let code_bytes = u32::try_from(kernel.code.len())?;
        let stack = CODE + (code_bytes + 1).next_multiple_of(PAGE);
        let data = stack + STACK_BYTES;
        let end = data + kernel.data_bytes.next_multiple_of(PAGE);
        let mut memory = LowMemory::new(CODE, (end - CODE) as usize)?;
        memory.write(0, &kernel.code);
        memory.write(code_bytes as usize, &[HLT]);
        Ok(Program {
            kernel,
            mode: CompatibilityMode::new()?,
            memory,
            landing: CODE + code_bytes,
            stack_top: data,
            data,
            deadline,
        })
    }

    /// Makes the data area what it is at the start.
    fn fill_data(&mut self) {
        let mut data = self.kernel.data.clone();
        data.resize(self.kernel.data_bytes as usize, 0);
        self.memory.write((self.data - CODE) as usize, &data);
    }

    /// Calls a function and measures that.
    fn call(&mut self, function: u32, arguments: &[u32]) -> anyhow::Result<Called> {
        let mut state = NativeState { eip: function, ..NativeState::default() };
        let mut esp = self.stack_top;
        for word in arguments.iter().rev().chain([&self.landing]) {
            esp -= 4;
            self.memory.write((esp - CODE) as usize, &word.to_le_bytes());
        }
        state.registers[register::ESP] = esp;
        self.mode.set_timer(self.deadline.saturating_duration_since(Instant::now()))?;
        let begin = Instant::now();
        // SAFETY: the code is one of our own functions, which reaches only its stack and its data
        // area in `memory`, to which there are no references, and has no far transfers.
        let exit = unsafe { self.mode.run(&mut state) };
        let seconds = begin.elapsed().as_secs_f64();
        self.mode.clear_timer()?;
        let failure = self.failure(&exit?);
        Ok(Called { value: state.registers[register::EAX], seconds, failure })
    }

    /// What is wrong with a call that ended so.
    fn failure(&self, exit: &NativeExit) -> Option<End> {
        let NativeExit { signal, trap, eip, .. } = *exit;
        match signal {
            libc::SIGSEGV if trap == GENERAL_PROTECTION && eip == self.landing => None,
            libc::SIGALRM => Some(End::Timeout),
            _ => Some(End::Died(format!("signal {signal}, exception {trap} at EIP {eip:#010x}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, because the code has one place in the process.
    #[test]
    fn every_compute_workload_gives_its_checksum_and_can_be_stopped() {
        if !support().is_usable() {
            eprintln!("no compatibility mode here: nothing was run");
            return;
        }
        let workloads = workloads::all().into_iter().filter(runs);
        let kernels: Vec<_> = workloads.filter_map(|each| each.native(CODE).unwrap()).collect();
        assert!(kernels.len() >= 10);
        let after = |time| Instant::now() + Duration::from_millis(time);
        for kernel in &kernels {
            let report = measure(kernel, 3, after(60_000)).unwrap();
            assert_eq!(report.checksum, Some((kernel.checksum)(3)), "{report:?}");
            assert!(report.seconds.is_some_and(|seconds| seconds > 0.0), "{report:?}");
        }
        let endless = measure(&kernels[0], u32::MAX, after(50)).unwrap();
        assert_eq!(endless, Report::only(End::Timeout));
    }
}
