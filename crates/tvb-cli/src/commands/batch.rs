//! `tvb batch`: many jobs from one file, unattended.

use crate::args::Context;
use crate::output::{Align, Answer, Table};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use tvb::jobs::batch::{Batch, JobFile, Log, Outcome, Record, Summary, batch_work, check, run as run_batch};
use tvb::pass::Runtime;
use tvb::progress::Progress;
use tvb::shown::{escaped, shown_path};
use tvb::{Error, Result, units};

/// What follows the help page: the schema in short.
const SCHEMA: &str = r#"The job file is TOML; paths are relative to it:

  work = "work"                    # Gram files and records (default: the job file's name with .work)

  [defaults]                       # every key of a job but name
  base = "base.safetensors"
  tasks = ["cars.safetensors", "dtd=runs/dtd"]
  method = ["anchored", "pca"]     # one or a list
  m = [2, 4]                       # numbers of atoms; or ratio = 0.5
  dtype = "f32"                    # f32, bf16 or f16; one or a list; or bits = [1, 2]
  output = "out/{job}-{method}-m{m}"

  [[job]]
  name = "vision"

  [[job]]
  name = "digits"
  from = "runs"                    # zeroshot.pt and */finetuned.pt, in place of base and tasks
  m = 4
  [[job.after]]
  add = { tasks = ["MNIST", "SVHN:0.5"], scale = 0.3, output = "out/{job}-{method}-m{m}-add.safetensors" }
  [[job.after]]
  negate = { task = "MNIST", output = "out/{job}-{method}-m{m}-negated.safetensors" }

Further keys of a job: include, exclude, skip_mismatched, key, base_model, balance, coordinates, seed, weights = { NAME = 2.0 },
restarts, eigengap, paper, steps, lr, tau, anneal, batch_columns, grad_clip, weight_decay, encoder, w_activation,
init (as the flags of `tvb compress`),
and overwrite = true. Steps: add (tasks, rule), negate (task), analogy (tasks = [A, B, C]), apply (expression), each
with output, scale, dtype, delta and overwrite. Words in templates: {job} {method} {m} {ratio} {dtype} {bits}.

A job without method, m and ratio codes its tasks as `tvb compress` does: bits (one or a list, 2 by default), keep_sum
(bits or "off"), keep = ["a + b", "a - c:4"]. With bits, mixtures are coded too.

Jobs with the same inputs share one Gram pass. An output of the same inputs and options is not made again, so a batch
that was stopped goes on when it is run again. Exit code 1 if any job failed."#;

/// Run many jobs from one file, unattended
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = SCHEMA)]
pub(crate) struct Args {
    /// The job file
    #[arg(value_name = "JOBS.toml")]
    pub file: PathBuf,
    /// Go on with the other jobs after one has failed (the default)
    #[arg(long, conflicts_with = "fail_fast")]
    pub keep_going: bool,
    /// Try nothing more after the first failure
    #[arg(long)]
    pub fail_fast: bool,
    /// Append one JSON object for each output to this file
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Check every job's headers, memory and disk, list all problems, and stop
    #[arg(long)]
    pub dry_run: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let file = JobFile::read_within(&args.file, &context.budget)?;
    let batch = Batch::new(&file, &args.file).map_err(|error| error.context(shown_path(&args.file)))?;
    if args.dry_run {
        return dry_run(&batch, &context.runtime()?, &context.progress);
    }
    let mut log = args.log.as_deref().map(|path| Log::open(path, &batch)).transpose()?;
    let mut on_record = |record: &Record| {
        context.progress.note(&line(record));
        log.as_mut().map_or(Ok(()), |log| log.add(record))
    };
    let command = context.command_line();
    let runtime = context.runtime_for(|| batch_work(&batch, &context.budget, &context.progress))?;
    let summary = run_batch(&batch, args.fail_fast, &command, &runtime, &context.progress, &mut on_record)?;
    Ok(answer(&summary))
}

