//! What a recipe says of one parameter: a value, a gradient over the layers, or values for tensors whose names hold a word.

use super::yaml::{Node, Value, flag_of, number_of};
use crate::jobs::merge::parameters::{Kind, Parameter, Wrong};

/// The values of one parameter. Truth values are 1 and 0.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// One value, or several that the layers go through from the first to the last.
    Gradient(Vec<f64>),
    /// The first whose word a tensor's name holds counts.
    Filtered(Vec<Filtered>),
}

/// A gradient for some tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct Filtered {
    /// Part of the names of those tensors; `None` and `*` for all.
    pub filter: Option<String>,
    /// Its values, at least one.
    pub values: Vec<f64>,
}

/// Settings by parameter; each stands there once.
pub type Settings = Vec<(Parameter, Setting)>;

impl Filtered {
    /// Whether it is about a tensor.
    pub fn holds_for(&self, tensor: &str) -> bool {
        self.filter.as_deref().is_none_or(|word| word == "*" || tensor.contains(word))
    }
}

impl Setting {
    /// One value for all.
    pub fn of(value: f64) -> Setting {
        Setting::Gradient(vec![value])
    }

    /// The value for a tensor that lies at `t` in \[0, 1\] among the layers; `None` where no filter is about it.
    pub fn value(&self, parameter: Parameter, tensor: &str, t: f64) -> Option<f64> {
        match self {
            Setting::Gradient(values) => at(values, parameter.kind(), t),
            Setting::Filtered(list) => {
                list.iter().find(|one| one.holds_for(tensor)).and_then(|one| at(&one.values, parameter.kind(), t))
            }
        }
    }

    /// All values that it holds.
    pub fn values(&self) -> impl Iterator<Item = f64> {
        let lists: Vec<&[f64]> = match self {
            Setting::Gradient(values) => vec![values],
            Setting::Filtered(list) => list.iter().map(|one| &one.values[..]).collect(),
        };
        lists.into_iter().flatten().copied()
    }

    /// Reads what stands at `place`.
    pub(super) fn read(node: &Node, parameter: Parameter, place: &str) -> Result<Setting, Wrong> {
        let is_map = |node: &Node| matches!(node.value, Value::Map(_));
        match &node.value {
            Value::Map(_) => Ok(Setting::Filtered(vec![condition(node, parameter, place)?])),
            Value::List(items) if items.iter().any(is_map) => {
                let conditions = items.iter().enumerate();
                let conditions =
                    conditions.map(|(index, node)| condition(node, parameter, &format!("{place}[{index}]")));
                Ok(Setting::Filtered(conditions.collect::<Result<_, _>>()?))
            }
            _ => values(node, parameter, place).map(Setting::Gradient),
        }
    }

    /// Reads what was typed: values apart by commas.
    ///
    /// # Errors
    /// No value, or one that the parameter may not have.
    pub fn typed(text: &str, parameter: Parameter) -> Result<Setting, Wrong> {
        let value = |word: &str| {
            let found =
                || Wrong::new(format!("{parameter}: {} expected, {:?} found", kind_in_words(parameter), cut(word)));
            value_of(word, parameter.kind()).ok_or_else(found).and_then(|value| parameter.check(value).map(|()| value))
        };
        text.split(',').map(value).collect::<Result<_, _>>().map(Setting::Gradient)
    }
}

/// The value of a gradient at `t`. Numbers are interpolated, truth values are not; whole numbers are rounded.
fn at(values: &[f64], kind: Kind, t: f64) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    let place = t.clamp(0.0, 1.0) * last as f64;
    // As many as there are layers: far below 2⁵³.
    let below = place as usize;
    let first = values.get(below).copied()?;
    let next = values.get((below + 1).min(last)).copied()?;
    let share = place - below as f64;
    Some(match kind {
        Kind::Flag => first,
        Kind::Number => (1.0 - share) * first + share * next,
        Kind::Count => ((1.0 - share) * first + share * next).round(),
    })
}

fn condition(node: &Node, parameter: Parameter, place: &str) -> Result<Filtered, Wrong> {
    let mut filter = None;
    let mut found = None;
    for (key, node) in node.map(place, "a map of filter and value")? {
        match key {
            "filter" => filter = Some(node.word(&format!("{place}.filter"), "part of tensors' names")?.to_owned()),
            "value" => found = Some(values(node, parameter, &format!("{place}.value"))?),
            other => {
                return Err(Wrong::new(format!("line {}: {place}: unknown key {:?}", node.line, cut(other)))
                    .hint("known keys: filter, value"));
            }
        }
    }
    let values =
        found.ok_or_else(|| Wrong::new(format!("line {}: {place}: a value expected, none found", node.line)))?;
    Ok(Filtered { filter, values })
}

