//! `cargo xtask bench`: the criterion benches, then whole jobs beside the time that their bytes alone take.
//!
//! Jobs run on made-up checkpoints in `target/bench-inputs`, each in turn with its *I/O floor* (`io_floor`: the same bytes
//! read and as many written, nothing in between) and, with `--peers`, with other people's programs; a table of medians goes
//! to a Markdown file. Everything that is compared ran in the same run, by turns. `cargo xtask bench merges` does so with
//! mergers.

mod inputs;
mod jobs;
mod merges;
mod peers;
mod timed;
mod turns;

use crate::process::{Result, capture, cargo, root, run as run_command, target};
use jobs::{Jobs, Programs};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Parameters of a moderate model.
const MODERATE: usize = 20_000_000;

/// Run the criterion benches, then whole jobs beside their I/O floor
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// Keep criterion's figures under this name
    #[arg(long, value_name = "NAME")]
    save_baseline: Option<String>,
    /// Compare with criterion's figures of this name
    #[arg(long, value_name = "NAME", conflicts_with = "save_baseline")]
    baseline: Option<String>,
    /// Leave the criterion benches out
    #[arg(long)]
    no_criterion: bool,
    /// Leave the jobs out
    #[arg(long, conflicts_with_all = ["full", "parameters", "peers", "linearity"])]
    no_jobs: bool,
    /// Eight f32 checkpoints of 86.6 M parameters
    #[arg(long)]
    full: bool,
    /// Parameters of each checkpoint
    #[arg(long, value_name = "N", conflicts_with = "full", default_value_t = MODERATE)]
    parameters: usize,
    /// Checkpoints beside the base
    #[arg(long, value_name = "T", default_value_t = 8)]
    tasks: usize,
    /// Runs of each job; the table has the median
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// Also how time grows with T and with d, and T = 100 at 10 M parameters (4 GB of files)
    #[arg(long)]
    linearity: bool,
    /// Also a streaming PyTorch script, and mergekit's task arithmetic, where a Python has them
    #[arg(long)]
    peers: bool,
    /// The Python of --peers
    #[arg(long, value_name = "PATH", requires = "peers")]
    python: Option<PathBuf>,
    /// Where the table goes; by default benches/results/MACHINE/DATE-jobs.md
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Passed on to criterion, for example a bench's name
    #[arg(last = true, value_name = "ARGS")]
    bench_args: Vec<String>,
}

/// What has a measurement of its own.
#[derive(Debug, clap::Subcommand)]
enum Part {
    Merges(merges::Args),
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(Part::Merges(args)) = &args.part {
        let programs = build(args.tvb.as_deref())?;
        return page("merges", &merges::run(args, &programs)?, args.output.as_deref());
    }
    if !args.no_criterion {
        criterion(args)?;
    }
    if args.no_jobs {
        return Ok(());
    }
    let programs = build(None)?;
    let mut jobs = Jobs::new(programs, args.rounds.max(1));
    let python = match args.peers {
        true => peers::find_python(args.python.as_deref()),
        false => None,
    };
    if args.peers && python.is_none() {
        eprintln!(
            "note: no Python with torch and safetensors found; `cargo xtask interop` makes one, or --python PATH"
        );
    }
    jobs.side_by_side(args.tasks, if args.full { inputs::FULL } else { args.parameters }, python.as_deref())?;
    if args.linearity {
        jobs.linearity()?;
    }
    let rounds = args.rounds.max(1);
    let text = format!("\nFiles in the page cache; medians of {rounds} runs by turns.\n{}", jobs.text());
    page("jobs", &text, args.output.as_deref())
}

/// Writes and shows a page of results; `what` is in its name where `output` gives none.
fn page(what: &str, text: &str, output: Option<&Path>) -> Result<()> {
    let date =
        capture(Command::new("date").args(["-u", "+%F"])).map_or_else(|_| "undated".into(), |d| d.trim().to_owned());
    let typed = without_paths(std::env::args().skip(2));
    let text = format!("# {date}, {}\n\n`cargo xtask bench {}`.\n{text}", machine(), typed.join(" "));
    let folder = root().join("benches/results").join(slug(&machine()));
    let path = output.map_or_else(|| folder.join(format!("{date}-{what}.md")), Path::to_path_buf);
    if output.is_none() {
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    std::fs::write(&path, &text).map_err(|error| format!("{}: {error}", path.display()))?;
    print!("{text}");
    eprintln!("\nwritten to {}", path.display());
    Ok(())
}

/// The folder of a machine's results: `amd-epyc-2-cores`, as `tvb bench --markdown` names it.
fn slug(machine: &str) -> String {
    let (cores, model) = machine.split_once(" cores of ").unwrap_or(("", machine));
    let named = format!("{model} {cores} cores").replace("(R)", " ").replace("(TM)", " ").to_ascii_lowercase();
    let words = named.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

/// The flags as they were typed, but for those whose values are places on this machine.
fn without_paths(mut args: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept = Vec::new();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--python" | "--tvb" | "--output" | "-o" => drop(args.next()),
            other if ["--python=", "--tvb=", "--output="].iter().any(|flag| other.starts_with(flag)) => {}
            _ => kept.push(arg),
        }
    }
    kept
}

fn criterion(args: &Args) -> Result<()> {
    let mut command =
        cargo(["bench", "--locked", "--package", "tvb-benches", "--bench", "stages", "--bench", "end_to_end"]);
    let baselines = [("--save-baseline", &args.save_baseline), ("--baseline", &args.baseline)];
    let flags = baselines.into_iter().filter_map(|(flag, name)| name.as_ref().map(|name| [flag, name.as_str()]));
    let mut words: Vec<&str> = flags.flatten().collect();
    words.extend(args.bench_args.iter().map(String::as_str));
    if !words.is_empty() {
        command.arg("--").args(words);
    }
    run_command(&mut command)
}

/// Builds the programs that are measured, but for a `tvb` that is there.
fn build(tvb: Option<&Path>) -> Result<Programs> {
    if tvb.is_none() {
        run_command(&mut cargo(["build", "--release", "--locked", "-p", "tvb-cli", "-p", "tvb-zoo"]))?;
    }
    // These have no dependencies; built together with the others they would ask for other features of theirs.
    run_command(&mut cargo(["build", "--release", "--locked", "-p", "tvb-benches", "--bins"]))?;
    let release = target().join("release");
    let program = |name: &str| release.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    let tvb = tvb.map_or_else(|| program("tvb"), Path::to_path_buf);
    Ok(Programs { tvb, io_floor: program("io_floor"), make_inputs: program("make_inputs") })
}

/// Processor and cores, without the machine's name.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()));
    format!("{cores} cores of {}", model.unwrap_or(std::env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::without_paths;

    #[test]
    fn no_place_on_this_machine_is_written_down() {
        let typed = "bench --peers --python /a/python --tvb /c/tvb --full -o x.md --output=/b/y.md --rounds 3";
        let kept = without_paths(typed.split(' ').map(String::from));
        assert_eq!(kept.join(" "), "bench --peers --full --rounds 3");
    }
}
