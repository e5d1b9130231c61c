//! The metrics that an evaluator prints: one flat JSON object of numbers.

use std::collections::BTreeMap;

/// The metrics of one checkpoint, by name.
pub type Metrics = BTreeMap<String, f64>;

/// The metrics on an evaluator's last line.
///
/// # Errors
/// One line that says what is wrong with the line.
pub fn parse_metrics(line: &str) -> std::result::Result<Metrics, String> {
    let found = || match line.trim() {
        "" => "nothing found".to_owned(),
        text => format!("{:?} found", text.chars().take(80).collect::<String>()),
    };
    let value: serde_json::Value = serde_json::from_str(line)
        .map_err(|_| format!("a JSON object of metrics on the last line of its stdout expected, {}", found()))?;
    if !value.is_object() {
        return Err(format!("a JSON object of metrics expected, {}", found()));
    }
    metrics_in(&value).ok_or_else(|| format!("at least one metric that is a number expected, {}", found()))
}

/// The members of an object that are numbers; `None` where there are none.
pub(super) fn metrics_in(value: &serde_json::Value) -> Option<Metrics> {
    let members = value.as_object()?.iter();
    let metrics: Metrics = members.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
    (!metrics.is_empty()).then_some(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_a_flat_object_of_numbers() {
        let cases: [(&str, Option<usize>); 6] = [
            ("{\"mean\": 0.5, \"digits\": 1}", Some(2)),
            ("{\"mean\": 0.5, \"name\": \"x\", \"nested\": {}}", Some(1)),
            ("{}", None),
            ("[1]", None),
            ("accuracy: 0.5", None),
            ("", None),
        ];
        for (line, expected) in cases {
            assert_eq!(parse_metrics(line).ok().map(|metrics| metrics.len()), expected, "{line}");
        }
    }
}
