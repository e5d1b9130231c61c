//! `tvb merge`: a recipe of mergekit's, or a method and its models, as one checkpoint.

mod parameters;
mod told;

use crate::args::Context;
use crate::commands::compress::DtypeName;
use crate::commands::edit::{model_id, read_basis, written};
use crate::inputs::{SelectionArgs, VocabName, left_out_json, open_base_of, parse_tasks};
use crate::output::Answer;
use clap::ValueEnum;
use parameters::ParameterArgs;
use serde_json::json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tvb::basis::Basis;
use tvb::checkpoint::{Checkpoint, Existing, Inputs};
use tvb::columns::plan::Plan;
use tvb::columns::tasks::TaskSource;
use tvb::jobs::edit::{EditOutput, Lines, Source};
use tvb::jobs::merge::recipe::{ByTensor, Own, Places, Recipe, Reference, Words, of_card};
use tvb::jobs::merge::{Manner, MergeJob, Method, Over, Ties, merge_work};
use tvb::nearest::nearest;
use tvb::progress::Progress;
use tvb::shown::{shown, shown_path};
use tvb::{Error, Result};

/// Merge models into one: by mergekit's recipe, or by a method and its models
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MergeArgs {
    /// A recipe (mergekit's YAML); with --method the fine-tunes
    #[arg(value_name = "RECIPE | [NAME=]PATH[::KEY]")]
    pub words: Vec<OsString>,
    /// How to merge: linear, task_arithmetic, slerp, nuslerp, multislerp, karcher, model_stock, metagpt, ties, dare_linear, dare_ties,
    /// breadcrumbs, breadcrumbs_ties, della, della_linear, magnitude, sign_consensus, sce, consensus, tall, emr, tsv_m, iso_c, iso_cts
    #[arg(long, value_name = "NAME", value_parser = method)]
    pub method: Option<Method>,
    /// The base; without one linear, karcher, nuslerp and multislerp merge whole models
    #[arg(long, value_name = "PATH", requires = "method")]
    pub base: Option<PathBuf>,
    /// A basis in place of fine-tunes; of a recipe's models the names count then
    #[arg(long, value_name = "DIR")]
    pub basis: Option<PathBuf>,
    /// With --basis and --method: a task of it; all where none is named
    #[arg(long = "task", value_name = "NAME", requires = "basis")]
    pub tasks: Vec<String>,
    /// A model card of `tvb merge`, whose recipe is repeated
    #[arg(long, value_name = "README.md", conflicts_with_all = ["method", "words"])]
    pub recipe_from: Option<PathBuf>,
    /// The merged checkpoint: a .safetensors file, or a folder
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    #[command(flatten)]
    pub parameters: ParameterArgs,
    /// Defaults and rescaling as mergekit has them; recipes mean that by themselves
    #[arg(long, conflicts_with = "like_paper")]
    pub like_mergekit: bool,
    /// Defaults and rescaling as the method's paper has them; --method means that by itself
    #[arg(long)]
    pub like_paper: bool,
    /// What the largest values are asked over (ties, magnitude): each tensor, or the whole task vector
    #[arg(long, value_enum, value_name = "OVER")]
    pub trim: Option<TrimName>,
    /// Seed of what falls at random (dare, della); the result is the same on every machine
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// One task's own model (tall, emr)
    #[arg(long = "for", value_name = "TASK")]
    pub only_for: Option<String>,
    /// Make the task vectors orthogonal to each other first
    #[arg(long)]
    pub orthogonalise: bool,
    /// A factor for tensors whose name a regular expression finds, of the whole edit or of one task; may be repeated, and factors multiply
    #[arg(long, value_name = "[TASK:]REGEX=W", allow_hyphen_values = true)]
    pub weight_for: Vec<String>,
    /// LiNeS: the factor ALPHA + BETA*l/(L-1) of the edit in layer l of L, l from 0, and ALPHA in tensors of no layer
    #[arg(long, value_name = "ALPHA:BETA", allow_hyphen_values = true, value_parser = lines)]
    pub lines: Option<Lines>,
    /// Read models outside of the recipe's folder, too
    #[arg(long)]
    pub allow_outside: bool,
    /// Type of the float tensors; each keeps the base's where nothing is said
    #[arg(long, value_enum)]
    pub dtype: Option<DtypeName>,
    /// Write the largest finite value of a type in place of a value beyond it, which is an error otherwise
    #[arg(long)]
    pub clip: bool,
    /// The base's name on the Hugging Face hub, for the model card
    #[arg(long, value_name = "ID", value_parser = model_id)]
    pub base_model: Option<String>,
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
    pub selection: SelectionArgs,
}

