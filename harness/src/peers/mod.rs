//! Other programs that run the same images in the same run, to compare with.

mod native;
mod qemu;

pub use native::{Arguments as NativeArguments, main as native_main};
pub use qemu::version as qemu_version;

use crate::guest::{Job, Report};
use crate::process::Stop;
use std::time::Duration;
use strategy::Support;
use workloads::Workload;

/// A peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PeerId {
    /// QEMU with its translator.
    QemuTcg,
    /// QEMU with KVM.
    QemuKvm,
    /// The host's CPU without a monitor.
    Native,
}

impl PeerId {
    /// All of them, in the order in which they are shown.
    pub const ALL: [PeerId; 3] = [Self::QemuTcg, Self::QemuKvm, Self::Native];

    /// The name in TOML, on the command line and in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::QemuTcg => "qemu-tcg",
            Self::QemuKvm => "qemu-kvm",
            Self::Native => "native",
        }
    }

    /// One line about it.
    #[must_use]
    pub fn summary(self) -> &'static str {
        match self {
            Self::QemuTcg => "QEMU's own translator (qemu-system-i386 -accel tcg)",
            Self::QemuKvm => "QEMU with KVM (qemu-system-i386 -accel kvm)",
            Self::Native => "the inner functions of compute workloads, without a monitor",
        }
    }

    /// Whether it can be run here.
    #[must_use]
    pub fn support(self) -> Support {
        match (self, qemu::version()) {
            (Self::Native, _) => native::support(),
            (_, None) => Support::Missing(format!("{} is not installed", qemu::PROGRAM)),
            (Self::QemuTcg, Some(_)) => Support::Full,
            (Self::QemuKvm, Some(_)) => crate::strategies::kvm_support(),
        }
    }

    /// Whether it can run the workload at all; what it cannot is no part of its rows.
    #[must_use]
    pub fn runs(self, workload: &Workload) -> bool {
        match self {
            Self::QemuTcg | Self::QemuKvm => true,
            Self::Native => native::runs(workload),
        }
    }

    /// What its clock cannot tell from no time at all. QEMU's marks come through a pipe: if this
    /// process is late to read it, two of them have one time.
    #[must_use]
    pub fn resolution(self) -> Duration {
        match self {
            Self::QemuTcg | Self::QemuKvm => Duration::from_millis(2),
            Self::Native => Duration::ZERO,
        }
    }

    /// Runs a guest to its end.
    ///
    /// # Errors
    /// When the host cannot start the program; nothing that the guest does is an error.
    pub fn run(self, job: &Job, stop: &Stop) -> anyhow::Result<Report> {
        match self {
            Self::QemuTcg => qemu::run("tcg", job, stop),
            Self::QemuKvm => qemu::run("kvm", job, stop),
            Self::Native => native::run(job, stop),
        }
    }
}
