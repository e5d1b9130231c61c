//! What `compress` would do, from headers (or a Gram file) alone.

use super::adapters::{Weighed, weigh};
use super::keeping::n_reads;
use super::options::CompressOptions;
use super::sharing;
use super::size::{Size, atoms_for_ratio};
use super::solving::{choose_atoms, chosen, solve_for};
use crate::basis::atoms::{CodeFiles, ColumnRates};
use crate::basis::gram_file;
use crate::checkpoint::free_bytes;
use crate::columns::plan::Plan;
use crate::error::{Error, Result};
use crate::ops::gram::FACTORS_BYTES;
use crate::ops::same_inputs::check_same_inputs;
use crate::pass::{Runtime, check_memory, least_bytes};
use crate::progress::Silent;
use crate::units;
use std::path::Path;
use tvb_kernels::{CpuEngine, Engine};

/// What `compress` would do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forecast {
    /// How many atoms; `None` where only the Gram matrix will tell.
    pub n_atoms: Option<usize>,
    /// How often the inputs are read.
    pub n_reads: u64,
    /// Bytes read, all reads together.
    pub read_bytes: u64,
    /// The least memory cap that works on the CPU, with one thread.
    pub memory_bytes: u64,
    /// Bytes of the atoms, at most; `None` where their number is not known.
    pub write_bytes: Option<u64>,
    /// Free bytes on the disk of the output, where the system says.
    pub free_bytes: Option<u64>,
}

/// Says what [`compress`](super::compress()) would do with these inputs and at most `memory_bytes` of host buffers.
///
/// # Errors
/// Usage: options that do not fit, a memory cap that is too low. Rejected: a Gram file of other inputs. Failed: an input that cannot be read.
pub fn forecast(plan: &Plan, options: &CompressOptions, memory_bytes: u64) -> Result<Forecast> {
    options.check(plan)?;
    if let Some(rank) = options.shared_rank {
        return Ok(Forecast {
            n_atoms: Some(plan.tasks.len()),
            n_reads: 1,
            read_bytes: plan.stored_bytes(),
            memory_bytes: FACTORS_BYTES.max(sharing::memory_bytes(plan, rank, options.dtype)?),
            write_bytes: Some(sharing::n_bytes(plan, rank, options.dtype)?),
            free_bytes: free_bytes(&options.output),
        });
    }
    if let Some(n_bytes) = kept_factors(plan, options)? {
        return Ok(Forecast {
            n_atoms: Some(plan.tasks.len()),
            n_reads: 1,
            read_bytes: n_bytes,
            memory_bytes: FACTORS_BYTES,
            write_bytes: Some(n_bytes),
            free_bytes: free_bytes(&options.output),
        });
    }
    let on_cpu = Runtime::on_cpu(1, memory_bytes);
    let n_outputs = options.most_outputs(plan.tasks.len());
    check_memory(plan, n_outputs, &on_cpu)?;
    let runtime_needs = least_bytes(plan, n_outputs, &on_cpu);
    let n_reads = n_reads(plan, options, memory_bytes)?;
    let (n_atoms, write_bytes) = predict(plan, options)?;
    Ok(Forecast {
        n_atoms,
        n_reads,
        read_bytes: n_reads * plan.read_bytes(),
        memory_bytes: runtime_needs,
        write_bytes,
        free_bytes: free_bytes(&options.output),
    })
}

/// How many atoms there will be and what they take at most, where headers (or a Gram file) are enough to tell.
fn predict(plan: &Plan, options: &CompressOptions) -> Result<(Option<usize>, Option<u64>)> {
    options.check(plan)?;
    let grams = options.gram.as_ref().map(|path| gram_file::read_within(path, plan.base.budget())).transpose()?;
    if let Some(grams) = &grams {
        check_same_inputs(plan, grams)?;
    }
    let is_known = match options.size {
        Size::MaxError(_) => grams.is_some(),
        Size::MaxBytes(_) => grams.is_some() || options.codes_tasks(),
        Size::Atoms(_) | Size::Ratio(_) => true,
    };
    if !is_known {
        return Ok((None, None));
    }
    let options = chosen(plan, options, grams.as_ref(), &on_cpu(), &Silent)?;
    let n_atoms = predict_atoms(plan, &options)?;
    Ok((n_atoms, n_atoms.map(|n_atoms| most_bytes(plan, &options, n_atoms)).transpose()?))
}

