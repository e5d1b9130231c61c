//! The digest of a sequence of digests whose state can be written down: XXH3-128 over 16 bytes at a time.
//!
//! The same as `Digest::of_digests`, but for two things: it holds a few hundred bytes, however long the sequence, and it
//! can be saved and resumed anywhere, which the library's hasher cannot. A tensor of 70 billion elements has four million
//! blocks; keeping their digests until it ends would take 70 MB for each column.

use super::value::Digest;

/// Up to this many digests (240 bytes) XXH3 has other rules, and the library applies them.
const SHORT: usize = 15;
/// Digests of one stripe: 64 bytes.
const STRIPE: usize = 4;
/// Stripes after which the sums are scrambled.
const STRIPES_PER_BLOCK: u64 = 16;
/// Words of a state that is written down: count, sums, last stripe, waiting.
pub(super) const STATE_WORDS: usize = 1 + 4 + STRIPE + SHORT;

const PRIME32: [u64; 3] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d];
const PRIME64: [u64; 5] =
    [0x9e37_79b1_85eb_ca87, 0xc2b2_ae3d_27d4_eb4f, 0x1656_67b1_9e37_79f9, 0x85eb_ca77_c2b2_ae63, 0x27d4_eb2f_1656_67c5];

/// XXH3's own secret.
#[rustfmt::skip]
const SECRET: [u8; 192] = [
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
];

/// Eight bytes of the secret.
fn secret(at: usize) -> u64 {
    SECRET.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// The low and the high half of a digest, in the order of its bytes.
fn halves(digest: Digest) -> [u64; 2] {
    [digest.0 as u64, (digest.0 >> 64) as u64]
}

/// A digest of digests on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Running {
    sums: [u64; 8],
    /// Stripes that are in the sums.
    n_stripes: u64,
    /// The last of them.
    last: [Digest; STRIPE],
    /// Digests that are in none yet: all of a short sequence, otherwise one to four.
    waiting: Vec<Digest>,
}

impl Running {
    pub(super) fn new() -> Running {
        let [p1, p2, p3, p4, p5] = PRIME64;
        let sums = [PRIME32[2], p1, p2, p3, p4, PRIME32[1], p5, PRIME32[0]];
        Running { sums, n_stripes: 0, last: [Digest::default(); STRIPE], waiting: Vec::new() }
    }

    pub(super) fn push(&mut self, digest: Digest) {
        self.waiting.push(digest);
        let most = if self.n_stripes == 0 { SHORT } else { STRIPE };
        if self.waiting.len() <= most {
            return;
        }
        // The end is kept back: it has rules of its own.
        while self.waiting.len() > STRIPE {
            for (last, digest) in self.last.iter_mut().zip(self.waiting.drain(..STRIPE)) {
                *last = digest;
            }
            let place = (self.n_stripes % STRIPES_PER_BLOCK) as usize;
            accumulate(&mut self.sums, &self.last, 8 * place);
            self.n_stripes += 1;
            if self.n_stripes.is_multiple_of(STRIPES_PER_BLOCK) {
                for (at, sum) in self.sums.iter_mut().enumerate() {
                    *sum = (*sum ^ (*sum >> 47) ^ secret(SECRET.len() - 64 + 8 * at)).wrapping_mul(PRIME32[0]);
                }
            }
        }
    }

    pub(super) fn finish(&self) -> Digest {
        if self.n_stripes == 0 {
            return Digest::of_digests(self.waiting.iter().copied());
        }
        // The last 64 bytes, some of which may be in the sums already.
        let mut end = self.last;
        let n_waiting = self.waiting.len().min(STRIPE);
        end.rotate_left(n_waiting);
        for (end, digest) in end[STRIPE - n_waiting..].iter_mut().zip(&self.waiting) {
            *end = *digest;
        }
        let mut sums = self.sums;
        accumulate(&mut sums, &end, SECRET.len() - 64 - 7);
        let n_bytes = (self.n_stripes * STRIPE as u64 + self.waiting.len() as u64).wrapping_mul(16);
        let low = merge(&sums, 11, n_bytes.wrapping_mul(PRIME64[0]));
        let high = merge(&sums, SECRET.len() - 64 - 11, !n_bytes.wrapping_mul(PRIME64[1]));
        Digest(u128::from(high) << 64 | u128::from(low))
    }

