//! `tvb bench`: every device side by side on the same work, checked before it is timed.

mod save;
mod show;

use crate::args::Context;
use crate::bench::BenchOptions;
use crate::output::Answer;
use clap::ValueEnum;
use serde_json::{Map, json};
use show::Measured;
use tvb::{Error, Result, units};
use tvb_kernels::{AdapterKind, DeviceChoice, Dtype, list_adapters};

/// Measure every device: each stage checked against f64, then its speed beside the device's own copy bandwidth
///
/// `copy` is the yardstick: memory to memory on the device itself, bytes read and written both counted. `gram`, `eigh`,
/// `project`, `reconstruct`, `code` and `decode` work on data that lies in the device's memory, `upload` brings it there.
/// `end-to-end` compresses files in a temporary folder to mixtures, `end-to-end-coded` to codes, from which it adds all
/// tasks up. A result that is not right gets no time, and the command fails.
///
/// Without --device all hardware adapters and the CPU engine are measured; software adapters only with --software.
///
/// --save measures something else: whole passes from files to files, which `--device auto` then goes by on this machine. It
/// takes a minute or two a device; measure again after a new driver.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Less data and less time: under a minute
    #[arg(long)]
    pub quick: bool,
    /// Software adapters too
    #[arg(long)]
    pub software: bool,
    /// Print a Markdown page to share: see benches/results in the repository, and CONTRIBUTING.md
    #[arg(long, conflicts_with = "json")]
    pub markdown: bool,
    /// Time whole passes, and keep that in the user's cache folder for `--device auto`
    #[arg(long, conflicts_with_all = ["markdown", "tasks", "dtype", "size"])]
    pub save: bool,
    /// Numbers of tasks T
    #[arg(long, value_name = "T,…", value_delimiter = ',', default_value = "8,20,64,256", value_parser = parse_task_count)]
    pub tasks: Vec<usize>,
    /// Formats of the data
    #[arg(long, value_name = "DTYPE,…", value_delimiter = ',', default_value = "f32,bf16")]
    pub dtype: Vec<DtypeName>,
    /// Data of each stage, such as 64M; by default what suits the device, within --memory
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    pub size: Option<u64>,
}

/// `--dtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DtypeName {
    F32,
    F16,
    Bf16,
}

fn parse_task_count(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(n) if (2..=tvb_kernels::MAX_TASKS).contains(&n) => Ok(n),
        _ => Err(Error::usage(format!("2 to {} tasks expected, {text:?} found", tvb_kernels::MAX_TASKS))),
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let date = show::utc_date(std::time::SystemTime::now());
    if args.save {
        return save::save(&devices(args, context), args.quick, &date, context);
    }
    let options = BenchOptions {
        dtypes: args.dtype.iter().map(|name| name.kernel()).collect(),
        task_counts: args.tasks.clone(),
        quick: args.quick,
        size_bytes: args.size,
    };
    let mut measured = Vec::new();
    for device in devices(args, context) {
        let measurement = match context.runtime_on(&device) {
            Ok(runtime) => {
                let measured = Measured::new(&runtime, Ok(crate::bench::run(&options, &runtime, &context.progress)?));
                drop(runtime);
                measured
            }
            // Where one device was asked for, that it cannot be opened is all there is to say.
            Err(error) if *context.device() != DeviceChoice::Auto => return Err(error),
            Err(error) => Measured::not_opened(&device, error),
        };
        measured.push(measurement);
    }
    let text = match args.markdown {
        true => show::markdown(&measured, &date, &show::About::here(context.command_line(), context.n_threads)),
        false => show::text(&measured, &date),
    };
    let mut answer = Map::new();
    answer.insert("tool".into(), json!(tvb::TOOL));
    answer.insert("date".into(), json!(date));
    answer.insert("quick".into(), json!(args.quick));
    answer.insert("devices".into(), measured.iter().map(Measured::json).collect());
    let answer = Answer::new(text, answer.into());
    let n_bad: usize = measured.iter().map(Measured::n_bad).sum();
    Ok(match n_bad {
        0 => answer,
        1 => answer.with_problem(problem("a measurement is wrong or failed")),
        n => answer.with_problem(problem(&format!("{n} measurements are wrong or failed"))),
    })
}

fn problem(what: &str) -> Error {
    Error::failed(what).hint("the table says which; update the driver, or use another device")
}

/// The devices to measure: the one asked for, or all.
fn devices(args: &Args, context: &Context) -> Vec<DeviceChoice> {
    if *context.device() != DeviceChoice::Auto {
        return vec![context.device().clone()];
    }
    let adapters = list_adapters(context.backend);
    let wanted = adapters.iter().filter(|facts| args.software || facts.kind != AdapterKind::Software);
    wanted.map(|facts| DeviceChoice::Index(facts.index)).chain([DeviceChoice::Cpu]).collect()
}

impl DtypeName {
    fn kernel(self) -> Dtype {
        match self {
            DtypeName::F32 => Dtype::F32,
            DtypeName::F16 => Dtype::F16,
            DtypeName::Bf16 => Dtype::Bf16,
        }
    }
}
