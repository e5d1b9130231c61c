//! Which tensors take part, and under which names: what the user says of them.

use super::patterns::regex;
use super::rename::Rename;
use crate::error::Result;
use regex::Regex;

/// Which tensors take part: all, unless told otherwise.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    include: Option<Regex>,
    exclude: Option<Regex>,
    pub(super) skip_mismatched: bool,
    renames: Vec<Rename>,
    pub(super) common_vocab: bool,
    apart: Option<Regex>,
}

impl Selection {
    /// Every float tensor, and every mismatch is an error.
    pub fn all() -> Selection {
        Selection::default()
    }

    /// Only tensors in whose name the regular expression matches somewhere.
    ///
    /// # Errors
    /// Usage: not a regular expression.
    pub fn include(mut self, pattern: &str) -> Result<Selection> {
        self.include = Some(regex(pattern)?);
        Ok(self)
    }

    /// No tensor in whose name the regular expression matches somewhere.
    ///
    /// # Errors
    /// Usage: not a regular expression.
    pub fn exclude(mut self, pattern: &str) -> Result<Selection> {
        self.exclude = Some(regex(pattern)?);
        Ok(self)
    }

    /// Leave out what does not match between base and fine-tunes instead of stopping.
    #[must_use]
    pub fn skip_mismatched(mut self, skip: bool) -> Selection {
        self.skip_mismatched = skip;
        self
    }

    /// Of embeddings and heads of other sizes, take the first rows that the base and every task have; otherwise they are mismatches.
    #[must_use]
    pub fn common_vocab(mut self, common: bool) -> Selection {
        self.common_vocab = common;
        self
    }

    /// No tensor in whose name the regular expression matches somewhere either: what an output takes from elsewhere.
    ///
    /// # Errors
    /// Usage: not a regular expression.
    pub fn apart(mut self, pattern: &str) -> Result<Selection> {
        self.apart = Some(regex(pattern)?);
        Ok(self)
    }

    /// Changes the names of the tasks' tensors before they are matched with the base's: `s/REGEX/REPLACEMENT/`, one rule after the
    /// other.
    ///
    /// # Errors
    /// Usage: no such rule.
    pub fn rename(mut self, rule: &str) -> Result<Selection> {
        self.renames.push(Rename::parse(rule)?);
        Ok(self)
    }

    pub(super) fn renames(&self) -> &[Rename] {
        &self.renames
    }

    /// Why a tensor is not taken.
    pub(super) fn reason(&self, name: &str) -> &'static str {
        match self.apart.as_ref().is_some_and(|re| re.is_match(name)) {
            true => "comes from a task as it is",
            false => "not selected",
        }
    }

    pub(super) fn takes(&self, name: &str) -> bool {
        self.include.as_ref().is_none_or(|re| re.is_match(name))
            && !self.apart.as_ref().is_some_and(|re| re.is_match(name))
            && !self.exclude.as_ref().is_some_and(|re| re.is_match(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn a_selection_takes_what_is_included_and_not_excluded() {
        let selection = Selection::all().include("^h\\.").unwrap().exclude("bias$").unwrap();
        for (name, taken) in [("h.0.weight", true), ("h.0.bias", false), ("emb.weight", false)] {
            assert_eq!(selection.takes(name), taken, "{name}");
        }
        assert!(Selection::all().takes("emb.weight"));
    }

    #[test]
    fn a_long_pattern_is_refused_before_it_is_parsed() {
        let error = Selection::all().include(&"(a|b)".repeat(20_000)).unwrap_err();
        assert_eq!(error.message(), "a pattern of at most 65536 bytes expected, 100000 found");
    }

    #[test]
    fn a_bad_pattern_is_a_usage_error_on_one_line() {
        for error in [Selection::all().include("a(").unwrap_err(), Selection::all().exclude("a(").unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert_eq!(error.message(), "not a regular expression: \"a(\": unclosed group");
        }
    }
}
