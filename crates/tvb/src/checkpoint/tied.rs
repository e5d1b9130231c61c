//! Tied tensors: several names for the very same elements of a PyTorch file or of memory, as a head that is the embedding.

use super::{Checkpoint, Place, Tensor};
use std::collections::HashMap;

/// What two tensors have in common where they are one: type, shape, and every element's place.
#[derive(PartialEq, Eq, Hash)]
struct Elements<'a> {
    tensor: (&'static str, &'a [usize]),
    /// A file's number and the offset in it, or where the bytes are in memory.
    first: (usize, u64),
    strides: &'a [usize],
}

impl<'a> Elements<'a> {
    /// `None` where there are none, or where they are formed when they are read.
    fn of(tensor: &'a Tensor) -> Option<Elements<'a>> {
        let (first, strides): (_, &[usize]) = match &tensor.place {
            Place::Contiguous { file, offset } | Place::Difference { file, offset } => ((*file, *offset), &[]),
            Place::Strided { file, offset, strides } => ((*file, *offset), strides),
            Place::Held(bytes) => ((usize::MAX, bytes.as_ptr() as u64), &[]),
            Place::Lent(bytes) => ((usize::MAX, bytes.address() as u64), &[]),
            Place::Zeros | Place::LowRank(_) | Place::Unmoved | Place::Elsewhere { .. } | Place::Rescaled { .. } => {
                return None;
            }
        };
        let tensor_kind = (tensor.dtype.safetensors_name(), tensor.shape.as_slice());
        (tensor.n_elements() > 0).then_some(Elements { tensor: tensor_kind, first, strides })
    }
}

impl Checkpoint {
    /// Groups of two or more tensors that are one: the same storage, offset, shape, strides and type under several names. Each
    /// group holds positions in [`tensors`](Checkpoint::tensors), in the order of the file's keys; groups stand in the order of
    /// their first keys. Only PyTorch files and state dicts in memory have any: in a safetensors file every tensor has bytes of its own.
    pub fn tied(&self) -> Vec<Vec<usize>> {
        let mut number_of: HashMap<Elements<'_>, usize> = HashMap::new();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for &position in &self.inner.key_order {
            let Some(elements) = self.tensors().get(position).and_then(Elements::of) else { continue };
            let number = *number_of.entry(elements).or_insert(groups.len());
            match groups.get_mut(number) {
                Some(group) => group.push(position),
                None => groups.push(vec![position]),
            }
        }
        groups.retain(|group| group.len() > 1);
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Dtype;
    use crate::checkpoint::torch::{SaveStorage, SaveTensor, SaveValue, TorchWriter};

    #[test]
    fn names_of_one_storage_are_found_and_parts_of_it_are_not() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("tied.pt");
        let storage = SaveStorage { dtype: Dtype::F32, n_elements: 4 };
        let tensor = |storage, offset, shape: &[usize]| {
            SaveValue::Tensor(SaveTensor::contiguous(storage, offset, Dtype::F32, shape))
        };
        let transposed = |storage| {
            let square = SaveTensor::contiguous(storage, 0, Dtype::F32, &[2, 2]);
            SaveValue::Tensor(SaveTensor { strides: vec![1, 2], ..square })
        };
        let entries = [
            ("emb.weight", tensor(0, 0, &[2, 2])),
            ("other", tensor(1, 0, &[2, 2])),
            ("second", tensor(0, 2, &[2])),
            ("lm_head.weight", tensor(0, 0, &[2, 2])),
            ("half", tensor(0, 0, &[2])),
            ("flat", tensor(0, 0, &[4])),
            ("none", tensor(0, 0, &[0])),
            ("none too", tensor(0, 0, &[0])),
            ("second too", tensor(0, 2, &[2])),
            ("turned", transposed(0)),
            ("turned too", transposed(0)),
        ];
        let entries = entries.map(|(name, value)| (SaveValue::Str(name.into()), value));
        let value = SaveValue::OrderedDict(entries.into());
        let writer = TorchWriter::create(&path, "tied", &value, &[storage; 2]).unwrap();
        (0..2).for_each(|storage| writer.write_at(storage, 0, &[0; 16]).unwrap());
        writer.finish().unwrap();

        let checkpoint = Checkpoint::open(&path).unwrap();
        let name = |&position: &usize| checkpoint.tensors()[position].name.as_str();
        let found: Vec<Vec<&str>> = checkpoint.tied().iter().map(|group| group.iter().map(name).collect()).collect();
        let expected = [["emb.weight", "lm_head.weight"], ["second", "second too"], ["turned", "turned too"]];
        assert_eq!(found, expected);
    }
}
