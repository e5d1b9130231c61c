//! The keys of a recipe's maps: known ones by name, and what others would ask for.

use super::setting::cut;
use super::yaml::Node;
use crate::jobs::merge::parameters::{Parameter, Wrong};
use crate::nearest::nearest;

/// Keys of mergekit's that ask for what is not done here, and what that is.
const OTHER_KEYS: [(&str, &str); 8] = [
    ("modules", "merging the modules of a model apart is not done"),
    ("chat_template", "chat templates are not written; the base's stays"),
    ("experts", "mixtures of experts are not made"),
    ("gate_mode", "mixtures of experts are not made"),
    ("shared_experts", "mixtures of experts are not made"),
    ("experts_per_token", "mixtures of experts are not made"),
    ("genome", "evolutionary merging is not done; `tvb fit` searches for coefficients"),
    ("residual_weight", "residual weights of slices are not done"),
];

/// The value of a key, where it is there.
pub(super) fn get<'a>(node: &'a Node, key: &str) -> Result<Option<&'a Node>, Wrong> {
    Ok(node.map("recipe", "a map")?.find(|(known, _)| *known == key).map(|(_, node)| node))
}

/// Whether every key is one of `known`.
pub(super) fn check_keys(node: &Node, place: &str, known: &[&str]) -> Result<(), Wrong> {
    for (key, value) in node.map(place, "a map")? {
        if known.contains(&key) {
            continue;
        }
        let at = format!("line {}: {place}", value.line);
        if let Some((_, why)) = OTHER_KEYS.iter().find(|(other, _)| *other == key) {
            return Err(Wrong::new(format!("{at}: {key}: {why}")));
        }
        if Parameter::of_name(key).is_ok() {
            return Err(Wrong::new(format!("{at}: {key} is a parameter")).hint(format!("parameters: {{{key}: …}}")));
        }
        let wrong = Wrong::new(format!("{at}: unknown key {:?}", cut(key)));
        return Err(match nearest(key, known.iter().copied()) {
            Some(near) => wrong.hint(format!("did you mean {near:?}?")),
            None => wrong.hint(format!("known keys: {}", known.join(", "))),
        });
    }
    Ok(())
}
