//! Spans: how f64 sums over rows are folded, so that any division of the work gives the same bits.
//!
//! A *span* is [`SPAN_ROWS`] rows of one tensor (the last one of a tensor may be shorter). What blocks yield is summed within
//! a span, block by block in order; what spans yield is summed within a tensor, span by span in order; and what tensors yield
//! over tensors in order. Work may be divided where spans end, over threads, runs or machines: each part forms the sums of its
//! own spans, and adding them up in order gives the bits of one run. Of a tensor that begins in a part one row of sums is all
//! that need be kept. Chunks, which depend on the device and the number of columns, have no say in it.
//!
//! Cost: two more rows of sums in memory, and one more addition of them for every 64 blocks and every tensor.

use super::block::Block;
use crate::digest::BLOCK_ROWS;

/// Rows of one span: 64 blocks.
pub const SPAN_ROWS: usize = 64 * BLOCK_ROWS;

/// A span of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Index into the plan's tensors.
    pub tensor: usize,
    /// Which span of the tensor, from 0.
    pub index: usize,
}

impl Span {
    /// The span that a block lies in.
    pub fn of(block: &Block) -> Span {
        Span { tensor: block.tensor, index: block.first_row / SPAN_ROWS }
    }
}

/// The sums of the span that is passing.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanSums {
    /// `None` before the first block.
    span: Option<Span>,
    values: Vec<f64>,
}

impl SpanSums {
    /// For `n_values` sums side by side; no block seen yet.
    pub fn new(n_values: usize) -> SpanSums {
        SpanSums { span: None, values: vec![0.0; n_values] }
    }

    /// Goes on where another left off.
    pub fn from_parts(span: Option<Span>, values: Vec<f64>) -> SpanSums {
        SpanSums { span, values }
    }

    /// The passing span and its sums so far, for [`from_parts`](Self::from_parts).
    pub fn parts(&self) -> (Option<Span>, &[f64]) {
        (self.span, &self.values)
    }

    /// Adds what the next block has yielded, \[n_values\]. Blocks come in order; a span that is left behind is handed to
    /// `close` with its sums.
    pub fn add(&mut self, block: &Block, values: &[f64], close: impl FnMut(Span, &[f64])) {
        if self.span != Some(Span::of(block)) {
            self.close(close);
            self.span = Some(Span::of(block));
        }
        self.values.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }

    /// Hands over the span that is passing, where there is one; the next block begins another.
    pub fn close(&mut self, mut close: impl FnMut(Span, &[f64])) {
        if let Some(span) = self.span.take() {
            close(span, &self.values);
            self.values.fill(0.0);
        }
    }
}

/// The sums of the tensor that is passing: what its spans have yielded, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSums {
    spans: SpanSums,
    /// `None` before the first span has passed.
    tensor: Option<usize>,
    values: Vec<f64>,
}

impl TensorSums {
    /// For `n_values` sums side by side; no block seen yet.
    pub fn new(n_values: usize) -> TensorSums {
        TensorSums { spans: SpanSums::new(n_values), tensor: None, values: vec![0.0; n_values] }
    }

    /// Goes on where another left off; `None` where the numbers of sums differ.
    pub fn from_parts(spans: SpanSums, tensor: Option<usize>, values: Vec<f64>) -> Option<TensorSums> {
        (spans.values.len() == values.len()).then_some(TensorSums { spans, tensor, values })
    }

    /// The passing span, the tensor that the spans before it are of, and the sums of these, for
    /// [`from_parts`](Self::from_parts).
    pub fn parts(&self) -> (&SpanSums, Option<usize>, &[f64]) {
        (&self.spans, self.tensor, &self.values)
    }

    /// Adds what the next block has yielded, \[n_values\]. Blocks come in order; a tensor that is left behind is handed to
    /// `close` with its sums.
    pub fn add(&mut self, block: &Block, values: &[f64], close: impl FnMut(usize, &[f64])) {
        let TensorSums { spans, tensor, values: sums } = self;
        let mut close = close;
        spans.add(block, values, |span, values| add_span(tensor, sums, span, values, &mut close));
    }

    /// Hands over the tensor that is passing, where there is one; the next block begins another.
    pub fn close(&mut self, mut close: impl FnMut(usize, &[f64])) {
        let TensorSums { spans, tensor, values: sums } = self;
        spans.close(|span, values| add_span(tensor, sums, span, values, &mut close));
        if let Some(tensor) = tensor.take() {
            close(tensor, sums);
            sums.fill(0.0);
        }
    }
}

fn add_span(
    tensor: &mut Option<usize>,
    sums: &mut [f64],
    span: Span,
    values: &[f64],
    mut close: impl FnMut(usize, &[f64]),
) {
    if let Some(passed) = tensor.filter(|passed| *passed != span.tensor) {
        close(passed, sums);
        sums.fill(0.0);
    }
    *tensor = Some(span.tensor);
    add_to(sums, values);
}

/// Sums over all tensors in order: for operations whose sums run over every one.
#[derive(Clone, Debug)]
pub struct TotalSums {
    tensors: TensorSums,
    totals: Vec<f64>,
}

impl TotalSums {
    /// For `n_values` sums side by side.
    pub fn new(n_values: usize) -> TotalSums {
        TotalSums { tensors: TensorSums::new(n_values), totals: vec![0.0; n_values] }
    }

