//! Which layer of how many each tensor is in, by the tensors' names.

use crate::columns::layers::layer_of;
use std::collections::BTreeMap;

/// No model has more layers.
const N_LAYERS_MAX: usize = 1_000_000;

/// The stacks of layers of a model: `encoder.layers` is one, `decoder.layers` another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layers {
    /// Layers of each stack: one more than the highest number.
    stacks: BTreeMap<String, usize>,
}

impl Layers {
    /// Of the layers of these tensors.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Layers {
        let mut stacks = BTreeMap::new();
        for (stack, number) in names.into_iter().filter_map(numbered) {
            let n_layers: &mut usize = stacks.entry(stack.to_owned()).or_default();
            *n_layers = (number + 1).max(*n_layers);
        }
        Layers { stacks }
    }

    /// The number of a tensor's layer, and how many layers its stack has; `None` for a tensor of no layer.
    pub fn place(&self, tensor: &str) -> Option<(usize, usize)> {
        let (stack, number) = numbered(tensor)?;
        Some((number, *self.stacks.get(stack)?))
    }

    /// The stacks and how many layers each has.
    pub fn stacks(&self) -> impl Iterator<Item = (&str, usize)> {
        self.stacks.iter().map(|(stack, n_layers)| (stack.as_str(), *n_layers))
    }
}

fn numbered(name: &str) -> Option<(&str, usize)> {
    let (stack, (_, digits)) = layer_of(name)?;
    // Zeros in front are gone, and so is 0 itself.
    let number = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    (number < N_LAYERS_MAX).then_some((stack, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stack_has_its_own_layers() {
        let layers = Layers::of(["a.0.w", "a.3.w", "b.1.experts.7.w", "head", "c.99999999999999999999.w"]);
        for (name, expected) in [
            ("a.0.w", Some((0, 4))),
            ("a.02.v", Some((2, 4))),
            ("b.1.w", Some((1, 2))),
            ("head", None),
            ("d.0.w", None),
        ] {
            assert_eq!(layers.place(name), expected, "{name}");
        }
        assert_eq!(layers.stacks().collect::<Vec<_>>(), [("a", 4), ("b", 2)]);
    }
}
