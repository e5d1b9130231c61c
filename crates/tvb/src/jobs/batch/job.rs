//! One job: its keys as they are written, and what they mean with everything filled in.

use super::after::After;
use super::reading::{keys, read_both};
use crate::columns::tasks::check_name;
use crate::error::{Error, Result};
use crate::jobs::card::check_model_id;
use crate::jobs::compress::CodingWords;
use crate::jobs::method_options::MethodOptions;
use crate::jobs::values::{counts, dtypes, numbers, rate_or_off, rates, texts};
use crate::solve::{Method, Rung};
use serde::Deserialize;
use toml::Table;
use tvb_kernels::{Dtype, Rate};

/// File systems take no longer names.
const NAME_BYTES_MAX: usize = 255;

/// The keys of a job beside those of [`MethodOptions`].
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct JobKeys {
    name: Option<String>,
    base: Option<String>,
    #[serde(deserialize_with = "texts")]
    tasks: Vec<String>,
    from: Option<String>,
    include: Option<String>,
    exclude: Option<String>,
    skip_mismatched: bool,
    #[serde(deserialize_with = "texts")]
    rename: Vec<String>,
    vocab: Option<String>,
    key: Option<String>,
    base_model: Option<String>,
    #[serde(deserialize_with = "texts")]
    method: Vec<String>,
    #[serde(deserialize_with = "counts")]
    m: Vec<usize>,
    #[serde(deserialize_with = "numbers")]
    ratio: Vec<f64>,
    #[serde(deserialize_with = "dtypes")]
    dtype: Vec<Dtype>,
    #[serde(deserialize_with = "rates")]
    bits: Vec<Rate>,
    #[serde(deserialize_with = "rate_or_off")]
    keep_sum: Option<Option<Rate>>,
    #[serde(deserialize_with = "texts")]
    keep: Vec<String>,
    shared_rank: Option<usize>,
    clip: bool,
    output: Option<String>,
    overwrite: bool,
    after: Vec<Table>,
}

/// One job, defaults filled in.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// The base, as written.
    pub base: Option<String>,
    /// `NAME=PATH` or `PATH` each.
    pub tasks: Vec<String>,
    /// A run folder in place of both.
    pub from: Option<String>,
    /// Only tensors whose name matches.
    pub include: Option<String>,
    /// No tensor whose name matches.
    pub exclude: Option<String>,
    /// Leave out what does not match.
    pub skip_mismatched: bool,
    /// Rules for the names of the tasks' tensors, one after the other.
    pub rename: Vec<String>,
    /// Of embeddings and heads of other sizes, take the rows that all have.
    pub common_vocab: bool,
    /// Where in a PyTorch file the state dict lies.
    pub key: Option<String>,
    /// The base's name on the Hugging Face hub, for model cards.
    pub base_model: Option<String>,
    /// Names of methods; each is one that there is.
    pub methods: Vec<String>,
    /// What the methods are told; the path of the initial A is as written.
    pub options: MethodOptions,
    /// Numbers of atoms.
    pub atoms: Vec<usize>,
    /// Shares of the number of tasks.
    pub ratios: Vec<f64>,
    /// How atoms are stored; empty where they are coded.
    pub dtypes: Vec<Dtype>,
    /// Bits of coded atoms; empty where they are stored as floats.
    pub bits: Vec<Rate>,
    /// What else was said about codes; no bits.
    pub codes: CodingWords,
    /// Whether tasks that are adapters are kept as their factors where that is smaller: nothing else was said.
    pub keep_factors: bool,
    /// The rank of the spaces that adapters share.
    pub shared_rank: Option<usize>,
    /// Write the largest finite value of the type in place of one beyond it.
    pub clip: bool,
    /// The template of the basis folder.
    pub output: String,
    /// Replace what is there and is not what the job says.
    pub overwrite: bool,
    /// Steps on each basis.
    pub after: Vec<After>,
}

impl JobKeys {
    /// The keys that `[defaults]` may have: all but the name.
    pub(super) fn of_defaults() -> Vec<&'static str> {
        let all = keys::<JobKeys>().iter().chain(keys::<MethodOptions>()).copied();
        all.filter(|key| *key != "name").collect()
    }
}

