//! A file that carries its own checksum: the digest of its bytes with the digest's own digits read as zeros.

use crate::digest::Digest;

/// What stands where the checksum will be: 32 zeros. Put `UNSEALED` into the file, then call [`seal`].
pub const UNSEALED: Digest = Digest(0);

/// Replaces the first zero digest in `bytes` by the digest of `bytes` as given.
///
/// Returns false where there is no zero digest to replace.
pub fn seal(bytes: &mut [u8]) -> bool {
    let placeholder = UNSEALED.to_string();
    let Some(at) = find(bytes, placeholder.as_bytes()) else { return false };
    let digest = Digest::of(bytes).to_string();
    put(bytes, at, &digest)
}

/// Whether `bytes`, which carry `checksum` as their own, are as they were when they were sealed.
pub fn is_intact(bytes: &[u8], checksum: Digest) -> bool {
    let Some(at) = place(bytes, checksum) else { return false };
    let (Some(before), Some(after)) = (bytes.get(..at.start), bytes.get(at.end..)) else { return false };
    Digest::of_parts([before, UNSEALED.to_string().as_bytes(), after]) == checksum
}

/// Where a file that begins with `bytes` carries `checksum` as its own.
pub(super) fn place(bytes: &[u8], checksum: Digest) -> Option<std::ops::Range<usize>> {
    let text = checksum.to_string();
    find(bytes, text.as_bytes()).map(|at| at..at + text.len())
}

/// Puts `text` over the bytes from `at` on; false where it does not fit.
fn put(bytes: &mut [u8], at: usize, text: &str) -> bool {
    let Some(place) = bytes.get_mut(at..).and_then(|rest| rest.get_mut(..text.len())) else { return false };
    place.copy_from_slice(text.as_bytes());
    true
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_sealed_file_is_noticed() {
        let mut bytes = format!("{{\"a\": 1, \"checksum\": \"{UNSEALED}\", \"b\": 2}}").into_bytes();
        assert!(seal(&mut bytes));
        let place = 22..22 + UNSEALED.to_string().len();
        let checksum: Digest = std::str::from_utf8(&bytes[place.clone()]).unwrap().parse().unwrap();
        assert!(is_intact(&bytes, checksum));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read = std::str::from_utf8(&damaged[place.clone()]).ok().and_then(|text| text.parse::<Digest>().ok());
            assert!(!read.is_some_and(|read| is_intact(&damaged, read)), "bit {bit}");
        }
    }
}
