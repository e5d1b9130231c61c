//! A part of a job: K of N, and what it leaves of sums and digests for the job that joins all of them.
//!
//! The rows of all tensors are cut where spans end, into N parts of about as many rows ([`Grid::part`]). What lies in which part
//! is known from the tensors' rows alone, so neither sums nor digests say where they belong: [`pieces_of`] does. Of a tensor that
//! begins in a part one row of sums is kept, of one that goes on from the part before a row for each span, so that all of them
//! added in order are the bits of one run ([`super::Span`]). Of a tensor that lies wholly in a part the digest is kept, of one that
//! is cut those of its blocks.

use super::block::Block;
use super::chunks::Grid;
use super::spans::{SPAN_ROWS, Span, SpanSums, add_to};
use crate::digest::{BLOCK_ROWS, Digest, TableOfDigests, TensorDigests};
use crate::error::{Error, Result};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Parts that a job can have.
pub const MAX_PARTS: usize = 65_536;

/// Part K of N of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Part {
    n_parts: usize,
    number: usize,
}

impl Part {
    /// Part `number` of `n_parts`, counted from 1.
    ///
    /// # Errors
    /// Usage: no such part, or more parts than there can be.
    pub fn new(number: usize, n_parts: usize) -> Result<Part> {
        let wrong = |what: String| Err(Error::usage(what).hint("parts are numbered from 1: 1/8 to 8/8"));
        if !(1..=MAX_PARTS).contains(&n_parts) {
            return wrong(format!("part {number}/{n_parts}: 1 to {MAX_PARTS} parts expected, {n_parts} found"));
        }
        if !(1..=n_parts).contains(&number) {
            return wrong(format!("part {number}/{n_parts}: a number from 1 to {n_parts} expected, {number} found"));
        }
        Ok(Part { n_parts, number })
    }

    /// All parts of a job of `n_parts`, in order.
    ///
    /// # Errors
    /// Usage: none, or more parts than there can be.
    pub fn all(n_parts: usize) -> Result<Vec<Part>> {
        let last = Part::new(n_parts, n_parts)?;
        Ok((1..=last.n_parts).map(|number| Part { number, ..last }).collect())
    }

    /// K, from 1.
    pub fn number(self) -> usize {
        self.number
    }

    /// N.
    pub fn n_parts(self) -> usize {
        self.n_parts
    }

    /// Its blocks among those of a whole grid.
    #[must_use]
    pub fn of(self, grid: &Grid) -> Grid {
        grid.part(self.number - 1, self.n_parts)
    }

    /// Whether something that is not cut belongs to this part: `own` of `all`, with `before` of them before it. It does where its
    /// middle lies.
    pub fn owns(self, before: u64, own: u64, all: u64) -> bool {
        let middle = 2 * u128::from(before) + u128::from(own);
        let part = middle * self.n_parts as u128 / (2 * u128::from(all)).max(1);
        (part as usize).min(self.n_parts - 1) == self.number - 1
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.n_parts)
    }
}

impl FromStr for Part {
    type Err = Error;

    fn from_str(text: &str) -> Result<Part> {
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let numbers = text.split_once('/').and_then(|(part, n_parts)| Some((number(part)?, number(n_parts)?)));
        match numbers {
            Some((part, n_parts)) => Part::new(part, n_parts),
            None => Err(Error::usage(format!("a part K/N such as 3/8 expected, {text:?} found"))),
        }
    }
}

impl serde::Serialize for Part {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Part {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Part, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(|error: Error| serde::de::Error::custom(error.message()))
    }
}

/// What of one tensor lies in a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Index into the plan's tensors.
    pub tensor: usize,
    /// Its rows in the part; the first one begins a span.
    pub rows: Range<usize>,
    /// Rows of the whole tensor.
    pub n_rows: usize,
}

impl Piece {
    /// Whether the tensor lies wholly in the part.
    pub fn is_whole(&self) -> bool {
        self.rows == (0..self.n_rows)
    }

    /// Rows of sums that are kept.
    pub fn n_sums(&self) -> usize {
        if self.rows.start == 0 { 1 } else { self.rows.len().div_ceil(SPAN_ROWS) }
    }

    /// Digests of each column that are kept.
    pub fn n_digests(&self) -> usize {
        if self.is_whole() { 1 } else { self.rows.len().div_ceil(BLOCK_ROWS) }
    }
}

/// What of which tensors lies in a grid that is a part; `tensor_rows` are the rows of all of the plan's tensors.
pub fn pieces_of(grid: &Grid, tensor_rows: impl Fn(usize) -> usize) -> Vec<Piece> {
    grid.tensor_rows().map(|(tensor, rows)| Piece { tensor, rows, n_rows: tensor_rows(tensor) }).collect()
}