/// A value or a list of them.
fn values(node: &Node, parameter: Parameter, place: &str) -> Result<Vec<f64>, Wrong> {
    match &node.value {
        Value::List(items) if items.is_empty() => Err(node.wrong(place, "at least one value")),
        Value::List(items) => {
            items.iter().enumerate().map(|(index, item)| value(item, parameter, &format!("{place}[{index}]"))).collect()
        }
        _ => Ok(vec![value(node, parameter, place)?]),
    }
}

fn value(node: &Node, parameter: Parameter, place: &str) -> Result<f64, Wrong> {
    let expected = kind_in_words(parameter);
    let word = node.word(place, expected)?;
    let value = value_of(word, parameter.kind()).ok_or_else(|| node.wrong(place, expected))?;
    parameter.check(value).map_err(|wrong| wrong.at(&format!("line {}: {place}", node.line)))?;
    Ok(value)
}

fn value_of(word: &str, kind: Kind) -> Option<f64> {
    match kind {
        Kind::Flag => flag_of(word).map(f64::from),
        Kind::Number | Kind::Count => number_of(word),
    }
}

const fn kind_in_words(parameter: Parameter) -> &'static str {
    match parameter.kind() {
        Kind::Flag => "true or false",
        Kind::Number => "a number",
        Kind::Count => "a whole number",
    }
}

/// The start of a word that may be long.
pub(super) fn cut(word: &str) -> String {
    word.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::merge::recipe::yaml::parse;

    fn read(text: &str, parameter: Parameter) -> Result<Setting, Wrong> {
        Setting::read(&parse(text).unwrap(), parameter, "parameters.p")
    }

    #[test]
    fn gradients_are_interpolated_as_numbers_and_chosen_as_truths() {
        let setting = read("[0, 1e0, '0.5']", Parameter::Weight).unwrap();
        for (t, expected) in [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 0.75), (1.0, 0.5)] {
            assert_eq!(setting.value(Parameter::Weight, "w", t), Some(expected));
        }
        let setting = read("[true, no]", Parameter::Normalize).unwrap();
        for (t, expected) in [(0.0, 1.0), (0.99, 1.0), (1.0, 0.0)] {
            assert_eq!(setting.value(Parameter::Normalize, "w", t), Some(expected));
        }
    }

    #[test]
    fn the_first_filter_that_holds_counts() {
        let text = "[{filter: self_attn, value: [0, 1]}, {filter: mlp, value: 0.5}, {value: 0.25}]";
        let setting = read(text, Parameter::T).unwrap();
        for (tensor, t, expected) in
            [("0.self_attn.q", 0.5, 0.5), ("0.mlp.self_attn", 1.0, 1.0), ("0.mlp", 0.3, 0.5), ("norm", 0.0, 0.25)]
        {
            assert_eq!(setting.value(Parameter::T, tensor, t), Some(expected), "{tensor}");
        }
        let one = read("{filter: mlp, value: 1}", Parameter::T).unwrap();
        assert_eq!((one.value(Parameter::T, "norm", 0.0), one.value(Parameter::T, "mlp", 0.0)), (None, Some(1.0)));
        let all = read("{filter: '*', value: 1}", Parameter::T).unwrap();
        assert_eq!(all.value(Parameter::T, "norm", 0.0), Some(1.0));
    }

    #[test]
    fn other_values_are_refused_with_their_place() {
        let cases = [
            ("[]", Parameter::Weight, "line 1: parameters.p: at least one value expected, a list of 0 found"),
            ("[1, [2]]", Parameter::Weight, "parameters.p[1]: a number expected, a list of 1 found"),
            ("abc", Parameter::Weight, "a number expected, \"abc\" found"),
            ("0.5", Parameter::Normalize, "true or false expected, \"0.5\" found"),
            (
                "[0.5, 2]",
                Parameter::Density,
                "line 1: parameters.p[1]: density: a share above 0 and at most 1 expected, 2 found",
            ),
            ("{filter: a, value: 0}", Parameter::Density, "parameters.p.value: density"),
            ("{filter: a}", Parameter::Density, "a value expected"),
            ("{filtr: a, value: 1}", Parameter::Density, "unknown key \"filtr\""),
            ("[{value: 1}, 2]", Parameter::Density, "parameters.p[1]: a map of filter and value expected, \"2\" found"),
        ];
        for (text, parameter, message) in cases {
            let error = read(text, parameter).unwrap_err().rejected();
            assert!(error.message().contains(message), "{error}");
        }
        assert_eq!(Setting::typed("0.5,1", Parameter::Weight), Ok(Setting::Gradient(vec![0.5, 1.0])));
        for (text, parameter) in [("", Parameter::Weight), ("0.5,,1", Parameter::Weight), ("2", Parameter::Density)] {
            assert!(Setting::typed(text, parameter).is_err(), "{text}");
        }
    }
}
