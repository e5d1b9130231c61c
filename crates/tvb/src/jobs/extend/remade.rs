//! How a basis of mixtures was made, as its manifest has it, so that it can be made so again.

use crate::basis::Basis;
use crate::error::{Error, Result};
use crate::shown::shown_path;
use crate::solve::{AnchoredOptions, Coordinates, Method, SolveOptions};
use serde::Deserialize;

/// Method and options; what is added to them by an extension.
pub(super) struct Remade {
    pub(super) method: Method,
    pub(super) options: SolveOptions,
    /// What the user should know.
    pub(super) notes: Vec<String>,
}

/// What `options` of a manifest's method is, as far as it matters here.
#[derive(Deserialize)]
struct Recorded {
    n_atoms: Option<usize>,
    #[serde(default)]
    balance: bool,
    #[serde(default)]
    coordinates: Coordinates,
    options: Option<Method>,
}

impl Remade {
    /// For `n_new` newcomers of this weight, and as many atoms as before unless `n_atoms` says otherwise.
    ///
    /// # Errors
    /// Rejected: a manifest that does not say how the basis was made. Usage: a weight for a method that has none.
    pub(super) fn of(basis: &Basis, n_new: usize, weight: f64, n_atoms: Option<usize>) -> Result<Remade> {
        let record = &basis.manifest.method;
        let unknown = |what: &str| Error::rejected(format!("{}: \"method\": {what}", shown_path(&basis.folder)));
        let recorded: Recorded =
            serde_json::from_value(record.options.clone()).map_err(|error| unknown(&error.to_string()))?;
        let mut method = match recorded.options {
            Some(method) if method.name() == record.name => method,
            Some(_) => return Err(unknown("options of another method found")),
            None => Method::parse(&record.name)?,
        };
        let mut notes = Vec::new();
        let n_old = basis.n_tasks();
        match &mut method {
            Method::Anchored(AnchoredOptions { weights }) if weights.is_some() || weight != 1.0 => {
                let mut all = weights.take().unwrap_or_else(|| vec![1.0; n_old]);
                all.extend(vec![weight; n_new]);
                *weights = Some(all);
            }
            _ if weight != 1.0 => {
                return Err(Error::usage(format!(
                    "a weight of newcomers with method '{}', which has none",
                    record.name
                ))
                .hint("leave out --weight"));
            }
            Method::Ae(options) if options.init.is_some() => {
                options.init = None;
                notes.push("the training began at random: the start that was given was of fewer tasks".into());
            }
            Method::Identity if n_atoms.is_some() => {
                return Err(Error::usage("a number of atoms for a basis of tasks as they are, which has one for each")
                    .hint("leave out -m"));
            }
            _ => {}
        }
        let as_before = recorded.n_atoms.unwrap_or_else(|| basis.n_atoms());
        let n_atoms = if method == Method::Identity { n_old + n_new } else { n_atoms.unwrap_or(as_before) };
        let options = SolveOptions { n_atoms, balance: recorded.balance, coordinates: recorded.coordinates };
        Ok(Remade { method, options, notes })
    }
}
