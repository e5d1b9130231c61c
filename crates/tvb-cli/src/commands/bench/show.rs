//! Measurements as a table for people, a table for Markdown and JSON.

use crate::bench::{Report, Row, Verdict};
use crate::machine::{processor, system};
use crate::output::{Align, Table};
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};
use tvb::pass::Runtime;
use tvb::shown::escaped;
use tvb::{Error, Result};
use tvb_kernels::{DeviceChoice, Dtype, Engine, Rate};

/// A device and what was measured on it.
pub(crate) struct Measured {
    name: String,
    kind: &'static str,
    backend: &'static str,
    driver: Option<String>,
    report: Result<Report>,
}

const HEADINGS: [(&str, Align); 10] = [
    ("stage", Align::Left),
    ("dtype", Align::Left),
    ("T", Align::Right),
    ("M", Align::Right),
    ("bits", Align::Right),
    ("time", Align::Right),
    ("GB/s", Align::Right),
    ("of copy", Align::Right),
    ("same bits", Align::Left),
    ("result", Align::Left),
];

impl Measured {
    /// Of an opened device.
    pub(crate) fn new(runtime: &Runtime, report: Result<Report>) -> Measured {
        let name = runtime.device_name();
        match &runtime.engine {
            Engine::Cpu(_) => Measured { name, kind: "cpu", backend: "native", driver: None, report },
            Engine::Gpu(engine) => {
                let facts = engine.facts();
                let (kind, backend) = (facts.kind.name(), facts.backend.name());
                Measured { name, kind, backend, driver: Some(facts.driver.clone()), report }
            }
        }
    }

    /// Of one that could not be opened.
    pub(crate) fn not_opened(device: &DeviceChoice, error: Error) -> Measured {
        let name = match device {
            DeviceChoice::Index(index) => format!("adapter {index}"),
            other => format!("{other:?}"),
        };
        Measured { name, kind: "unknown", backend: "unknown", driver: None, report: Err(error) }
    }

    /// Rows that are wrong or failed; a device that could not be opened counts as one.
    pub(crate) fn n_bad(&self) -> usize {
        self.report.as_ref().map_or(1, |report| report.rows.iter().filter(|row| !row.is_right()).count())
    }

    fn heading(&self) -> String {
        let driver = self.driver.as_ref().map(|driver| format!(", driver {driver}")).unwrap_or_default();
        format!("{}{driver}", self.name)
    }

    fn cells(&self) -> Vec<[String; 10]> {
        let Ok(report) = &self.report else { return Vec::new() };
        let cells = |row: &Row| {
            let (time, repeats, result) = match &row.verdict {
                Verdict::Right { timed, hash, repeats } => {
                    let hash = hash.map(|hash| format!("{:016x}", hash.0 as u64));
                    let repeats = match repeats {
                        Some(true) => "yes",
                        Some(false) => "NO",
                        None => "-",
                    };
                    (time(timed.seconds), repeats, hash.unwrap_or_else(|| "right".into()))
                }
                Verdict::Wrong(what) => ("-".into(), "-", format!("WRONG: {what}")),
                Verdict::Failed(what) => ("-".into(), "-", format!("FAILED: {what}")),
            };
            let number = |n: Option<usize>| n.map_or_else(|| "-".into(), |n| n.to_string());
            [
                row.stage.name().into(),
                row.dtype.map_or("-", dtype_name).into(),
                number(row.n_tasks),
                number(row.n_outputs),
                row.bits.map_or("-", Rate::name).into(),
                time,
                row.gb_per_s().map_or_else(|| "-".into(), |rate| format!("{rate:.2}")),
                report.share_of_copy(row).map_or_else(|| "-".into(), |share| format!("{:.0} %", 100.0 * share)),
                repeats.into(),
                result,
            ]
        };
        report.rows.iter().map(cells).collect()
    }

    pub(crate) fn json(&self) -> Value {
        let (rows, error) = match &self.report {
            Ok(report) => (report.rows.iter().map(|row| row_json(row, report)).collect(), None),
            Err(error) => (Vec::new(), Some(error.message())),
        };
        json!({
            "name": self.name,
            "kind": self.kind,
            "backend": self.backend,
            "driver": self.driver,
            "error": error,
            "results": rows,
        })
    }
}

