//! How columns fit their base beside names: tensors that are one under two names, and tensors of which only the first rows take
//! part. What is made from the columns is written into the base by it.

use crate::checkpoint::{Checkpoint, Tensor};
use crate::error::Result;
use crate::shown::shown;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// How columns fit their base; in most models nothing needs to be said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fit {
    /// Tensors that are another one under a second name: counted once, written under both.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub twins: Vec<Twin>,
    /// Tensors of which only the first rows take part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub common_rows: Vec<CommonRows>,
}

/// A second name of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twin {
    /// The second name.
    pub name: String,
    /// The name under which it takes part.
    pub of: String,
}

/// A tensor of which only the first rows take part: another vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommonRows {
    /// Its name.
    pub name: String,
    /// Rows (of its first dimension) that take part.
    pub n_rows: usize,
}

impl Fit {
    /// Whether it is about tensors of a basis, `known`, each once.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self, known: &HashSet<&str>) -> std::result::Result<(), String> {
        let mut seconds = HashSet::new();
        for Twin { name, of } in &self.twins {
            if !known.contains(of.as_str()) || known.contains(name.as_str()) || !seconds.insert(name) {
                return Err(format!("tied tensors: a second name of a tensor of the basis expected, {name:?} found"));
            }
        }
        let mut cut = HashSet::new();
        match self.common_rows.iter().find(|rows| !known.contains(rows.name.as_str()) || !cut.insert(&rows.name)) {
            Some(rows) => Err(format!("common rows: a tensor of the basis expected, {:?} found", rows.name)),
            None => Ok(()),
        }
    }

    /// Whether there is nothing to say.
    pub fn is_plain(&self) -> bool {
        self.twins.is_empty() && self.common_rows.is_empty()
    }

    /// What it says, a line for each tensor.
    pub fn lines(&self) -> Vec<String> {
        let twins = self.twins.iter().map(|twin| format!("{} is {}: one tensor", shown(&twin.name), shown(&twin.of)));
        let rows = self.common_rows.iter();
        let rows = rows.map(|rows| format!("{}: its first {} rows take part", shown(&rows.name), rows.n_rows));
        twins.chain(rows).collect()
    }

    /// What is about these tensors.
    #[must_use]
    pub fn of_tensors(&self, names: &HashSet<&str>) -> Fit {
        Fit {
            twins: self.twins.iter().filter(|twin| names.contains(twin.of.as_str())).cloned().collect(),
            common_rows: self.common_rows.iter().filter(|rows| names.contains(rows.name.as_str())).cloned().collect(),
        }
    }

    /// What the columns see of a checkpoint: the common rows of its tensors, under the names that take part.
    ///
    /// # Errors
    /// Rejected: too little memory.
    pub fn seen(&self, checkpoint: &Checkpoint) -> Result<Checkpoint> {
        let rows: HashMap<&str, usize> =
            self.common_rows.iter().map(|rows| (rows.name.as_str(), rows.n_rows)).collect();
        let lacking = self.twins.iter().filter(|twin| checkpoint.get(&twin.of).is_none());
        let mut named: HashSet<&str> = HashSet::new();
        let second: HashMap<&str, &str> = lacking
            .filter(|twin| checkpoint.get(&twin.name).is_some() && named.insert(&twin.of))
            .map(|twin| (twin.name.as_str(), twin.of.as_str()))
            .collect();
        let is_cut = |tensor: &Tensor, name: &str| {
            rows.get(name).copied().filter(|n_rows| tensor.shape.first().is_some_and(|all| all > n_rows))
        };
        let name =
            |tensor: &Tensor| second.get(tensor.name.as_str()).map_or(tensor.name.clone(), |of| (*of).to_owned());
        let is_changed =
            |tensor: &&Tensor| second.contains_key(tensor.name.as_str()) || is_cut(tensor, &name(tensor)).is_some();
        if !checkpoint.tensors().iter().any(|tensor| is_changed(&tensor)) {
            return Ok(checkpoint.clone());
        }
        checkpoint.first_rows(|tensor| {
            let name = name(tensor);
            let n_rows = is_cut(tensor, &name);
            (name, n_rows)
        })
    }

    /// The parts of a base that edits of `edited` tensors leave as they are, in the base's order. A tensor's second name has no
    /// part of its own where the base has the first too: it is written with that one.
    pub fn rest<'a>(&self, base: &'a Checkpoint, edited: &HashSet<&str>) -> Vec<Rest<'a>> {
        let of: HashMap<&str, &str> = self.twins.iter().map(|twin| (twin.name.as_str(), twin.of.as_str())).collect();
        let rows: HashMap<&str, usize> =
            self.common_rows.iter().map(|rows| (rows.name.as_str(), rows.n_rows)).collect();
        let mut rest = Vec::new();
        for tensor in base.tensors() {
            let name = match of.get(tensor.name.as_str()) {
                Some(of) if base.get(of).is_some() => continue,
                Some(of) => of,
                None => tensor.name.as_str(),
            };
            let n_elements = tensor.n_elements();
            let part = |first: usize, n_elements: usize, is_seen| Rest {
                tensor,
                name: name.to_owned(),
                first,
                n_elements,
                is_seen,
            };
            let of_row = n_elements / tensor.shape.first().copied().unwrap_or(1).max(1);
            let n_seen = rows.get(name).map_or(n_elements, |n_rows| n_rows.saturating_mul(of_row).min(n_elements));
            if !edited.contains(name) {
                rest.push(part(0, n_seen, true));
            }
            if n_seen < n_elements {
                rest.push(part(n_seen, n_elements - n_seen, false));
            }
        }
        rest
    }
}

