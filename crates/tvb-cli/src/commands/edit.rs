//! `tvb add`, `negate` and `analogy`: an edit from a basis, or from the originals to compare with.

use crate::args::Context;
use crate::coding::parse_rate;
use crate::commands::compress::DtypeName;
use crate::commands::lora::LoraArgs;
use crate::commands::mistaken::{FROM_CHECKPOINTS, is_checkpoint};
use crate::commands::tensor_weights::{TensorWeightArgs, not_predicted, shown_weights};
use crate::inputs::{SelectionArgs, left_out_json, open_base, open_base_of, parse_tasks};
use crate::output::Answer;
use crate::output::finite;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tvb::basis::{Basis, part_file};
use tvb::checkpoint::{Checkpoint, Existing, OpenOptions};
use tvb::columns::plan::{LeftOut, Plan};
use tvb::columns::tasks::TaskSource;
use tvb::cost::{Choice, Work};
use tvb::jobs::card::check_model_id;
use tvb::jobs::edit::{Edit, EditJob, EditOutput, OwnHead, Source, edit_work, patch_work, write_adapter, write_patch};
use tvb::ops::range::Clipped;
use tvb::pass::Runtime;
use tvb::shown::{path_json, shown_path};
use tvb::solve::{Fidelity, Rule};
use tvb::{Error, Rate, Result, arithmetic, units};

/// What every edit takes, as typed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct EditArgs {
    /// The base checkpoint θ0
    #[arg(long, value_name = "PATH")]
    pub base: Option<PathBuf>,
    /// The edited checkpoint: a .safetensors file, or a folder
    #[arg(short, long, value_name = "OUT", required_unless_present = "lora_out")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub lora: LoraArgs,
    /// Factor λ of the whole edit
    #[arg(long, default_value_t = 1.0, value_name = "X", allow_negative_numbers = true)]
    pub scale: f64,
    #[command(flatten)]
    pub by_tensor: TensorWeightArgs,
    /// Type of the float tensors; each keeps its own where nothing is said
    #[arg(long, value_enum)]
    pub dtype: Option<DtypeName>,
    /// Write the largest finite value of a type in place of a value beyond it, which is an error otherwise
    #[arg(long)]
    pub clip: bool,
    /// The base's name on the Hugging Face hub, for the model card
    #[arg(long, value_name = "ID", value_parser = model_id)]
    pub base_model: Option<String>,
    /// Write the bare edit, without the base
    #[arg(long)]
    pub delta: bool,
    /// With --delta: write the bare edit as a coded patch, a basis of one task, at so many bits an element
    #[arg(long, value_name = "R", value_parser = parse_rate, requires = "delta", conflicts_with_all = ["dtype", "clip"])]
    pub bits: Option<Rate>,
    /// Tensors that the output takes from one task as they are, such as its head: the task (TASK=PATH with a basis), and a regular
    /// expression for their names
    #[arg(long, num_args = 2, value_names = ["TASK[=PATH]", "REGEX"], requires = "base", conflicts_with_all = ["delta", "lora_out"])]
    pub head_from: Vec<OsString>,
    /// Replace an existing output
    #[arg(long)]
    pub overwrite: bool,
    /// Use a base that is not the one the basis was made from
    #[arg(long)]
    pub force: bool,
    /// Say what would be done, and stop
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub originals: OriginalsArgs,
}

/// The originals in place of a basis, as typed.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "From the originals")]
pub(crate) struct OriginalsArgs {
    /// Plain task arithmetic on these fine-tunes, in place of a basis
    #[arg(long, value_name = "[NAME=]PATH", num_args = 1.., value_terminator = "--")]
    pub from_checkpoints: Vec<OsString>,
    #[command(flatten)]
    pub selection: SelectionArgs,
}

/// `--rule`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RuleName {
    /// Recovered task vectors, weighted and added
    #[default]
    Projected,
    /// The paper's unweighted sum of the atoms
    Sum,
}

/// Add tasks to the base: θ0 + λ Σ αt τ̂t
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// The basis folder
    #[arg(required_unless_present = "from_checkpoints")]
    pub basis: Option<PathBuf>,
    /// More than a basis: to say what to do with it
    #[arg(hide = true)]
    pub more: Vec<OsString>,
    /// A task to add, with its weight (default: all tasks, weight 1)
    #[arg(long = "task", value_name = "NAME[:WEIGHT]", allow_hyphen_values = true)]
    pub tasks: Vec<String>,
    /// How atoms are combined
    #[arg(long, value_enum, default_value = "projected")]
    pub rule: RuleName,
    #[command(flatten)]
    pub edit: EditArgs,
}