fn row_json(row: &Row, report: &Report) -> Value {
    let (status, problem, timed, hash, repeats) = match &row.verdict {
        Verdict::Right { timed, hash, repeats } => ("right", None, Some(timed), *hash, *repeats),
        Verdict::Wrong(what) => ("wrong", Some(what), None, None, None),
        Verdict::Failed(what) => ("failed", Some(what), None, None, None),
    };
    json!({
        "stage": row.stage.name(),
        "dtype": row.dtype.map(dtype_name),
        "n_tasks": row.n_tasks,
        "n_outputs": row.n_outputs,
        "bits": row.bits.and_then(|rate| rate.name().parse::<f64>().ok()),
        "n_rows": row.n_rows,
        "bytes": row.n_bytes,
        "status": status,
        "problem": problem,
        "seconds": timed.map(|timed| timed.seconds),
        "n_samples": timed.map(|timed| timed.n_samples),
        "gb_per_s": row.gb_per_s(),
        "share_of_copy": report.share_of_copy(row),
        "g_elements_per_s_per_core": row.g_elements_per_s_per_core(),
        "hash": hash,
        "same_bits_twice": repeats,
    })
}

fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "f64",
        Dtype::F32 => "f32",
        Dtype::F16 => "f16",
        Dtype::Bf16 => "bf16",
    }
}

