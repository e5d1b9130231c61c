//! Checkpoints that are no files: state dicts in the memory of whoever calls.

use super::assemble::{Rest, finish};
use super::limits::{N_TENSORS_MAX, NAME_BYTES_MAX};
use super::shown::shown;
use super::tensor::checked_bytes;
use super::{Budget, Checkpoint, DataFile, Layout, LentTensor, Place, Tensor};
use crate::error::{Error, Result};
use std::path::Path;

impl Checkpoint {
    /// A state dict in memory, with its tensors in this order. `label` is what messages and records call it, where a file has its
    /// path: `state dict in memory`.
    ///
    /// It can be used as a checkpoint from a file can. Nothing tells whether somebody writes to it meanwhile: whoever lends it
    /// must see to that.
    ///
    /// # Errors
    /// Rejected: two tensors of one name, a name or a shape that no checkpoint has, bytes that are not those of the shape and
    /// the type, too many tensors.
    pub fn in_memory(label: &str, tensors: Vec<LentTensor>) -> Result<Checkpoint> {
        Checkpoint::in_memory_within(label, tensors, &Budget::default())
    }

    /// [`in_memory`](Checkpoint::in_memory); what is kept beside the tensors, names and shapes, is charged to `budget`.
    ///
    /// # Errors
    /// As [`in_memory`](Checkpoint::in_memory). Rejected: too little memory. Interrupted.
    pub fn in_memory_within(label: &str, tensors: Vec<LentTensor>, budget: &Budget) -> Result<Checkpoint> {
        let path = Path::new(label);
        let rejected = |what: String| Error::rejected(format!("{}: {what}", path.display()));
        if tensors.len() > N_TENSORS_MAX {
            return Err(rejected(format!("at most {N_TENSORS_MAX} tensors expected, {} found", tensors.len())));
        }
        let mut charge = budget.account(path, "its tensors");
        let mut seen = Vec::with_capacity(tensors.len());
        for LentTensor { name, dtype, shape, bytes } in tensors {
            charge.take(Tensor::cost(&name, shape.len()))?;
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                let (name, n_bytes) = (shown(&name), name.len());
                return Err(rejected(format!(
                    "tensor {name}: a name of 1 to {NAME_BYTES_MAX} bytes expected, one of {n_bytes} found"
                )));
            }
            let expected =
                checked_bytes(dtype, &shape).map_err(|why| rejected(format!("tensor {} {why}", shown(&name))))?;
            if expected != bytes.len() as u64 {
                return Err(rejected(format!(
                    "tensor {}: {expected} bytes expected of shape {shape:?} of {dtype}, {} found",
                    shown(&name),
                    bytes.len()
                )));
            }
            seen.push(Tensor { name, dtype, shape, place: Place::Lent(bytes) });
        }
        let files: [DataFile; 0] = [];
        let rest = Rest { charges: vec![charge.settled()], budget: Some(budget.clone()), ..Rest::default() };
        finish(path, Layout::InMemory, files.into(), seen, rest)
    }

    /// Whether it is a state dict in memory: its path is a name, and nothing lies beside it.
    pub fn is_in_memory(&self) -> bool {
        *self.layout() == Layout::InMemory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::checkpoint::{Dtype, Lent};

    fn tensor(name: &str, dtype: Dtype, shape: &[usize], n_bytes: usize) -> LentTensor {
        let bytes = Lent::owned((0..n_bytes).map(|byte| byte as u8).collect());
        LentTensor { name: name.into(), dtype, shape: shape.to_vec(), bytes }
    }

    #[test]
    fn a_state_dict_is_read_as_a_file_is() {
        let tied = tensor("emb", Dtype::F32, &[2, 2], 16);
        let second = LentTensor { name: "head".into(), ..tied.clone() };
        let first_row =
            LentTensor { name: "row".into(), shape: vec![2], bytes: tied.bytes.part(0, 8).unwrap(), ..tied.clone() };
        let others = [tensor("s", Dtype::F64, &[], 8), tensor("none", Dtype::I64, &[3, 0], 0)];
        let tensors: Vec<LentTensor> = [tied, second, first_row].into_iter().chain(others).collect();
        let checkpoint = Checkpoint::in_memory("state dict in memory", tensors).unwrap();
        assert_eq!(checkpoint.source(), "state dict in memory");
        assert!(checkpoint.is_in_memory() && checkpoint.files().is_empty());
        checkpoint.check_unchanged().unwrap();
        let names: Vec<&str> = checkpoint.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["emb", "head", "row", "s", "none"]);
        assert_eq!(checkpoint.tied(), [[0, 1]]);
        let mut out = [0; 5];
        checkpoint.read(checkpoint.get("head").unwrap(), 3, &mut out).unwrap();
        assert_eq!(out, [3, 4, 5, 6, 7]);
        assert!(checkpoint.read(checkpoint.get("row").unwrap(), 4, &mut out).is_err());
        let seen = checkpoint.first_rows(|tensor| (format!("m.{}", tensor.name), Some(1))).unwrap();
        assert!(seen.is_in_memory() && seen.get("m.emb").unwrap().shape == [1, 2]);
    }

    #[test]
    fn what_is_no_tensor_is_refused_by_name() {
        let huge = 1_usize << 40;
        let cases: [(Vec<LentTensor>, &str); 6] = [
            (vec![tensor("w", Dtype::F32, &[2], 7)], "tensor `w`: 8 bytes expected of shape [2] of f32, 7 found"),
            (vec![tensor("w", Dtype::Bf16, &[], 4)], "tensor `w`: 2 bytes expected of shape [] of bf16, 4 found"),
            (vec![tensor("w", Dtype::F32, &[huge, huge], 0)], "tensor `w` has shape"),
            (vec![tensor("w", Dtype::F32, &[1; 65], 4)], "tensor `w` has 65 dimensions"),
            (vec![tensor("w", Dtype::F32, &[1], 4); 2], "tensor `w` stands there twice"),
            (vec![tensor("", Dtype::F32, &[1], 4)], "a name of 1 to 4096 bytes expected"),
        ];
        for (tensors, expected) in cases {
            let error = Checkpoint::in_memory("model", tensors).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Rejected);
            assert!(error.message().starts_with("model: ") && error.message().contains(expected), "{error}");
        }
        let budget = Budget::new(1000);
        let many = (0..5).map(|n| tensor(&n.to_string(), Dtype::F32, &[1], 4)).collect();
        assert!(Checkpoint::in_memory_within("model", many, &budget).unwrap_err().message().contains("more memory"));
        assert_eq!(budget.left(), 1000);
    }
}
