//! Blocks of tensors by the layers that their names tell: what shares one row of coefficients.
//!
//! The same rule as `blocks=N` of the Python package's `tvb.torch.Coefficients`.

use crate::error::{Error, Result};
use std::collections::{BTreeSet, HashMap};

/// A layer: what stands before its number, and the number, which may have any length, without zeros in front.
type Layer<'a> = (&'a str, (usize, &'a str));

/// The first number that stands alone between dots: `encoder.layers.3.fc.weight` is in layer 3 of `encoder.layers`.
fn layer_of(name: &str) -> Option<Layer<'_>> {
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
}
