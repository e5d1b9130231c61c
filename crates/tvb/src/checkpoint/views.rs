//! A checkpoint seen otherwise: its tensors under other names, or some of their rows. The files and their bytes are the same.

use super::assemble::{Rest, finish};
use super::{Checkpoint, Place, Tensor};
use crate::error::Result;
use std::collections::HashMap;

impl Checkpoint {
    /// The same checkpoint with other names, one for each of [`tensors`](Checkpoint::tensors) in their order; without those whose
    /// name is `None`.
    ///
    /// # Errors
    /// Rejected: two tensors of one name, too little memory.
    pub fn under_names(&self, names: &[Option<String>]) -> Result<Checkpoint> {
        let named = self.tensors().iter().zip(names);
        let tensors = named.filter_map(|(tensor, name)| Some(Tensor { name: name.clone()?, ..tensor.clone() }));
        self.with_views(tensors.collect())
    }

    /// The same checkpoint with other names, one for each of [`tensors`](Checkpoint::tensors) in their order; what is written like
    /// it keeps [its own](Checkpoint::own_name).
    ///
    /// # Errors
    /// Rejected: two tensors of one name, too little memory.
    pub fn known_as(&self, names: &[String]) -> Result<Checkpoint> {
        let named = self.tensors().iter().zip(names);
        let tensors: Vec<Tensor> =
            named.clone().map(|(tensor, name)| Tensor { name: name.clone(), ..tensor.clone() }).collect();
        let own_names: HashMap<String, String> = named
            .filter(|(tensor, name)| tensor.name != **name)
            .map(|(t, name)| (name.clone(), t.name.clone()))
            .collect();
        self.viewed(tensors, own_names)
    }

    /// The name in its files of the tensor that goes by `name`.
    pub fn own_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.inner.own_names.get(name).map_or(name, String::as_str)
    }

    /// The same checkpoint with the names that `view` answers, and of some tensors only the first rows (of the first dimension).
    ///
    /// # Errors
    /// Rejected: two tensors of one name, too little memory.
    pub fn first_rows(&self, view: impl Fn(&Tensor) -> (String, Option<usize>)) -> Result<Checkpoint> {
        let seen = |tensor: &Tensor| {
            let (name, n_rows) = view(tensor);
            let mut seen = Tensor { name, ..tensor.clone() };
            if let (Some(n_rows), Some(all)) = (n_rows, seen.shape.first_mut())
                && n_rows < *all
            {
                if let Place::LowRank(factors) = &seen.place {
                    let n = factors.n_rows() / (*all).max(1) * n_rows;
                    seen.place = Place::LowRank(factors.first_rows(n, self.path(), self.budget())?);
                }
                *all = n_rows;
            }
            Ok(seen)
        };
        self.with_views(self.tensors().iter().map(seen).collect::<Result<_>>()?)
    }

    /// The same checkpoint, whose tensors are differences from a base: an atom among checkpoints. What is known by factors is one
    /// already.
    ///
    /// # Errors
    /// Rejected: too little memory.
    pub fn as_differences(&self) -> Result<Checkpoint> {
        let difference = |tensor: &Tensor| match tensor.place {
            Place::Contiguous { file, offset } => {
                Tensor { place: Place::Difference { file, offset }, ..tensor.clone() }
            }
            _ => tensor.clone(),
        };
        self.with_views(self.tensors().iter().map(difference).collect())
    }

    /// The same files with these tensors, which are this checkpoint's own in other words.
    pub(crate) fn with_views(&self, tensors: Vec<Tensor>) -> Result<Checkpoint> {
        self.viewed(tensors, HashMap::new())
    }

    fn viewed(&self, tensors: Vec<Tensor>, own_names: HashMap<String, String>) -> Result<Checkpoint> {
        let cost: u64 = tensors.iter().map(|tensor| Tensor::cost(&tensor.name, tensor.shape.len())).sum();
        let of_names: u64 = own_names.iter().map(|(name, own)| Tensor::cost(name, own.len())).sum();
        let charge = self.budget().charge(self.path(), "its tensors", cost.saturating_add(of_names))?;
        let rest = Rest {
            key: self.inner.key.clone(),
            index: self.inner.index.clone(),
            metadata: self.inner.metadata.clone(),
            charges: vec![charge.settled()],
            budget: Some(self.budget().clone()),
            notes: self.inner.notes.clone(),
            own_names,
            of_adapter: self.inner.of_adapter.clone(),
            ..Rest::default()
        };
        finish(self.path(), self.layout().clone(), self.inner.files.clone(), tensors, rest)
    }
}
