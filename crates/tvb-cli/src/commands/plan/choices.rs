//! What `compress` would take for a budget: the same search, on the same numbers.

use serde_json::{Value, json};
use tvb::solve::{Gram, Limit, Method, Rung, Storage, TableOptions, mixture_for, rung_for_bytes, rung_for_error};
use tvb::{Error, ErrorKind, Result, units};

/// The budgets that were given, and what is chosen among.
pub(super) struct Choices {
    /// As typed, and meant.
    pub(super) limits: Vec<(String, Limit)>,
    /// Those that were named.
    pub(super) methods: Vec<Method>,
    /// Of the stored tensors.
    pub(super) shapes: Vec<Vec<usize>>,
    /// Of the float32 task vectors.
    pub(super) full_bytes: u64,
}

/// What `compress` takes for a budget.
pub(super) struct Chosen {
    /// The flags it is given.
    flags: String,
    full_bytes: u64,
    /// Method, M, storage and bytes; what is wrong with the budget otherwise.
    taken: std::result::Result<(&'static str, usize, Storage, u64), Error>,
}

impl Choices {
    /// One for every budget and method; for the coded tasks where no method was named.
    pub(super) fn of(&self, gram: &Gram, table: &TableOptions, go_on: &dyn Fn(f64) -> bool) -> Result<Vec<Chosen>> {
        let Some(codes) = &table.codes else { return Ok(Vec::new()) };
        let mut chosen = Vec::new();
        let mut add = |flags: String, taken| {
            let taken = match taken {
                Err(error) if Error::kind(&error) == ErrorKind::Interrupted => return Err(error),
                taken => taken,
            };
            chosen.push(Chosen { flags, full_bytes: self.full_bytes, taken });
            Ok(())
        };
        let n_tasks = gram.n_tasks();
        for (flags, limit) in &self.limits {
            if self.methods.is_empty() {
                let bytes_of = |rung: Rung| rung.bytes(n_tasks, &self.shapes);
                let rung = match limit {
                    Limit::Bytes(bytes) => rung_for_bytes(*bytes, bytes_of, n_tasks),
                    Limit::Error(target) => rung_for_error(gram, &codes.parts, &codes.kept, *target),
                };
                let taken = rung.map(|rung| ("identity", n_tasks, Storage::Coded(rung), bytes_of(rung)));
                add(flags.clone(), taken)?;
            }
            for method in &self.methods {
                let storages = Storage::all();
                let found = mixture_for(
                    gram,
                    &codes.parts,
                    method,
                    &table.solve,
                    &storages,
                    &codes.kept,
                    &self.shapes,
                    *limit,
                    go_on,
                );
                let name = method.name();
                let taken = found.map(|found| (name, found.n_atoms, found.storage, found.bytes));
                add(format!("--method {name} {flags}"), taken)?;
            }
        }
        Ok(chosen)
    }
}

impl Chosen {
    /// For people.
    pub(super) fn line(&self) -> String {
        match &self.taken {
            Ok((method, n_atoms, storage, bytes)) => {
                let atoms = if *method == "identity" { String::new() } else { format!("M = {n_atoms} in ") };
                let share = super::show::percent(*bytes, self.full_bytes);
                format!("compress {} takes {atoms}{storage} ({}, {share})", self.flags, units::bytes(*bytes))
            }
            Err(error) => format!("compress {} takes nothing: {}", self.flags, error.message()),
        }
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        match &self.taken {
            Ok((method, n_atoms, storage, bytes)) => json!({
                "flags": self.flags,
                "method": method,
                "n_atoms": n_atoms,
                "storage": storage.to_string(),
                "bytes": bytes,
            }),
            Err(error) => json!({ "flags": self.flags, "refused": error.message() }),
        }
    }
}