/// No device is opened for a forecast.
fn on_cpu() -> Engine {
    Engine::Cpu(CpuEngine::new())
}

/// What this many atoms take, where every tensor moves.
pub(super) fn most_bytes(plan: &Plan, options: &CompressOptions, n_atoms: usize) -> Result<u64> {
    let n_stored = if options.method.stores_atoms() { n_atoms } else { 0 };
    let Some(coding) = &options.coding else {
        return Ok((n_stored as u64).saturating_mul(plan.n_rows()).saturating_mul(options.dtype.size() as u64));
    };
    let tensors: Vec<_> = plan.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
    let rung = coding.rung.of(n_stored);
    let kept = rung.kept_rate.map_or(0, |_| coding.n_kept_most());
    let kept_rate = rung.kept_rate.unwrap_or(rung.rate);
    CodeFiles::n_bytes(ColumnRates { rate: rung.rate, n_own: n_stored, kept_rate, n_kept: kept }, &tensors)
}

/// What adapters take by either way; `None` where a task is none, or something else is asked for.
pub(super) fn weighed(plan: &Plan, options: &CompressOptions) -> Result<Option<Weighed>> {
    if matches!(options.size, Size::MaxError(_) | Size::MaxBytes(_)) {
        return Ok(None);
    }
    if !options.keep_factors || !options.codes_tasks() {
        return Ok(None);
    }
    weigh(plan, || most_bytes(plan, options, plan.tasks.len()))
}

/// Bytes of the files where tasks are kept as their factors; `None` where they are not.
pub(super) fn kept_factors(plan: &Plan, options: &CompressOptions) -> Result<Option<u64>> {
    Ok(weighed(plan, options)?.filter(|weighed| weighed.keeps_factors()).map(|weighed| weighed.factors))
}

/// The number of atoms `compress` would make, where headers (or a Gram file) are enough to tell.
///
/// # Errors
/// As [`solve_for`].
pub(super) fn predict_atoms(plan: &Plan, options: &CompressOptions) -> Result<Option<usize>> {
    options.check(plan)?;
    let n_tasks = plan.tasks.len();
    Ok(match (options.size, &options.gram) {
        (_, Some(path)) => {
            let grams = gram_file::read_within(path, plan.base.budget())?;
            check_same_inputs(plan, &grams)?;
            if !options.method.stores_atoms() {
                return Ok(Some(choose_atoms(&grams, options, &on_cpu(), &Silent)?.1));
            }
            Some(solve_for(&grams, options, &on_cpu(), &Silent)?.coefficients.n_stored())
        }
        _ if options.method.fixed_atoms(n_tasks).is_some() => Some(n_tasks),
        (Size::Atoms(n_atoms), None) => Some(n_atoms),
        (Size::Ratio(ratio), None) => Some(atoms_for_ratio(ratio, n_tasks)?),
        (Size::MaxError(_) | Size::MaxBytes(_), None) => None,
    })
}

/// Bytes beside the atoms themselves: headers, coefficients, manifest.
const SMALL_FILES_BYTES: u64 = 1 << 20;

/// Whether the disk of `output` has room for `atom_bytes` of atoms.
///
/// # Errors
/// Failed, with the bytes needed and free.
pub fn check_room(output: &Path, atom_bytes: u64) -> Result<()> {
    let needed_bytes = atom_bytes.saturating_add(SMALL_FILES_BYTES);
    match free_bytes(output) {
        Some(free_bytes) if free_bytes < needed_bytes => Err(Error::failed(format!(
            "{}: {} needed on this disk, {} free",
            output.display(),
            units::bytes(needed_bytes),
            units::bytes(free_bytes)
        ))
        .hint("free some space, choose an output on another disk, fewer atoms, or --dtype bf16")),
        _ => Ok(()),
    }
}

/// The same from headers alone, where the number of atoms is known: at most this much is needed.
pub(super) fn check_room_before_reading(plan: &Plan, options: &CompressOptions) -> Result<()> {
    let Some(n_atoms) = predict_atoms(plan, options)? else { return Ok(()) };
    let atom_bytes = most_bytes(plan, options, n_atoms)?;
    check_room(&options.output, atom_bytes).map_err(|error| {
        error.hint(
            "free some space, choose another disk, fewer atoms, or --dtype bf16; if no task moves most of the tensors, \
             less is needed: make a Gram file with `tvb gram` and give it with --gram",
        )
    })
}
