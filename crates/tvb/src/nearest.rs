//! The name that was probably meant: what an error's hint offers for an unknown one.

/// Names less alike than this are no guess worth making; 1 is equality.
const LEAST_LIKENESS: f64 = 0.7;

/// Longer names are compared with none.
const NAME_BYTES_MAX: usize = 256;

/// The name in `known` most like `name`, whatever the case of either; `None` where none is much like it. Of equally
/// good ones the last.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody meant a long one by a slip, and comparing takes time by the product of the lengths.
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let name = name.to_lowercase();
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(&known.to_lowercase(), &name), known))
        .filter(|(likeness, _)| *likeness > LEAST_LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_nonsense_finds_none() {
        let known = ["anchored", "exact", "Sample"];
        for (name, expected) in [
            ("anchord", Some("anchored")),
            ("EXACT", Some("exact")),
            ("sampel", Some("Sample")),
            ("zzz", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
        assert_eq!(nearest("exact", []), None);
        assert_eq!(nearest(&"exact".repeat(1000), known), None);
    }
}
