//! A recipe: which models are merged, how, and with what settings; whoever wrote it, a file or a command line.

use super::reference::{Places, Reference};
use super::setting::{Setting, Settings};
use crate::columns::tasks::TaskSource;
use crate::error::{Error, Result};
use crate::jobs::edit::{Lines, WeightWords};
use crate::jobs::merge::method::Method;
use crate::jobs::merge::parameters::{Manner, Parameter, Wrong, drops_at_random};
use crate::jobs::merge::settings::Over;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tvb_kernels::{Dtype, MAX_TASKS};

/// A merge as it was asked for; no model has been opened.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The merger.
    pub method: Method,
    /// Whose meaning counts where papers and mergekit differ.
    pub manner: Manner,
    /// Where task vectors are taken from.
    pub base: Reference,
    /// What the base is to the merge.
    pub role: BaseRole,
    /// The models beside the base, in order.
    pub tasks: Vec<Model>,
    /// Runs of layers with settings of their own; at least one.
    pub slices: Vec<Slice>,
    /// Settings of everything that says nothing of its own.
    pub parameters: Settings,
    /// What mergekit would compute in; the output's type where `out_dtype` says none.
    pub dtype: Option<Dtype>,
    /// Type of the output's float tensors.
    pub out_dtype: Option<Dtype>,
    /// What mergekit knows nothing of.
    pub own: Own,
    /// What was read and means nothing, or not what its writer may expect.
    pub notes: Vec<String>,
    /// Whether it was read from a file: its faults are those of an input.
    pub is_file: bool,
}

/// What the base is to a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseRole {
    /// Named as the base alone.
    Origin,
    /// Named as the base and as one of the models.
    Listed,
    /// The first of the models, where no base is named.
    First,
}

/// A model beside the base.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The name that it was given.
    pub name: Option<String>,
    /// Which one it is.
    pub reference: Reference,
}

/// A run of layers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slice {
    /// How many layers it has; `None` for all of the model.
    pub n_layers: Option<usize>,
    /// Settings of all models in it.
    pub parameters: Settings,
    /// The base's own.
    pub of_base: Settings,
    /// Each task's own, \[n_tasks\].
    pub of_tasks: Vec<Settings>,
}

/// What mergekit knows nothing of: the key `tvb` of a recipe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Own {
    /// What thresholds are asked over, where that is said.
    pub trim: Option<Over>,
    /// Seed of what is random.
    pub seed: u64,
    /// The task that the result is for.
    pub only_for: Option<String>,
    /// Whether task vectors are made orthogonal to each other first.
    pub orthogonalise: bool,
    /// A basis that has the tasks; the models are called by their names there.
    pub basis: Option<String>,
    /// Only tensors whose names match.
    pub include: Option<String>,
    /// No tensor whose name matches.
    pub exclude: Option<String>,
    /// Whether tensors that do not match are left out.
    pub skip_mismatched: bool,
    /// Whether the rows take part that all embeddings have.
    pub common_vocab: bool,
    /// How the tasks' tensors are renamed.
    pub rename: Vec<String>,
    /// Key of the state dict in PyTorch files.
    pub key: Option<String>,
    /// Whether values beyond the output's type are written as its largest.
    pub clip: bool,
    /// Factors by tensors' names: `REGEX=W`, or `TASK:REGEX=W` for one task's.
    pub weight_for: Vec<String>,
    /// Factors by depth.
    pub lines: Option<Lines>,
}

/// The models of a recipe, found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The base.
    pub base: PathBuf,
    /// The tasks, in the recipe's order; the base before them where it is one of those that [`Recipe::of_models`] turns.
    pub tasks: Vec<TaskSource>,
    /// How tasks were told apart that have no names.
    pub notes: Vec<String>,
    /// The same recipe, with every name, and with paths as they are from the current folder.
    pub recipe: Recipe,
}

impl Recipe {
    /// Whether no base is named, and the first of the models stands for it.
    pub fn is_baseless(&self) -> bool {
        self.role == BaseRole::First
    }

    /// Whether it is whole models that are turned into each other, and not task vectors. The first of them is one of the tasks then.
    pub fn of_models(&self) -> bool {
        self.is_baseless() && matches!(self.method, Method::NuSlerp | Method::MultiSlerp)
    }