/// Take a task out of the base: θ0 − λ τ̂
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NegateArgs {
    /// The basis folder, then the task; the task alone with --from-checkpoints
    #[arg(value_name = "BASIS TASK", num_args = 1.., required = true)]
    pub words: Vec<OsString>,
    #[command(flatten)]
    pub edit: EditArgs,
}

/// A is to B as C is to the result: θ0 + λ(τ̂C + τ̂B − τ̂A)
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct AnalogyArgs {
    /// The basis folder, then tasks A, B and C; the tasks alone with --from-checkpoints
    #[arg(value_name = "BASIS A B C", num_args = 3.., required = true)]
    pub words: Vec<OsString>,
    #[command(flatten)]
    pub edit: EditArgs,
}

pub(crate) fn add(args: &AddArgs, context: &Context) -> Result<Answer> {
    check_alone(args.basis.as_deref(), &args.more)?;
    let (chosen, rule) = addition(&args.tasks, args.rule, args.basis.is_some())?;
    run(args.basis.clone(), &args.edit, rule, context, |names| arithmetic::addition(names, &chosen))
}

/// One basis, and no further words.
pub(crate) fn check_alone(basis: Option<&Path>, more: &[OsString]) -> Result<()> {
    let (Some(basis), [first, ..]) = (basis, more) else { return Ok(()) };
    let error = Error::usage(format!("one basis folder expected, {} found behind it", shown_path(first.as_ref())));
    Err(match is_checkpoint(basis) || is_checkpoint(first.as_ref()) {
        true => error.hint(FROM_CHECKPOINTS),
        false => error.hint("--task NAME chooses tasks"),
    })
}

/// The tasks that were chosen with their weights, and how atoms are combined.
pub(crate) fn addition(tasks: &[String], rule: RuleName, from_basis: bool) -> Result<(Vec<(String, f64)>, Rule)> {
    let chosen: Vec<(String, f64)> =
        tasks.iter().map(|text| arithmetic::parse_weighted(text)).collect::<Result<_>>()?;
    let rule = match rule {
        RuleName::Projected => Rule::Projected,
        RuleName::Sum => Rule::Sum,
    };
    if rule == Rule::Sum && !chosen.is_empty() {
        return Err(Error::usage("the rule `sum` adds all atoms and knows no tasks")
            .hint("leave out --task, or use --rule projected"));
    }
    if rule == Rule::Sum && !from_basis {
        return Err(Error::usage("the rule `sum` is about the atoms of a basis").hint("name a basis folder"));
    }
    Ok((chosen, rule))
}

pub(crate) fn negate(args: &NegateArgs, context: &Context) -> Result<Answer> {
    let (basis, [task]) = split(&args.words, &args.edit.originals)?;
    run(basis, &args.edit, Rule::Projected, context, |names| arithmetic::negation(names, &task))
}

pub(crate) fn analogy(args: &AnalogyArgs, context: &Context) -> Result<Answer> {
    let (basis, [a, b, c]) = split(&args.words, &args.edit.originals)?;
    run(basis, &args.edit, Rule::Projected, context, |names| arithmetic::analogy(names, &a, &b, &c))
}

/// The basis folder, where there is one, and the `N` words behind it: names and expressions, which are Unicode, as a path
/// need not be.
pub(crate) fn split<const N: usize>(
    words: &[OsString],
    originals: &OriginalsArgs,
) -> Result<(Option<PathBuf>, [String; N])> {
    let from_originals = !originals.from_checkpoints.is_empty();
    let (basis, rest) = match words {
        rest if from_originals => (None, rest),
        [basis, rest @ ..] => (Some(PathBuf::from(basis)), rest),
        [] => (None, words),
    };
    let rest: Vec<String> = rest.iter().map(text_of).collect::<Result<_>>()?;
    match <[String; N]>::try_from(rest) {
        Ok(rest) => Ok((basis, rest)),
        Err(_) if from_originals => Err(Error::usage(format!("{N} words expected, {} found", words.len()))
            .hint("with --from-checkpoints no basis folder is named")),
        Err(_) => {
            let error = Error::usage(format!("{} words expected, a basis folder first, {} found", N + 1, words.len()));
            let is_one = words.iter().any(|word| is_checkpoint(Path::new(word)));
            Err(if is_one { error.hint(FROM_CHECKPOINTS) } else { error })
        }
    }
}

