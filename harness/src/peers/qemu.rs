//! QEMU: the same image by `-kernel`, the debug console through a pipe, the exit port as its own
//! isa-debug-exit.

use crate::guest::{End, Job, Report};
use crate::process::{self, Ending, Finished, Stop, Watch};
use machine::cpu::{CpuModel, Features};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// The program.
pub(super) const PROGRAM: &str = "qemu-system-i386";

/// What QEMU's firmware needs before the guest's first instruction, at most.
const START: Duration = Duration::from_secs(3);

/// What QEMU writes when KVM gives up; it then waits for ever.
const GIVEN_UP: &str = "KVM internal error";

/// The version line of the installed QEMU; asked once.
#[must_use]
pub fn version() -> Option<&'static str> {
    static VERSION: OnceLock<Option<String>> = OnceLock::new();
    let ask = || {
        let output = Command::new(PROGRAM).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().next().map(str::to_owned).filter(|_| output.status.success())
    };
    VERSION.get_or_init(ask).as_deref()
}

/// Runs a guest under QEMU with the accelerator `accel`.
pub(super) fn run(accel: &str, job: &Job, stop: &Stop) -> anyhow::Result<Report> {
    let watch = Watch { timeout: job.timeout + START, stop, fatal: Some(GIVEN_UP) };
    let finished = process::run(&mut command(accel, job), &watch)
        .map_err(|error| anyhow::anyhow!("{PROGRAM} cannot be started: {error}"))?;
    let end = end(&finished);
    Ok(Report::new(finished.begin, end, finished.output))
}

fn command(accel: &str, job: &Job) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.arg("-machine").arg(format!("pc,accel={accel}"));
    command.arg("-cpu").arg(cpu(job.cpu));
    command.arg("-m").arg(format!("{}k", job.memory_bytes >> 10));
    command.arg("-kernel").arg(job.image);
    command.args(["-debugcon", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    if let Some(linux) = job.linux {
        command.arg("-initrd").arg(linux.initrd).arg("-append").arg(linux.append);
        // The serial port that our machines have.
        command.args(["-serial", "null"]);
    }
    if let Some(disk) = job.disk {
        // A comma in a path is doubled in QEMU's option language.
        let path = disk.display().to_string().replace(',', ",,");
        // An IDE disk cannot be read-only in QEMU: writes go to a temporary file instead.
        command.arg("-drive").arg(format!("file={path},if=ide,format=raw,snapshot=on"));
    }
    command
}

/// QEMU's name for a CPU that shows the guest what `model` does, as far as QEMU can.
fn cpu(model: CpuModel) -> String {
    let base = match model {
        CpuModel::I486 => "486",
        CpuModel::Pentium | CpuModel::PentiumMmx => "pentium",
        CpuModel::PentiumPro | CpuModel::Pentium2 | CpuModel::Pentium3 => "pentium3",
        CpuModel::Pentium4 => "qemu32",
    };
    let signature = model.signature();
    let announced = model.features();
    let mut text = format!(
        "{base},vendor=GenuineIntel,family={},model={},stepping={},level=1,xlevel=0,hypervisor=off",
        signature >> 8 & 0xf,
        signature >> 4 & 0xf,
        signature & 0xf
    );
    for (name, bits) in FEATURES {
        text += &format!(",{name}={}", if announced.contains(*bits) { "on" } else { "off" });
    }
    for absent in ABSENT {
        text += &format!(",{absent}=off");
    }
    text
}

/// Features that our models may announce, by QEMU's names.
const FEATURES: &[(&str, Features)] = &[
    ("fpu", Features::FPU),
    ("de", Features::DE),
    ("pse", Features::PSE),
    ("tsc", Features::TSC),
    ("msr", Features::MSR),
    ("pae", Features::PAE),
    ("cx8", Features::CX8),
    ("pge", Features::PGE),
    ("cmov", Features::CMOV),
    ("pat", Features::PAT),
    ("mmx", Features::MMX),
    ("fxsr", Features::FXSR),
    ("sse", Features::SSE),
    ("sse2", Features::SSE2),
];

/// Features of QEMU's models that none of ours announces.
const ABSENT: &[&str] =
    &["vme", "mce", "apic", "sep", "mtrr", "mca", "pse36", "clflush", "acpi", "ss", "pni", "cx16"];

fn end(finished: &Finished) -> End {
    let words = || process::first_words(&finished.errors);
    match finished.ending {
        Ending::TimedOut => End::Timeout,
        Ending::Stopped => End::Interrupted,
        Ending::Fatal => End::Died(words()),
        // isa-debug-exit: an odd status comes from the guest, 1 from QEMU's own errors as well,
        // which QEMU does not keep apart; those say something.
        Ending::Itself(status) => match status.code() {
            Some(code) if code & 1 == 1 && finished.errors.is_empty() => {
                End::Exit((code >> 1) as u8)
            }
            Some(1) if finished.output.is_empty() => End::Died(format!("QEMU: {}", words())),
            Some(code) if code & 1 == 1 => End::Exit((code >> 1) as u8),
            Some(0) => End::Died("the guest reset itself (a triple fault, perhaps)".to_owned()),
            _ => End::Died(format!("QEMU: {}: {}", process::in_words(status), words())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    use std::time::Instant;

    fn ended(code: i32, output: &[u8], errors: &str) -> End {
        let now = Instant::now();
        end(&Finished {
            ending: Ending::Itself(ExitStatus::from_raw(code << 8)),
            output: output.iter().map(|&byte| (byte, now)).collect(),
            errors: errors.to_owned(),
            begin: now,
            took: Duration::ZERO,
        })
    }

    #[test]
    fn odd_statuses_are_the_guests() {
        assert_eq!(ended(1, b"result 0\n", ""), End::Exit(0));
        assert_eq!(ended(3, b"", ""), End::Exit(1));
        assert_eq!(
            ended(1, b"result 0\n", "warning: TCG doesn't support requested feature"),
            End::Exit(0)
        );
    }

    #[test]
    fn qemus_own_errors_are_not() {
        let End::Died(how) = ended(1, b"", "qemu: could not load kernel\n") else { panic!() };
        assert_eq!(how, "QEMU: qemu: could not load kernel");
        assert!(matches!(ended(0, b"", ""), End::Died(_)));
    }

    #[test]
    fn the_model_is_spelled_out() {
        let text = cpu(CpuModel::Pentium4);
        assert!(text.starts_with("qemu32,vendor=GenuineIntel,family=15,model=2,stepping=4"));
        assert!(text.contains(",sse2=on") && text.contains(",apic=off"), "{text}");
    }
}