    /// Whether the base is one of the models that are merged, beside the tasks.
    pub fn with_base(&self) -> bool {
        let merges_models = matches!(self.method, Method::Linear | Method::Karcher);
        merges_models
            && match self.role {
                BaseRole::First | BaseRole::Listed => true,
                // mergekit adds it to the models.
                BaseRole::Origin => self.manner == Manner::Mergekit,
            }
    }

    /// What thresholds are asked over where that is not said; `None` where the method asks for none of whole models.
    pub(super) fn default_trim(&self) -> Option<Over> {
        match (self.method, self.manner) {
            (Method::Ties, Manner::Paper) => Some(Over::Model),
            (Method::Ties | Method::Magnitude, _) => Some(Over::Tensor),
            _ => None,
        }
    }

    /// Type of the output's float tensors; `None` for the base's own.
    pub fn output_dtype(&self) -> Option<Dtype> {
        self.out_dtype.or(self.dtype)
    }

    /// What is wrong with it as an error of whoever wrote it.
    pub fn error(&self, wrong: Wrong) -> Error {
        if self.is_file { wrong.rejected() } else { wrong.usage() }
    }

    /// Whether the method can merge so many models, and takes what is said.
    ///
    /// # Errors
    /// Rejected for a file, usage for a command line: the number of models, one that stands twice, options of other methods.
    pub fn check(&self) -> Result<()> {
        self.wrong().map_or(Ok(()), |wrong| Err(self.error(wrong)))
    }

    fn wrong(&self) -> Option<Wrong> {
        let method = self.method;
        let n_models = self.tasks.len() + usize::from(self.is_baseless());
        let (one, many) = match self.is_baseless() {
            true => ("model", "models"),
            false => ("model beside the base", "models beside the base"),
        };
        let needs_base = !matches!(method, Method::Linear | Method::Karcher | Method::NuSlerp | Method::MultiSlerp);
        if needs_base && self.is_baseless() {
            let wrong = Wrong::new(format!("{method}: a base expected, none found"));
            return Some(wrong.hint(if self.is_file { "base_model: …" } else { "--base PATH" }));
        }
        let (least, most) = match method {
            Method::Slerp => (1, 1),
            Method::NuSlerp => (2, 2),
            Method::ModelStock => (2, MAX_TASKS),
            _ if self.is_baseless() => (2, MAX_TASKS),
            _ => (1, MAX_TASKS),
        };
        if !(least..=most).contains(&n_models) {
            let expected = match (least, most) {
                (1, 1) => format!("exactly 1 {one}"),
                _ if least == most => format!("exactly {least} {many}"),
                _ => format!("{least} to {most} {many}"),
            };
            return Some(Wrong::new(format!("{method}: {expected} expected, {n_models} found")));
        }
        let mut models: Vec<&Reference> = self.tasks.iter().map(|task| &task.reference).collect();
        models.push(&self.base);
        if let Some((_, twice)) =
            models.iter().enumerate().find(|(at, one)| models.iter().take(*at).any(|other| other == *one))
        {
            let words: String = twice.in_words().chars().take(200).collect();
            return Some(Wrong::new(format!("the model {words:?} stands twice")));
        }
        let Own { trim, seed, only_for, orthogonalise, .. } = &self.own;
        if trim.is_some() && !matches!(method, Method::Ties | Method::Magnitude) {
            return Some(Wrong::new(format!("{method}: trim is for ties and magnitude")));
        }
        if *seed != 0 && !drops_at_random(method) {
            return Some(Wrong::new(format!("{method}: a seed is for what is random: dare_*, della*")));
        }
        if only_for.is_some() && !matches!(method, Method::Tall | Method::Emr) {
            return Some(Wrong::new(format!("{method}: one task's own model is made by tall and emr")));
        }
        if method == Method::Tall && only_for.is_none() {
            let hint = if self.is_file { "tvb: {for: TASK}" } else { "--for TASK" };
            return Some(Wrong::new("tall: the task expected that the model is for, none found").hint(hint));
        }
        let factors = WeightWords { rules: self.own.weight_for.clone(), lines: None };
        if let Err(error) = factors.check() {
            return Some(Wrong::new(format!("weights by tensor: {}", error.message())));
        }
        if *orthogonalise && self.is_baseless() {
            return Some(Wrong::new("orthogonalise: task vectors expected, and so a base; none found"));
        }
        if self.own.basis.is_some() && self.is_baseless() {
            let wrong = Wrong::new("a basis holds what moved: the base expected that it moved from, none found");
            return Some(wrong.hint(if self.is_file { "base_model: …" } else { "--base PATH" }));
        }
        None
    }

