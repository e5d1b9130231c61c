//! An adapter against its base: a column under the base's names and shapes.

use super::dora;
use super::factors::{self, Turn};
use super::matching::{self, Way};
use super::parsed::{Module, Parsed, Writer, listing};
use super::values;
use crate::checkpoint::{self, Checkpoint, Dtype, Form, OfAdapter, Place, Tensor, shown};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// Bytes of two tensors that are compared at a time.
const PIECE_BYTES: u64 = 1 << 20;

impl Parsed {
    /// What the adapter adds to `base`, as a checkpoint of the base's names and shapes; `path` is what the user named.
    ///
    /// # Errors
    /// Rejected: a module without a place in the base, or more than one; factors of other shapes, or that are not finite.
    pub(super) fn against(&self, base: &Checkpoint, path: &Path) -> Result<Checkpoint> {
        let mut places: HashMap<String, Tensor> = HashMap::new();
        let mut groups: BTreeMap<Option<&str>, Vec<&Module>> = BTreeMap::new();
        for module in &self.modules {
            groups.entry(module.part.as_deref()).or_default().push(module);
        }
        let fits = |module: &Module, tensor: &Tensor| !turns(module, &tensor.shape).is_empty();
        let mut way = Way::default();
        for modules in groups.values() {
            let found = matching::find(modules, base, &fits).map_err(|error| error.context(path.display()))?;
            way = found.1;
            let pairs: Vec<(&Module, &Tensor)> = modules.iter().copied().zip(found.0).collect();
            for (module, tensor) in &pairs {
                for made in self.made(module, tensor, &pairs, base, path)? {
                    places.insert(made.name.clone(), made);
                }
            }
        }
        self.add_replacements(&way, base, &mut places)?;
        self.check_copies(&way, base)?;
        let mut tensors = Vec::with_capacity(base.tensors().len());
        for tensor in base.tensors().iter().filter(|tensor| tensor.dtype.float().is_some()) {
            tensors.push(places.remove(&tensor.name).unwrap_or_else(|| Tensor {
                dtype: Dtype::F32,
                place: Place::Unmoved,
                ..tensor.clone()
            }));
        }
        // What the base lacks, such as a new head: the plan says what becomes of it.
        let mut rest: Vec<Tensor> = places.into_values().collect();
        rest.sort_by(|a, b| a.name.cmp(&b.name));
        tensors.extend(rest);
        let mut notes = self.notes.clone();
        notes.extend(self.note_on_base(base));
        let facts = self.facts();
        self.file.with_places(path, tensors, (facts.n_dora > 0).then_some(base), facts, notes)
    }

    fn facts(&self) -> OfAdapter {
        let ranks: BTreeSet<usize> = self.modules.iter().map(|module| module.rank).collect();
        OfAdapter {
            writer: self.writer.name(),
            n_modules: self.modules.len(),
            ranks: ranks.into_iter().collect(),
            n_dora: self.modules.iter().filter(|module| module.magnitude.is_some()).count(),
            n_replaced: self.replacements.len(),
            n_bytes: self.file.files().iter().map(|file| file.len).sum(),
        }
    }

    /// What becomes of one module's weight, and of its bias.
    fn made(
        &self,
        module: &Module,
        tensor: &Tensor,
        others: &[(&Module, &Tensor)],
        base: &Checkpoint,
        path: &Path,
    ) -> Result<Vec<Tensor>> {
        let turn = match turns(module, &tensor.shape)[..] {
            [turn] => turn,
            _ => self.turn_of_square(module, others, base)?,
        };
        let factors = factors::low_rank(self, module, turn)?;
        let place = match &module.magnitude {
            Some(magnitude) => dora::place(self, module, magnitude, factors, turn, base, tensor)?,
            None => Place::LowRank(factors.of_module(self.module_of(module, tensor, turn))),
        };
        let mut made = vec![Tensor { dtype: Dtype::F32, place, ..tensor.clone() }];
        if let Some(bias) = &module.up_bias {
            let name = tensor.name.strip_suffix("weight").map(|start| format!("{start}bias")).unwrap_or_default();
            let expected = base.get(&name).filter(|found| found.shape == bias.shape).ok_or_else(|| {
                let (module, shape) = (shown(&module.path), &bias.shape);
                Error::rejected(format!(
                    "{}: module {module}: a bias of shape {shape:?} expected in the base, none found",
                    path.display()
                ))
            })?;
            let place = Place::LowRank(factors::bias(self, bias, module.scale)?);
            made.push(Tensor { dtype: Dtype::F32, place, ..expected.clone() });
        }
        Ok(made)
    }

