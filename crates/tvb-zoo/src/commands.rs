//! The commands: what each may be asked, and what it prints.
//!
//! Results go to stdout, progress to stderr.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand, ValueEnum};
use tvb_zoo::controls::{self, Control};
use tvb_zoo::data::Split;
use tvb_zoo::eval::{CONTROL, Evaluator, Metrics, to_json};
use tvb_zoo::measure::{Examiner, Extent};
use tvb_zoo::model::{Model, Tensors};
use tvb_zoo::tasks::{TASKS, TaskSpec, find, scenario};
use tvb_zoo::{Error, Result, checkpoint, sheet, survey};

/// Small trained vision models: evaluate a checkpoint, retrain the zoo, look at its data.
#[derive(Parser)]
#[command(name = "tvb-zoo", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints one JSON object: the mean accuracy, one per task, and the control's
    Eval {
        /// A safetensors file, or a folder with model.safetensors or its shards
        #[arg(required_unless_present = "serve", conflicts_with = "serve")]
        checkpoint: Option<PathBuf>,
        /// Read paths of checkpoints from stdin and answer each with a JSON line
        #[arg(long)]
        serve: bool,
        /// Only these tasks
        #[arg(long, value_delimiter = ',', value_name = "NAMES", conflicts_with = "scenario")]
        tasks: Vec<String>,
        /// Only the first 8, 14 or 20 tasks
        #[arg(long, value_name = "N")]
        scenario: Option<usize>,
        /// Choose scales on val, report test
        #[arg(long, value_enum, default_value = "val")]
        split: SplitArg,
        /// Ask about so many training images of each class instead
        #[arg(long, value_name = "K", conflicts_with = "split", requires = "tasks")]
        shots: Option<usize>,
        /// Which of them
        #[arg(long, value_name = "N", default_value_t = 0, requires = "shots")]
        draw: u64,
        /// Print losses (mean cross-entropy) too
        #[arg(long)]
        loss: bool,
    },
    /// Prints the names of the tasks, in scenario order
    Tasks {
        /// With the number of classes and what is asked
        #[arg(long)]
        long: bool,
    },
    /// Retrains the base and the twenty fine-tunes from their seeds, and surveys them
    Train {
        /// Folder to write to
        #[arg(long, default_value = "zoo")]
        out: PathBuf,
    },
    /// Measures zero-shot, fine-tuned, addition and negation of a zoo, and writes its accuracies.json
    Survey {
        /// Folder of base.safetensors and the fine-tunes
        dir: PathBuf,
    },
    /// Measures folders of recovered tasks and prints one JSON object for each: individual accuracy, addition, negation
    Measure {
        /// Folders, each with one checkpoint TASK.safetensors for every task
        #[arg(required = true)]
        folders: Vec<PathBuf>,
        /// The first 8, 14 or 20 tasks
        #[arg(long, value_name = "N", required_unless_present = "tasks")]
        scenario: Option<usize>,
        /// These tasks
        #[arg(long, value_delimiter = ',', value_name = "NAMES", conflicts_with = "scenario")]
        tasks: Vec<String>,
        /// Folder of base.safetensors and the fine-tunes
        #[arg(long)]
        zoo: PathBuf,
        /// Fewer subsets, scales and targets
        #[arg(long)]
        quick: bool,
        /// Each task alone and all added, and nothing else
        #[arg(long, conflicts_with = "quick")]
        brief: bool,
    },
    /// Stores the fine-tunes in a published way, writes them as they come back, and prints the bytes as JSON
    Control {
        /// The way
        #[arg(value_parser = controls::NAMES)]
        name: String,
        /// The first 8, 14 or 20 tasks
        #[arg(long, value_name = "N")]
        scenario: usize,
        /// Folder of base.safetensors and the fine-tunes
        #[arg(long)]
        zoo: PathBuf,
        /// Folder to write to
        #[arg(long)]
        out: PathBuf,
    },
    /// Draws a contact sheet of every task as SVG
    Images {
        /// File to write
        #[arg(long, default_value = "zoo.svg")]
        out: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum SplitArg {
    Val,
    Test,
}

/// Does what was asked.
///
/// # Errors
/// What stood in the way, on one line.
pub(crate) fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Eval { checkpoint, serve, tasks, scenario, split, shots, draw, loss } => {
            let evaluator = evaluator(&tasks, scenario, split, shots.map(|n_shots| (n_shots, draw)))?;
            let wanted = if loss { Metrics::Losses } else { Metrics::Accuracies };
            match checkpoint.filter(|_| !serve) {
                Some(path) => {
                    let model = Model::new(&checkpoint::read(&path)?)?;
                    println!("{}", serde_json::Value::Object(to_json(&evaluator.accuracies(&model)?, wanted)));
                    Ok(())
                }
                None => tvb_zoo::serve::serve(&evaluator, wanted, &mut std::io::stdin().lock(), &mut std::io::stdout()),
            }
        }
        Command::Tasks { long } => {
            for task in &TASKS {
                if long {
                    println!("{:<10} {:>2} classes  {}", task.name, task.classes.len(), task.about);
                } else {
                    println!("{}", task.name);
                }
            }
            Ok(())
        }
        Command::Train { out } => train(&out),
        Command::Survey { dir } => survey_folder(&dir),
        Command::Measure { folders, scenario: n_tasks, tasks, zoo, quick, brief } => {
            let tasks: Vec<&'static TaskSpec> = match n_tasks {
                Some(n_tasks) => scenario(n_tasks)?.iter().collect(),
                None => tasks.iter().map(|name| find(name)).collect::<Result<_>>()?,
            };
            let extent = match (brief, quick) {
                (true, _) => Extent::Brief,
                (false, true) => Extent::Quick,
                (false, false) => Extent::Full,
            };
            for measured in Examiner::new(&zoo, &tasks, extent)?.folders(&folders)? {
                println!("{}", serde_json::to_string(&measured).map_err(|error| Error::failed(error.to_string()))?);
            }
            Ok(())
        }
        Command::Control { name, scenario: n_tasks, zoo, out } => {
            store(Control::find(&name)?, scenario(n_tasks)?, &zoo, &out)
        }
        Command::Images { out } => {
            std::fs::write(&out, sheet::svg()?).map_err(|error| Error::io("writing", &out, &error))
        }
    }
}

