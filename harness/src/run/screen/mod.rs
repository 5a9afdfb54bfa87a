//! The guest's text screen: on the terminal, and as a picture.
//!
//! The guest's process writes what the screen shows into a file of fixed size ([`frame`]) some times
//! a second. This process reads it, so a guest that has taken its monitor over can show wrong
//! characters, but writes nothing to the terminal itself.

pub(super) mod frame;
pub(super) mod keys;
mod picture;
mod terminal;

use frame::SIZE;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};
use terminal::Painter;

/// Time between two looks at the guest's screen.
pub(super) const FRAME_TIME: Duration = Duration::from_millis(40);

/// The screen on the terminal.
pub(super) struct Screen {
    file: File,
    painter: Painter,
    next: Instant,
}

impl Screen {
    /// Shows what the guest's process writes to the file at `path`.
    pub(super) fn open(path: &Path) -> std::io::Result<Screen> {
        Ok(Screen { file: File::open(path)?, painter: Painter::default(), next: Instant::now() })
    }

    /// Paints what has changed, if it is time to.
    pub(super) fn refresh(&mut self) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + FRAME_TIME;
        self.paint();
    }

    fn paint(&mut self) {
        let mut bytes = [0; SIZE];
        if self.file.read_exact_at(&mut bytes, 0).is_ok() {
            let text = self.painter.paint(&frame::decode(&bytes));
            let mut out = std::io::stdout().lock();
            // A terminal that is gone shows nothing.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.paint();
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(terminal::END.as_bytes()).and_then(|()| out.flush());
    }
}

/// Writes the last frame in the file `frames` as a PNG to `path`.
///
/// # Errors
/// When there is none, or the picture cannot be written.
pub(super) fn save(frames: &Path, path: &Path) -> anyhow::Result<()> {
    let mut bytes = [0; SIZE];
    File::open(frames)?.read_exact_at(&mut bytes, 0)?;
    picture::draw(&frame::decode(&bytes)).save_with_format(path, image::ImageFormat::Png)?;
    Ok(())
}
