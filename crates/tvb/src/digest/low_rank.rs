//! Digests of tensors that are known by factors, or that are not moved: of the factors, so that nothing need be formed for them.
//!
//! They are the same on all machines, and whether rows were formed or not.

use super::value::Digest;
use crate::checkpoint::LowRank;

/// The digest of `n_rows` elements of a matrix of low rank, from element `first` on.
pub fn of_factors(factors: &LowRank, first: usize, n_rows: usize) -> Digest {
    let (rank, n_columns) = (factors.rank(), factors.n_columns().max(1));
    let rows = first / n_columns..(first + n_rows).div_ceil(n_columns).min(factors.n_rows());
    let left = factors.left(rows);
    let identity = factors.identity(|factors| of_floats(&[], factors.right()).0);
    let shape = [rank, n_columns, first % n_columns, n_rows].map(|number| (number as u64).to_le_bytes());
    let head = [&b"low rank"[..], shape.as_flattened(), &factors.scale().to_le_bytes(), &identity.to_le_bytes()];
    of_floats(&head, &left)
}

/// The digest of `n_rows` elements that are not moved.
pub fn of_unmoved(n_rows: usize) -> Digest {
    Digest::of_parts([&b"unmoved"[..], &(n_rows as u64).to_le_bytes()])
}

/// Stands for the digest of a tensor of the base that was not read, since no column needs it.
pub fn of_unread() -> Digest {
    Digest::of(b"not read")
}

fn of_floats(head: &[&[u8]], floats: &[f32]) -> Digest {
    if cfg!(target_endian = "little") {
        return Digest::of_parts(head.iter().copied().chain([bytemuck::cast_slice(floats)]));
    }
    let bytes: Vec<u8> = floats.iter().flat_map(|value| value.to_le_bytes()).collect();
    Digest::of_parts(head.iter().copied().chain([bytes.as_slice()]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Budget;

    fn factors(change: usize) -> LowRank {
        let value = |at: usize| at as f32 + if at == change { 0.5 } else { 0.0 };
        let (left, right) = ((0..12).map(value).collect(), (12..24).map(value).collect());
        LowRank::new(left, right, 2, if change == 24 { 2.0 } else { 1.0 }, "a".as_ref(), &Budget::default()).unwrap()
    }

    #[test]
    fn what_is_read_counts_and_nothing_else() {
        // [6, 6] of rank 2; elements 12 to 23 are rows 2 and 3.
        let same = of_factors(&factors(100), 12, 12);
        for change in 0..25 {
            let is_read = (4..8).contains(&change) || change >= 12;
            assert_eq!(of_factors(&factors(change), 12, 12) != same, is_read, "{change}");
        }
        assert_ne!(of_factors(&factors(100), 13, 12), same);
        assert_ne!(of_factors(&factors(100), 12, 11), same);
        assert_ne!(of_unmoved(12), of_unmoved(11));
    }
}