impl Job {
    /// The job of a table, the defaults already under its own keys.
    pub(super) fn read(table: &Table, place: &str) -> Result<Job> {
        let (keys, options): (JobKeys, MethodOptions) = read_both(table, place)?;
        let missing = |what: &str| Error::rejected(format!("{place}: {what} expected, none found"));
        let name = keys.name.ok_or_else(|| missing("a name"))?;
        if check_name(&name).is_err() || name.len() > NAME_BYTES_MAX {
            return Err(Error::rejected(format!("{place}: a name that can stand in file names expected")));
        }
        match (&keys.base, &keys.from) {
            (Some(_), Some(_)) => {
                return Err(Error::rejected(format!("{place}: base and tasks or from expected, both found")));
            }
            (None, None) => return Err(missing("base and tasks, or from,")),
            (Some(_), None) if keys.tasks.is_empty() => return Err(missing("tasks")),
            _ => {}
        }
        if let Some(ratio) = keys.ratio.iter().find(|ratio| !(**ratio > 0.0 && **ratio <= 1.0)) {
            return Err(Error::rejected(format!("{place}, ratio: above 0 and at most 1 expected, {ratio} found")));
        }
        let common_vocab = match keys.vocab.as_deref() {
            None | Some("whole") => false,
            Some("common") => true,
            Some(found) => {
                return Err(Error::rejected(format!(
                    "{place}, vocab: \"whole\" or \"common\" expected, {found:?} found"
                )));
            }
        };
        if let Some(id) = &keys.base_model {
            check_model_id(id).map_err(|error| Error::rejected(format!("{place}, base_model: {}", error.message())))?;
        }
        let is_mixed = !(keys.method.is_empty() && keys.m.is_empty() && keys.ratio.is_empty());
        let codes = CodingWords { bits: None, keep_sum: keys.keep_sum, keep: keys.keep };
        let is_coded = !keys.bits.is_empty() || codes.is_any();
        if keys.shared_rank == Some(0) {
            return Err(Error::rejected(format!("{place}, shared_rank: a rank from 1 on expected, 0 found")));
        }
        if keys.shared_rank.is_some() && (is_mixed || is_coded) {
            return Err(Error::rejected(format!(
                "{place}: shared_rank beside a method, a size or bits: adapters in shared spaces are neither mixed nor coded"
            ))
            .hint("give shared_rank alone, or with dtype"));
        }
        if !is_mixed && keys.shared_rank.is_none() && !keys.dtype.is_empty() {
            return Err(Error::rejected(format!(
                "{place}: dtype without a method, m or ratio: tasks are coded as they are, and bits says how finely"
            ))
            .hint("method = \"identity\" stores them as they are; m, ratio or another method mixes them"));
        }
        if !keys.bits.is_empty() && !keys.dtype.is_empty() {
            return Err(Error::rejected(format!("{place}: bits or dtype expected, both found")));
        }
        if is_mixed && keys.bits.is_empty() && codes.is_any() {
            return Err(Error::rejected(format!(
                "{place}: keep_sum and keep are about codes, and the mixtures are stored as floats"
            ))
            .hint("give bits too"));
        }
        let keep_factors = !is_mixed && !is_coded && keys.shared_rank.is_none();
        let bits =
            if is_mixed || keys.shared_rank.is_some() { keys.bits } else { or_default(keys.bits, Rung::DEFAULT.rate) };
        let methods = or_default(keys.method, if is_mixed { "anchored" } else { "identity" }.to_owned());
        methods.iter().try_for_each(|name| check_method(name, place))?;
        Ok(Job {
            name,
            base: keys.base,
            tasks: keys.tasks,
            from: keys.from,
            include: keys.include,
            exclude: keys.exclude,
            skip_mismatched: keys.skip_mismatched,
            rename: keys.rename,
            common_vocab,
            key: keys.key,
            base_model: keys.base_model,
            methods,
            options,
            ratios: if keys.m.is_empty() { or_default(keys.ratio, 0.5) } else { keys.ratio },
            atoms: keys.m,
            dtypes: if bits.is_empty() { or_default(keys.dtype, Dtype::F32) } else { Vec::new() },
            bits,
            codes,
            keep_factors,
            shared_rank: keys.shared_rank,
            clip: keys.clip,
            output: keys.output.ok_or_else(|| missing("an output"))?,
            overwrite: keys.overwrite,
            after: After::read_all(&keys.after, place)?,
        })
    }
}

fn or_default<T>(given: Vec<T>, default: T) -> Vec<T> {
    if given.is_empty() { vec![default] } else { given }
}

fn check_method(name: &str, place: &str) -> Result<()> {
    let Err(error) = Method::parse(name) else { return Ok(()) };
    let rejected = Error::rejected(format!("{place}, method: {}", error.message()));
    Err(match error.hint_text() {
        Some(hint) => rejected.hint(hint),
        None => rejected,
    })
}
