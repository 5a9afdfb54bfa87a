//! What is said about a bad configuration: one message with file, line and key.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// A configuration that cannot be used. It displays as one line: `FILE:LINE: what is wrong`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// The file, or the name of what stands for one, such as `command line`.
    pub path: PathBuf,
    /// The line, counted from one, where there is one to name.
    pub line: Option<usize>,
    /// What is wrong, with the key.
    pub message: String,
}

impl std::error::Error for ConfigError {}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.message)
    }
}

/// A configuration's text with its name: everything that an error message needs.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl<'a> Source<'a> {
    /// The text `text`, shown as `path` in messages.
    #[must_use]
    pub fn new(path: &'a Path, text: &'a str) -> Source<'a> {
        Source { path, text }
    }

    /// The folder that relative paths in this configuration start from.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// An error about the whole.
    #[must_use]
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError { path: self.path.to_owned(), line: None, message: message.into() }
    }

    /// An error about the bytes in `span`.
    #[must_use]
    pub fn error_at(&self, span: &Range<usize>, message: impl Into<String>) -> ConfigError {
        let line = Some(self.line(span.start) + 1);
        ConfigError { path: self.path.to_owned(), line, message: message.into() }
    }

    /// Parses the text as TOML into `T`.
    ///
    /// # Errors
    /// When it is not TOML, has a key that `T` does not know, or a value of another type.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(self.text).map_err(|error| self.in_words(&error))
    }

    fn in_words(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        let message = error.message();
        let message = if let Some(listed) = message.strip_prefix("unknown field ") {
            unknown_field(listed)
        } else if message.starts_with("invalid type") || message.starts_with("invalid value") {
            match self.key_before(span.start) {
                Some(key) => format!("key {key:?}: {}", plain_types(message)),
                None => plain_types(message),
            }
        } else {
            message.lines().collect::<Vec<_>>().join(", ")
        };
        self.error_at(&span, message)
    }

    /// The index of the line that holds byte `at`.
    fn line(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|&byte| byte == b'\n').count()
    }

    /// The key whose value begins at byte `at`: a list may have begun some lines above.
    fn key_before(&self, at: usize) -> Option<&'a str> {
        let lines: Vec<&str> = self.text.lines().take(self.line(at) + 1).collect();
        let (key, _) = lines.iter().rev().find_map(|line| line.split_once('='))?;
        Some(key.trim())
    }
}

/// Rewrites serde's list of fields, which stand in backticks: the first is the unknown one.
fn unknown_field(listed: &str) -> String {
    let names: Vec<&str> = listed.split('`').skip(1).step_by(2).collect();
    match names.split_first() {
        Some((unknown, known)) => super::suggest::unknown("key", unknown, known),
        None => format!("unknown key {listed}"),
    }
}

/// Rust's names of types, in words.
fn plain_types(message: &str) -> String {
    let (found, expected) = message.rsplit_once("expected ").unwrap_or((message, ""));
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        other => other,
    };
    format!("{found}expected {expected}")
}
