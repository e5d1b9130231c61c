//! Layers by the names of tensors: which one a tensor is in, how deep that lies, and blocks of tensors by runs of layers.
//!
//! The blocks are those of `blocks=N` of the Python package's `tvb.torch.Coefficients`.

use crate::error::{Error, Result};
use std::collections::{BTreeSet, HashMap};

/// A layer: what stands before its number, and the number, which may have any length, without zeros in front.
pub type Layer<'a> = (&'a str, (usize, &'a str));

/// The first number that stands alone between dots: `encoder.layers.3.fc.weight` is in layer 3 of `encoder.layers`.
pub fn layer_of(name: &str) -> Option<Layer<'_>> {
    let mut start = 0;
    for part in name.split('.') {
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = part.trim_start_matches('0');
            return Some((name.get(..start.max(1) - 1)?, (number.len(), number)));
        }
        start += part.len() + 1;
    }
    None
}

/// How deep layers lie in their stacks: `encoder.layers` is one stack, `decoder.layers` another. It depends on the names alone, not
/// on their order, which is another in every kind of file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Depths {
    /// The lowest and the highest number in each stack.
    stacks: HashMap<String, (u32, u32)>,
}

impl Depths {
    /// Of the layers of these tensors.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Depths {
        let mut stacks: HashMap<String, (u32, u32)> = HashMap::new();
        for (stack, number) in names.into_iter().filter_map(numbered) {
            let (first, last) = stacks.entry(stack.to_owned()).or_insert((number, number));
            *first = number.min(*first);
            *last = number.max(*last);
        }
        Depths { stacks }
    }

    /// Where a tensor's layer lies in its stack: 0 is the first layer, 1 the last, and the others are spread evenly by their numbers.
    /// A stack of one layer lies at 0. `None` for a tensor of no layer.
    pub fn depth(&self, name: &str) -> Option<f64> {
        let (stack, number) = numbered(name)?;
        let (first, last) = *self.stacks.get(stack)?;
        match last - first {
            0 => Some(0.0),
            n => Some(f64::from(number.clamp(first, last) - first) / f64::from(n)),
        }
    }

    /// Stacks of layers.
    pub fn n_stacks(&self) -> usize {
        self.stacks.len()
    }
}

/// A tensor's stack and the number of its layer there; a number that no model has is none.
fn numbered(name: &str) -> Option<(&str, u32)> {
    let (stack, (_, digits)) = layer_of(name)?;
    // Zeros in front are gone, and so is 0 itself.
    let number = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    Some((stack, number))
}

/// Layers in order, in `n_blocks` runs of nearly the same length; answers the names in each block.
///
/// What stands before the first layer (embeddings) goes with the first block, any other tensor of no layer (the head) with the
/// one before it.
///
/// # Errors
/// Usage: no block, or more blocks than there are layers.
pub fn blocks_by_layer(names: &[String], n_blocks: usize) -> Result<Vec<Vec<String>>> {
    // Stacks in the order in which they appear, the layers of each by number.
    let mut stacks: Vec<(&str, BTreeSet<(usize, &str)>)> = Vec::new();
    let mut place_of: HashMap<&str, usize> = HashMap::new();
    for (stack, layer) in names.iter().filter_map(|name| layer_of(name)) {
        let place = *place_of.entry(stack).or_insert_with(|| {
            stacks.push((stack, BTreeSet::new()));
            stacks.len() - 1
        });
        if let Some((_, layers)) = stacks.get_mut(place) {
            layers.insert(layer);
        }
    }
    let layers = stacks.iter().flat_map(|(stack, layers)| layers.iter().map(move |layer| (*stack, *layer)));
    let number_of: HashMap<Layer<'_>, usize> = layers.enumerate().map(|(number, layer)| (layer, number)).collect();
    let n_layers = number_of.len().max(1);
    if !(1..=n_layers).contains(&n_blocks) {
        return Err(Error::usage(format!(
            "blocks: 1 to {n_layers} expected, the number of layers by the tensors' names, {n_blocks} found"
        )));
    }
    let mut blocks = vec![Vec::new(); n_blocks];
    let mut here = 0;
    for name in names {
        if let Some(number) = layer_of(name).and_then(|layer| number_of.get(&layer)) {
            here = number * n_blocks / n_layers;
        }
        if let Some(block) = blocks.get_mut(here) {
            block.push(name.clone());
        }
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of the Python package's test.
    #[test]
    fn layers_are_cut_into_runs() {
        let names =
            ["embed.weight", "layers.0.fc.weight", "layers.0.fc.bias", "layers.1.fc.weight", "layers.2.fc.weight"];
        let names: Vec<String> =
            names.iter().chain(&["norm.weight", "head.weight"]).map(|name| name.to_string()).collect();
        let lengths = |n: usize| blocks_by_layer(&names, n).unwrap().iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(1), [7]);
        assert_eq!(lengths(2), [4, 3]);
        assert_eq!(lengths(3), [3, 1, 3]);
        assert_eq!(blocks_by_layer(&names, 3).unwrap()[2], ["layers.2.fc.weight", "norm.weight", "head.weight"]);
        for n in [0, 4] {
            let error = blocks_by_layer(&names, n).unwrap_err();
            assert!(error.message().contains("1 to 3 expected"), "{error}");
        }
    }

    #[test]
    fn numbers_are_compared_as_numbers_and_stacks_stand_one_after_another() {
        let names = ["b.10.w", "b.9.w", "b.09.v", "a.0.w", "1.w", "x3.w", "a.0"].map(str::to_owned);
        let blocks = blocks_by_layer(&names, 4).unwrap();
        assert_eq!(blocks, [vec!["b.9.w", "b.09.v"], vec!["b.10.w"], vec!["a.0.w", "a.0"], vec!["1.w", "x3.w"]]);
        assert_eq!(blocks_by_layer(&["w".to_owned()], 1).unwrap(), [["w"]]);
        assert!(blocks_by_layer(&["w".to_owned()], 2).is_err());
    }

    #[test]
    fn depth_goes_by_numbers_and_each_stack_has_its_own() {
        let names = ["h.3.w", "h.1.w", "h.9.w", "head.w", "v.0.w", "v.2.w", "one.7.w", "big.99999999999999999999.w"];
        for names in [names.to_vec(), names.into_iter().rev().collect()] {
            let depths = Depths::of(names);
            let cases = [
                ("h.1.w", Some(0.0)),
                ("h.3.w", Some(0.25)),
                ("h.03.bias", Some(0.25)),
                ("h.9.w", Some(1.0)),
                ("v.2.w", Some(1.0)),
                ("one.7.w", Some(0.0)),
                ("head.w", None),
                ("other.0.w", None),
                ("big.99999999999999999999.w", None),
            ];
            for (name, expected) in cases {
                assert_eq!(depths.depth(name), expected, "{name}");
            }
            assert_eq!(depths.n_stacks(), 3);
        }
    }
}
