//! The sandbox: a process that runs a guest gives up whatever its monitor does not need from then
//! on, and cannot get it back.
//!
//! Guest code that runs natively can load the host's own selectors and become 64-bit code in the
//! monitor's process (`ljmp $0x33`). Nothing inside the process stops it there, so the process is
//! made one in which there is nothing to gain:
//!
//! | wall | what it is against |
//! |---|---|
//! | seccomp (`calls`) | every system call but the few that the monitor makes, with their arguments; every call of 32 bits or x32. The process is killed |
//! | no new privileges, no capabilities, not dumpable (`rights`) | set-user-ID programs, root's powers, other processes' ptrace |
//! | Landlock (`landlock`), where the kernel has it | files, TCP, abstract sockets, signals to processes outside |
//! | resource limits (`limits`) | memory, files that grow, descriptors, processes, core dumps |
//! | descriptors | what is not open cannot be used: the parent passes none but those it means to, and this module lists what is there |
//!
//! One capability stays where the process has it and its guest runs natively: CAP_SYS_RAWIO, without
//! which the kernel refuses to map the guest's lowest pages (`vm.mmap_min_addr`). No call is left
//! with which it could do anything else.
//!
//! Syscall user dispatch ([`compatibility`](crate::compatibility)) stands before all of this: a
//! system call from below 4 GiB, where guest code lies, does not even reach seccomp.
//!
//! [`Sandbox::prepare`] and [`Prepared::seal`] are two steps because rights and Landlock belong to
//! threads: a thread that is started between the two inherits them, and the filter binds all.
//! Deadlines are the parent's business, and so is what to believe of a process that a guest may have
//! taken over.

mod calls;
mod error;
pub(crate) mod escape;
mod facilities;
mod landlock;
mod limits;
mod policy;
pub mod record;
mod rights;

pub use error::Error;
pub use facilities::Facilities;
pub use policy::Policy;

use crate::sandbox::landlock::Landlock;
use std::fmt;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// A descriptor that stayed open, and what it leads to.
pub type Descriptor = (RawFd, PathBuf);

/// The way into the sandbox.
#[derive(Clone, Copy, Debug)]
pub struct Sandbox;

impl Sandbox {
    /// Both steps: after this the process is confined.
    ///
    /// # Errors
    /// When the host refuses or lacks something that cannot be done without; only Landlock can.
    pub fn enter(policy: &Policy) -> Result<Applied, Error> {
        Sandbox::prepare(policy)?.seal()
    }

    /// Everything but the filter and the ban on new threads. What the calling thread starts from
    /// now on has its rights; threads that were there before keep theirs, and must not.
    ///
    /// # Errors
    /// As [`Sandbox::enter`].
    pub fn prepare(policy: &Policy) -> Result<Prepared, Error> {
        let filter = calls::filter(policy)?;
        // Files of /proc tell these: not for long.
        let descriptors = open_descriptors()?;
        let in_use = limits::InUse::now(&descriptors)?;
        rights::renounce_new()?;
        let landlock = landlock::restrict()?;
        let kept_rights = rights::drop_capabilities(policy)?;
        limits::set(policy, &in_use)?;
        let applied = Applied { landlock, kept_rights, descriptors, filter_length: filter.len() };
        Ok(Prepared { filter, applied })
    }
}

/// A process that has given up its rights, but can still make every system call.
#[derive(Debug)]
#[must_use = "the filter is not in force before `seal`"]
pub struct Prepared {
    filter: calls::Filter,
    applied: Applied,
}

impl Prepared {
    /// Puts the filter over all threads. From here on a system call that it does not know ends the
    /// process.
    ///
    /// # Errors
    /// As [`Sandbox::enter`].
    pub fn seal(self) -> Result<Applied, Error> {
        limits::forbid_processes()?;
        calls::apply(&self.filter)?;
        Ok(self.applied)
    }
}

/// What is in force. The display says it in one line.
#[derive(Debug)]
pub struct Applied {
    landlock: Landlock,
    kept_rights: Vec<&'static str>,
    descriptors: Vec<Descriptor>,
    filter_length: usize,
}

impl Applied {
    /// What is still open.
    #[must_use]
    pub fn descriptors(&self) -> &[Descriptor] {
        &self.descriptors
    }

    /// What Landlock does here, in words.
    #[must_use]
    pub fn landlock(&self) -> String {
        self.landlock.to_string()
    }

    /// The capabilities that were kept.
    #[must_use]
    pub fn kept_rights(&self) -> &[&'static str] {
        &self.kept_rights
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seccomp ({} instructions), {}", self.filter_length, self.landlock)?;
        match self.kept_rights.as_slice() {
            [] => f.write_str(", no capabilities")?,
            kept => write!(f, ", capabilities: {}", kept.join(" "))?,
        }
        f.write_str(", open:")?;
        self.descriptors
            .iter()
            .try_for_each(|(number, target)| write!(f, " {number}={}", target.display()))
    }
}

/// What is open in this process.
fn open_descriptors() -> Result<Vec<Descriptor>, Error> {
    let listing = std::fs::read_dir("/proc/self/fd").map_err(Error::host("list descriptors"))?;
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry.map_err(Error::host("list descriptors"))?;
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // The descriptor of the listing itself leads to the folder that is listed.
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        if let Some(number) = number.filter(|_| !is_own_listing(&target)) {
            found.push((number, target));
        }
    }
    found.sort();
    Ok(found)
}

fn is_own_listing(target: &std::path::Path) -> bool {
    target == std::path::Path::new(&format!("/proc/{}/fd", std::process::id()))
}
