//! `--weight-for` and `--lines`: weights that differ from tensor to tensor, as typed and as shown.

use serde_json::{Value, json};
use tvb::jobs::edit::{Edit, Source, TensorWeights, WeightWords};
use tvb::shown::escaped;
use tvb::{Error, Result};

/// What is said when a basis cannot tell how close such an edit comes.
const NOT_PREDICTED: &str = "how close this is to the same edit from the originals is not predicted: the basis does not know the tasks' \
inner products in each tensor\n";

/// Weights that differ from tensor to tensor, as typed.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Weights by tensor")]
pub(crate) struct TensorWeightArgs {
    /// A factor for tensors whose name a regular expression finds, of every task or of one; may be repeated, and factors multiply
    #[arg(long, value_name = "[TASK:]REGEX=W", allow_hyphen_values = true)]
    weight_for: Vec<String>,
    /// LiNeS: the factor ALPHA + BETA*l/(L-1) in layer l of L, l from 0, and ALPHA in tensors of no layer
    #[arg(long, value_name = "ALPHA:BETA", allow_hyphen_values = true)]
    lines: Option<String>,
}

impl TensorWeightArgs {
    /// The first of the flags that is given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        if self.weight_for.is_empty() { self.lines.as_ref().map(|_| "--lines") } else { Some("--weight-for") }
    }

    /// The factors of the tasks in the tensors of `source`.
    pub(crate) fn of(&self, source: Source<'_>) -> Result<Option<TensorWeights>> {
        let lines = self.lines.as_deref().map(str::parse).transpose();
        let lines = lines.map_err(|error: Error| error.context("--lines"))?;
        let words = WeightWords { rules: self.weight_for.clone(), lines };
        source.tensor_weights(&words).map_err(|error| error.context(self.given().unwrap_or("--weight-for")))
    }
}

/// What an edit's weights are in which tensors, as text and as JSON; nothing where they are the same in all.
pub(crate) fn shown_weights(edit: &Edit, source: Source<'_>, is_listed: bool) -> Option<(String, Value)> {
    edit.by_tensor.as_ref()?;
    let (names, blocks) = (source.task_names(), edit.weights_by_tensor(source));
    let mut text = match blocks.len() {
        1 => "the same weights in every tensor\n".to_owned(),
        n if is_listed => format!("{n} blocks of tensors with weights of their own:\n"),
        n => format!("{n} blocks of tensors with weights of their own; --dry-run lists them\n"),
    };
    let mut json = Vec::new();
    for (tensors, weights) in blocks {
        let of_task = || names.iter().zip(&weights).filter(|(_, weight)| **weight != 0.0);
        let members: serde_json::Map<String, Value> =
            of_task().map(|(name, weight)| (name.clone(), json!(weight))).collect();
        if is_listed {
            let words: Vec<String> = of_task().map(|(name, weight)| format!("{} {weight}", escaped(name))).collect();
            let words = if words.is_empty() { "nothing".to_owned() } else { words.join(", ") };
            let first = tensors.first().map_or("", String::as_str);
            let more = match tensors.len() {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            text.push_str(&format!("  {}{more}: {words}\n", escaped(first)));
        }
        json.push(json!({ "tensors": tensors, "weights": members }));
    }
    Some((text, Value::Array(json)))
}

/// What to say of an edit that was not predicted; nothing where its weights are the same in all tensors.
pub(crate) fn not_predicted(edit: &Edit, source: Source<'_>) -> &'static str {
    match source {
        Source::Basis(_) if edit.by_tensor.is_some() => NOT_PREDICTED,
        _ => "",
    }
}
