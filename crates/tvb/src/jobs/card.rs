//! The model card of an edited folder: where it came from, and the command that makes it again.
//!
//! Names come from files and the card is rendered as a web page, so every name is a code span, in which Markdown, HTML and
//! links are plain text.

use crate::checkpoint::Checkpoint;
use crate::jobs::edit::{Edit, Source};
use crate::shown::{escaped, escaped_lines};
use crate::solve::Rule;
use std::fmt::Write;

/// README.md of an edited checkpoint, in the form the Hugging Face hub reads.
pub fn model_card(base: &Checkpoint, source: Source<'_>, edit: &Edit, command: &str) -> String {
    let base_name = base.path().file_name().map_or_else(|| "base".into(), |name| name.to_string_lossy().into_owned());
    let (from, names) = match source {
        Source::Basis(basis) => (
            format!(
                "a task vector basis of {} tasks in {} atoms (method {})",
                basis.n_tasks(),
                basis.manifest.n_vectors(),
                code(&basis.manifest.method.name)
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
    let _ = writeln!(card, "# {}, edited by task arithmetic\n", code(&base_name));
    let _ = writeln!(card, "This checkpoint is the base plus an edit formed from {from} by {}.\n", crate::TOOL);
    match edit.rule {
        Rule::Projected => {
            let _ = writeln!(card, "| task | weight |\n|---|---|");
            for (name, weight) in names.iter().zip(&edit.alpha).filter(|(_, weight)| **weight != 0.0) {
                let _ = writeln!(card, "| {} | {} |", code_in_table(name), weight * edit.scale);
            }
        }
        Rule::Sum => {
            let names: Vec<String> = names.iter().map(|name| code(name)).collect();
            let _ =
                writeln!(card, "The edit is {} times the plain sum of the atoms of: {}.", edit.scale, names.join(", "));
        }
    }
    let command = escaped_lines(command);
    // No line of the command ends a fence that is longer than any in it.
    let fence = "`".repeat(longest_ticks(&command).max(2) + 1);
    let _ = writeln!(card, "\nMade with:\n\n{fence}sh\n{command}\n{fence}\n");
    card.push_str("Method: *Task Vector Bases: A Unified and Scalable Framework for Compressed Task Arithmetic*, ");
    card.push_str("[arXiv:2502.01015](https://arxiv.org/abs/2502.01015).\n");
    card
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