    /// Where the models are. Nothing is opened.
    ///
    /// # Errors
    /// As [`Reference::find`], and [`TaskSource::parse_all_in`].
    pub fn find(&self, places: &Places) -> Result<Found> {
        let base = self.base.find(places)?;
        let mut texts = Vec::with_capacity(self.tasks.len() + 1);
        if self.of_models() {
            texts.push(with_separator(base.clone()).into_os_string());
        }
        for task in &self.tasks {
            let reference = match &task.reference.adapter {
                None => &task.reference,
                Some(adapter) => &**adapter,
            };
            let path = with_separator(reference.find(places)?);
            let mut text = OsString::new();
            if let Some(name) = &task.name {
                text.push(name);
                text.push("=");
            }
            text.push(path);
            texts.push(text);
        }
        let (tasks, notes) = TaskSource::parse_all_in(Path::new(""), &texts)?;
        let mut recipe = self.clone();
        settle(&mut recipe.base, places);
        let sources = tasks.iter().skip(usize::from(self.of_models()));
        for (model, source) in recipe.tasks.iter_mut().zip(sources) {
            model.name = Some(source.name.clone());
            let reference = model.reference.adapter.take().map_or(model.reference.clone(), |adapter| *adapter);
            model.reference = reference;
            settle(&mut model.reference, places);
        }
        Ok(Found { base, tasks, notes, recipe })
    }

    /// Where the base is, of a recipe whose tasks are in a basis; it is written so as it is from the current folder.
    ///
    /// # Errors
    /// As [`Reference::find`].
    pub fn find_base(&mut self, places: &Places) -> Result<PathBuf> {
        let base = self.base.find(places)?;
        settle(&mut self.base, places);
        Ok(base)
    }

    /// The names of the tasks, given or by their paths; nothing is opened. Of a recipe over a basis these are the basis's.
    ///
    /// # Errors
    /// As [`TaskSource::parse_all_in`].
    pub fn task_names(&self) -> Result<Vec<String>> {
        let named = |task: &Model| {
            let reference = task.reference.adapter.as_deref().unwrap_or(&task.reference);
            match &task.name {
                Some(name) => OsString::from(format!("{name}={}", reference.written)),
                None => with_separator(PathBuf::from(&reference.written)).into_os_string(),
            }
        };
        let texts: Vec<OsString> = self.tasks.iter().map(named).collect();
        let (tasks, _) = TaskSource::parse_all_in(Path::new(""), &texts)?;
        Ok(tasks.into_iter().map(|task| task.name).collect())
    }

    /// Gives the tasks their names.
    pub fn name_tasks(&mut self, names: &[String]) {
        self.tasks.iter_mut().zip(names).for_each(|(task, name)| task.name = Some(name.clone()));
    }

    /// The place of the task that the result is for, among tasks of these names.
    ///
    /// # Errors
    /// None of them has the name.
    pub fn only_for(&self, names: &[String]) -> Result<Option<usize>> {
        let Some(wanted) = &self.own.only_for else { return Ok(None) };
        let found = names.iter().position(|name| name == wanted);
        found.map(Some).ok_or_else(|| {
            let wrong = Wrong::new(format!("the model is for {wanted:?}, which is none of the tasks"));
            self.error(match crate::nearest::nearest(wanted, names.iter().map(String::as_str)) {
                Some(near) => wrong.hint(format!("did you mean {near:?}?")),
                None => wrong.hint(format!("tasks: {}", names.iter().take(20).cloned().collect::<Vec<_>>().join(", "))),
            })
        })
    }

    /// All settings with the parameter that each is of.
    pub(super) fn all_settings(&self) -> impl Iterator<Item = &(Parameter, Setting)> {
        let of_slices = self
            .slices
            .iter()
            .flat_map(|slice| slice.parameters.iter().chain(&slice.of_base).chain(slice.of_tasks.iter().flatten()));
        self.parameters.iter().chain(of_slices)
    }
}

/// What stands before an `=` in a path is never a name then.
fn with_separator(path: PathBuf) -> PathBuf {
    let is_bare = path.components().count() == 1 && path.is_relative();
    if is_bare { Path::new(".").join(path) } else { path }
}

/// A path as it is from the current folder; a name of the hub stays what it is.
fn settle(reference: &mut Reference, places: &Places) {
    if let Some(path) = reference.beside(places).as_deref().and_then(Path::to_str) {
        reference.written = path.to_owned();
    }
}
