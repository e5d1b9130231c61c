//! Memory of somebody else: the arrays of a program that holds a model, lent for as long as the last clone of it lives.
//!
//! It is read and written by copies through a pointer, never through a reference: the program may write to its arrays whenever
//! it likes, and then finds torn values, but no broken promise of ours.

use super::Dtype;
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

/// Bytes that somebody lends, at any address. Clones and parts share what keeps their owner alive.
#[derive(Clone)]
pub struct Lent {
    address: *mut u8,
    n_bytes: usize,
    is_writable: bool,
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: whoever makes one promises that its bytes can be used from any thread; the owner is `Send` and `Sync` itself.
unsafe impl Send for Lent {}
// SAFETY: as above; nothing in it changes but the bytes, which are copied through a pointer.
unsafe impl Sync for Lent {}

/// A named tensor in lent memory: row-major, without gaps, little-endian.
#[derive(Clone, Debug)]
pub struct LentTensor {
    /// Its name in the state dict.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Dimensions; empty for a scalar (0-d).
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: Lent,
}

impl Lent {
    /// `n_bytes` at `address`, to be read. `owner` is dropped with the last clone.
    ///
    /// # Safety
    /// Until `owner` is dropped the bytes must be there, and may be read from any thread. Whoever writes to them meanwhile must not
    /// count on what is made of them.
    pub unsafe fn new(address: *const u8, n_bytes: usize, owner: Arc<dyn Any + Send + Sync>) -> Lent {
        Lent { address: address.cast_mut(), n_bytes, is_writable: false, _owner: owner }
    }

    /// `n_bytes` at `address`, to be read and written. `owner` is dropped with the last clone.
    ///
    /// # Safety
    /// As [`new`](Lent::new), and the bytes may be written to from any thread: nobody holds a reference to them while a job that
    /// was given them runs.
    pub unsafe fn writable(address: *mut u8, n_bytes: usize, owner: Arc<dyn Any + Send + Sync>) -> Lent {
        Lent { address, n_bytes, is_writable: true, _owner: owner }
    }

    /// Bytes of our own, to be read and written.
    pub fn owned(bytes: Vec<u8>) -> Lent {
        let bytes: Arc<Vec<AtomicU8>> = Arc::new(bytes.into_iter().map(AtomicU8::new).collect());
        let (address, n_bytes) = (bytes.as_ptr().cast::<u8>(), bytes.len());
        Lent { address: address.cast_mut(), n_bytes, is_writable: true, _owner: bytes }
    }

    /// Where they begin.
    pub fn address(&self) -> usize {
        self.address.addr()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.n_bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.n_bytes == 0
    }

    /// Whether they may be written to.
    pub fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// A copy of all of them, as they are now.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.n_bytes];
        self.read(0, &mut bytes);
        bytes
    }

    /// Sets all of them to zero; nothing where nothing may be written.
    pub(crate) fn zero(&self) {
        if self.is_writable {
            // SAFETY: the bytes are there and may be written, as whoever made this promised.
            unsafe { std::ptr::write_bytes(self.address, 0, self.n_bytes) };
        }
    }

    /// `n_bytes` of them from `begin` on; `None` where they end before.
    pub(crate) fn part(&self, begin: u64, n_bytes: u64) -> Option<Lent> {
        let end = begin.checked_add(n_bytes)?;
        (end <= self.n_bytes as u64).then(|| Lent {
            // SAFETY: `begin` lies in the bytes, or at their end.
            address: unsafe { self.address.add(begin as usize) },
            n_bytes: n_bytes as usize,
            ..self.clone()
        })
    }

    /// Copies bytes from `at` on; false, and nothing, where they end before `out` is full.
    pub(crate) fn read(&self, at: u64, out: &mut [u8]) -> bool {
        let is_inside = at.checked_add(out.len() as u64).is_some_and(|end| end <= self.n_bytes as u64);
        if is_inside {
            // SAFETY: the bytes are there, as whoever made this promised, and `out` is our own.
            unsafe { std::ptr::copy_nonoverlapping(self.address.add(at as usize), out.as_mut_ptr(), out.len()) };
        }
        is_inside
    }

    /// Copies `bytes` to where `at` is; false, and nothing, where there is less room or nothing may be written.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> bool {
        let is_inside = at.checked_add(bytes.len() as u64).is_some_and(|end| end <= self.n_bytes as u64);
        if is_inside && self.is_writable {
            // SAFETY: the bytes are there and may be written, as whoever made this promised, and `bytes` are our own.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address.add(at as usize), bytes.len()) };
        }
        is_inside && self.is_writable
    }
}

/// The same place: what is there may change at any time.
impl PartialEq for Lent {
    fn eq(&self, other: &Lent) -> bool {
        self.address == other.address && self.n_bytes == other.n_bytes
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lent({})", self.n_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_stay_inside_and_the_owner_lives_as_long_as_a_part() {
        let whole = Lent::owned((0..10).collect());
        let part = whole.part(2, 6).unwrap().part(1, 3).unwrap();
        assert_eq!(part.to_vec(), [3, 4, 5]);
        assert!(whole.part(5, 6).is_none() && part.part(0, 4).is_none() && part.part(u64::MAX, 2).is_none());
        assert!(part.write(1, &[9, 8]) && !part.write(2, &[7, 7]) && !part.write(u64::MAX, &[1]));
        let mut out = [0; 2];
        assert!(!part.read(2, &mut out) && !part.read(u64::MAX, &mut out) && part.read(1, &mut out));
        assert_eq!((out, whole.to_vec()), ([9, 8], vec![0, 1, 2, 3, 9, 8, 6, 7, 8, 9]));
        assert!(whole != part && whole.part(3, 3).unwrap() == part);
        drop(whole);
        assert_eq!(part.to_vec(), [3, 9, 8]);
    }

    #[test]
    fn what_is_lent_to_be_read_is_not_written() {
        let bytes: Arc<Vec<u8>> = Arc::new(vec![1, 2, 3]);
        // SAFETY: the vector is the owner, and nobody writes to it.
        let lent = unsafe { Lent::new(bytes.as_ptr(), 3, bytes.clone()) };
        assert!(!lent.is_writable() && !lent.write(0, &[9]));
        assert_eq!((lent.to_vec(), lent.len(), lent.is_empty()), (vec![1, 2, 3], 3, false));
        assert_eq!(Arc::strong_count(&bytes), 2);
        drop(lent);
        assert_eq!(Arc::strong_count(&bytes), 1);
    }
}
