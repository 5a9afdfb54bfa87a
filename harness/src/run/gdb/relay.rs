//! Between gdb's connection and the guest's process.

use anyhow::Context;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// A port of this host at which gdb is waited for.
pub(in crate::run) struct Relay {
    outside: TcpListener,
    inside: UnixListener,
}

impl Relay {
    /// Listens at a port of 127.0.0.1, which nobody but this host reaches (0 for any that is free),
    /// and at `path` for the guest's process.
    ///
    /// # Errors
    /// When that is not possible.
    pub(in crate::run) fn listen(port: u16, path: &Path) -> anyhow::Result<Relay> {
        let outside = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let outside = outside.with_context(|| format!("--gdb: port {port} cannot be had"))?;
        Ok(Relay { outside, inside: UnixListener::bind(path)? })
    }

    /// The port.
    ///
    /// # Errors
    /// When the host does not say.
    pub(in crate::run) fn port(&self) -> io::Result<u16> {
        Ok(self.outside.local_addr()?.port())
    }

    /// Waits for the two and passes on what they say, in threads that end with the program. One gdb
    /// is served, once.
    pub(in crate::run) fn start(self) {
        std::thread::spawn(move || {
            let Relay { outside, inside } = self;
            let Ok((guest, _)) = inside.accept() else { return };
            let Ok((gdb, _)) = outside.accept() else { return };
            // Whoever comes later is refused.
            drop(outside);
            let _ = relay(gdb, guest);
        });
    }
}

fn relay(gdb: TcpStream, guest: UnixStream) -> io::Result<()> {
    gdb.set_nodelay(true)?;
    let (from_guest, to_gdb) = (guest.try_clone()?, gdb.try_clone()?);
    std::thread::spawn(move || {
        pass(&from_guest, &to_gdb);
        let _ = to_gdb.shutdown(Shutdown::Both);
    });
    pass(&gdb, &guest);
    guest.shutdown(Shutdown::Both)
}

/// Passes on what comes until one side is gone.
fn pass(mut from: impl Read, mut to: impl Write) {
    let mut part = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut part) {
        if to.write_all(&part[..length]).is_err() {
            return;
        }
    }
}
