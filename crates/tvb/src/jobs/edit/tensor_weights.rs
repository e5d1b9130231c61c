//! Factors of the tasks that differ from tensor to tensor: rules by name, and LiNeS, which goes by depth.

use crate::checkpoint::shown;
use crate::columns::fit::Twin;
use crate::columns::layers::Depths;
use crate::columns::patterns::regex;
use crate::error::{Error, Result};
use crate::nearest::nearest;
use regex::Regex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

/// More rules than anybody types are a mistake of a program.
const N_RULES_MAX: usize = 10_000;

/// LiNeS (arXiv 2410.17146): layer l of L gets α + β·l/(L − 1), l from 0. Tensors of no layer (embeddings, heads, last norms) get α,
/// as in the code of its authors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lines {
    /// α: the factor of the first layer, and of tensors that are in none.
    pub alpha: f64,
    /// β: how much more the last layer gets.
    pub beta: f64,
}

impl Lines {
    /// The factor at a depth from 0 to 1, as [`Depths::depth`] has it.
    pub fn factor(self, depth: Option<f64>) -> f64 {
        self.alpha + self.beta * depth.unwrap_or(0.0)
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.alpha, self.beta)
    }
}

impl FromStr for Lines {
    type Err = Error;

    /// `ALPHA:BETA`.
    fn from_str(text: &str) -> Result<Lines> {
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        let parsed = text.split_once(':').and_then(|(alpha, beta)| Some((number(alpha)?, number(beta)?)));
        match parsed {
            Some((alpha, beta)) if (alpha + beta).is_finite() => Ok(Lines { alpha, beta }),
            _ => Err(Error::usage(format!("ALPHA:BETA such as 0.2:0.8 expected, {text:?} found"))),
        }
    }
}

/// What was said of weights that differ between tensors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WeightWords {
    /// `REGEX=W` or `TASK:REGEX=W`, as [`TensorWeights::new`] reads them.
    pub rules: Vec<String>,
    /// Factors by depth.
    pub lines: Option<Lines>,
}

impl WeightWords {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.lines.is_none()
    }

    /// Both, for records.
    pub fn to_json(&self) -> Value {
        // As text: a number that is read back may differ in its last bit.
        json!({ "weight_for": self.rules, "lines": self.lines.map(|lines| lines.to_string()) })
    }

    /// Whether rules can be read, before it is known which tasks and tensors there are.
    ///
    /// # Errors
    /// Usage: a rule that is none.
    pub fn check(&self) -> Result<()> {
        if self.rules.len() > N_RULES_MAX {
            let found = self.rules.len();
            return Err(Error::usage(format!("at most {N_RULES_MAX} weights for tensors expected, {found} found")));
        }
        self.rules.iter().try_for_each(|text| split(text).map(drop))
    }
}

/// The tensors that weights are for.
#[derive(Clone, Copy, Debug, Default)]
pub struct TensorNames<'a> {
    /// Those that take part, whether a task moves them or not.
    pub tensors: &'a [&'a str],
    /// Second names of some.
    pub twins: &'a [Twin],
    /// Names of others of the model: they count where layers are counted.
    pub others: &'a [&'a str],
}

/// The factor of every task in every tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorWeights {
    words: WeightWords,
    rules: Vec<Rule>,
    /// \[n_rows\]\[n_tasks\], each another.
    rows: Vec<Vec<f64>>,
    /// The row of every tensor, by each of its names.
    row_of: HashMap<String, usize>,
}

/// One rule, read.
#[derive(Clone, Debug, PartialEq)]
struct Rule {
    /// Whose factor it is; `None` for every task's.
    task: Option<usize>,
    pattern: String,
    weight: f64,
}