/// `--trim`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrimName {
    /// Each tensor for itself
    Tensor,
    /// All tensors of a task together
    Model,
}

/// A method's name, checked while the command line is read.
fn method(text: &str) -> std::result::Result<Method, String> {
    Method::of_name(text).map_err(|error| match error.hint_text() {
        Some(hint) => format!("{}; {hint}", error.message()),
        None => error.message().to_owned(),
    })
}

/// LiNeS, checked while the command line is read.
fn lines(text: &str) -> std::result::Result<Lines, String> {
    text.parse().map_err(|error: Error| error.message().to_owned())
}

/// What a merge is of, opened.
enum Opened {
    Basis(Box<Basis>, Box<Checkpoint>),
    Originals(Box<Plan>),
}

impl Opened {
    fn source(&self) -> Source<'_> {
        match self {
            Opened::Basis(basis, _) => Source::Basis(basis),
            Opened::Originals(plan) => Source::Checkpoints(plan),
        }
    }

    fn base(&self) -> &Checkpoint {
        match self {
            Opened::Basis(_, base) => base,
            Opened::Originals(plan) => &plan.base,
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Opened::Basis(basis, _) => basis.task_names(),
            Opened::Originals(plan) => plan.tasks.iter().map(|task| task.name.clone()).collect(),
        }
    }
}

pub(crate) fn merge(args: &MergeArgs, context: &Context) -> Result<Answer> {
    let (recipe, opened, tasks) = match (&args.method, &args.recipe_from, &args.words[..]) {
        (Some(method), _, _) => of_words(*method, args, context)?,
        (None, Some(card), _) => {
            args.parameters.check_none()?;
            of_recipe(of_card(card, &context.budget)?, Path::new(""), args, context)?
        }
        (None, None, [path]) => {
            args.parameters.check_none()?;
            let path = Path::new(path);
            // A pipe of the shell lies in no folder of models.
            let folder = path.parent().filter(|_| path.is_file()).unwrap_or(Path::new(""));
            of_recipe(Recipe::open(path, &context.budget)?, folder, args, context)?
        }
        (None, None, words) => {
            let error = Error::usage(format!("one recipe expected, {} words found", words.len()));
            return Err(error.hint("--method NAME --base PATH merges models without a recipe"));
        }
    };
    warn(&recipe.notes, context);
    let (source, base) = (opened.source(), opened.base());
    if let Opened::Originals(plan) = &opened {
        for (task, file) in plan.tasks.iter().filter_map(|task| Some((task, base.other_tokenizer(&task.checkpoint)?))) {
            context.progress.warn(&format!(
                "task {}: its {file} is not the base's: rows of embeddings are merged by their numbers, and the output has the base's tokenizer",
                shown(&task.name)
            ));
        }
    }
    let names = opened.names();
    let chosen: Vec<String> = tasks.iter().filter_map(|&task| names.get(task).cloned()).collect();
    let tensor_names: Vec<&str> = base.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    let (by_tensor, idle) = ByTensor::new(&recipe, &tensor_names);
    warn(&idle, context);
    let factors = recipe.factors(source, &tasks)?;
    let settings = |tensor: &str| -> Result<_> {
        let mut settings = by_tensor.settings(tensor)?;
        factors.apply(tensor, &mut settings);
        Ok(settings)
    };
    let is_mergekit = recipe.manner == Manner::Mergekit;
    let dtype = recipe.output_dtype();
    let output = EditOutput::new(&args.output)
        .dtype(dtype)
        .clip(recipe.own.clip)
        .existing(if args.overwrite { Existing::Replace } else { Existing::Refuse })
        .force(args.force)
        .protect(recipe_file(args).map_or(Inputs::none(), |path| Inputs::none().and(path)))
        .command(context.command_line())
        .base_model(args.base_model.clone());
    let job = MergeJob {
        source,
        only_for: recipe.only_for(&chosen)?,
        tasks,
        method: recipe.method,
        settings: &settings,
        of_models: recipe.of_models(),
        with_base: recipe.with_base(),
        ties: if is_mergekit { Ties::Exact } else { Ties::All },
        with_guards: is_mergekit,
        seed: recipe.own.seed,
        orthogonalise: recipe.own.orthogonalise,
        base,
        output: &output,
        recipe: recipe.in_words(),
    };
    let prepared = job.prepare()?;
    let plan =
        told::Told { recipe: &recipe, names: &chosen, job: &job, prepared: &prepared, layers: by_tensor.layers() };
    if args.dry_run {
        let mut answer = plan.answer(context.memory_bytes);
        answer.extend(&format!("would write {}\n", shown_path(&args.output)), "dry_run", json!(true));
        return Ok(answer);
    }
    let runtime = context.runtime_for(|| Ok(merge_work(&job, &prepared)))?;
    let started = Instant::now();
    let report = job.write(&runtime, &context.progress)?;
    let elapsed = started.elapsed();
    let mut json = plan.json();
    Answer::add(&mut json, "n_merged", report.n_merged);
    Answer::add(&mut json, "n_copied", report.n_copied);
    if let Opened::Originals(plan) = &opened {
        Answer::add(&mut json, "left_out", left_out_json(&plan.left_out));
    }
    let text =
        format!("{}: {} tensors merged, {} as the base has them\n", recipe.method, report.n_merged, report.n_copied);
    Ok(written((text, json), &args.output, &report.clipped, elapsed, &runtime))
}

