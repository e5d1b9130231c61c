//! The text of a model card.
//!
//! Names come from files and the card is rendered as a web page, so every name is a code span, in which Markdown, HTML and
//! links are plain text.

use super::front_matter::Value;
use super::origin::Origin;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::names::CARD_BEGINS;
use crate::jobs::edit::{Combination, Edit, Lines, Over, Source, TensorWeights};
use crate::shown::{escaped, escaped_lines};
use crate::solve::Rule;
use std::fmt::Write;

/// README.md of an edited checkpoint, in the form the Hugging Face hub reads. `base_model` is the base's name on the hub, where the
/// user says it; see [`check_model_id`](super::check_model_id). `made_of` is what [`weights_in_words`] or
/// [`combination_in_words`] says.
pub fn model_card(
    base: &Checkpoint,
    source: Source<'_>,
    made_of: &str,
    command: &str,
    base_model: Option<&str>,
) -> String {
    let origin = Origin::of(base, base_model);
    let base_name = base.path().file_name().map_or_else(|| "base".into(), |name| name.to_string_lossy().into_owned());
    let from = formed_from(source);
    let mut card = front_matter(&origin, "merge");
    let _ = writeln!(card, "# {}, edited by task arithmetic\n", code(&base_name));
    let _ = writeln!(card, "This checkpoint is the base plus an edit formed from {from} by {}.\n", crate::TOOL);
    match &origin.id {
        Some(id) => {
            let _ = writeln!(card, "The base is {} on the hub.\n", code(id));
        }
        // The hub takes no local path for `base_model`.
        None => card.push_str("The base's name on the hub is not known here, so this card names no `base_model`.\n\n"),
    }
    card.push_str(made_of);
    card.push_str(&made_with(command));
    card
}

/// README.md of an edit that was written as a LoRA adapter; `base_model` as in [`model_card`], `loss` is a line of what the edit
/// lost.
pub fn adapter_card(
    base: Option<&Checkpoint>,
    source: Source<'_>,
    edit: &Edit,
    command: &str,
    base_model: Option<&str>,
    loss: &str,
) -> String {
    let mut origin = match base {
        Some(base) => Origin::of(base, base_model),
        None => Origin { id: base_model.map(str::to_owned), library: None, fields: Vec::new() },
    };
    origin.library = Some("peft".to_owned());
    let name = base.and_then(|base| base.path().file_name());
    let name = name.map(|name| name.to_string_lossy().into_owned()).or_else(|| origin.id.clone());
    let mut card = front_matter(&origin, "adapter");
    let _ = writeln!(card, "# {}, edited by task arithmetic\n", code(name.as_deref().unwrap_or("base")));
    let from = formed_from(source);
    let _ = writeln!(card, "This LoRA adapter is an edit of the base formed from {from} by {}.\n", crate::TOOL);
    let _ = writeln!(card, "Load it with `peft.PeftModel.from_pretrained(base, FOLDER)`; its scale is 1.\n");
    let _ = writeln!(card, "Recompressed: {}\n", code(loss));
    card.push_str(&weights_in_words(source, edit));
    card.push_str(&made_with(command));
    card
}

/// What an edit is formed from, in words.
fn formed_from(source: Source<'_>) -> String {
    match source {
        Source::Basis(basis) => format!(
            "a task vector basis of {} tasks in {} atoms (method {})",
            basis.n_tasks(),
            basis.manifest.n_vectors(),
            code(&basis.manifest.method.name)
        ),
        Source::Checkpoints(_) => "the fine-tuned checkpoints themselves".to_owned(),
    }
}

/// The weights of the tasks, as a table of Markdown.
pub fn weights_in_words(source: Source<'_>, edit: &Edit) -> String {
    let names = source.task_names();
    let mut card = String::new();
    match edit.rule {
        Rule::Projected => {
            let _ = writeln!(card, "| task | weight |\n|---|---|");
            for (name, weight) in names.iter().zip(&edit.alpha).filter(|(_, weight)| **weight != 0.0) {
                let _ = writeln!(card, "| {} | {} |", code_in_table(name), weight * edit.scale);
            }
            if let Some(factors) = &edit.by_tensor {
                card.push_str(&factors_in_words(&names, factors));
            }
        }
        Rule::Sum => {
            let names: Vec<String> = names.iter().map(|name| code(name)).collect();
            let _ =
                writeln!(card, "The edit is {} times the plain sum of the atoms of: {}.", edit.scale, names.join(", "));
        }
    }
    card
}

/// What multiplies the tasks' weights in some tensors, as a list of Markdown.
fn factors_in_words(names: &[String], factors: &TensorWeights) -> String {
    let mut card = String::from("\nWeights differ between tensors; each is the task's own times:\n\n");
    for (task, pattern, weight) in factors.rules() {
        let of_task =
            task.and_then(|task| names.get(task)).map_or(String::new(), |name| format!(", for {}", code(name)));
        let _ = writeln!(card, "- {weight} in tensors whose name {} finds{of_task}", code(pattern));
    }
    if let Some(Lines { alpha, beta }) = factors.words().lines {
        let _ = writeln!(
            card,
            "- {alpha} + {beta}·l/(L − 1) in layer l of L, {alpha} in tensors of no layer (LiNeS, \
             [arXiv:2410.17146](https://arxiv.org/abs/2410.17146))"
        );
    }
    card
}

