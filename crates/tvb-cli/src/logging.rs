//! Logs: one plain line per event on stderr, above the progress bar if there is one.
//!
//! `-q` leaves warnings, `-qq` errors; `-v` adds detail, `-vv` everything. `TVB_LOG` takes the filter of
//! tracing-subscriber (`TVB_LOG=wgpu_core=debug`) and wins over both.

use crate::args::CommonArgs;
use crate::progress::above_the_bar;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tvb::shown::escaped_lines;

/// Installs the subscriber; the first of a process stays.
pub(crate) fn start(common: &CommonArgs) {
    let filter = match std::env::var("TVB_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::new(directives),
        _ => EnvFilter::new(default_directives(common.verbose, common.quiet)),
    };
    let is_colored = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let _ = tracing_subscriber::fmt()
        .event_format(Line { is_colored })
        .with_writer(|| AboveTheBar)
        .with_env_filter(filter)
        .try_init();
}

/// Which events are shown at each count of `-v` and `-q`. Graphics drivers probe noisily: below `-vv` only errors of
/// theirs are shown, the kernels crate reports what matters in its own words.
fn default_directives(verbose: u8, quiet: u8) -> &'static str {
    match (quiet, verbose) {
        (2.., _) => "error,wgpu_core=off,wgpu_hal=off,naga=off",
        (1, _) => "error,tvb=warn,tvb_kernels=warn",
        (0, 0) => "error,tvb=info,tvb_kernels=info",
        (0, 1) => "error,tvb=debug,tvb_kernels=debug",
        (0, _) => "info,tvb=trace,tvb_kernels=trace",
    }
}

/// `warning: …` and `error: …`; information as it is; details with the module they come from.
struct Line {
    is_colored: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (label, color) = match *event.metadata().level() {
            Level::ERROR => ("error: ", "\x1b[1;31m"),
            Level::WARN => ("warning: ", "\x1b[1;33m"),
            Level::INFO => ("", ""),
            Level::DEBUG => ("debug: ", "\x1b[2m"),
            Level::TRACE => ("trace: ", "\x1b[2m"),
        };
        match self.is_colored && !label.is_empty() {
            true => write!(writer, "{color}{label}\x1b[0m")?,
            false => write!(writer, "{label}")?,
        }
        if *event.metadata().level() >= Level::DEBUG {
            write!(writer, "{}: ", event.metadata().target())?;
        }
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        writeln!(writer, "{}", one_event(&text))
    }
}

/// The text of an event without control characters. Where it has more than one line, the others are set in, so that none of
/// them looks like an event of its own.
fn one_event(text: &str) -> String {
    escaped_lines(text.trim_end()).replace("\n  ", "\n").replace('\n', "\n  ")
}

/// Writes whole events to stderr with the progress bar out of the way.
struct AboveTheBar;

impl Write for AboveTheBar {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        // A closed stderr must not stop the work.
        above_the_bar(|| {
            let _ = io::stderr().write_all(buffer);
        });
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::one_event;

    #[test]
    fn an_event_forges_no_other() {
        let cases = [
            ("plain", "plain"),
            ("a\nerror: b", "a\n  error: b"),
            ("a\n  b\n  c\n", "a\n  b\n  c"),
            ("a\u{1b}[2K\rerror: b\u{202e}", "a\\u{1b}[2K\\rerror: b\\u{202e}"),
        ];
        for (text, expected) in cases {
            assert_eq!(one_event(text), expected);
        }
    }
}