/// Says the first of what there is to say of a recipe, and how much more there is.
fn warn(notes: &[String], context: &Context) {
    const N_TOLD: usize = 20;
    notes.iter().take(N_TOLD).for_each(|note| context.progress.warn(note));
    if notes.len() > N_TOLD {
        context.progress.warn(&format!("and {} more of this recipe", notes.len() - N_TOLD));
    }
}

/// The file that the recipe is read from.
fn recipe_file(args: &MergeArgs) -> Option<&Path> {
    match (&args.recipe_from, &args.method, args.words.first()) {
        (Some(card), _, _) => Some(card),
        (None, None, Some(path)) => Some(Path::new(path)),
        _ => None,
    }
}

/// A recipe from a file or a card, its models opened.
fn of_recipe(
    mut recipe: Recipe,
    folder: &Path,
    args: &MergeArgs,
    context: &Context,
) -> Result<(Recipe, Opened, Vec<usize>)> {
    match () {
        () if args.like_paper => recipe.manner = Manner::Paper,
        () if args.like_mergekit => recipe.manner = Manner::Mergekit,
        () => {}
    }
    if let Some(first) = args.tasks.first() {
        return Err(Error::usage(format!("--task {}: a recipe names its models", shown(first))));
    }
    recipe.out_dtype = args.dtype.map(DtypeName::kernel).or(recipe.out_dtype);
    set_own(&mut recipe.own, args);
    let places = Places { folder: folder.to_owned(), hub_cache: hub_cache(), may_leave: args.allow_outside };
    let basis = match (&args.basis, &recipe.own.basis) {
        (Some(folder), _) => Some(folder.clone()),
        (None, Some(written)) => Some(Reference::new(written).find(&places)?),
        (None, None) => None,
    };
    recipe.own.basis = basis.as_deref().map(text_of).transpose()?;
    recipe.check()?;
    let selection = selection_of(&recipe);
    let Some(folder) = basis else {
        let found = recipe.find(&places)?;
        found.notes.iter().for_each(|note| context.progress.note(note));
        let plan = selection.plan(&found.base, found.tasks, context)?;
        let tasks = (0..plan.tasks.len()).collect();
        return Ok((found.recipe, Opened::Originals(Box::new(plan)), tasks));
    };
    let basis = read_basis(&folder, context)?;
    basis.manifest.left_out.tell(&basis.manifest.skipped, &context.progress);
    let names = recipe.task_names()?;
    let tasks = places_of(&names, &basis.task_names())?;
    recipe.name_tasks(&names);
    let path = recipe.find_base(&places)?;
    let base = open_base_of(&basis, &path, recipe.own.key.as_deref(), context)?;
    Ok((recipe, Opened::Basis(Box::new(basis), Box::new(base)), tasks))
}