/// A part of a base's tensor that goes into an output as it is.
#[derive(Clone, Debug)]
pub struct Rest<'a> {
    /// The base's tensor.
    pub tensor: &'a Tensor,
    /// The name under which it would take part.
    pub name: String,
    /// Its first element.
    pub first: usize,
    /// Its elements.
    pub n_elements: usize,
    /// Whether it is what the columns see of the tensor, and not what they lack.
    pub is_seen: bool,
}

impl Rest<'_> {
    /// Bytes as they are stored.
    pub fn n_bytes(&self) -> u64 {
        self.n_elements as u64 * self.tensor.dtype.size() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn zeros(tensors: &[(&str, &[usize])]) -> Checkpoint {
        let tensors: Vec<_> = tensors.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
        Checkpoint::of_zeros(Path::new("zeros"), &tensors).unwrap()
    }

    fn fit() -> Fit {
        Fit {
            twins: vec![Twin { name: "head".into(), of: "emb".into() }],
            common_rows: vec![CommonRows { name: "emb".into(), n_rows: 3 }],
        }
    }

    fn shapes(checkpoint: &Checkpoint) -> Vec<(&str, &[usize])> {
        checkpoint.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice())).collect()
    }

    #[test]
    fn columns_see_the_common_rows_under_the_first_name() {
        let both = zeros(&[("emb", &[5, 2]), ("head", &[5, 2]), ("w", &[7])]);
        assert_eq!(shapes(&fit().seen(&both).unwrap()), [("emb", &[3, 2][..]), ("head", &[5, 2]), ("w", &[7])]);
        let lone = zeros(&[("head", &[4, 2])]);
        assert_eq!(shapes(&fit().seen(&lone).unwrap()), [("emb", &[3, 2][..])]);
        // Too few rows are no common ones: whoever compares shapes will say so.
        let few = zeros(&[("emb", &[2, 2])]);
        assert_eq!(shapes(&fit().seen(&few).unwrap()), shapes(&few));
    }

    #[test]
    fn the_rest_is_what_edits_leave() {
        let rest = |tensors: &[(&str, &[usize])], edited: &[&str]| -> Vec<(String, usize, usize, bool)> {
            let base = zeros(tensors);
            let edited = edited.iter().copied().collect();
            let parts = fit().rest(&base, &edited);
            parts.iter().map(|part| (part.name.clone(), part.first, part.n_elements, part.is_seen)).collect()
        };
        let tail = || ("emb".to_owned(), 6, 4, false);
        let both: [(&str, &[usize]); 3] = [("emb", &[5, 2]), ("head", &[5, 2]), ("w", &[7])];
        assert_eq!(rest(&both, &["emb", "w"]), [tail()]);
        assert_eq!(rest(&both, &["w"]), [("emb".to_owned(), 0, 6, true), tail()]);
        assert_eq!(rest(&[("head", &[5, 2])], &["emb"]), [tail()]);
        assert_eq!(rest(&[("emb", &[3, 2]), ("s", &[])], &["emb"]), [("s".to_owned(), 0, 1, true)]);
    }
}
