//! Files of saved machines, from the side of the process that has the right to make them. Each gets
//! its name when it is whole: what is called so is never half a machine.

use super::plan::{Course, Save};
use anyhow::Context;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Files that are still without their names.
pub(super) struct Saves {
    /// With their names, the last of them first.
    unnamed: Vec<(PathBuf, NamedTempFile)>,
    /// Grows by a byte for each machine that was saved.
    done: PathBuf,
    named: u64,
}

impl Saves {
    /// Makes a file beside each that the course names, and has the course name those instead.
    ///
    /// # Errors
    /// When one cannot be made.
    pub(super) fn begin(course: &mut Course, done: PathBuf) -> anyhow::Result<Saves> {
        let mut unnamed = Vec::new();
        for Save { file, .. } in &mut course.saves {
            let file_beside = make_beside(file);
            let made =
                file_beside.with_context(|| format!("{} cannot be written", file.display()))?;
            let name = std::mem::replace(file, made.path().to_owned());
            unnamed.push((name, made));
        }
        unnamed.reverse();
        std::fs::write(&done, [])?;
        Ok(Saves { unnamed, done, named: 0 })
    }

    /// Names the files that have become whole.
    ///
    /// # Errors
    /// When the host does not let one have its name.
    pub(super) fn look(&mut self) -> anyhow::Result<()> {
        if self.unnamed.is_empty() {
            return Ok(());
        }
        while self.named < std::fs::metadata(&self.done)?.len() {
            let Some((name, file)) = self.unnamed.pop() else { break };
            let persisted = file.persist(&name);
            persisted.with_context(|| format!("{} cannot be written", name.display()))?;
            self.named += 1;
        }
        Ok(())
    }

    /// The names of those that did not come to be.
    pub(super) fn missed(&self) -> impl Iterator<Item = &Path> {
        self.unnamed.iter().rev().map(|(name, _)| name.as_path())
    }
}

fn make_beside(file: &Path) -> std::io::Result<NamedTempFile> {
    if file.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    tempfile::Builder::new().prefix(".ringside-").tempfile_in(folder.unwrap_or(Path::new(".")))
}
