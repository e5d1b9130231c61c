//! What takes no part, as a share of the parameters: whoever leaves out a whole embedding is told.

use crate::progress::Progress;
use crate::shown::{escaped, shown};
use serde::{Deserialize, Serialize};

/// A share of the parameters above which it is a warning.
const WARNED_SHARE: f64 = 0.01;
/// Tensors that are told with the reason.
const TENSORS_TOLD: usize = 2;

/// A float tensor that was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name in the base (or in the fine-tune, where the base lacks it).
    pub name: String,
    /// Why.
    pub reason: String,
    /// Its elements; 0 where an older program did not say.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub n_elements: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Tensors and parameters out of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Share {
    /// Tensors that are left out, in whole or in part.
    pub n_tensors: u64,
    /// Parameters that are left out.
    pub n_parameters: u64,
    /// All float parameters; 0 where it is not known.
    pub of: u64,
}

impl Share {
    /// The part of all parameters that is left out, from 0 to 1.
    pub fn share(&self) -> f64 {
        if self.of == 0 { 0.0 } else { self.n_parameters as f64 / self.of as f64 }
    }

    /// Whether it is so much that it is a warning: more than 1 %.
    pub fn is_much(&self) -> bool {
        self.share() > WARNED_SHARE
    }

    /// `2 tensors, 0.4 %`.
    pub fn in_words(&self) -> String {
        let plural = if self.n_tensors == 1 { "" } else { "s" };
        let percent = 100.0 * self.share();
        let digits = if percent < 0.1 { format!("{percent:.1e}") } else { format!("{percent:.1}") };
        format!("{} tensor{plural}, {digits} %", self.n_tensors)
    }
}

/// What takes no part, of the base and of the task of which most has no place in the base.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LeftOut {
    /// Of the base's float tensors: those that no task changes here.
    pub base: Share,
    /// The task that has most of what the base lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskShare>,
}

/// A task's tensors that have no place in the base.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskShare {
    /// Its name.
    pub name: String,
    /// Of its own float tensors.
    pub share: Share,
}

impl LeftOut {
    /// Whether anything is left out.
    pub fn is_any(&self) -> bool {
        self.base.n_parameters > 0 || self.task.is_some()
    }

    /// Whether it is so much that it is a warning: more than 1 % of the base or of a task.
    pub fn is_much(&self) -> bool {
        self.base.is_much() || self.task.as_ref().is_some_and(|task| task.share.is_much())
    }

    /// One line, `skipped` saying which and why; `None` where nothing is left out.
    pub fn line(&self, skipped: &[Skipped]) -> Option<String> {
        if !self.is_any() && skipped.is_empty() {
            return None;
        }
        let mut parts = Vec::new();
        if self.base.n_parameters > 0 {
            parts.push(format!("{} of the base's parameters", self.base.in_words()));
        }
        if let Some(TaskShare { name, share }) = &self.task {
            parts.push(format!(
                "{} of the parameters of task {} (no place in the base)",
                share.in_words(),
                shown(name)
            ));
        }
        if parts.is_empty() {
            let n_tensors = skipped.len();
            parts.push(format!("{n_tensors} tensor{}", if n_tensors == 1 { "" } else { "s" }));
        }
        // The largest first.
        let mut told: Vec<&Skipped> = skipped.iter().collect();
        told.sort_by_key(|skipped| std::cmp::Reverse(skipped.n_elements));
        let reasons = told.iter().take(TENSORS_TOLD);
        let mut reasons: Vec<String> =
            reasons.map(|skipped| format!("{}: {}", shown(&skipped.name), escaped(&skipped.reason))).collect();
        if told.len() > TENSORS_TOLD {
            reasons.push("…".to_owned());
        }
        let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) };
        Some(format!("left out: {}{reasons}", parts.join(", and ")))
    }

    /// Tells it, as a warning where it is much.
    pub fn tell(&self, skipped: &[Skipped], progress: &dyn Progress) {
        match self.line(skipped) {
            Some(line) if self.is_much() => progress.warn(&line),
            Some(line) => progress.note(&line),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skipped(name: &str, n_elements: u64) -> Skipped {
        Skipped { name: name.into(), reason: "not selected".into(), n_elements }
    }

    #[test]
    fn the_line_says_how_much_and_which() {
        let base = Share { n_tensors: 3, n_parameters: 124, of: 1000 };
        let few = LeftOut { base, task: None };
        let all = [skipped("a", 3), skipped("b", 100), skipped("c", 21)];
        assert_eq!(
            few.line(&all).unwrap(),
            "left out: 3 tensors, 12.4 % of the base's parameters (`b`: not selected; `c`: not selected; …)"
        );
        assert!(few.is_much() && few.is_any());
        let share = Share { n_tensors: 1, n_parameters: 5, of: 1000 };
        let of_task = LeftOut { base: Share::default(), task: Some(TaskShare { name: "t".into(), share }) };
        assert_eq!(
            of_task.line(&all[..1]).unwrap(),
            "left out: 1 tensor, 0.5 % of the parameters of task `t` (no place in the base) (`a`: not selected)"
        );
        assert!(!of_task.is_much());
        assert_eq!(LeftOut::default().line(&[]), None);
        // Of an older basis no share is known.
        assert_eq!(LeftOut::default().line(&all[..1]).unwrap(), "left out: 1 tensor (`a`: not selected)");
    }

    #[test]
    fn older_records_are_read() {
        let old: Skipped = serde_json::from_str(r#"{"name": "a", "reason": "r"}"#).unwrap();
        assert_eq!(serde_json::to_string(&old).unwrap(), r#"{"name":"a","reason":"r"}"#);
        assert_eq!(serde_json::from_str::<LeftOut>("{}").unwrap(), LeftOut::default());
    }
}