fn line(record: &Record) -> String {
    match &record.outcome {
        // Why comes with the answer.
        Outcome::Failed(_) => format!("{} {}: {}", record.job, record.step, record.word()),
        _ => format!("{} {} {}: {}", record.job, record.step, shown_path(&record.output), record.word()),
    }
}

fn answer(summary: &Summary) -> Answer {
    let mut table = Table::new([
        ("job", Align::Left),
        ("step", Align::Left),
        ("method", Align::Left),
        ("M", Align::Right),
        ("outcome", Align::Left),
        ("worst error", Align::Right),
        ("time", Align::Right),
        ("output", Align::Left),
    ]);
    for record in &summary.records {
        table.row([
            record.job.clone(),
            record.step.to_owned(),
            record.method.clone(),
            if record.n_atoms > 0 { record.n_atoms.to_string() } else { String::new() },
            record.word().to_owned(),
            record.worst_error.map_or_else(String::new, |error| format!("{error:.4}")),
            units::duration(Duration::try_from_secs_f64(record.seconds).unwrap_or_default()),
            shown_path(&record.output),
        ]);
    }
    let mut text = table.to_string();
    for (error, records) in failures(summary) {
        let mut names: Vec<String> =
            records.iter().map(|record| format!("{} {}", escaped(&record.job), record.step)).collect();
        names.dedup();
        text.push_str(&format!("{}: {error}\n", names.join(", ")));
        if let Some(hint) = error.hint_text() {
            text.push_str(&format!("  hint: {hint}\n"));
        }
    }
    let count = |word: &str| summary.records.iter().filter(|record| record.word() == word).count();
    let (n_made, n_current, n_not_tried) = (count("made"), count("current"), count("not tried"));
    text.push_str(&format!(
        "{n_made} made, {n_current} current, {} failed, {n_not_tried} not tried\n",
        count("failed")
    ));
    let json = json!({
        "records": summary.records.iter().map(Record::to_json).collect::<Vec<_>>(),
        "n_made": n_made,
        "n_current": n_current,
        "n_failed": count("failed"),
        "n_not_tried": n_not_tried,
    });
    let answer = Answer::new(text, json);
    if summary.is_interrupted() {
        return answer.with_problem(Error::interrupted().hint("the same command resumes where it stopped"));
    }
    match count("failed") {
        0 => answer,
        n_failed => {
            answer.with_problem(Error::failed(format!("{n_failed} of {} outputs failed", summary.records.len())))
        }
    }
}

/// What failed, by why: jobs that share their inputs fail of the same, which is said once.
fn failures(summary: &Summary) -> Vec<(&Error, Vec<&Record>)> {
    let mut groups: Vec<(&Error, Vec<&Record>)> = Vec::new();
    for record in &summary.records {
        let Outcome::Failed(error) = &record.outcome else { continue };
        match groups.iter_mut().find(|(known, _)| known.message() == error.message()) {
            Some((_, records)) => records.push(record),
            None => groups.push((error, vec![record])),
        }
    }
    groups
}

fn dry_run(batch: &Batch, runtime: &Runtime, progress: &dyn Progress) -> Result<Answer> {
    let check = check(batch, runtime, progress)?;
    let mut text = String::new();
    for problem in &check.problems {
        text.push_str(&format!("{problem}\n"));
    }
    text.push_str(&format!(
        "{} outputs to make, {} current; {} passes for Gram matrices\nreads at most {}, writes at most {}\n",
        check.n_to_make,
        check.n_current,
        check.n_gram_passes,
        units::bytes(check.read_bytes),
        units::bytes(check.write_bytes)
    ));
    let json = json!({
        "dry_run": true,
        "problems": check.problems,
        "n_to_make": check.n_to_make,
        "n_current": check.n_current,
        "n_gram_passes": check.n_gram_passes,
        "read_bytes": check.read_bytes,
        "write_bytes": check.write_bytes,
    });
    let answer = Answer::new(text, json);
    Ok(match check.problems.len() {
        0 => answer,
        1 => answer.with_problem(Error::rejected("1 problem found")),
        n_problems => answer.with_problem(Error::rejected(format!("{n_problems} problems found"))),
    })
}
