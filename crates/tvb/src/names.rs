//! The name that was probably meant, for hints.

/// Names less alike than this are not what was meant: Jaro-Winkler similarity, 1 for the same.
const ALIKE: f64 = 0.7;

/// The name of `known` that is most like `name`, whatever its case; `None` where none is alike.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    let likeness = |known: &'a str| (strsim::jaro_winkler(&known.to_lowercase(), &name), known);
    let alike = known.into_iter().map(likeness).filter(|(likeness, _)| *likeness > ALIKE);
    alike.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_of_the_pen_are_seen() {
        let known = ["anchored", "exact", "mean", "w_activation"];
        let cases = [
            ("anchord", Some("anchored")),
            ("EXACT", Some("exact")),
            ("maen", Some("mean")),
            ("w_activaton", Some("w_activation")),
            ("quux", None),
        ];
        for (name, expected) in cases {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
    }
}