/// The images that are asked about.
fn evaluator(
    names: &[String],
    n_tasks: Option<usize>,
    split: SplitArg,
    shots: Option<(usize, u64)>,
) -> Result<Evaluator> {
    // The control comes with every evaluation that does not name its tasks.
    let mut with_control = names.is_empty();
    let mut tasks: Vec<&'static TaskSpec> = Vec::new();
    for name in names {
        if name == CONTROL {
            with_control = true;
        } else {
            tasks.push(find(name)?);
        }
    }
    if names.is_empty() {
        tasks.extend(scenario(n_tasks.unwrap_or(TASKS.len()))?);
    }
    if let Some((n_shots, draw)) = shots {
        return Evaluator::of_few(&tasks, n_shots, draw);
    }
    let split = match split {
        SplitArg::Val => Split::Val,
        SplitArg::Test => Split::Test,
    };
    let evaluator = Evaluator::new(&tasks, split)?;
    Ok(if with_control { evaluator.with_control(split) } else { evaluator })
}

#[cfg(feature = "train")]
fn train(out: &Path) -> Result<()> {
    use tvb_zoo::train::{BASE, FINE_TUNE, fine_tune, train_base};

    std::fs::create_dir_all(out).map_err(|error| Error::io("creating", out, &error))?;
    let started = std::time::Instant::now();
    let told = |what: &str, n_steps: usize| {
        let what = what.to_owned();
        move |step: usize, loss: f32| {
            if step.is_multiple_of(200) || step == n_steps {
                eprintln!(
                    "{:6.0} s  {what}: step {step} of {n_steps}, loss {loss:.3}",
                    started.elapsed().as_secs_f64()
                );
            }
        }
    };
    let base = train_base(&BASE, &mut told("base", BASE.n_steps))?;
    checkpoint::write(&out.join("base.safetensors"), &base)?;
    for task in &TASKS {
        let tuned = fine_tune(&base, task, &FINE_TUNE, &mut told(task.name, FINE_TUNE.n_steps))?;
        checkpoint::write(&file_of(out, task), &tuned)?;
    }
    survey_folder(out)
}

#[cfg(not(feature = "train"))]
fn train(_out: &Path) -> Result<()> {
    Err(Error::usage(
        "this tvb-zoo was built without training; build it with: cargo build --release -p tvb-zoo --features train",
    ))
}

fn survey_folder(dir: &Path) -> Result<()> {
    let base = checkpoint::read(&dir.join("base.safetensors"))?;
    let fine_tunes: Vec<Tensors> =
        TASKS.iter().map(|task| checkpoint::read(&file_of(dir, task))).collect::<Result<_>>()?;
    let found = survey::survey(&base, &fine_tunes, &mut |line| eprintln!("{line}"))?;
    let path = dir.join("accuracies.json");
    let text = serde_json::to_string_pretty(&found).map_err(|error| Error::failed(error.to_string()))?;
    std::fs::write(&path, text + "\n").map_err(|error| Error::io("writing", &path, &error))
}

/// Writes what comes back of the fine-tunes, and says how many bytes were stored.
fn store(control: Control, tasks: &[TaskSpec], zoo: &Path, out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).map_err(|error| Error::io("creating", out, &error))?;
    let base = checkpoint::read(&zoo.join("base.safetensors"))?;
    let mut bytes = 0;
    for task in tasks {
        let (recovered, of_task) = control.stored(&base, &checkpoint::read(&file_of(zoo, task))?)?;
        checkpoint::write(&file_of(out, task), &recovered)?;
        bytes += of_task;
    }
    println!("{}", serde_json::json!({ "bytes": bytes }));
    Ok(())
}

fn file_of(dir: &Path, task: &TaskSpec) -> PathBuf {
    dir.join(format!("{}.safetensors", task.name))
}
