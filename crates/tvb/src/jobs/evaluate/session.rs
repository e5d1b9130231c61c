//! One evaluator at work on checkpoints, one after the other.

use super::evaluator::Evaluator;
use super::metrics::Metrics;
use super::once;
use super::serve::Server;
use crate::error::Result;
use crate::progress::Progress;
use std::path::Path;

/// An evaluator at work. One that serves is started with the first checkpoint and lives until [`finish`](Session::finish);
/// dropped before that, or after an error, it is ended with everything it started.
#[derive(Debug)]
pub struct Session<'a> {
    evaluator: &'a Evaluator,
    server: Option<Server>,
}

impl Evaluator {
    /// Begins a session; nothing is started yet.
    pub fn session(&self) -> Session<'_> {
        Session { evaluator: self, server: None }
    }
}

impl Session<'_> {
    /// Evaluates one checkpoint; `scale` is what stands for [`SCALE`](super::SCALE) in the command.
    ///
    /// # Errors
    /// Usage: a command that mentions a scale where there is none. Failed: it cannot be started, ends, takes too long, or
    /// does not print metrics as it must; one that serves is ended then, and the next checkpoint starts it again.
    /// Interrupted.
    pub fn run(&mut self, checkpoint: &Path, scale: Option<f64>, progress: &dyn Progress) -> Result<Metrics> {
        if !self.evaluator.serve {
            return once::run(self.evaluator, checkpoint, scale, progress);
        }
        let mut server = match self.server.take() {
            Some(server) => server,
            None => Server::start(&self.evaluator.command)?,
        };
        let metrics = server.ask(checkpoint, self.evaluator.timeout, progress)?;
        self.server = Some(server);
        Ok(metrics)
    }

    /// Closes the stdin of one that serves and waits a moment for its end; then it is ended. How it exits does not matter.
    ///
    /// # Errors
    /// Failed: an answer that nobody asked for, which makes the ones before it doubtful.
    pub fn finish(mut self, progress: &dyn Progress) -> Result<()> {
        self.server.take().map_or(Ok(()), |server| server.finish(progress))
    }
}