impl TensorWeights {
    /// Reads the rules and finds the factors of the tasks called `tasks`.
    ///
    /// `REGEX=W` multiplies every task by W in the tensors in whose name the regular expression matches somewhere, `TASK:REGEX=W` that
    /// task alone: what stands before the first colon is a task's name, or else part of the expression. The last `=` counts. Factors
    /// of several rules and of LiNeS multiply. A tensor of two names counts once, whichever of them is found.
    ///
    /// # Errors
    /// Usage: a rule that is none, a factor that is not finite. Rejected: an expression that finds no tensor.
    pub fn new(words: &WeightWords, tasks: &[String], names: TensorNames<'_>) -> Result<TensorWeights> {
        words.check()?;
        let mut rules = Vec::with_capacity(words.rules.len());
        let mut factors = vec![vec![1.0; tasks.len()]; names.tensors.len()];
        if let Some(lines) = words.lines {
            let twins = names.twins.iter().map(|twin| twin.name.as_str());
            let depths = Depths::of(names.tensors.iter().chain(names.others).copied().chain(twins));
            for (name, row) in names.tensors.iter().zip(&mut factors) {
                row.fill(lines.factor(depths.depth(name)));
            }
        }
        let mut twins_of: HashMap<&str, Vec<&str>> = HashMap::new();
        for twin in names.twins {
            twins_of.entry(twin.of.as_str()).or_default().push(&twin.name);
        }
        for text in &words.rules {
            let (rule, expression) = Rule::read(text, tasks)?;
            let finds = |name: &&str| {
                let twins = twins_of.get(name).into_iter().flatten();
                expression.is_match(name) || twins.into_iter().any(|twin| expression.is_match(twin))
            };
            let mut n_found = 0;
            for (_, row) in names.tensors.iter().zip(&mut factors).filter(|(name, _)| finds(name)) {
                n_found += 1;
                let of_rule = |(task, _): &(usize, &mut f64)| rule.task.is_none_or(|own| own == *task);
                row.iter_mut().enumerate().filter(of_rule).for_each(|(_, factor)| *factor *= rule.weight);
            }
            if n_found == 0 {
                return Err(finds_nothing(text, &expression, tasks, names));
            }
            rules.push(rule);
        }
        let mut found = TensorWeights { words: words.clone(), rules, rows: Vec::new(), row_of: HashMap::new() };
        let mut known: HashMap<Vec<u64>, usize> = HashMap::new();
        for (name, row) in names.tensors.iter().zip(factors) {
            if let Some((task, factor)) = tasks.iter().zip(&row).find(|(_, factor)| !factor.is_finite()) {
                let (task, name) = (shown(task), shown(name));
                return Err(Error::usage(format!(
                    "task {task}, tensor {name}: a finite factor expected, {factor} found"
                )));
            }
            let bits = row.iter().map(|factor| factor.to_bits()).collect();
            let number = *known.entry(bits).or_insert(found.rows.len());
            if number == found.rows.len() {
                found.rows.push(row);
            }
            let twins = twins_of.get(name).into_iter().flatten();
            found.row_of.extend(twins.chain([name]).map(|name| ((*name).to_owned(), number)));
        }
        Ok(found)
    }

    /// The factor of a task in a tensor, by either of its names; 1 for others than it was made for.
    pub fn factor(&self, tensor: &str, task: usize) -> f64 {
        self.row(tensor).and_then(|row| row.get(task)).copied().unwrap_or(1.0)
    }

    /// The factors of all tasks in a tensor, \[n_tasks\]; `None` for a tensor that it was not made for.
    pub fn row(&self, tensor: &str) -> Option<&[f64]> {
        self.rows.get(*self.row_of.get(tensor)?).map(Vec::as_slice)
    }

    /// \[n_rows\]\[n_tasks\]: every combination of factors that a tensor has.
    pub fn rows(&self) -> &[Vec<f64>] {
        &self.rows
    }

    /// What was said.
    pub fn words(&self) -> &WeightWords {
        &self.words
    }

    /// Every rule: its task's number, where it is one task's own, its regular expression and its factor.
    pub fn rules(&self) -> impl Iterator<Item = (Option<usize>, &str, f64)> {
        self.rules.iter().map(|rule| (rule.task, rule.pattern.as_str(), rule.weight))
    }
}

impl Rule {
    fn read(text: &str, tasks: &[String]) -> Result<(Rule, Regex)> {
        let (pattern, weight) = split(text)?;
        let named = pattern.split_once(':').and_then(|(task, rest)| {
            let task = tasks.iter().position(|known| known == task)?;
            Some((task, rest))
        });
        let (task, pattern) = match named {
            Some((task, rest)) => (Some(task), rest),
            None => (None, pattern),
        };
        if pattern.is_empty() {
            return Err(Error::usage(format!("{text:?}: a regular expression expected, none found"))
                .hint("'.' finds every tensor"));
        }
        let expression = regex(pattern)?;
        Ok((Rule { task, pattern: pattern.to_owned(), weight }, expression))
    }
}

/// What stands before the last `=` of a rule, and the number behind it.
fn split(text: &str) -> Result<(&str, f64)> {
    let parsed =
        text.rsplit_once('=').and_then(|(pattern, number)| Some((pattern, number.trim().parse::<f64>().ok()?)));
    match parsed {
        Some((pattern, weight)) if weight.is_finite() && !pattern.is_empty() => Ok((pattern, weight)),
        _ => Err(Error::usage(format!("REGEX=W or TASK:REGEX=W such as 'layers\\.0\\.=0.5' expected, {text:?} found"))),
    }
}