/// The coefficients of a combination times `scale`, as a table of Markdown with a row for each task or atom and a column for each
/// block of tensors.
pub fn combination_in_words(combination: &Combination, scale: f64) -> String {
    let what = match combination.over {
        Over::Tasks => "task",
        Over::Atoms => "atom",
    };
    let blocks = combination.blocks.as_deref().unwrap_or_default();
    let headings: Vec<String> = match blocks {
        [] => vec!["weight".to_owned()],
        blocks => blocks.iter().map(|block| code_in_table(&block.name)).collect(),
    };
    let mut card = format!("| {what} | {} |\n|---|{}\n", headings.join(" | "), "---|".repeat(headings.len()));
    for (column, name) in combination.names.iter().enumerate() {
        let row: Vec<f64> =
            combination.values.iter().filter_map(|row| row.get(column)).map(|value| value * scale).collect();
        if row.iter().any(|value| *value != 0.0) {
            let row: Vec<String> = row.iter().map(f64::to_string).collect();
            let _ = writeln!(card, "| {} | {} |", code_in_table(name), row.join(" | "));
        }
    }
    for block in blocks {
        let names: Vec<String> = block.tensors.iter().map(|name| code(name)).collect();
        let _ = writeln!(card, "\n{}: {}.", code(&block.name), names.join(", "));
    }
    card
}

/// The command and the method.
fn made_with(command: &str) -> String {
    let mut card = String::new();
    let command = escaped_lines(command);
    // No line of the command ends a fence that is longer than any in it.
    let fence = "`".repeat(longest_ticks(&command).max(2) + 1);
    let _ = writeln!(card, "\nMade with:\n\n{fence}sh\n{command}\n{fence}\n");
    card.push_str("Method: *Task Vector Bases: A Unified and Scalable Framework for Compressed Task Arithmetic*, ");
    card.push_str("[arXiv:2502.01015](https://arxiv.org/abs/2502.01015).\n");
    card
}

/// What the hub reads: only what is known to be true.
fn front_matter(origin: &Origin, relation: &str) -> String {
    let mut text = String::from(CARD_BEGINS);
    if let Some(id) = &origin.id {
        let _ = writeln!(text, "base_model: {}\nbase_model_relation: {relation}", yaml_string(id));
    }
    if let Some(library) = &origin.library {
        let _ = writeln!(text, "library_name: {}", yaml_string(library));
    }
    for (key, value) in &origin.fields {
        match value {
            Value::One(word) => {
                let _ = writeln!(text, "{key}: {}", yaml_string(word));
            }
            Value::List(words) => {
                let _ = writeln!(text, "{key}:");
                words.iter().for_each(|word| text.push_str(&format!("- {}\n", yaml_string(word))));
            }
        }
    }
    text.push_str("---\n\n");
    text
}

/// A YAML double-quoted string.
fn yaml_string(text: &str) -> String {
    serde_json::Value::from(escaped(text)).to_string()
}

/// A code span of Markdown.
fn code(text: &str) -> String {
    let text = escaped(text);
    let ticks = "`".repeat(longest_ticks(&text) + 1);
    // One blank at each side belongs to the span, not to the text.
    match ticks.len() == 1 && !text.starts_with(' ') && !text.ends_with(' ') {
        true => format!("{ticks}{text}{ticks}"),
        false => format!("{ticks} {text} {ticks}"),
    }
}

/// A code span as a cell of a table, where `|` ends the cell even inside of one.
fn code_in_table(text: &str) -> String {
    // Readers disagree on a backslash before the one that escapes.
    code(&text.replace('|', if text.contains('\\') { "\\u{7c}" } else { "\\|" }))
}

/// Back quotes in the longest run of them.
fn longest_ticks(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_spans_and_cells() {
        let cases = [
            ("plain", "`plain`"),
            ("a|b", "`a\\|b`"),
            ("a\\|b", "`a\\\\u{7c}b`"),
            ("a`b", "`` a`b ``"),
            ("``` <script>", "```` ``` <script> ````"),
            (" a", "`  a `"),
        ];
        for (name, expected) in cases {
            assert_eq!(code_in_table(name), expected);
        }
        let cell = code_in_table("a\n| forged | 1 |\u{1b}");
        assert!(!cell.contains(['\n', '\u{1b}']) && cell.matches('|').count() == cell.matches("\\|").count(), "{cell}");
        assert_eq!(yaml_string("a\"\n---\nb: c"), "\"a\\\"\\\\n---\\\\nb: c\"");
    }
}
