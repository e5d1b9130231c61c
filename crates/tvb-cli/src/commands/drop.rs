//! `tvb drop`: tasks leave a basis.

use crate::args::Context;
use crate::commands::edit::open_basis;
use crate::inputs::{SelectionArgs, parse_tasks};
use crate::output::{Align, Answer, Table};
use serde_json::json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tvb::basis::manifest::Fidelity;
use tvb::checkpoint::Existing;
use tvb::jobs::drop::{DropOptions, Dropped, drop_tasks};
use tvb::shown::{escaped, path_json, shown_path};
use tvb::{Error, Result, units};
use tvb_kernels::DeviceChoice;

/// Take tasks out of a basis
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The basis folder
    pub basis: PathBuf,
    /// Names of the tasks that go. With --base also originals, NAME=PATH: of all that go, or of all that stay; what is shared is made
    /// anew from them
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<OsString>,
    /// The base that the basis was made from
    #[arg(long, value_name = "PATH")]
    pub base: Option<PathBuf>,
    /// Write the basis without them here; it replaces the old one otherwise
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Change the names of the originals' tensors before they are matched: s/REGEX/REPLACEMENT/, or NAME:s/…/…/ for one task
    #[arg(long, value_name = "RULE", requires = "base")]
    pub rename: Vec<String>,
    /// The key of a PyTorch file under which its state dict lies; dots separate nested keys
    #[arg(long, value_name = "KEY", requires = "base")]
    pub key: Option<String>,
    /// Take a base that is not the one the basis was made from
    #[arg(long, requires = "base")]
    pub force: bool,
    /// Replace an existing output
    #[arg(long, requires = "output")]
    pub overwrite: bool,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Answer> {
    let basis = open_basis(&args.basis, context)?;
    let known = basis.task_names();
    let (names, originals) = divide(args, &known)?;
    let plan = match &args.base {
        None => None,
        Some(base) => {
            let selection = SelectionArgs::of_basis(&basis, &args.rename, args.key.as_deref());
            Some(selection.plan_quietly(base, parse_tasks(&originals, context)?, context)?)
        }
    };
    let options = DropOptions::default()
        .output(args.output.clone())
        .existing(if args.overwrite { Existing::Replace } else { Existing::Refuse })
        .force(args.force);
    let runtime = context.runtime_on(&DeviceChoice::Cpu)?;
    let started = Instant::now();
    let dropped = drop_tasks(&basis, &names, plan.as_ref(), &options, &runtime, &context.progress)?;
    let seconds = started.elapsed();
    let mut json = crate::commands::inspect::basis_json(&dropped.basis);
    Answer::add(&mut json, "output", path_json(&dropped.basis.folder));
    Answer::add(&mut json, "dropped", json!(names));
    Answer::add(&mut json, "remade", dropped.remade);
    let promises = dropped.promises.iter();
    let promises = promises.map(|one| json!({ "edit": one.edit, "before": one.before, "after": one.after }));
    Answer::add(&mut json, "promises", promises.collect::<Vec<_>>());
    Answer::add(&mut json, "growth_notes", json!(dropped.notes));
    Answer::add(&mut json, "seconds", seconds.as_secs_f64());
    let mut text = summary(&dropped);
    text.push_str(&format!("{}\n", units::duration(seconds)));
    Ok(Answer::new(text, json))
}

/// Names of tasks that go, and originals, which have a path.
fn divide(args: &Args, known: &[String]) -> Result<(Vec<String>, Vec<OsString>)> {
    let is_name = |text: &OsString| text.to_str().is_some_and(|text| known.iter().any(|name| name == text));
    let has_path = |text: &OsString| text.to_str().is_none_or(|text| text.contains('=') || Path::new(text).exists());
    let (originals, names): (Vec<OsString>, Vec<OsString>) =
        args.names.iter().cloned().partition(|text| !is_name(text) && has_path(text));
    let names = names.iter().map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>();
    match (&args.base, originals.is_empty()) {
        (None, false) => Err(Error::usage("originals without the base that their basis was made from")
            .hint("--base PATH; or names of tasks alone")),
        (Some(_), true) => Err(Error::usage("--base without originals: nothing would be read of it")
            .hint("NAME=PATH for each of all tasks that go, or of all that stay")),
        // Originals may be of those that stay: what goes is named by itself.
        (Some(_), false) if names.is_empty() => {
            Err(Error::usage("names of the tasks that go expected, originals alone found")
                .hint("tvb drop BASIS NAME NAME=PATH --base PATH"))
        }
        _ => Ok((names, originals)),
    }
}

fn summary(dropped: &Dropped) -> String {
    let right = |name| (name, Align::Right);
    let mut table = Table::new([
        ("edit", Align::Left),
        right("cosine before"),
        right("after"),
        right("norm ratio before"),
        right("after"),
    ]);
    let shown = |value: Option<f64>| value.map_or("unknown".to_owned(), |value| format!("{value:.4}"));
    for promise in &dropped.promises {
        let cosine = |of: Option<Fidelity>| shown(of.map(|of| of.cosine));
        let ratio = |of: Option<Fidelity>| shown(of.map(|of| of.norm_ratio));
        table.row([
            promise.edit.clone(),
            cosine(promise.before),
            cosine(promise.after),
            ratio(promise.before),
            ratio(promise.after),
        ]);
    }
    let basis = &dropped.basis;
    let mut text = format!(
        "{}: {}, {}\n{table}",
        shown_path(&basis.folder),
        escaped(&basis.in_words()),
        units::bytes(basis.manifest.stored_bytes())
    );
    if basis.manifest.estimates.is_some() {
        text.push_str("these are predicted from inner products some of which are estimates: `tvb inspect` says how far they may be off\n");
    }
    for note in &dropped.notes {
        text.push_str(&format!("note: {}\n", escaped(note)));
    }
    text
}