/// `12.3 ms` with three digits, from nanoseconds to seconds.
fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1e-6 => (s * 1e9, "ns"),
        s if s < 1e-3 => (s * 1e6, "µs"),
        s if s < 1.0 => (s * 1e3, "ms"),
        s => (s, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// What the columns mean, under every table.
const LEGEND: &str = "GB/s counts bytes read and bytes written; `of copy` is that in parts of the device's own copy. Every \
                      result was compared with f64 arithmetic before it was timed; `result` is a hash of its bits.";

/// Tables for a terminal.
pub(crate) fn text(measured: &[Measured], date: &str) -> String {
    let mut out = format!("{}, {date}\n", tvb::TOOL);
    for device in measured {
        let _ = writeln!(out, "\n{}", device.heading());
        if let Err(error) = &device.report {
            let _ = writeln!(out, "FAILED: {error}");
            continue;
        }
        let mut table = Table::new(HEADINGS);
        device.cells().into_iter().for_each(|cells| table.row(cells));
        let _ = write!(out, "{table}");
    }
    let _ = writeln!(out, "\n{LEGEND}");
    out
}

/// What a page says of the machine that it is of.
pub(crate) struct About {
    command: String,
    system: String,
    processor: String,
    n_cores: usize,
    n_threads: usize,
}

impl About {
    /// This machine, and the command as it was typed.
    pub(crate) fn here(command: String, n_threads: usize) -> About {
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        About { command, system: system(), processor: processor(), n_cores, n_threads }
    }
}

/// A page to share: what was measured on which machine, and where it goes.
pub(crate) fn markdown(measured: &[Measured], date: &str, about: &About) -> String {
    // The adapters come first; of a machine without any the page is the processor's.
    let on_cores = format!("{}, {} cores", about.processor, about.n_cores);
    let name = match measured.first() {
        Some(first) if first.kind != "cpu" => first.name.as_str(),
        _ => on_cores.as_str(),
    };
    let mut out = format!("# {}, {date}\n\n", inline(name));
    for (what, value) in [
        ("program", tvb::TOOL),
        ("command", &about.command),
        ("system", &about.system),
        ("processor", &format!("{}, {} threads", about.processor, about.n_threads)),
    ] {
        let _ = writeln!(out, "- {what}: {}", inline(value));
    }
    let place = format!("benches/results/{}/{date}.md", slug(name));
    let _ = writeln!(out, "\nTo share it, put this page at `{place}` and say what else ran (CONTRIBUTING.md).");
    for device in measured {
        let _ = writeln!(out, "\n## {}\n", inline(&device.heading()));
        if let Err(error) = &device.report {
            let _ = writeln!(out, "FAILED: {error}");
            continue;
        }
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        out += &line(&HEADINGS.map(|(heading, _)| heading.to_owned()));
        out += &line(&HEADINGS.map(|(_, align)| if align == Align::Left { "---" } else { "---:" }.to_owned()));
        for cells in device.cells() {
            out += &line(&cells.map(|cell| cell.replace('|', "\\|")));
        }
    }
    let _ = writeln!(out, "\n{LEGEND}");
    out
}

/// A name in a line of Markdown: nothing in it is markup.
fn inline(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in escaped(text).chars() {
        if "\\`*_[]<>|#".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// A folder's name for a device: `nvidia-h100-80gb-hbm3`. How it is reached is no part of it.
fn slug(name: &str) -> String {
    let name = name.replace("(R)", " ").replace("(TM)", " ");
    let name = name.split('(').next().unwrap_or_default();
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let slug = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
    if slug.is_empty() { "device".to_owned() } else { slug }
}

/// `2026-11-22`, of the proleptic Gregorian calendar, in UTC.
pub(crate) fn utc_date(now: SystemTime) -> String {
    let days = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400);
    // Years that begin in March put the leap day last: 400 of them have 146,097 days, a month is 30.6 on average.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::stages::Stage;
    use crate::bench::timing::Timed;
    use std::time::Duration;

    #[test]
    fn dates() {
        let cases = [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_735_689_599, "2024-12-31"),
            (1_735_689_600, "2025-01-01"),
            (4_107_542_400, "2100-03-01"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(utc_date(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn times() {
        let cases = [(2.5e-8, "25.0 ns"), (1.5e-6, "1.50 µs"), (0.0123, "12.3 ms"), (0.5, "500 ms"), (12.34, "12.3 s")];
        for (seconds, expected) in cases {
            assert_eq!(time(seconds), expected);
        }
    }

    fn row(stage: Stage, verdict: Verdict) -> Row {
        Row {
            stage,
            dtype: None,
            n_tasks: Some(8),
            n_outputs: None,
            bits: None,
            n_rows: None,
            n_cores: None,
            n_bytes: Some(1_000_000_000),
            verdict,
        }
    }

    #[test]
    fn wrong_results_are_shown_without_a_time_and_counted() {
        let right =
            |seconds| Verdict::Right { timed: Timed { seconds, n_samples: 3 }, hash: None, repeats: Some(false) };
        let rows = vec![
            row(Stage::Copy, right(0.1)),
            row(Stage::Project, right(0.2)),
            row(Stage::Gram, Verdict::Wrong("entry (1, 0) | is 2".into())),
        ];
        let measured = [
            Measured { name: "a".into(), kind: "cpu", backend: "native", driver: None, report: Ok(Report { rows }) },
            Measured::not_opened(&DeviceChoice::Index(1), Error::failed("broken")),
        ];
        assert_eq!(measured.iter().map(Measured::n_bad).collect::<Vec<_>>(), [1, 1]);
        let json = measured[0].json();
        assert_eq!((&json["results"][1]["share_of_copy"], &json["results"][2]["seconds"]), (&json!(0.5), &Value::Null));
        assert_eq!((&json["results"][2]["status"], &json["results"][0]["status"]), (&json!("wrong"), &json!("right")));
        let about = About {
            command: "tvb bench --markdown".into(),
            system: "Linux, x86_64".into(),
            processor: "Xeon(R) *fast* CPU".into(),
            n_cores: 4,
            n_threads: 2,
        };
        let (text, markdown) = (text(&measured, "today"), markdown(&measured, "today", &about));
        for shown in ["50 %", "NO", "WRONG: entry (1, 0) ", "FAILED: broken"] {
            assert!(text.contains(shown) && markdown.contains(shown), "{shown:?} in\n{text}\n{markdown}");
        }
        assert!(markdown.contains("(1, 0) \\| is 2"), "{markdown}");
        for shown in [
            "\\*fast\\*",
            "benches/results/xeon-fast-cpu-4-cores/today.md",
            "- command: tvb bench --markdown",
            "2 threads",
        ] {
            assert!(markdown.contains(shown), "{shown:?} in\n{markdown}");
        }
    }

    #[test]
    fn folders_are_named_after_devices() {
        let cases = [
            ("NVIDIA H100 80GB HBM3 (vulkan, discrete)", "nvidia-h100-80gb-hbm3"),
            ("llvmpipe (LLVM 15.0.6, 256 bits) (vulkan, software)", "llvmpipe"),
            ("AMD EPYC, 2 cores", "amd-epyc-2-cores"),
            ("../../etc", "etc"),
            ("é", "device"),
        ];
        for (name, expected) in cases {
            assert_eq!(slug(name), expected);
        }
    }
}
