//! The folder of a run: made, or found again where a run was interrupted.

use super::recorder::Recorder;
use crate::config::Experiment;
use crate::records::{EXPERIMENT, Host};
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The folder of a run.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Makes the folder `out` (or one named for the time, in `results`) for the experiment. A
    /// folder that holds a run of the same experiment is continued; any other is refused, so that
    /// nothing is ever overwritten.
    pub(super) fn open(out: Option<&Path>, experiment: &Experiment) -> anyhow::Result<Directory> {
        let path = match out {
            Some(path) => path.to_owned(),
            None => Path::new("results").join(name_for(SystemTime::now())),
        };
        let shown = path.display();
        std::fs::create_dir_all(&path)
            .with_context(|| format!("the results folder {shown} cannot be made"))?;
        let plan = path.join(EXPERIMENT);
        let text = experiment.to_toml();
        match std::fs::read_to_string(&plan) {
            Ok(saved) if saved == text => return Ok(Directory { path }),
            Ok(_) => bail!("{shown} holds another experiment; name another folder with --out"),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("{} cannot be read", plan.display()));
            }
            Err(_) => {}
        }
        let mut entries = path
            .read_dir()
            .with_context(|| format!("the results folder {shown} cannot be read"))?;
        if entries.next().is_some() {
            bail!("{shown} is not empty and holds no run; name another folder with --out");
        }
        std::fs::write(&plan, text)
            .with_context(|| format!("the results folder {shown} cannot be written"))?;
        Ok(Directory { path })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What results go to. Describes the host first.
    pub(super) fn recorder(&self, host: &Host) -> anyhow::Result<Recorder> {
        host.save(&self.path)?;
        Recorder::open(&self.path)
    }
}

/// A name that sorts by time: `2026-11-22-193005`, in UTC.
fn name_for(now: SystemTime) -> String {
    let [year, month, day, hour, minute, second] = utc(now);
    format!("{year:04}-{month:02}-{day:02}-{hour:02}{minute:02}{second:02}")
}

/// Year, month, day, hour, minute and second in UTC.
pub(crate) fn utc(at: SystemTime) -> [u64; 6] {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (mut year, mut days) = (1970, seconds / 86_400);
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let length = |year| if is_leap(year) { 366 } else { 365 };
    while days >= length(year) {
        days -= length(year);
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= months[month] {
        days -= months[month];
        month += 1;
    }
    [year, month as u64 + 1, days + 1, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn names_are_dates() {
        let at = |seconds| name_for(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01-000000");
        assert_eq!(at(951_782_400), "2000-02-29-000000");
        assert_eq!(at(1_795_375_805), "2026-11-22-193005");
        assert_eq!(at(4_107_542_399), "2100-02-28-235959");
    }

    #[test]
    fn a_folder_with_other_things_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("thesis.tex"), "x").unwrap();
        let path = Path::new("built-in");
        let text = "strategies = []\npeers = [\"qemu-tcg\"]\nworkloads = [\"compute\"]\n";
        let Ok(experiment) = Experiment::parse(path, text, &crate::config::Overrides::default())
        else {
            panic!("the experiment should be good");
        };
        let error = Directory::open(Some(folder.path()), &experiment).unwrap_err();
        assert!(error.to_string().contains("is not empty"), "{error}");
    }
}