fn text_of(word: &OsString) -> Result<String> {
    word.to_str().map(str::to_owned).ok_or_else(|| {
        Error::usage(format!("{}: a name expected, text that is not UTF-8 found", shown_path(word.as_ref())))
    })
}

/// The tensors of `--head-from`, where it is given.
pub(crate) fn own_head(args: &EditArgs, base: &Checkpoint, context: &Context) -> Result<Option<OwnHead>> {
    let [task, pattern] = args.head_from.as_slice() else { return Ok(None) };
    let (named, _) = TaskSource::parse_all_in(Path::new(""), &args.originals.from_checkpoints)?;
    let source = match named.into_iter().find(|source| task.to_str() == Some(&source.name)) {
        Some(source) => source,
        None if task.to_str().is_none_or(|text| text.contains('=')) => TaskSource::parse(task)?,
        None => {
            return Err(Error::usage(format!(
                "--head-from {}: no checkpoint of this task is named",
                shown_path(task.as_ref())
            ))
            .hint("write TASK=PATH"));
        }
    };
    let options = OpenOptions { key: args.originals.selection.key.clone(), budget: context.budget.clone() };
    let (base, pattern, given) = (base.clone(), text_of(pattern)?, context.given.clone());
    let open = move || OwnHead::new(&base, given.task(&source, &base, &options)?, &pattern);
    context.unless_stopped(move |_| open()).map(Some).map_err(|error| error.context("--head-from"))
}

/// What an edit is formed from, opened.
#[derive(Debug)]
pub(crate) enum Opened {
    Basis(Box<Basis>),
    Originals(Box<Plan>),
}

impl Opened {
    /// Opens the basis, or the originals in its place.
    pub(crate) fn new(
        basis: Option<&Path>,
        base: Option<&Path>,
        originals: &OriginalsArgs,
        context: &Context,
    ) -> Result<Opened> {
        match basis {
            Some(_) if !originals.from_checkpoints.is_empty() => {
                Err(Error::usage("a basis folder or --from-checkpoints expected, both found"))
            }
            Some(folder) => {
                let basis = open_basis(folder, context).map_err(|error| match is_checkpoint(folder) {
                    true => error.hint(FROM_CHECKPOINTS),
                    false => error,
                })?;
                Ok(Opened::Basis(Box::new(basis)))
            }
            None => {
                let base = base.ok_or_else(|| {
                    Error::usage("no base given")
                        .hint("--from-checkpoints needs --base PATH to know what the fine-tunes moved from")
                })?;
                let sources = parse_tasks(&originals.from_checkpoints, context)?;
                Ok(Opened::Originals(Box::new(originals.selection.plan(base, sources, context)?)))
            }
        }
    }

    pub(crate) fn source(&self) -> Source<'_> {
        match self {
            Opened::Basis(basis) => Source::Basis(basis),
            Opened::Originals(plan) => Source::Checkpoints(plan),
        }
    }

    /// Opens the base that it is added to; a plan has told what there is to say of it.
    pub(crate) fn open_base(&self, path: &Path, key: Option<&str>, context: &Context) -> Result<Checkpoint> {
        match self {
            Opened::Basis(basis) => open_base_of(basis, path, key, context),
            Opened::Originals(_) => open_base(path, key, context),
        }
    }

    pub(crate) fn left_out(&self) -> &LeftOut {
        match self {
            Opened::Basis(basis) => &basis.manifest.left_out,
            Opened::Originals(plan) => &plan.left_out,
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Opened::Basis(basis) => basis.task_names(),
            Opened::Originals(plan) => plan.tasks.iter().map(|task| task.name.clone()).collect(),
        }
    }
}

/// Opens a basis folder, and says what takes no part in it.
pub(crate) fn open_basis(folder: &Path, context: &Context) -> Result<Basis> {
    let basis = read_basis(folder, context)?;
    basis.manifest.left_out.tell(&basis.manifest.skipped, &context.progress);
    Ok(basis)
}

