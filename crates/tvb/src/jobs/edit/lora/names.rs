//! What PEFT calls the modules of a base, whose file may write them with other first words.

use crate::checkpoint::shown;

/// How the base's name of a module becomes PEFT's: other first words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    /// First words of the base's name that PEFT's has not.
    dropped: String,
    /// First words of PEFT's name that the base's has not.
    added: String,
}

impl Rule {
    /// From one module's two names; `None` where not even their last words agree.
    pub(super) fn of(in_base: &str, in_peft: &str) -> Option<Rule> {
        let words = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        let (own, other) = (words(in_base), words(in_peft));
        let n_same = own.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
        let first = |all: &[String]| {
            let taken = all.iter().take(all.len() - n_same);
            taken.fold(String::new(), |text, word| text + word + ".")
        };
        (n_same > 0).then(|| Rule { dropped: first(&own), added: first(&other) })
    }

    /// PEFT's name for what the base calls `in_base`.
    pub(super) fn apply(&self, in_base: &str) -> String {
        match in_base.strip_prefix(&self.dropped) {
            Some(rest) => format!("{}{rest}", self.added),
            None => in_base.to_owned(),
        }
    }

    /// `a.b.…` → `c.…`, for messages.
    pub(super) fn text(&self) -> String {
        format!("{}… → {}…", shown(&self.dropped), shown(&self.added))
    }
}

/// The module that a tensor belongs to, and what it is there: `h.0.attn.c_attn`, `weight`.
pub(super) fn module_of(tensor: &str) -> (&str, &str) {
    tensor.rsplit_once('.').unwrap_or(("", tensor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_words_differ_and_the_rest_is_one() {
        let cases = [
            ("h.0.attn", "transformer.h.0.attn", "h.1.mlp", "transformer.h.1.mlp"),
            ("module.h.0", "h.0", "module.lm_head", "lm_head"),
            ("a.b.c", "a.b.c", "d", "d"),
            ("model.x.q", "base.x.q", "model.y", "base.y"),
            ("model.x.q", "x.q", "other", "other"),
        ];
        for (own, peft, name, expected) in cases {
            assert_eq!(Rule::of(own, peft).unwrap().apply(name), expected, "{own} {peft}");
        }
        assert_eq!(Rule::of("a.b", "c.d"), None);
    }

    #[test]
    fn a_tensor_belongs_to_a_module() {
        assert_eq!(module_of("h.0.attn.weight"), ("h.0.attn", "weight"));
        assert_eq!(module_of("scale"), ("", "scale"));
    }
}