/// Rows of sums and digests of each column that parts keep of these pieces.
pub fn n_kept(pieces: &[Piece]) -> (usize, usize) {
    pieces.iter().fold((0, 0), |(sums, digests), piece| (sums + piece.n_sums(), digests + piece.n_digests()))
}

/// The sums of a part as its blocks pass.
#[derive(Clone, Debug)]
pub struct PartSums {
    spans: SpanSums,
    kept: KeptSums,
}

/// [n_sums, n_values]: one row for each tensor that began here, and one for each span of a tensor that did not.
#[derive(Clone, Debug)]
struct KeptSums {
    rows: Vec<f64>,
    /// The tensor that the last row is of, where that began here.
    begun: Option<usize>,
}

impl PartSums {
    /// For `n_values` sums side by side.
    pub fn new(n_values: usize) -> PartSums {
        PartSums { spans: SpanSums::new(n_values), kept: KeptSums { rows: Vec::new(), begun: None } }
    }

    /// Adds what the next block has yielded, \[n_values\]. Blocks come in order.
    pub fn add(&mut self, block: &Block, values: &[f64]) {
        let PartSums { spans, kept } = self;
        spans.add(block, values, |span, values| kept.add(span, values));
    }

    /// [n_sums, n_values], as [`Piece::n_sums`] counts them.
    pub fn finish(mut self) -> Vec<f64> {
        let PartSums { spans, kept } = &mut self;
        spans.close(|span, values| kept.add(span, values));
        self.kept.rows
    }
}

impl KeptSums {
    fn add(&mut self, span: Span, values: &[f64]) {
        if span.index > 0 && self.begun == Some(span.tensor) {
            let last = self.rows.len().saturating_sub(values.len());
            return add_to(&mut self.rows[last..], values);
        }
        self.begun = (span.index == 0).then_some(span.tensor);
        self.rows.extend_from_slice(values);
    }
}

/// The digests of a part as its blocks pass.
#[derive(Clone, Debug)]
pub struct PartDigests {
    n_columns: usize,
    pieces: Vec<Piece>,
    /// The piece that is passing.
    at: usize,
    open: TensorDigests,
    /// [n_digests, n_columns]
    kept: Vec<Digest>,
}

impl PartDigests {
    /// For `n_columns` digests of each block of these pieces.
    pub fn new(pieces: Vec<Piece>, n_columns: usize) -> PartDigests {
        PartDigests { n_columns, pieces, at: 0, open: TensorDigests::new(n_columns), kept: Vec::new() }
    }

    /// Adds the next block, \[n_columns\] digests. Blocks come in order.
    pub fn push(&mut self, block: &Block, digests: &[Digest]) {
        while self.pieces.get(self.at).is_some_and(|piece| piece.tensor < block.tensor) {
            self.at += 1;
        }
        match self.pieces.get(self.at).filter(|piece| piece.is_whole()) {
            None => self.kept.extend_from_slice(digests),
            Some(piece) => {
                self.open.push(0, digests);
                if block.first_row + block.n_rows == piece.n_rows {
                    let open = std::mem::replace(&mut self.open, TensorDigests::new(self.n_columns));
                    self.kept.extend(open.finish(1).digests);
                }
            }
        }
    }

    /// [n_digests, n_columns], as [`Piece::n_digests`] counts them.
    pub fn finish(self) -> Vec<Digest> {
        self.kept
    }
}

/// What does not follow on the parts before it.
fn out_of_place() -> Error {
    Error::failed("the parts of a job were not joined in order")
}

/// The pieces of parts in order, checked: no row twice, none left out.
#[derive(Clone, Debug, Default)]
struct Order {
    /// The tensor that is passing and its rows so far.
    tensor: usize,
    n_rows: usize,
    /// Rows that it has in all; 0 before the first.
    of: usize,
}

impl Order {
    fn follow(&mut self, piece: &Piece) -> Result<()> {
        let begins = piece.rows.start == 0 && self.n_rows == self.of && (self.of == 0 || piece.tensor > self.tensor);
        let goes_on = piece.tensor == self.tensor && piece.rows.start == self.n_rows && piece.rows.start > 0;
        if !begins && !goes_on {
            return Err(out_of_place());
        }
        *self = Order { tensor: piece.tensor, n_rows: piece.rows.end, of: piece.n_rows };
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.n_rows == self.of
    }
}

/// The sums of parts in order, tensor by tensor.
#[derive(Clone, Debug)]
pub struct JoinedSums {
    order: Order,
    /// \[n_values\]: of the tensor that is passing.
    values: Vec<f64>,
}