/// Opens a basis folder.
pub(crate) fn read_basis(folder: &Path, context: &Context) -> Result<Basis> {
    let (path, budget) = (folder.to_owned(), context.budget.clone());
    context.unless_stopped(move |_| Basis::open_within(&path, &budget)).map_err(|error| match is_checkpoint(folder) {
        true => error.hint("this is a checkpoint: `tvb compress --base BASE FINE-TUNES… -o BASIS` makes a basis"),
        false if part_file::is_folder(folder) => error.hint("this is a part: `tvb join` makes a basis of all parts"),
        false => error,
    })
}

/// Forms an edit of `weights` over the tasks, whose names it is given, and writes it.
pub(crate) fn run(
    basis: Option<PathBuf>,
    args: &EditArgs,
    rule: Rule,
    context: &Context,
    weights: impl Fn(&[String]) -> Result<Vec<f64>>,
) -> Result<Answer> {
    if !args.scale.is_finite() {
        return Err(Error::usage(format!("--scale: a finite number expected, {} found", args.scale)));
    }
    let target = args.output.as_ref().or(args.lora.lora_out.as_ref());
    let target = target.ok_or_else(|| Error::usage("no output given").hint("-o OUT, or --lora-out DIR"))?;
    let mut originals = args.originals.clone();
    // What the output takes as it is need not match the base.
    originals.selection.apart = args.head_from.get(1).map(text_of).transpose()?;
    let from = Opened::new(basis.as_deref(), args.base.as_deref(), &originals, context)?;
    let (source, names) = (from.source(), from.names());
    let edit = Edit { alpha: weights(&names)?, scale: args.scale, rule, by_tensor: args.by_tensor.of(source)? };
    edit.check(source)?;
    let base = args
        .base
        .as_deref()
        .map(|path| from.open_base(path, args.originals.selection.key.as_deref(), context))
        .transpose()?;
    let head = base.as_ref().map(|base| own_head(args, base, context)).transpose()?.flatten();
    let prediction = match &from {
        Opened::Basis(basis) => edit.predict(basis)?.map(|fidelity| (fidelity, stored_rounding(basis, &fidelity))),
        Opened::Originals(_) => None,
    };
    let unknown = || not_predicted(&edit, source).to_owned();
    let mut text = prediction.map_or_else(unknown, |(fidelity, rounding)| {
        let rounding = match rounding {
            Some(rounding) => format!("; storage rounding adds {rounding:.1e} of its squared norm"),
            None => format!("; gain {:.4}, noise {:.4}", fidelity.gain(), fidelity.noise()),
        };
        format!(
            "predicted against the same edit from the originals: cosine {:.6}, norm ratio {:.6}{rounding}\n",
            fidelity.cosine, fidelity.norm_ratio
        )
    });
    let mut json = json!({
        "output": path_json(target),
        "weights": names.iter().zip(&edit.alpha).filter(|(_, weight)| **weight != 0.0)
            .map(|(name, weight)| (name.clone(), json!(weight * edit.scale))).collect::<serde_json::Map<String, Value>>(),
        "scale": args.scale,
        "left_out": left_out_json(from.left_out()),
        "predicted": prediction.map(|(fidelity, rounding)| json!({
            "cosine": fidelity.cosine, "norm_ratio": finite(fidelity.norm_ratio),
            "gain": finite(fidelity.gain()), "noise": finite(fidelity.noise()), "rounding": rounding.map(finite),
        })),
        "dry_run": args.dry_run,
    });
    let head_words = head.as_ref().map_or_else(String::new, |head| format!("{}\n", head.in_words()));
    if let Some(head) = &head {
        Answer::add(&mut json, "head", json!(head.names()));
    }
    if let Some((blocks, of_blocks)) = shown_weights(&edit, source, args.dry_run) {
        text.push_str(&blocks);
        Answer::add(&mut json, "blocks", of_blocks);
    }
    if args.dry_run {
        text.push_str(&head_words);
        edit.warn_if_far(source, &context.progress)?;
        text.push_str(&format!("would write {}\n", shown_path(target)));
        return Ok(Answer::new(text, json));
    }
    let output = EditOutput::new(target)
        .dtype(args.dtype.map(DtypeName::kernel))
        .clip(args.clip)
        .existing(if args.overwrite { Existing::Replace } else { Existing::Refuse })
        .delta(args.delta)
        .force(args.force)
        .head(head)
        .command(context.command_line())
        .base_model(args.base_model.clone());
    let n_tasks = edit.alpha.iter().filter(|weight| **weight != 0.0).count();
    let dtype = args.dtype.map(DtypeName::kernel);
    let runtime = context.runtime_for(|| {
        Ok(match () {
            () if args.lora.lora_out.is_some() => Work::only_on_cpu("an adapter is made from factors"),
            () if args.bits.is_some() => patch_work(source, n_tasks),
            () => edit_work(source, base.as_ref().filter(|_| !args.delta), n_tasks, 1, dtype),
        })
    })?;
    let started = Instant::now();
    if args.lora.lora_out.is_some() {
        let adapter =
            write_adapter(source, &edit, args.lora.cut(), base.as_ref(), &output, &runtime, &context.progress)?;
        let elapsed = units::duration(started.elapsed());
        text.push_str(&format!("{}: a LoRA adapter of {}; written in {elapsed}\n", shown_path(target), adapter.line()));
        Answer::add(&mut json, "adapter", serde_json::to_value(&adapter).unwrap_or_default());
        Answer::add(&mut json, "seconds", started.elapsed().as_secs_f64());
        return Ok(Answer::new(text, json));
    }
    if let Some(rate) = args.bits {
        let patch = write_patch(source, &edit, rate, 0, &output, &runtime, &context.progress)?;
        let elapsed = started.elapsed();
        let bytes: u64 = patch.manifest.atoms.iter().map(|atom| atom.bytes).sum();
        let task = patch.manifest.tasks.first();
        let (gain, noise) = (task.and_then(|task| task.gain), task.and_then(|task| task.noise));
        let shown = |value: Option<f64>| value.map_or("unknown".to_owned(), |value| format!("{value:.4}"));
        text.push_str(&format!(
            "{}: a patch of {} at {} bits (gain {}, noise {} of the edit), written in {} on {}\n",
            shown_path(target),
            units::bytes(bytes),
            rate.name(),
            shown(gain),
            shown(noise),
            units::duration(elapsed),
            runtime.device_name()
        ));
        Answer::add(&mut json, "patch", json!({ "bits": rate.name(), "bytes": bytes, "gain": gain, "noise": noise }));
        Answer::add(&mut json, "seconds", elapsed.as_secs_f64());
        Answer::add(&mut json, "device", runtime.device_name());
        Answer::add(&mut json, "device_choice", runtime.choice.as_ref().map(Choice::to_json));
        return Ok(Answer::new(text, json));
    }
    let job = EditJob { source, edit: &edit, base: base.as_ref(), output: &output };
    let clipped = job.write(&runtime, &context.progress)?;
    let elapsed = started.elapsed();
    text.push_str(&head_words);
    Ok(written((text, json), target, &clipped, elapsed, &runtime))
}

