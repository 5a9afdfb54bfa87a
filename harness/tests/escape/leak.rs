//! The worker that betrays its addresses: what an attacker would have to find out first.

use crate::guest::{LEAK, Leaked};
use clap::Parser;
use machine::PhysicalAddress;
use ringside::worker::{self, Guest};
use std::process::ExitCode;

#[derive(Parser)]
struct Command {
    #[command(subcommand)]
    worker: Worker,
}

#[derive(clap::Subcommand)]
enum Worker {
    Worker(worker::Arguments),
}

/// As `ringside worker`, with the leak.
pub(crate) fn worker_main() -> ExitCode {
    let Worker::Worker(arguments) = Command::parse().worker;
    let mut guest = match Guest::new(&arguments) {
        Ok(Ok(guest)) => guest,
        other => panic!("no guest: {:?}", other.err()),
    };
    for (what, address) in addresses() {
        let place = PhysicalAddress(u64::from(LEAK) + 8 * what as u64);
        assert!(guest.machine.memory.write(place, &address.to_le_bytes()));
    }
    let report = guest.run(&arguments).expect("the guest runs");
    print!("{}", toml::to_string(&report).expect("a report can be written"));
    ExitCode::SUCCESS
}

fn addresses() -> [(Leaked, u64); 6] {
    let thread: u64;
    let here = 0u8;
    // SAFETY: reading FS's base has no effect; CPUs on which native code runs have the instruction.
    unsafe { std::arch::asm!("rdfsbase {}", out(reg) thread, options(nomem, nostack)) };
    [
        (Leaked::Syscall, libc::syscall as *const () as u64),
        (Leaked::Exit, libc::exit as *const () as u64),
        (Leaked::Abort, libc::abort as *const () as u64),
        (Leaked::ThreadStorage, thread),
        (Leaked::Stack, &raw const here as u64),
        (Leaked::Parent, std::os::unix::process::parent_id().into()),
    ]
}
