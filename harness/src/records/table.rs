//! CSV files that survive an interruption: each row is flushed when it is written, and a last line
//! that was cut short is dropped when the file is read or continued.

use super::{Error, Row};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

/// Appends rows to a CSV file, each flushed before [`Appender::append`] returns.
pub struct Appender<R> {
    path: PathBuf,
    file: File,
    rows: PhantomData<R>,
}

impl<R: Row> Appender<R> {
    /// Opens the file, or makes it with its header. A line cut short by an interruption is removed.
    ///
    /// # Errors
    /// When the file cannot be written, or begins with other columns.
    pub fn open(path: &Path) -> Result<Appender<R>, Error> {
        let io = |source| Error::File { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(io)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        let whole = whole_lines(&bytes);
        file.set_len(whole.len() as u64).map_err(io)?;
        file.seek(SeekFrom::Start(whole.len() as u64)).map_err(io)?;
        if whole.is_empty() {
            file.write_all(header::<R>().as_bytes()).map_err(io)?;
        } else {
            check_header::<R>(path, whole)?;
        }
        Ok(Appender { path: path.to_owned(), file, rows: PhantomData })
    }

    /// Writes one row, in one system call, so that an interruption leaves all of it or nothing.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&mut self, row: &R) -> Result<(), Error> {
        let line = line(&self.path, row)?;
        self.file.write_all(&line).map_err(|source| Error::File { path: self.path.clone(), source })
    }
}

/// Writes a whole file, replacing what was there only when all of it is written.
///
/// # Errors
/// When the file cannot be written.
pub fn write<R: Row>(path: &Path, rows: &[R]) -> Result<(), Error> {
    let io = |source| Error::File { path: path.to_owned(), source };
    let mut bytes = header::<R>().into_bytes();
    for row in rows {
        bytes.extend(line(path, row)?);
    }
    let next = path.with_extension("csv.new");
    std::fs::write(&next, bytes).map_err(io)?;
    std::fs::rename(&next, path).map_err(io)
}

/// Reads all rows. A last line that was cut short is left out.
///
/// # Errors
/// When the file is not there or holds something else. The message names file and line.
pub fn read<R: Row>(path: &Path) -> Result<Vec<R>, Error> {
    let bytes =
        std::fs::read(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
    let whole = whole_lines(&bytes);
    if whole.is_empty() {
        return Ok(Vec::new());
    }
    check_header::<R>(path, whole)?;
    let mut reader = csv::Reader::from_reader(whole);
    let headers = reader.headers().map_err(|error| unreadable::<R>(path, &error))?.clone();
    reader
        .records()
        .map(|record| {
            let record = record.map_err(|error| unreadable::<R>(path, &error))?;
            record.deserialize(Some(&headers)).map_err(|error| unreadable::<R>(path, &error))
        })
        .collect()
}

fn header<R: Row>() -> String {
    R::COLUMNS.join(",") + "\n"
}

fn line<R: Row>(path: &Path, row: &R) -> Result<Vec<u8>, Error> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    let failed = |reason: String| Error::Format {
        path: path.to_owned(),
        line: 0,
        reason,
        expected: columns::<R>(),
    };
    writer.serialize(row).map_err(|error| failed(error.to_string()))?;
    writer.into_inner().map_err(|error| failed(error.to_string()))
}

fn columns<R: Row>() -> String {
    format!("the columns {}", R::COLUMNS.join(", "))
}

fn check_header<R: Row>(path: &Path, whole: &[u8]) -> Result<(), Error> {
    let first = whole.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let first = first.strip_suffix(b"\r").unwrap_or(first);
    if first == R::COLUMNS.join(",").as_bytes() {
        return Ok(());
    }
    Err(Error::Format {
        path: path.to_owned(),
        line: 1,
        reason: format!("other columns: `{}`", String::from_utf8_lossy(first)),
        expected: columns::<R>(),
    })
}

fn unreadable<R: Row>(path: &Path, error: &csv::Error) -> Error {
    let reason = match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => {
            let column = err.field().and_then(|field| R::COLUMNS.get(field as usize));
            let column = column.map_or(String::new(), |name| format!("in column `{name}`: "));
            format!("{column}{}", err.kind())
        }
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} fields instead of {expected_len}")
        }
        _ => error.to_string(),
    };
    Error::Format {
        path: path.to_owned(),
        line: error.position().map_or(0, csv::Position::line),
        reason,
        expected: columns::<R>(),
    }
}

/// The bytes up to and with the last line feed that ends a row. A line feed inside quotes ends none;
/// doubled quotes within a field leave the count even.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let mut quoted = false;
    let mut end = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => end = at + 1,
            _ => {}
        }
    }
    &bytes[..end]
}