/// The answer of an edit that was written to `target`.
pub(crate) fn written(
    (mut text, mut json): (String, Value),
    target: &Path,
    clipped: &Clipped,
    elapsed: Duration,
    runtime: &Runtime,
) -> Answer {
    text.push_str(&format!(
        "{}: written in {} on {}\n",
        shown_path(target),
        units::duration(elapsed),
        runtime.device_name()
    ));
    Answer::add(&mut json, "clipped", json!(clipped));
    Answer::add(&mut json, "seconds", elapsed.as_secs_f64());
    Answer::add(&mut json, "device", runtime.device_name());
    Answer::add(&mut json, "device_choice", runtime.choice.as_ref().map(Choice::to_json));
    Answer::new(text, json)
}

/// The part of the edit's squared norm that rounding the atoms to their stored type adds; `None` where they are coded.
fn stored_rounding(basis: &Basis, fidelity: &Fidelity) -> Option<f64> {
    if basis.manifest.coded.is_some() {
        return None;
    }
    let stored = basis.manifest.atoms.first().and_then(|atom| atom.dtype.float());
    let found = tvb::solve::STORAGE_DTYPES.iter().zip(fidelity.rounding).find(|(dtype, _)| Some(**dtype) == stored);
    Some(found.map_or(0.0, |(_, rounding)| rounding))
}

/// A model's name on the hub, checked while the command line is read.
pub(crate) fn model_id(text: &str) -> std::result::Result<String, String> {
    match check_model_id(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(error.message().to_owned()),
    }
}
