//! A recipe as YAML that mergekit reads too, as far as it does the same, and that makes the same recipe again.

use super::definition::{BaseRole, Own, Recipe, Slice};
use super::read::words_of;
use super::reference::Reference;
use super::setting::{Filtered, Setting, Settings};
use crate::jobs::merge::parameters::{Manner, Parameter};
use crate::jobs::merge::settings::Over;
use crate::shown::is_control;
use std::fmt::Write;

impl Recipe {
    /// The recipe's text.
    pub fn to_yaml(&self) -> String {
        let mut text = format!("merge_method: {}\n", self.method);
        if self.role != BaseRole::First {
            line(&mut text, 0, "base_model", &reference(&self.base));
        }
        match &self.slices[..] {
            [Slice { n_layers: None, of_base, of_tasks, .. }] => {
                text.push_str("models:\n");
                self.models(&mut text, 2, of_base, of_tasks, None);
            }
            slices => {
                text.push_str("slices:\n");
                let mut start = 0;
                for slice in slices {
                    let end = start + slice.n_layers.unwrap_or(0);
                    text.push_str("- sources:\n");
                    self.models(&mut text, 4, &slice.of_base, &slice.of_tasks, Some((start, end)));
                    settings(&mut text, 2, &slice.parameters);
                    start = end;
                }
            }
        }
        settings(&mut text, 0, &self.parameters);
        for (key, dtype) in [("dtype", self.dtype), ("out_dtype", self.out_dtype)] {
            if let Some(dtype) = dtype {
                line(&mut text, 0, key, words_of(dtype));
            }
        }
        self.own(&mut text);
        text
    }

    fn models(
        &self,
        text: &mut String,
        indent: usize,
        of_base: &Settings,
        of_tasks: &[Settings],
        layers: Option<(usize, usize)>,
    ) {
        let base = (self.role != BaseRole::Origin).then_some((&self.base, None, of_base));
        let tasks = self.tasks.iter().zip(of_tasks).map(|(model, own)| (&model.reference, model.name.as_deref(), own));
        for (model, name, own) in base.into_iter().chain(tasks) {
            let dash = indent.saturating_sub(2);
            let _ = writeln!(text, "{}- model: {}", " ".repeat(dash), reference(model));
            if let Some(name) = name {
                line(text, indent, "name", &quoted(name));
            }
            if let Some((start, end)) = layers {
                line(text, indent, "layer_range", &format!("[{start}, {end}]"));
            }
            settings(text, indent, own);
        }
    }

    fn own(&self, text: &mut String) {
        text.push_str("tvb:\n");
        let Own {
            trim,
            seed,
            only_for,
            orthogonalise,
            basis,
            include,
            exclude,
            skip_mismatched,
            common_vocab,
            rename,
            key,
            clip,
            weight_for,
            lines,
        } = &self.own;
        let like = match self.manner {
            Manner::Paper => "paper",
            Manner::Mergekit => "mergekit",
        };
        line(text, 2, "like", like);
        if let Some(over) = trim {
            line(text, 2, "trim", if *over == Over::Model { "model" } else { "tensor" });
        }
        if *seed != 0 {
            line(text, 2, "seed", &seed.to_string());
        }
        for (name, value) in
            [("for", only_for), ("basis", basis), ("include", include), ("exclude", exclude), ("key", key)]
        {
            if let Some(value) = value {
                line(text, 2, name, &quoted(value));
            }
        }
        for (name, is_on) in [("orthogonalise", orthogonalise), ("skip_mismatched", skip_mismatched), ("clip", clip)] {
            if *is_on {
                line(text, 2, name, "true");
            }
        }
        if *common_vocab {
            line(text, 2, "vocab", "common");
        }
        for (name, rules) in [("rename", rename), ("weight_for", weight_for)] {
            if !rules.is_empty() {
                let rules: Vec<String> = rules.iter().map(|rule| quoted(rule)).collect();
                line(text, 2, name, &format!("[{}]", rules.join(", ")));
            }
        }
        if let Some(lines) = lines {
            line(text, 2, "lines", &quoted(&lines.to_string()));
        }
    }
}

fn line(text: &mut String, indent: usize, key: &str, value: &str) {
    let _ = writeln!(text, "{}{key}: {value}", " ".repeat(indent));
}

fn settings(text: &mut String, indent: usize, settings: &Settings) {
    if settings.is_empty() {
        return;
    }
    let _ = writeln!(text, "{}parameters:", " ".repeat(indent));
    for (parameter, setting) in settings {
        match setting {
            Setting::Gradient(values) => line(text, indent + 2, parameter.name(), &gradient(*parameter, values)),
            Setting::Filtered(list) => {
                let _ = writeln!(text, "{}{parameter}:", " ".repeat(indent + 2));
                for Filtered { filter, values } in list {
                    let filter = filter.as_ref().map_or(String::new(), |word| format!("filter: {}, ", quoted(word)));
                    let _ = writeln!(
                        text,
                        "{}- {{{filter}value: {}}}",
                        " ".repeat(indent + 2),
                        gradient(*parameter, values)
                    );
                }
            }
        }
    }
}

fn gradient(parameter: Parameter, values: &[f64]) -> String {
    let words: Vec<String> = values.iter().map(|value| parameter.shown(*value)).collect();
    match &words[..] {
        [one] => one.clone(),
        _ => format!("[{}]", words.join(", ")),
    }
}

/// A model; what mergekit would take apart is written as a map.
fn reference(model: &Reference) -> String {
    let is_plain = |reference: &Reference| !reference.written.contains(['+', '@']);
    let path = |reference: &Reference| match &reference.revision {
        Some(revision) => format!("{{path: {}, revision: {}}}", quoted(&reference.written), quoted(revision)),
        None => format!("{{path: {}}}", quoted(&reference.written)),
    };
    match &model.adapter {
        _ if is_plain(model) && model.adapter.as_deref().is_none_or(is_plain) => quoted(&model.in_words()),
        Some(adapter) => format!("{{model: {}, lora: {}}}", path(model), path(adapter)),
        None => format!("{{model: {}}}", path(model)),
    }
}

/// A double-quoted string of YAML, on one line and without control characters.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if is_control(c) => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
