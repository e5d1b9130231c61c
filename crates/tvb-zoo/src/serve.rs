//! An evaluator that serves: paths of checkpoints on stdin, a JSON line for each on stdout. Images are made once.

use crate::eval::{Evaluator, Metrics, to_json};
use crate::model::Model;
use crate::{Error, Result, checkpoint};
use std::io::{BufRead, Write};
use std::path::Path;

/// Answers until the input ends.
///
/// # Errors
/// A checkpoint that cannot be read or is not of this model; an input or output that is closed too early.
pub fn serve(evaluator: &Evaluator, wanted: Metrics, input: &mut dyn BufRead, output: &mut dyn Write) -> Result<()> {
    let failed = |what: &str, error: &std::io::Error| Error::failed(format!("{what}: {error}"));
    let mut line = Vec::new();
    loop {
        line.clear();
        let n_bytes = input.read_until(b'\n', &mut line).map_err(|error| failed("reading a path", &error))?;
        if n_bytes == 0 {
            return Ok(());
        }
        let bytes = line.strip_suffix(b"\n").unwrap_or(&line);
        let path = path_of(bytes)?;
        let model = Model::new(&checkpoint::read(path)?)?;
        let mut answer = to_json(&evaluator.accuracies(&model)?, wanted);
        // A path that is no text cannot stand in JSON.
        if let Some(path) = path.to_str() {
            answer.insert("checkpoint".to_owned(), path.into());
        }
        let answered = writeln!(output, "{}", serde_json::Value::Object(answer)).and_then(|()| output.flush());
        answered.map_err(|error| failed("answering", &error))?;
    }
}

#[cfg(unix)]
fn path_of(bytes: &[u8]) -> Result<&Path> {
    use std::os::unix::ffi::OsStrExt;
    Ok(Path::new(std::ffi::OsStr::from_bytes(bytes)))
}

#[cfg(not(unix))]
fn path_of(bytes: &[u8]) -> Result<&Path> {
    let text = std::str::from_utf8(bytes).map_err(|_| Error::usage("a path in UTF-8 expected"))?;
    Ok(Path::new(text.trim_end_matches('\r')))
}
