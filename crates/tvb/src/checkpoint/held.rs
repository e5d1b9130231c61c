//! Bytes of a tensor that had to be decompressed or rearranged, shared by all who look at them.

use super::budget::Charge;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Bytes in memory, or a part of them. Clones and parts share one copy, which counts towards the
/// [`Budget`](super::Budget) until the last of them is gone.
#[derive(Clone)]
pub struct HeldBytes {
    whole: Arc<Whole>,
    begin: usize,
    n_bytes: usize,
}

struct Whole {
    bytes: Vec<u8>,
    _charge: Charge,
}

impl HeldBytes {
    /// `charge` is what was taken for them.
    pub(crate) fn new(bytes: Vec<u8>, charge: Charge) -> HeldBytes {
        let n_bytes = bytes.len();
        HeldBytes { whole: Arc::new(Whole { bytes, _charge: charge.settled() }), begin: 0, n_bytes }
    }

    /// `n_bytes` of them from `begin` on; `None` where they end before.
    pub(crate) fn part(&self, begin: u64, n_bytes: u64) -> Option<HeldBytes> {
        let end = begin.checked_add(n_bytes)?;
        (end <= self.n_bytes as u64).then(|| HeldBytes {
            whole: self.whole.clone(),
            begin: self.begin + begin as usize,
            n_bytes: n_bytes as usize,
        })
    }
}

impl Deref for HeldBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.whole.bytes.get(self.begin..).and_then(|rest| rest.get(..self.n_bytes)).unwrap_or_default()
    }
}

impl PartialEq for HeldBytes {
    fn eq(&self, other: &HeldBytes) -> bool {
        **self == **other
    }
}

impl fmt::Debug for HeldBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldBytes({})", self.n_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Budget;

    #[test]
    fn parts_share_one_copy_that_is_paid_for_until_the_last_is_gone() {
        let budget = Budget::new(100);
        let charge = budget.charge("a.pt".as_ref(), "a tensor", 10).unwrap();
        let whole = HeldBytes::new((0..10).collect(), charge);
        let part = whole.part(2, 6).unwrap().part(1, 3).unwrap();
        assert_eq!(*part, [3, 4, 5]);
        assert!(whole.part(5, 6).is_none() && part.part(0, 4).is_none() && part.part(u64::MAX, 2).is_none());
        drop(whole);
        assert_eq!(budget.left(), 90);
        drop(part);
        assert_eq!(budget.left(), 100);
    }
}