impl JoinedSums {
    /// For `n_values` sums side by side; no part seen yet.
    pub fn new(n_values: usize) -> JoinedSums {
        JoinedSums { order: Order::default(), values: vec![0.0; n_values] }
    }

    /// Adds the next part: its pieces, and their sums [n_sums, n_values]. Each tensor that ends in it is handed to `close` with the
    /// sums of one run.
    ///
    /// # Errors
    /// Failed: not the part that comes next, or not its sums.
    pub fn add(&mut self, pieces: &[Piece], sums: &[f64], mut close: impl FnMut(usize, &[f64])) -> Result<()> {
        let n_values = self.values.len();
        if n_values == 0 || sums.len() != n_kept(pieces).0 * n_values {
            return Err(out_of_place());
        }
        let mut rows = sums.chunks_exact(n_values);
        for piece in pieces {
            self.order.follow(piece)?;
            if piece.rows.start == 0 {
                self.values.fill(0.0);
            }
            rows.by_ref().take(piece.n_sums()).for_each(|row| add_to(&mut self.values, row));
            if self.order.is_complete() {
                close(piece.tensor, &self.values);
            }
        }
        Ok(())
    }

    /// Says whether all parts have been added.
    ///
    /// # Errors
    /// Failed: the last tensor has no end.
    pub fn finish(self) -> Result<()> {
        if self.order.is_complete() { Ok(()) } else { Err(out_of_place()) }
    }
}

/// The digests of parts in order.
#[derive(Clone, Debug)]
pub struct JoinedDigests {
    order: Order,
    n_columns: usize,
    digests: TensorDigests,
}

impl JoinedDigests {
    /// For `n_columns` digests of each block; no part seen yet.
    pub fn new(n_columns: usize) -> JoinedDigests {
        JoinedDigests { order: Order::default(), n_columns, digests: TensorDigests::new(n_columns) }
    }

    /// Adds the next part: its pieces, and their digests [n_digests, n_columns].
    ///
    /// # Errors
    /// Failed: not the part that comes next, or not its digests.
    pub fn add(&mut self, pieces: &[Piece], digests: &[Digest]) -> Result<()> {
        if self.n_columns == 0 || digests.len() != n_kept(pieces).1 * self.n_columns {
            return Err(out_of_place());
        }
        let mut rows = digests.chunks_exact(self.n_columns);
        for piece in pieces {
            self.order.follow(piece)?;
            for row in rows.by_ref().take(piece.n_digests()) {
                match piece.is_whole() {
                    true => self.digests.push_tensor(piece.tensor, row),
                    false => self.digests.push(piece.tensor, row),
                }
            }
        }
        Ok(())
    }

    /// The digests of all blocks, as a pass that has come to its end holds them.
    ///
    /// # Errors
    /// Failed: the last tensor has no end.
    pub fn into_digests(self) -> Result<TensorDigests> {
        if self.order.is_complete() { Ok(self.digests) } else { Err(out_of_place()) }
    }