    /// Whose weight it is: as PEFT calls it, or as the base does where the adapter has another way of writing.
    fn module_of(&self, module: &Module, tensor: &Tensor, turn: Turn) -> checkpoint::Module {
        let in_base = tensor.name.rsplit_once('.').map_or("", |(module, _)| module);
        let name = if self.writer == Writer::Peft { &module.path } else { in_base };
        let form = match turn {
            Turn::Transposed if module.is_embedding => Form::Embedding,
            Turn::Transposed => Form::Transposed,
            Turn::Not if tensor.shape.len() > 2 => Form::Convolution,
            Turn::Not => Form::Linear,
        };
        checkpoint::Module { name: name.to_owned(), form }
    }

    /// Which way the factors of a square matrix lie: its shape does not say.
    ///
    /// GPT-2's `Conv1D` is the one layer that is kept transposed. The configuration's word is that of the last module that PEFT
    /// met, so what other modules of that name and the base show comes first.
    fn turn_of_square(&self, module: &Module, others: &[(&Module, &Tensor)], base: &Checkpoint) -> Result<Turn> {
        let known: Vec<(&str, Turn)> = others
            .iter()
            .filter(|(other, tensor)| !other.is_embedding && tensor.shape.len() == 2)
            .filter_map(|(other, tensor)| match turns(other, &tensor.shape)[..] {
                [turn] => Some((leaf(&other.path), turn)),
                _ => None,
            })
            .collect();
        if let Some((_, turn)) = known.iter().find(|(name, _)| *name == leaf(&module.path)) {
            return Ok(*turn);
        }
        if let Some(turn) = turn_of_gpt2(&module.path, base) {
            return Ok(turn);
        }
        let turn = if self.fan_in_fan_out { Turn::Transposed } else { Turn::Not };
        if known.iter().any(|(_, other)| *other != turn) {
            return Err(self
                .rejected(format!(
                    "module {}: its weight is square, others lie both ways: whether it is transposed is unknown",
                    shown(&module.path)
                ))
                .hint("merge it with PEFT's `merge_and_unload()` and name the merged model"));
        }
        Ok(turn)
    }

    /// Tensors that take the place of the base's, where they lie in the adapter's file.
    fn add_replacements(&self, way: &Way, base: &Checkpoint, places: &mut HashMap<String, Tensor>) -> Result<()> {
        let mut from: HashMap<String, &Tensor> = HashMap::new();
        for (name, tensor) in self.replacements.iter().filter(|(_, tensor)| tensor.dtype.float().is_some()) {
            let name = way.apply(name, base);
            if let Some(earlier) = from.insert(name.clone(), tensor)
                && !self.are_equal(earlier, &self.file, tensor)?
            {
                return Err(self.rejected(format!("two tensors that differ for {}", shown(&name))));
            }
            let replacement = Tensor { name: name.clone(), ..tensor.clone() };
            let is_changed_twice = places.insert(name, replacement).is_some_and(|other| other.is_delta());
            if is_changed_twice {
                return Err(self.rejected(format!("tensor {}: replaced and changed by factors", shown(&tensor.name))));
            }
        }
        Ok(())
    }

    /// What PEFT saves of embeddings beside their factors must be the base's own.
    fn check_copies(&self, way: &Way, base: &Checkpoint) -> Result<()> {
        let mut others = Vec::new();
        for (name, tensor) in &self.base_copies {
            let found = base.get(&way.apply(name, base));
            if !found.map_or(Ok(false), |found| self.are_equal(tensor, base, found))? {
                others.push(tensor.name.as_str());
            }
        }
        if others.is_empty() {
            return Ok(());
        }
        Err(listing("what the adapter was laid over is not the base's", &others)
            .context(self.file.path().display())
            .hint("name the model that it was trained on as the base, or merge it with `merge_and_unload()` and name the merged model"))
    }

