//! The model card of an edited folder: where it came from, and the command that makes it again.

use crate::checkpoint::Checkpoint;
use crate::jobs::edit::{Edit, Source};
use crate::solve::Rule;
use std::fmt::Write;

/// README.md of an edited checkpoint, in the form the Hugging Face hub reads.
pub fn model_card(base: &Checkpoint, source: Source<'_>, edit: &Edit, command: &str) -> String {
    let base_name = base.path().file_name().map_or_else(|| "base".into(), |name| name.to_string_lossy().into_owned());
    let (from, names) = match source {
        Source::Basis(basis) => (
            format!(
                "a task vector basis of {} tasks in {} atoms (method `{}`)",
                basis.n_tasks(),
                basis.manifest.n_vectors(),
                basis.manifest.method.name
            ),
            basis.task_names(),
        ),
        Source::Checkpoints(plan) => (
            "the fine-tuned checkpoints themselves".to_owned(),
            plan.tasks.iter().map(|task| task.name.clone()).collect(),
        ),
    };
    let mut card = format!(
        "---\nbase_model: {}\nbase_model_relation: merge\nlibrary_name: {}\ntags:\n- merge\n- task-arithmetic\n---\n\n",
        yaml_string(&base_name),
        if base.path().join("config.json").is_file() { "transformers" } else { "safetensors" },
    );
    let _ = writeln!(card, "# {base_name}, edited by task arithmetic\n");
    let _ = writeln!(card, "This checkpoint is the base plus an edit formed from {from} by {}.\n", crate::TOOL);
    match edit.rule {
        Rule::Projected => {
            let _ = writeln!(card, "| task | weight |\n|---|---|");
            for (name, weight) in names.iter().zip(&edit.alpha).filter(|(_, weight)| **weight != 0.0) {
                let _ = writeln!(card, "| {} | {} |", name.replace('|', "\\|"), weight * edit.scale);
            }
        }
        Rule::Sum => {
            let _ =
                writeln!(card, "The edit is {} times the plain sum of the atoms of: {}.", edit.scale, names.join(", "));
        }
    }
    let _ = writeln!(card, "\nMade with:\n\n```sh\n{command}\n```\n");
    card.push_str("Method: *Task Vector Bases: A Unified and Scalable Framework for Compressed Task Arithmetic*, ");
    card.push_str("[arXiv:2502.01015](https://arxiv.org/abs/2502.01015).\n");
    card
}

/// A YAML double-quoted string.
fn yaml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