/// A rule that is for nothing is one that was mistyped.
fn finds_nothing(text: &str, expression: &Regex, tasks: &[String], names: TensorNames<'_>) -> Error {
    let error = Error::rejected(format!("{}: no tensor has a name that it finds", shown(text)));
    if let Some(other) = names.others.iter().find(|name| expression.is_match(name)) {
        return error.hint(format!("{} takes no part", shown(other)));
    }
    let task = text.split_once(':').map(|(task, _)| task).filter(|task| !tasks.iter().any(|known| known == task));
    if let Some(near) = task.and_then(|task| nearest(task, tasks.iter().map(String::as_str))) {
        return error.hint(format!("did you mean the task {}?", shown(near)));
    }
    let n = names.tensors.len();
    let at = |place: usize| names.tensors.get(place).copied();
    let mut some: Vec<&str> = [at(0), at(n / 2), at(n.saturating_sub(1))].into_iter().flatten().collect();
    some.dedup();
    let some: Vec<String> = some.into_iter().map(|name| shown(name).to_string()).collect();
    error.hint(format!("names are such as {}", some.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const TENSORS: [&str; 6] =
        ["head.weight", "m.layers.0.w", "m.layers.1.w", "m.layers.2.w", "m.layers.10.w", "m.embed.weight"];

    fn weights(rules: &[&str], lines: Option<&str>) -> Result<TensorWeights> {
        let lines = lines.map(|text| text.parse()).transpose()?;
        let words = WeightWords { rules: rules.iter().map(|rule| (*rule).to_owned()).collect(), lines };
        let twins = [Twin { name: "tied.weight".into(), of: "m.embed.weight".into() }];
        let names = TensorNames { tensors: &TENSORS, twins: &twins, others: &["m.layers.12.w", "count"] };
        TensorWeights::new(&words, &["cars".into(), "a:b".into()], names)
    }

    #[test]
    fn factors_of_rules_and_of_depth_multiply() {
        let found = weights(&["layers=0.5", r"cars:layers\.1\.=-3", "(?:embed|head)=2"], None).unwrap();
        let cases = [
            ("m.layers.0.w", [0.5, 0.5]),
            ("m.layers.1.w", [-1.5, 0.5]),
            ("m.layers.10.w", [0.5, 0.5]),
            ("head.weight", [2.0, 2.0]),
            ("m.embed.weight", [2.0, 2.0]),
            ("tied.weight", [2.0, 2.0]),
        ];
        for (name, expected) in cases {
            assert_eq!(found.row(name), Some(&expected[..]), "{name}");
        }
        assert_eq!(found.rows().len(), 3);
        assert_eq!(
            (found.factor("m.layers.1.w", 0), found.factor("nobody", 0), found.row("nobody")),
            (-1.5, 1.0, None)
        );

        // 12 is the last layer, whether or not it takes part; what is in no layer gets α.
        let found = weights(&["w$=2"], Some("0.5:1.2")).unwrap();
        let depths = [("head.weight", 0.5), ("m.embed.weight", 0.5), ("m.layers.0.w", 1.0), ("m.layers.1.w", 1.2)];
        for (name, expected) in depths.into_iter().chain([("m.layers.10.w", 3.0)]) {
            assert!((found.factor(name, 1) - expected).abs() < 1e-12, "{name}: {}", found.factor(name, 1));
        }
    }

    #[test]
    fn a_tensor_of_two_names_counts_once() {
        let found = weights(&["weight$=0.5", "tied=3"], None).unwrap();
        assert_eq!((found.factor("m.embed.weight", 0), found.factor("tied.weight", 1)), (1.5, 1.5));
        assert_eq!(found.factor("head.weight", 0), 0.5);
    }

    #[test]
    fn what_is_no_rule_or_finds_nothing_is_refused() {
        let expected = "such as 'layers\\.0\\.=0.5' expected";
        let cases: [(&str, ErrorKind, &str, &str); 11] = [
            ("layers", ErrorKind::Usage, expected, ""),
            ("=1", ErrorKind::Usage, expected, ""),
            ("layers=", ErrorKind::Usage, expected, ""),
            ("layers=inf", ErrorKind::Usage, expected, ""),
            ("layers=nan", ErrorKind::Usage, expected, ""),
            ("cars:=1", ErrorKind::Usage, "a regular expression expected, none found", "'.' finds every tensor"),
            ("(=1", ErrorKind::Usage, "not a regular expression", ""),
            (
                "layer\\.0=1",
                ErrorKind::Rejected,
                "no tensor has a name that it finds",
                "`head.weight`, `m.layers.2.w`, `m.embed",
            ),
            ("car:layers=1", ErrorKind::Rejected, "no tensor has a name", "did you mean the task `cars`?"),
            ("count=0", ErrorKind::Rejected, "no tensor has a name", "`count` takes no part"),
            ("a:b:layers=1", ErrorKind::Rejected, "no tensor has a name", ""),
        ];
        for (rule, kind, message, hint) in cases {
            let error = weights(&[rule], None).unwrap_err();
            assert_eq!(error.kind(), kind, "{rule}: {error}");
            assert!(error.message().contains(message) && !error.message().contains('\n'), "{rule}: {error}");
            assert!(error.hint_text().unwrap_or_default().contains(hint), "{rule}: {:?}", error.hint_text());
        }
        let error = weights(&["layers=1e300", "layers=1e300"], None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.message().contains("tensor `m.layers.0.w`: a finite factor expected, inf found"), "{error}");
        for text in ["0.2", "a:1", "1:", "nan:1", "1:inf", "1:2:3", "1e308:1e308"] {
            assert!(weights(&[], Some(text)).unwrap_err().message().contains("ALPHA:BETA"), "{text}");
        }
    }
}
