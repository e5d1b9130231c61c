//! Whether inputs stay in memory between the two passes, so that they are read once.

use super::options::CompressOptions;
use super::size::Size;
use crate::columns::plan::Plan;
use crate::error::Result;
use crate::pass::kept::{Keep, stays_slow};
use crate::pass::{Reads, Runtime};

/// The part of the memory cap that is left to the buffers of the passes.
const BUFFERS_PART: u64 = 4;
/// Bytes that are read to see whether a file system caches.
const PROBE_BYTES: u64 = 1 << 20;

fn n_passes(options: &CompressOptions, on_gpu: bool) -> u64 {
    // Tasks are coded in the pass that forms their Gram matrix.
    let in_one = options.codes_tasks() && !matches!(options.size, Size::MaxError(_)) && !on_gpu;
    if options.gram.is_some() || options.shared_rank.is_some() || in_one { 1 } else { 2 }
}

/// Whether there is a second pass to keep the inputs for, and room for all of them.
fn fits(plan: &Plan, options: &CompressOptions, memory_bytes: u64) -> bool {
    n_passes(options, false) > 1 && plan.n_bytes() <= memory_bytes - memory_bytes / BUFFERS_PART
}

/// Whether the inputs are kept in the host's memory between the passes: where they fit and it pays.
fn keeps_on_host(plan: &Plan, options: &CompressOptions, memory_bytes: u64) -> Result<bool> {
    match options.keep {
        Keep::Never => Ok(false),
        Keep::Always => Ok(fits(plan, options, memory_bytes)),
        Keep::Auto => Ok(fits(plan, options, memory_bytes) && is_uncached(plan)?),
    }
}

/// How often the inputs are read: once for the Gram matrix and once for the atoms, unless one is there already or they are
/// kept in the host's memory.
pub(super) fn n_reads(plan: &Plan, options: &CompressOptions, memory_bytes: u64) -> Result<u64> {
    Ok(if keeps_on_host(plan, options, memory_bytes)? { 1 } else { n_passes(options, false) })
}

/// What the passes share: the device's memory, and the host's for what the device has no room for. What the device keeps
/// is for [`Runtime::device_memory_bytes`] alone to say: [`Keep`] is about the host.
pub(super) fn reads(plan: &Plan, options: &CompressOptions, runtime: &Runtime) -> Result<Reads> {
    // The columns of `random` are multiplied on the host.
    let on_device = n_passes(options, true) > 1 && options.method.stores_atoms() && runtime.keeps_on_device();
    let device_bytes = if on_device { runtime.device_memory_bytes } else { 0 };
    let on_host = plan.n_bytes() > device_bytes && keeps_on_host(plan, options, runtime.memory_bytes)?;
    let reads = if on_host { Reads::new().keeping() } else { Reads::new() };
    Ok(if on_device { reads.keeping_on_device(device_bytes) } else { reads })
}

/// Whether the last task's file system reads the same bytes as slowly the second time.
fn is_uncached(plan: &Plan) -> Result<bool> {
    let column = plan.n_columns() - 1;
    let checkpoint = plan.column_checkpoint(column);
    let Some(planned) = plan.tensors.iter().max_by_key(|tensor| tensor.n_rows) else { return Ok(false) };
    let tensor = plan.column_tensor(planned, column);
    let mut bytes = vec![0; tensor.n_bytes().min(PROBE_BYTES) as usize];
    let n_bytes = bytes.len() as u64;
    stays_slow(n_bytes.max(PROBE_BYTES / 16), || checkpoint.read(tensor, 0, &mut bytes))
}
