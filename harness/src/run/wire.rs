//! The guest's end of a line to the process that waits for it, with gdb behind that or nobody. A
//! thread reads, so that looking whether something has come takes no system call, and so that what
//! comes stops the guest.

use gdbstub::conn::{Connection, ConnectionExt};
use machine::signals::{Request, Signals};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, OnceLock};

/// A connection.
pub(super) struct Wire {
    /// Only read from and written to: what the sandbox lets a file be.
    file: File,
    /// For the thread that reads.
    reader: Option<File>,
    unsent: Vec<u8>,
    received: Option<Receiver<u8>>,
    /// The byte that was looked at and not taken.
    next: Option<u8>,
    running: Arc<OnceLock<Arc<Signals>>>,
}

impl Wire {
    /// Connects.
    ///
    /// # Errors
    /// When nobody is there.
    pub(super) fn connect(path: &Path) -> io::Result<Wire> {
        let file = File::from(OwnedFd::from(UnixStream::connect(path)?));
        // Now, for later there is no right to another descriptor.
        let reader = Some(file.try_clone()?);
        let (unsent, running) = (Vec::new(), Arc::default());
        Ok(Wire { file, reader, unsent, received: None, next: None, running })
    }

    /// Starts the thread that reads. It ends with the connection or the process.
    pub(super) fn listen(&mut self) {
        let Some(file) = self.reader.take() else { return };
        let (to, received) = channel();
        let (begin, begun) = channel();
        let running = Arc::clone(&self.running);
        std::thread::spawn(move || {
            // The receiver waits for this, so that the thread has made its library's system calls.
            let _ = begin.send(());
            read(file, &to, &running);
        });
        // An error means that the thread has ended already: nothing to wait for.
        let _ = begun.recv();
        self.received = Some(received);
    }

    /// Makes what comes from now on stop the guest.
    pub(super) fn wake(&self, signals: Arc<Signals>) {
        // It is set once: a wire has one guest.
        let _ = self.running.set(signals);
    }

    /// Whether anything has come.
    pub(super) fn has_received(&mut self) -> bool {
        self.peek().is_ok_and(|byte| byte.is_some())
    }

    fn look(&mut self) -> Option<io::Result<u8>> {
        match self.received.as_ref()?.try_recv() {
            Ok(byte) => Some(Ok(byte)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(gone())),
        }
    }
}

fn read(mut file: File, to: &Sender<u8>, running: &OnceLock<Arc<Signals>>) {
    let mut part = [0; 1024];
    while let Ok(length @ 1..) = file.read(&mut part) {
        if part[..length].iter().any(|&byte| to.send(byte).is_err()) {
            return;
        }
        if let Some(signals) = running.get() {
            signals.request(Request::Stop);
        }
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

impl Connection for Wire {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.unsent.push(byte);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&std::mem::take(&mut self.unsent))
    }
}

impl ConnectionExt for Wire {
    fn read(&mut self) -> io::Result<u8> {
        match self.next.take() {
            Some(byte) => Ok(byte),
            None => {
                self.received.as_ref().and_then(|received| received.recv().ok()).ok_or_else(gone)
            }
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.next.is_none() {
            self.next = self.look().transpose()?;
        }
        Ok(self.next)
    }
}
