//! The buffer that a chunk's output rows go to.

use crate::error::KernelError;

/// Makes `rows` n_outputs · bytes_per_output long, keeping its memory; the contents are about to be overwritten.
pub(super) fn size_rows(rows: &mut Vec<u8>, n_outputs: usize, bytes_per_output: usize) -> Result<(), KernelError> {
    let too_large = || KernelError::TooLarge { what: "output rows" };
    let n_bytes = n_outputs.checked_mul(bytes_per_output).ok_or_else(too_large)?;
    rows.try_reserve_exact(n_bytes.saturating_sub(rows.len())).map_err(|_| too_large())?;
    rows.resize(n_bytes, 0);
    Ok(())
}
