//! What a merge would do, for people and for programs: models, settings that differ between tensors, bytes, memory.

use crate::output::Answer;
use serde_json::{Value, json};
use std::fmt::Write;
use tvb::jobs::merge::recipe::{Layers, Recipe};
use tvb::jobs::merge::{
    Family, Manner, MergeJob, Parameter, Prepared, Rescale, RowWise, TensorSettings, parameters_of,
};
use tvb::shown::shown;
use tvb::units;

/// Groups of tensors that are told.
const N_GROUPS_MAX: usize = 12;
/// Names of a group that are told.
const N_NAMES_MAX: usize = 3;

/// A merge before any data is read.
pub(super) struct Told<'a> {
    pub recipe: &'a Recipe,
    /// The tasks.
    pub names: &'a [String],
    pub job: &'a MergeJob<'a>,
    pub prepared: &'a Prepared,
    pub layers: &'a Layers,
}

/// Tensors of the same settings.
struct Group<'a> {
    settings: &'a TensorSettings,
    names: Vec<&'a str>,
}

impl Told<'_> {
    /// Text and JSON.
    pub(super) fn answer(&self, memory_bytes: u64) -> Answer {
        let mut text = String::new();
        let recipe = self.recipe;
        let _ = writeln!(text, "{}, {}", recipe.method, self.manner_in_words());
        let _ = writeln!(text, "base: {}", shown(&recipe.base.in_words()));
        for name in self.names {
            let _ = writeln!(text, "task: {}", shown(name));
        }
        let stacks: Vec<String> =
            self.layers.stacks().take(N_GROUPS_MAX).map(|(stack, n)| format!("{n} in {}", shown(stack))).collect();
        if !stacks.is_empty() {
            let _ = writeln!(text, "layers: {}", stacks.join(", "));
        }
        let groups = self.groups();
        for group in groups.iter().take(N_GROUPS_MAX) {
            let _ = writeln!(text, "{}: {}", of_names(&group.names), self.in_words(group.settings));
        }
        if groups.len() > N_GROUPS_MAX {
            let _ = writeln!(text, "and {} more settings; --json has all", groups.len() - N_GROUPS_MAX);
        }
        let (n_read, n_written) = (self.read_bytes(), self.written_bytes());
        let _ = writeln!(
            text,
            "{} tensors merged, {} as the base has them; reads {}, writes {}, within {} of buffers{}",
            self.prepared.tensors.len(),
            self.prepared.n_copied,
            units::bytes(n_read),
            units::bytes(n_written),
            units::bytes(memory_bytes),
            match recipe.method.family() {
                Family::Matrices => format!(" and {} of whole matrices", units::bytes(self.matrix_bytes())),
                _ => String::new(),
            }
        );
        let mut json = self.json();
        let all = groups
            .iter()
            .map(|group| json!({ "tensors": group.names, "settings": self.settings_json(group.settings) }));
        Answer::add(&mut json, "settings", all.collect::<Vec<Value>>());
        Answer::add(&mut json, "n_merged", self.prepared.tensors.len());
        Answer::add(&mut json, "n_copied", self.prepared.n_copied);
        Answer::add(&mut json, "read_bytes", n_read);
        Answer::add(&mut json, "written_bytes", n_written);
        Answer::new(text, json)
    }

    /// What every answer holds.
    pub(super) fn json(&self) -> Value {
        let recipe = self.recipe;
        json!({
            "output": tvb::shown::path_json(&self.job.output.target),
            "method": recipe.method.name(),
            "like": if recipe.manner == Manner::Mergekit { "mergekit" } else { "paper" },
            "base": recipe.base.in_words(),
            "tasks": self.names,
            "recipe": recipe.to_yaml(),
            "notes": recipe.notes,
        })
    }

    fn manner_in_words(&self) -> &'static str {
        match self.recipe.manner {
            Manner::Mergekit => "as mergekit does it",
            Manner::Paper => "as its paper has it",
        }
    }

    /// Tensors by their settings, in the order of the first of each.
    fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for tensor in &self.prepared.tensors {
            match groups.iter_mut().find(|group| *group.settings == tensor.settings) {
                Some(group) => group.names.push(&tensor.name),
                None => groups.push(Group { settings: &tensor.settings, names: vec![&tensor.name] }),
            }
        }
        groups
    }

    /// The parameters that the method takes.
    fn in_words(&self, settings: &TensorSettings) -> String {
        let each = |values: &[f64]| match values {
            [first, rest @ ..] if rest.iter().all(|value| value == first) => first.to_string(),
            values => format!("[{}]", values.iter().map(f64::to_string).collect::<Vec<_>>().join(", ")),
        };
        let mut words: Vec<String> = Vec::new();
        for &parameter in parameters_of(self.recipe.method) {
            let value = match parameter {
                Parameter::Weight if settings.base_weight != 0.0 => {
                    format!("{} (base {})", each(&settings.weight), settings.base_weight)
                }
                Parameter::Weight => each(&settings.weight),
                Parameter::Density => each(&settings.density),
                Parameter::Gamma => each(&settings.gamma),
                Parameter::Epsilon => each(&settings.epsilon),
                Parameter::Lambda => settings.lambda.to_string(),
                Parameter::Normalize | Parameter::NormalizeWeights => settings.normalize.to_string(),
                Parameter::Rescale => rescale_name(settings).to_owned(),
                Parameter::T => settings.t.to_string(),
                Parameter::FilterWise | Parameter::Flatten => rows_name(settings).to_owned(),
                Parameter::SelectTopk => settings.select_topk.to_string(),
                Parameter::K => settings.k.to_string(),
                Parameter::MaskLambda => settings.mask_lambda.to_string(),
                Parameter::Common => settings.common.to_string(),
                Parameter::MaxIter => settings.max_iter.to_string(),
                Parameter::Tol => settings.tol.to_string(),
                Parameter::Eps => settings.eps.to_string(),
                Parameter::RowWise | Parameter::Int8Mask => continue,
            };
            words.push(match parameter {
                Parameter::FilterWise | Parameter::Flatten => value,
                _ => format!("{parameter} {value}"),
            });
        }
        if words.is_empty() { "no parameters".to_owned() } else { words.join(", ") }
    }

    fn settings_json(&self, settings: &TensorSettings) -> Value {
        let mut object = serde_json::Map::new();
        for &parameter in parameters_of(self.recipe.method) {
            let value = match parameter {
                Parameter::Weight => json!(settings.weight),
                Parameter::Density => json!(settings.density),
                Parameter::Gamma => json!(settings.gamma),
                Parameter::Epsilon => json!(settings.epsilon),
                Parameter::Lambda => json!(settings.lambda),
                Parameter::Normalize | Parameter::NormalizeWeights => json!(settings.normalize),
                Parameter::Rescale => json!(rescale_name(settings)),
                Parameter::T => json!(settings.t),
                Parameter::FilterWise | Parameter::Flatten => json!(rows_name(settings)),
                Parameter::SelectTopk => json!(settings.select_topk),
                Parameter::K => json!(settings.k),
                Parameter::MaskLambda => json!(settings.mask_lambda),
                Parameter::Common => json!(settings.common),
                Parameter::MaxIter => json!(settings.max_iter),
                Parameter::Tol => json!(settings.tol),
                Parameter::Eps => json!(settings.eps),
                Parameter::RowWise | Parameter::Int8Mask => continue,
            };
            object.insert(parameter.name().to_owned(), value);
        }
        object.insert("base_weight".to_owned(), json!(settings.base_weight));
        Value::Object(object)
    }

    fn read_bytes(&self) -> u64 {
        self.prepared.n_bytes().saturating_mul(self.job.n_passes(&self.prepared.tensors))
    }

    fn written_bytes(&self) -> u64 {
        let stored = |tensor: &tvb::checkpoint::Tensor| match (self.job.output.dtype, tensor.dtype.float()) {
            (Some(dtype), Some(_)) => tensor.shape.iter().product::<usize>() as u64 * dtype.size() as u64,
            _ => tensor.n_bytes(),
        };
        self.job.base.tensors().iter().map(stored).sum()
    }

    /// All tasks' values of the largest tensor, in f32.
    fn matrix_bytes(&self) -> u64 {
        let elements = self.job.base.tensors().iter().filter(|tensor| tensor.shape.len() > 1);
        let largest = elements.map(|tensor| tensor.shape.iter().product::<usize>() as u64).max().unwrap_or(0);
        largest.saturating_mul(4).saturating_mul(self.names.len() as u64)
    }
}

/// The first names of a group, and how many more there are.
fn of_names(names: &[&str]) -> String {
    let told: Vec<String> = names.iter().take(N_NAMES_MAX).map(|name| shown(name)).collect();
    match names.len().saturating_sub(N_NAMES_MAX) {
        0 => told.join(", "),
        more => format!("{} and {more} more", told.join(", ")),
    }
}

/// How values that stay make up for those that go.
const fn rescale_name(settings: &TensorSettings) -> &'static str {
    match settings.rescale {
        Rescale::No => "no",
        Rescale::Chance => "by chance",
        Rescale::L1 => "to the L1 norm",
    }
}

/// What shares one answer.
const fn rows_name(settings: &TensorSettings) -> &'static str {
    match settings.rows {
        RowWise::Whole => "whole tensors",
        RowWise::Rows => "row by row",
        RowWise::Columns => "column by column",
    }
}
