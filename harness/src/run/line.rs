//! A line to the guest's process, over which it is asked to come to an end by itself: what a recorded
//! guest has done would be lost if it were killed.

use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// This end of the line.
pub(super) struct Line(Arc<Mutex<Option<UnixStream>>>);

impl Line {
    /// Waits at `path`, in a thread, for the guest's process.
    ///
    /// # Errors
    /// When that is not possible.
    pub(super) fn listen(path: &Path) -> io::Result<Line> {
        let listener = UnixListener::bind(path)?;
        let line = Arc::new(Mutex::new(None));
        let connected = Arc::clone(&line);
        std::thread::spawn(move || {
            if let Ok((stream, _)) = listener.accept() {
                *connected.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
            }
        });
        Ok(Line(line))
    }

    /// Asks the guest's process to end. False if it does not hear.
    pub(super) fn ask(&self) -> bool {
        let line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        line.as_ref().is_some_and(|mut line| line.write_all(&[1]).is_ok())
    }
}