    /// Whether a tensor of the adapter's file holds the same values as another.
    fn are_equal(&self, own: &Tensor, other_file: &Checkpoint, other: &Tensor) -> Result<bool> {
        if own.shape != other.shape {
            return Ok(false);
        }
        let step = PIECE_BYTES / 8;
        let n = own.n_elements() as u64;
        let mut first = 0;
        while first < n {
            self.file.budget().check()?;
            let end = n.min(first + step);
            if values::read_part(&self.file, own, first, end)? != values::read_part(other_file, other, first, end)? {
                return Ok(false);
            }
            first = end;
        }
        Ok(true)
    }

    /// A base of another name is often a copy of the right one, and sometimes it is not.
    fn note_on_base(&self, base: &Checkpoint) -> Option<String> {
        let trained_on = self.base_model.as_deref()?.trim_end_matches(['/', '\\']);
        let name = |text: &str| text.rsplit(['/', '\\']).next().unwrap_or_default().to_lowercase();
        let own = base.path().to_string_lossy().to_lowercase();
        let is_told = !name(trained_on).is_empty() && !own.contains(&name(trained_on));
        is_told
            .then(|| format!("trained on {}, the base is {}", shown(trained_on), crate::shown::shown_path(base.path())))
    }

    fn rejected(&self, why: String) -> Error {
        Error::rejected(format!("{}: {why}", self.file.path().display()))
    }
}

/// What a square weight of GPT-2's is, by the others of the base: their biases are as long as one side.
fn turn_of_gpt2(path: &str, base: &Checkpoint) -> Option<Turn> {
    const CONV1D: [&str; 4] = ["c_attn", "c_proj", "c_fc", "q_attn"];
    if !CONV1D.contains(&leaf(path)) {
        return None;
    }
    base.tensors().iter().find_map(|tensor| {
        let path = tensor.name.strip_suffix(".weight").filter(|path| CONV1D.contains(&leaf(path)))?;
        let [rows, columns] = tensor.shape[..] else { return None };
        let bias = base.get(&format!("{path}.bias")).filter(|bias| bias.shape.len() == 1 && rows != columns)?;
        Some(if bias.shape.first() == Some(&columns) { Turn::Transposed } else { Turn::Not })
    })
}

fn leaf(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or_default()
}

/// The ways in which the module's product can be the tensor of that shape: both where it is square.
fn turns(module: &Module, shape: &[usize]) -> Vec<Turn> {
    let Module { down, up, middle, is_embedding, .. } = module;
    let (Some(&n_out), Some(down)) = (up.shape.first(), down.shape.get(1..)) else { return Vec::new() };
    let is_point = |rest: &[usize]| rest.iter().all(|dim| *dim == 1);
    if !is_point(up.shape.get(2..).unwrap_or_default()) {
        return Vec::new();
    }
    if *is_embedding {
        return if shape == [*down.first().unwrap_or(&0), n_out] { vec![Turn::Transposed] } else { Vec::new() };
    }
    let Some((&n_in, own_kernel)) = down.split_first() else { return Vec::new() };
    let kernel = match middle {
        Some(middle) if is_point(own_kernel) => middle.shape.get(2..).unwrap_or_default(),
        Some(_) => return Vec::new(),
        None => own_kernel,
    };
    let mut turns = Vec::new();
    // A kernel of one is written with its ones or without.
    let same_kernel = |rest: &[usize]| rest == kernel || (is_point(rest) && is_point(kernel));
    if shape.starts_with(&[n_out, n_in]) && same_kernel(shape.get(2..).unwrap_or_default()) {
        turns.push(Turn::Not);
    }
    if shape == [n_in, n_out] && kernel.is_empty() {
        turns.push(Turn::Transposed);
    }
    turns
}