    /// The state, as [`STATE_WORDS`] words.
    pub(super) fn words(&self) -> Vec<Digest> {
        let pair = |low: u64, high: u64| Digest(u128::from(high) << 64 | u128::from(low));
        let mut words = vec![pair(self.n_stripes, self.waiting.len() as u64)];
        words.extend(self.sums.as_chunks::<2>().0.iter().map(|[low, high]| pair(*low, *high)));
        words.extend(self.last);
        words.extend(&self.waiting);
        words.resize(STATE_WORDS, Digest::default());
        words
    }

    /// `None` for what no state comes to.
    pub(super) fn of_words(words: &[Digest]) -> Option<Running> {
        let words: &[Digest; STATE_WORDS] = words.try_into().ok()?;
        let [n_stripes, n_waiting] = halves(words[0]);
        let most = if n_stripes == 0 { SHORT } else { STRIPE };
        let n_waiting = usize::try_from(n_waiting).ok().filter(|n_waiting| *n_waiting <= most)?;
        let mut running = Running { n_stripes, ..Running::new() };
        for (sums, word) in running.sums.as_chunks_mut::<2>().0.iter_mut().zip(&words[1..]) {
            *sums = halves(*word);
        }
        running.last.copy_from_slice(&words[5..5 + STRIPE]);
        running.waiting.extend(&words[5 + STRIPE..][..n_waiting]);
        Some(running)
    }
}

/// Adds one stripe to the sums.
fn accumulate(sums: &mut [u64; 8], stripe: &[Digest; STRIPE], secret_at: usize) {
    for (at, value) in stripe.iter().flat_map(|digest| halves(*digest)).enumerate() {
        let key = value ^ secret(secret_at + 8 * at);
        sums[at ^ 1] = sums[at ^ 1].wrapping_add(value);
        sums[at] = sums[at].wrapping_add((key & 0xffff_ffff).wrapping_mul(key >> 32));
    }
}

/// One half of the result.
fn merge(sums: &[u64; 8], secret_at: usize, start: u64) -> u64 {
    let mut merged = start;
    for (at, [a, b]) in sums.as_chunks::<2>().0.iter().enumerate() {
        let product = u128::from(a ^ secret(secret_at + 16 * at)) * u128::from(b ^ secret(secret_at + 16 * at + 8));
        merged = merged.wrapping_add(product as u64 ^ (product >> 64) as u64);
    }
    merged ^= merged >> 37;
    merged = merged.wrapping_mul(0x1656_6791_9e37_79f9);
    merged ^ merged >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_of_any_length_have_the_librarys_digest_and_resume_anywhere() {
        let all: Vec<Digest> = (0..3000_u64).map(|n| Digest::of(&n.to_le_bytes())).collect();
        let mut running = Running::new();
        for n in 0..all.len() {
            if n < 300 || n % 97 == 0 || n % 64 < 2 {
                assert_eq!(running.finish(), Digest::of_digests(all[..n].iter().copied()), "{n} digests");
                let words = running.words();
                assert_eq!(words.len(), STATE_WORDS);
                assert_eq!(Running::of_words(&words).as_ref(), Some(&running), "{n} digests");
            }
            running.push(all[n]);
            assert!(running.waiting.len() <= SHORT);
        }
        let mut words = running.words();
        words[0] = Digest((STRIPE as u128 + 1) << 64 | 1);
        assert_eq!(Running::of_words(&words), None);
        assert_eq!(Running::of_words(&words[1..]), None);
    }
}