/// A recipe from the command line, its models opened.
fn of_words(method: Method, args: &MergeArgs, context: &Context) -> Result<(Recipe, Opened, Vec<usize>)> {
    let manner = if args.like_mergekit { Manner::Mergekit } else { Manner::Paper };
    let words = |tasks: Vec<(String, String)>| -> Result<Recipe> {
        let base = args.base.as_deref().map(text_of).transpose()?;
        let (parameters, dtype) = (args.parameters.typed(), args.dtype.map(DtypeName::kernel));
        let mut words = Words { method, manner, base, tasks, parameters, dtype, own: Own::default() };
        words.own.basis = args.basis.as_deref().map(text_of).transpose()?;
        set_own(&mut words.own, args);
        words.recipe()
    };
    let Some(folder) = &args.basis else {
        let sources = parse_tasks(&args.words, context)?;
        let recipe = words(sources.iter().map(typed_path).collect::<Result<_>>()?)?;
        let (base, sources) = match (&args.base, recipe.of_models()) {
            (Some(base), _) => (base.clone(), sources),
            (None, of_models) => {
                let Some(first) = sources.first() else {
                    return Err(Error::usage("no base given").hint("--base PATH"));
                };
                let base = first.key.as_ref().map_or(first.path.clone(), |_| PathBuf::from(&recipe.base.written));
                (base, sources.into_iter().skip(usize::from(!of_models)).collect())
            }
        };
        let plan = selection_of(&recipe).plan(&base, sources, context)?;
        let tasks = (0..plan.tasks.len()).collect();
        return Ok((recipe, Opened::Originals(Box::new(plan)), tasks));
    };
    if let Some(word) = args.words.first() {
        return Err(Error::usage(format!("fine-tunes or --basis expected, both found: {}", shown_path(word.as_ref()))));
    }
    let basis = read_basis(folder, context)?;
    let all = basis.task_names();
    let names = if args.tasks.is_empty() { all.clone() } else { args.tasks.clone() };
    let tasks = places_of(&names, &all)?;
    let recipe = words(names.into_iter().map(|name| (name.clone(), name)).collect())?;
    basis.manifest.left_out.tell(&basis.manifest.skipped, &context.progress);
    let base = args.base.as_deref().ok_or_else(|| Error::usage("no base given").hint("--base PATH"))?;
    let base = open_base_of(&basis, base, recipe.own.key.as_deref(), context)?;
    Ok((recipe, Opened::Basis(Box::new(basis), Box::new(base)), tasks))
}

/// What was typed of what mergekit knows nothing of, over what the recipe says.
fn set_own(own: &mut Own, args: &MergeArgs) {
    let SelectionArgs { include, exclude, skip_mismatched, vocab, rename, key, apart: _ } = &args.selection;
    let trim = args.trim.map(|trim| match trim {
        TrimName::Tensor => Over::Tensor,
        TrimName::Model => Over::Model,
    });
    own.trim = trim.or(own.trim);
    own.seed = args.seed.unwrap_or(own.seed);
    own.only_for = args.only_for.clone().or(own.only_for.take());
    own.orthogonalise |= args.orthogonalise;
    own.include = include.clone().or(own.include.take());
    own.exclude = exclude.clone().or(own.exclude.take());
    own.skip_mismatched |= *skip_mismatched;
    own.common_vocab |= *vocab == VocabName::Common;
    own.rename.extend(rename.iter().cloned());
    own.key = key.clone().or(own.key.take());
    own.clip |= args.clip;
    own.weight_for.extend(args.weight_for.iter().cloned());
    own.lines = args.lines.or(own.lines);
}

/// Which tensors take part, as the recipe has it.
fn selection_of(recipe: &Recipe) -> SelectionArgs {
    let own = &recipe.own;
    SelectionArgs {
        include: own.include.clone(),
        exclude: own.exclude.clone(),
        skip_mismatched: own.skip_mismatched,
        vocab: if own.common_vocab { VocabName::Common } else { VocabName::Whole },
        rename: own.rename.clone(),
        key: own.key.clone(),
        apart: None,
    }
}

/// Where tasks stand in a basis.
fn places_of(names: &[String], known: &[String]) -> Result<Vec<usize>> {
    let mut places = Vec::with_capacity(names.len());
    for name in names {
        let place = known.iter().position(|other| other == name).ok_or_else(|| {
            let error = Error::usage(format!("unknown task {}: the basis has none of this name", shown(name)));
            match nearest(name, known.iter().map(String::as_str)) {
                Some(near) => error.hint(format!("did you mean {near:?}?")),
                None => error.hint("`tvb inspect` lists the tasks of a basis"),
            }
        })?;
        if places.contains(&place) {
            return Err(Error::usage(format!("task {} is named twice", shown(name))));
        }
        places.push(place);
    }
    Ok(places)
}

/// A task's name and its path with the key behind it.
fn typed_path(source: &TaskSource) -> Result<(String, String)> {
    let path = text_of(&source.path)?;
    Ok((source.name.clone(), source.key.as_ref().map_or(path.clone(), |key| format!("{path}::{key}"))))
}

/// A path as text: it stands in the model card's recipe.
fn text_of(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::usage(format!("{}: a path in UTF-8 expected, for the model card", shown_path(path))))
}

/// The hub's cache, where `huggingface_hub` has it.
fn hub_cache() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("HF_HUB_CACHE")
        .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| Some(set("HF_HOME")?.join("hub")))
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("huggingface/hub")))
        .or_else(|| Some(set(if cfg!(windows) { "USERPROFILE" } else { "HOME" })?.join(".cache/huggingface/hub")))
}