    /// Adds what the next block has yielded, \[n_values\].
    pub fn add(&mut self, block: &Block, values: &[f64]) {
        let totals = &mut self.totals;
        self.tensors.add(block, values, |_, tensor| add_to(totals, tensor));
    }

    /// The sums over everything, \[n_values\].
    pub fn finish(mut self) -> Vec<f64> {
        let totals = &mut self.totals;
        self.tensors.close(|_, tensor| add_to(totals, tensor));
        self.totals
    }
}

/// sums += values, element by element.
pub fn add_to(sums: &mut [f64], values: &[f64]) {
    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pass::{ChunkSize, Grid};

    /// A value whose sums round differently in every order.
    fn value(block: &Block) -> f64 {
        let x = (block.tensor * 7919 + block.first_row / BLOCK_ROWS * 104_729 + 1) as f64;
        (x * 0.618_033_988).fract() * 10f64.powi((x as i32).rem_euclid(17) - 8)
    }

    #[test]
    fn any_division_at_span_borders_gives_the_same_bits() {
        let rows = [5, 3 * SPAN_ROWS + 7, 0, 100, SPAN_ROWS, 9 * BLOCK_ROWS, 2 * SPAN_ROWS - 1];
        let blocks =
            |grid: &Grid| -> Vec<Block> { (0..grid.n_chunks()).flat_map(|chunk| grid.blocks(chunk)).collect() };
        let whole = Grid::new(rows, ChunkSize::ONE_BLOCK);
        let mut expected = TotalSums::new(1);
        blocks(&whole).iter().for_each(|block| expected.add(block, &[value(block)]));
        let expected = expected.finish()[0];
        let in_one_go: f64 = blocks(&whole).iter().map(value).sum();
        assert_ne!(in_one_go.to_bits(), expected.to_bits(), "values that do not round prove nothing");
        for n_parts in [1, 2, 3, 5, 16] {
            for chunk_rows in [1, BLOCK_ROWS, 10 * BLOCK_ROWS, usize::MAX] {
                let grid = Grid::new(rows, ChunkSize { n_rows: chunk_rows, n_blocks: usize::MAX });
                let mut spans = Vec::new();
                for part in 0..n_parts {
                    let mut sums = SpanSums::new(1);
                    let mut keep = |span: Span, values: &[f64]| spans.push((span, values[0]));
                    blocks(&grid.part(part, n_parts))
                        .iter()
                        .for_each(|block| sums.add(block, &[value(block)], &mut keep));
                    sums.close(keep);
                }
                assert!(spans.is_sorted_by_key(|(span, _)| *span) && spans.len() == 1 + 4 + 1 + 1 + 1 + 2);
                let tensors = spans.chunk_by(|(a, _), (b, _)| a.tensor == b.tensor);
                let total: f64 = tensors.map(|spans| spans.iter().map(|(_, value)| value).sum::<f64>()).sum();
                assert_eq!(total.to_bits(), expected.to_bits(), "{n_parts} parts, chunks of {chunk_rows} rows");
            }
        }
    }

    #[test]
    fn sums_of_tensors_resume_at_any_block() {
        let grid = Grid::new([5, 2 * SPAN_ROWS + 7, 0, 100, SPAN_ROWS], ChunkSize::ONE_BLOCK);
        let blocks: Vec<Block> = (0..grid.n_chunks()).flat_map(|chunk| grid.blocks(chunk)).collect();
        let tensors = |at: usize| {
            let (mut sums, mut closed) = (TensorSums::new(1), Vec::new());
            for (index, block) in blocks.iter().enumerate() {
                if index == at {
                    let (spans, tensor, values) = sums.parts();
                    sums = TensorSums::from_parts(spans.clone(), tensor, values.to_vec()).unwrap();
                }
                sums.add(block, &[value(block)], |tensor, values| closed.push((tensor, values[0].to_bits())));
            }
            sums.close(|tensor, values| closed.push((tensor, values[0].to_bits())));
            closed
        };
        let expected = tensors(usize::MAX);
        assert_eq!(expected.iter().map(|(tensor, _)| *tensor).collect::<Vec<_>>(), [0, 1, 3, 4]);
        for at in 0..blocks.len() {
            assert_eq!(tensors(at), expected, "resumed at block {at}");
        }
        assert!(TensorSums::from_parts(SpanSums::new(2), None, vec![0.0]).is_none());
    }

    #[test]
    fn sums_resume_in_the_middle_of_a_span() {
        let block = |index: usize| Block { tensor: 3, first_row: index * BLOCK_ROWS, n_rows: BLOCK_ROWS };
        let mut sums = SpanSums::new(2);
        sums.add(&block(0), &[0.1, 1.0], |_, _| panic!("no span ends here"));
        let (span, values) = sums.parts();
        let mut resumed = SpanSums::from_parts(span, values.to_vec());
        for sums in [&mut sums, &mut resumed] {
            sums.add(&block(1), &[0.2, 2.0], |_, _| panic!("no span ends here"));
            let mut closed = Vec::new();
            sums.add(&block(64), &[5.0, 6.0], |span, values| closed.push((span, values.to_vec())));
            assert_eq!(closed, [(Span { tensor: 3, index: 0 }, vec![0.1 + 0.2, 3.0])]);
        }
        assert_eq!(sums, resumed);
    }
}