    /// The digest of every one of `n_tensors` tensors.
    ///
    /// # Errors
    /// Failed: the last tensor has no end.
    pub fn finish(self, n_tensors: usize) -> Result<TableOfDigests> {
        Ok(self.into_digests()?.finish(n_tensors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pass::{ChunkSize, TensorSums};
    use proptest::prelude::*;

    fn blocks(grid: &Grid) -> Vec<Block> {
        (0..grid.n_chunks()).flat_map(|chunk| grid.blocks(chunk)).collect()
    }

    /// Values whose sums round differently in every order.
    fn values(block: &Block) -> [f64; 2] {
        let x = (block.tensor * 7919 + block.index() * 104_729 + 1) as f64;
        let value = (x * 0.618_033_988).fract() * 10f64.powi((x as i32).rem_euclid(17) - 8);
        [value, 1.0 / x]
    }

    fn digests(block: &Block) -> [Digest; 2] {
        [1, 2].map(|n| Digest::of(&[block.tensor as u8, (block.index() & 255) as u8, (block.index() >> 8) as u8, n]))
    }

    fn of_part(part: Part, grid: &Grid, rows: &[usize]) -> (Vec<Piece>, Vec<f64>, Vec<Digest>) {
        let grid = part.of(grid);
        let pieces = pieces_of(&grid, |tensor| rows[tensor]);
        let (mut sums, mut kept) = (PartSums::new(2), PartDigests::new(pieces.clone(), 2));
        for block in blocks(&grid) {
            sums.add(&block, &values(&block));
            kept.push(&block, &digests(&block));
        }
        (pieces, sums.finish(), kept.finish())
    }

    fn row_counts() -> impl Strategy<Value = Vec<usize>> {
        let near = |n: usize| (n.saturating_sub(1)..n + 2).boxed();
        let n_rows = prop_oneof![
            3 => 0..5_usize,
            2 => near(BLOCK_ROWS),
            2 => near(SPAN_ROWS),
            1 => near(3 * SPAN_ROWS),
            1 => 0..5 * SPAN_ROWS,
        ];
        prop::collection::vec(n_rows, 1..9)
    }

    proptest! {
        #[test]
        fn parts_joined_are_one_run(rows in row_counts(), n_parts in 1..20_usize, n_blocks in 1..99_usize) {
            let size = ChunkSize { n_rows: n_blocks * BLOCK_ROWS, n_blocks: 99 };
            let grid = Grid::new(rows.iter().copied(), size);
            let (mut one, mut expected, mut one_digests) = (TensorSums::new(2), Vec::new(), TensorDigests::new(2));
            for block in blocks(&grid) {
                one.add(&block, &values(&block), |tensor, sums| expected.push((tensor, sums.to_vec())));
                one_digests.push(block.tensor, &digests(&block));
            }
            one.close(|tensor, sums| expected.push((tensor, sums.to_vec())));
            let (mut sums, mut found, mut joined) = (JoinedSums::new(2), Vec::new(), JoinedDigests::new(2));
            for part in Part::all(n_parts).unwrap() {
                let (pieces, of_part, digests) = of_part(part, &grid, &rows);
                prop_assert_eq!(n_kept(&pieces), (of_part.len() / 2, digests.len() / 2));
                sums.add(&pieces, &of_part, |tensor, sums| found.push((tensor, sums.to_vec()))).unwrap();
                joined.add(&pieces, &digests).unwrap();
            }
            sums.finish().unwrap();
            let bits = |sums: &[(usize, Vec<f64>)]| -> Vec<(usize, u64, u64)> {
                sums.iter().map(|(tensor, sums)| (*tensor, sums[0].to_bits(), sums[1].to_bits())).collect()
            };
            prop_assert_eq!(bits(&found), bits(&expected));
            prop_assert_eq!(joined.finish(rows.len()).unwrap(), one_digests.finish(rows.len()));
        }
    }

    #[test]
    fn parts_out_of_order_or_left_out_are_noticed() {
        let rows = [3, 4 * SPAN_ROWS + 1, 7];
        let grid = Grid::new(rows, ChunkSize::ONE_BLOCK);
        let parts: Vec<_> = Part::all(4).unwrap().into_iter().map(|part| of_part(part, &grid, &rows)).collect();
        let join = |order: &[usize]| {
            let (mut sums, mut digests) = (JoinedSums::new(2), JoinedDigests::new(2));
            for &at in order {
                let (pieces, of_part, own) = &parts[at];
                let (a, b) = (sums.add(pieces, of_part, |_, _| {}), digests.add(pieces, own));
                assert_eq!(a.is_ok(), b.is_ok());
                a?;
            }
            let (a, b) = (sums.finish(), digests.finish(rows.len()));
            assert_eq!(a.is_ok(), b.is_ok());
            a
        };
        join(&[0, 1, 2, 3]).unwrap();
        for order in [&[0, 1, 3][..], &[1, 2, 3], &[0, 1, 1, 2, 3], &[0, 2, 1, 3], &[0, 1, 2], &[0]] {
            assert!(join(order).is_err(), "{order:?}");
        }
        let (pieces, sums, digests) = &parts[0];
        assert!(JoinedSums::new(2).add(pieces, &sums[2..], |_, _| {}).is_err());
        assert!(JoinedDigests::new(2).add(pieces, &digests[2..]).is_err());
    }

    #[test]
    fn parts_have_numbers_from_one() {
        assert_eq!("3/8".parse::<Part>().unwrap(), Part::new(3, 8).unwrap());
        assert_eq!(Part::new(3, 8).unwrap().to_string(), "3/8");
        for text in
            ["0/8", "9/8", "1/0", "3", "3/", "/8", "3/8/9", "-1/8", "+1/8", " 3/8", "3/65537", "1/99999999999999999999"]
        {
            assert!(text.parse::<Part>().is_err(), "{text}");
        }
        assert_eq!(Part::all(3).unwrap().len(), 3);
        assert!(Part::all(0).is_err());
    }

    #[test]
    fn what_is_not_cut_belongs_to_one_part() {
        let weights = [5_u64, 0, 1, 900, 3, 0];
        let all: u64 = weights.iter().sum();
        for n_parts in [1, 2, 3, 7, 64] {
            let parts = Part::all(n_parts).unwrap();
            let mut before = 0;
            for own in weights {
                assert_eq!(parts.iter().filter(|part| part.owns(before, own, all)).count(), 1, "{n_parts}");
                before += own;
            }
        }
        assert!(Part::new(1, 1).unwrap().owns(0, 0, 0));
    }
}
