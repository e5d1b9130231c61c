//! The log of a batch: one JSON object per line, on the disk as soon as it is known.

use super::expand::Batch;
use super::run::Record;
use crate::checkpoint::{open_regular, refuse_named_pipe};
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A log that is open for appending.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log of a batch; an existing one grows.
    ///
    /// # Errors
    /// Rejected: a file that is no log, or one that the batch reads or makes. Failed: the system refuses.
    pub fn open(path: &Path, batch: &Batch) -> Result<Log> {
        batch.check_log(path)?;
        if std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0) {
            let mut first = [0];
            let (mut file, _) = open_regular(path)?;
            file.read_exact(&mut first).map_err(|error| Error::io("reading", path, &error))?;
            if first != *b"{" {
                return Err(Error::rejected(format!("{}: a log expected, something else found", path.display()))
                    .hint("choose another log"));
            }
        }
        refuse_named_pipe(path)?;
        let opened = File::options().create(true).append(true).open(path);
        let file = opened.map_err(|error| Error::io("opening", path, &error))?;
        Ok(Log { path: path.to_owned(), file })
    }

    /// Adds one record.
    ///
    /// # Errors
    /// Failed: the system cannot write.
    pub fn add(&mut self, record: &Record) -> Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
        let mut line = json!({ "unix_seconds": now });
        if let (Some(line), Value::Object(record)) = (line.as_object_mut(), record.to_json()) {
            line.extend(record);
        }
        // One write for each line, so that lines of two runs do not mix.
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(|error| Error::io("writing", &self.path, &error))
    }
}