#[cfg(test)]
mod tests {
    use super::super::{DetailRow, Outcome, ProbeOutcome, ProbeRow, SampleRow};
    use super::*;

    fn sample(number: u32) -> SampleRow {
        SampleRow {
            strategy: "interpretation".into(),
            workload: "sieve".into(),
            sample: number,
            iterations: 10,
            seconds: Some(0.5),
            outcome: Outcome::Ok,
        }
    }

    fn in_new_file(name: &str, test: impl FnOnce(&Path)) {
        let dir = tempfile::tempdir().unwrap();
        test(&dir.path().join(name));
    }

    #[test]
    fn rows_come_back_as_they_were_written() {
        in_new_file("samples.csv", |path| {
            let mut failed = sample(1);
            (failed.seconds, failed.outcome) = (None, Outcome::Timeout);
            let rows = [sample(0), failed];
            let mut appender = Appender::open(path).unwrap();
            rows.iter().for_each(|row| appender.append(row).unwrap());
            assert_eq!(read::<SampleRow>(path).unwrap(), rows);
        });
    }

    #[test]
    fn probe_values_are_hexadecimal_or_empty() {
        in_new_file("probes.csv", |path| {
            let row = ProbeRow {
                strategy: "trap-and-emulate".into(),
                workload: "sgdt".into(),
                probe: "ring0".into(),
                outcome: ProbeOutcome::Wrong,
                seen: Some(0xfffe_0000),
                expected: None,
            };
            write(path, std::slice::from_ref(&row)).unwrap();
            assert!(std::fs::read_to_string(path).unwrap().contains(",wrong,fffe0000,\n"));
            assert_eq!(read::<ProbeRow>(path).unwrap(), [row]);
        });
    }

    #[test]
    fn a_torn_last_line_is_left_out_and_overwritten() {
        in_new_file("samples.csv", |path| {
            write(path, &[sample(0)]).unwrap();
            let mut text = std::fs::read_to_string(path).unwrap();
            text += "interpretation,sieve,1,10,0.0";
            std::fs::write(path, &text).unwrap();
            assert_eq!(read::<SampleRow>(path).unwrap(), [sample(0)]);
            Appender::open(path).unwrap().append(&sample(1)).unwrap();
            assert_eq!(read::<SampleRow>(path).unwrap(), [sample(0), sample(1)]);
        });
    }

    #[test]
    fn a_torn_header_is_written_again() {
        in_new_file("samples.csv", |path| {
            std::fs::write(path, "strategy,work").unwrap();
            assert_eq!(read::<SampleRow>(path).unwrap(), []);
            Appender::open(path).unwrap().append(&sample(0)).unwrap();
            assert_eq!(read::<SampleRow>(path).unwrap(), [sample(0)]);
        });
    }

    #[test]
    fn details_may_hold_commas_quotes_and_line_feeds() {
        in_new_file("details.csv", |path| {
            let row = DetailRow {
                strategy: "s".into(),
                workload: "w".into(),
                sample: 0,
                detail: "says \"no\",\nthen dies\r\n".into(),
            };
            write(path, std::slice::from_ref(&row)).unwrap();
            let mut bytes = std::fs::read(path).unwrap();
            bytes.extend(b"s,w,1,\"a line\nthat was cut");
            std::fs::write(path, bytes).unwrap();
            assert_eq!(read::<DetailRow>(path).unwrap(), [row]);
        });
    }

    #[test]
    fn errors_name_file_line_column_and_what_was_expected() {
        in_new_file("samples.csv", |path| {
            write(path, &[sample(0), sample(1)]).unwrap();
            let text = std::fs::read_to_string(path).unwrap();
            std::fs::write(path, text.replace(",1,10,", ",one,10,")).unwrap();
            let message = read::<SampleRow>(path).unwrap_err().to_string();
            for part in ["samples.csv:3", "`sample`", "invalid digit", "iterations, seconds"] {
                assert!(message.contains(part), "{part} in {message}");
            }
        });
    }

    #[test]
    fn other_columns_are_refused_for_reading_and_appending() {
        in_new_file("samples.csv", |path| {
            std::fs::write(path, "a,b\n1,2\n").unwrap();
            let message = read::<SampleRow>(path).unwrap_err().to_string();
            assert!(message.contains("samples.csv:1: other columns: `a,b`"), "{message}");
            assert!(Appender::<SampleRow>::open(path).is_err());
            assert_eq!(std::fs::read_to_string(path).unwrap(), "a,b\n1,2\n");
        });
    }
}
