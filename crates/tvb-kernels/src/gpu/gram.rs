//! gram on the GPU: one workgroup for each run of rows and pair of task tiles; partial Grams come back in f32 and are
//! added in f64 in row order. Where T is above 32 the device adds up neighbouring runs first
//! (gram_fold.wgsl), so that at most a few percent of the input is read back.
//!
//! A segment's triangle is the sum of its *pieces*: a piece is one fold of runs, or one run where nothing is folded. Pieces
//! are cut at fixed numbers of rows from the segment's first row, a dispatch takes whole pieces only, and the kernel is
//! chosen by the segment's own format. So what else is in the chunk, and where dispatches end, never shows in the bits.
//!
//! Tried on AMD's compiler without a card (`cargo xtask isa`) and on llvmpipe, and left:
//! - Sums in an array that a loop clears: 7,000 instructions at 8 × 8 products, 800 as four matrices.
//! - Each quarter of a large block finished by lines of its own: half as many instructions again as a loop over the quarters.
//! - A load behind `if (task < TILE)`: the compiler moves it into the branch, and one is in flight in place of six. The same
//!   where the places of slices are read between loads, since they are in workgroup memory as the tiles are.
//!
//! Not tried, by arithmetic: rows in memory with a row of all tasks together (four writes in place of one, to the same banks); one
//! tile of 64 for 57 to 64 tasks (28 of 64 threads have no block; two of 32 use 60 or 64, and read rows twice); runs of more
//! rows where T is above 64 (their partials are half of what is read, but a chunk would be too few workgroups for a large
//! card). No hardware GPU was at hand: which tile is fastest where is not measured.

use super::plan::{Plan, Readback, Step};
use super::shader::Kernel;
use super::tables::{Tables, slices};
use super::variant::{Format, Shape, Tile};
use crate::chunk::ChunkLayout;
use crate::error::KernelError;
use crate::gram::Gram;
use crate::limits::{CHAIN_ROWS, FOLD_RUNS, MOST_GROUPS, PARTIALS_BYTES, RUN_ROWS, THREADS};
use crate::params::{Fold, FoldParams, GramParams, Run};
use crate::triangles::{Triangles, triangle_len};
use crate::work::OnGpu;
use std::ops::Range;

/// Where the parts of a chunk's triangles lie in what is read back.
#[derive(Debug)]
pub struct TriangleParts {
    n_tasks: usize,
    n_segments: usize,
    /// Segment and first word of each piece's triangle, in the order in which they are added up.
    pieces: Vec<(usize, usize)>,
}

impl OnGpu for Gram {
    type Parts = TriangleParts;

    fn plan(&self, layout: &ChunkLayout, shape: Shape, stamp: u32) -> Result<Plan<TriangleParts>, KernelError> {
        let cut = Cut::of(layout.n_tasks(), shape);
        let mut planner = Planner::new(layout, shape, cut, stamp);
        let formats: Vec<Format> = layout.slices.chunks_exact(layout.n_columns).map(Format::of).collect();
        for format in Format::ALL {
            let segments = (0..layout.segments.len()).filter(|&at| formats[at] == format);
            let pieces: Vec<Piece> = segments.flat_map(|at| cut.pieces(at, layout.segments[at].n_rows)).collect();
            for batch in cut.batches(&pieces) {
                planner.add_dispatch(format, batch);
            }
        }
        planner.finish()
    }

    fn packed_weights(&self) -> Result<Vec<f32>, KernelError> {
        Ok(Vec::new())
    }

    fn collect(parts: &TriangleParts, readback: Readback<'_>, triangles: &mut Triangles) -> Result<(), KernelError> {
        triangles.clear(parts.n_segments, parts.n_tasks)?;
        let n_values = triangle_len(parts.n_tasks);
        for &(segment, at) in &parts.pieces {
            let triangle = &mut triangles.values[segment * n_values..][..n_values];
            for (sum, word) in triangle.iter_mut().zip(readback.words(at..at + n_values)?) {
                *sum += f64::from(f32::from_le_bytes(*word));
            }
        }
        Ok(())
    }
}

/// How segments are cut: by T and the device's class alone.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// Rows of a run.
    run_rows: usize,
    /// Runs of a piece, at most.
    piece_runs: usize,
    /// Runs of a dispatch, at most; no less than those of a piece.
    dispatch_runs: usize,
    /// Whether the device adds up a piece's runs.
    folded: bool,
}

/// Rows of one segment whose inner products come back as one triangle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    segment: usize,
    start: usize,
    n_rows: usize,
}

impl Cut {
    fn of(n_tasks: usize, shape: Shape) -> Self {
        let dispatch_runs = (PARTIALS_BYTES as usize / 4 / triangle_len(n_tasks)).clamp(1, MOST_GROUPS);
        let lanes = shape.tile(n_tasks).lanes() as usize;
        // Whole words of 16 bytes, whatever the format, and a power of two.
        let run_rows = (CHAIN_ROWS << lanes.ilog2()).min(RUN_ROWS);
        // Partials of few tasks are small beside the rows.
        let folded = 20 * n_tasks > run_rows;
        let piece_runs = if folded { FOLD_RUNS.min(dispatch_runs) } else { 1 };
        Cut { run_rows, piece_runs, dispatch_runs, folded }
    }

    /// The pieces of one segment, in row order.
    fn pieces(self, segment: usize, n_rows: usize) -> impl Iterator<Item = Piece> {
        let piece_rows = self.piece_runs * self.run_rows;
        (0..n_rows).step_by(piece_rows).map(move |start| Piece {
            segment,
            start,
            n_rows: piece_rows.min(n_rows - start),
        })
    }

    /// The runs of one piece, in row order.
    fn runs(self, piece: Piece) -> impl Iterator<Item = Run> {
        (0..piece.n_rows).step_by(self.run_rows).map(move |start| Run {
            segment: piece.segment as u32,
            start: (piece.start + start) as u32,
            n_rows: self.run_rows.min(piece.n_rows - start) as u32,
            ..Run::default()
        })
    }

    /// As many whole pieces together as a dispatch takes.
    fn batches(self, pieces: &[Piece]) -> impl Iterator<Item = &[Piece]> {
        let mut rest = pieces;
        std::iter::from_fn(move || {
            let mut n_runs = 0;
            let fits = |piece: &&Piece| {
                n_runs += piece.n_rows.div_ceil(self.run_rows);
                n_runs <= self.dispatch_runs
            };
            let n_pieces = rest.iter().take_while(fits).count();
            let (batch, later) = rest.split_at(n_pieces);
            rest = later;
            (!batch.is_empty()).then_some(batch)
        })
    }
}

/// A plan in the making.
struct Planner<'a> {
    layout: &'a ChunkLayout,
    cut: Cut,
    stamp: u32,
    n_values: usize,
    tile: Tile,
    n_tiles: usize,
    tables: Tables,
    runs: Vec<Run>,
    folds: Vec<Fold>,
    steps: Vec<Step>,
    marks: Vec<Range<usize>>,
    pieces: Vec<(usize, usize)>,
    out_words: usize,
    readback_words: usize,
}

impl<'a> Planner<'a> {
    fn new(layout: &'a ChunkLayout, shape: Shape, cut: Cut, stamp: u32) -> Self {
        let n_tasks = layout.n_tasks();
        let tile = shape.tile(n_tasks);
        Planner {
            layout,
            cut,
            stamp,
            n_values: triangle_len(n_tasks),
            tile,
            n_tiles: n_tasks.div_ceil(tile.tasks as usize),
            tables: Tables::default(),
            runs: Vec::new(),
            folds: Vec::new(),
            steps: Vec::new(),
            marks: Vec::new(),
            pieces: Vec::new(),
            out_words: 0,
            readback_words: 0,
        }
    }

    /// Adds the runs of some pieces, and their folds, as one dispatch each. The output buffer then holds
    /// `[partials][their marks]`, or `[partials][their marks][folded triangles][their marks]` of which the first part
    /// stays on the device; the next dispatch overwrites it.
    fn add_dispatch(&mut self, format: Format, pieces: &[Piece]) {
        let first_run = self.runs.len();
        let first_fold = self.folds.len();
        for &piece in pieces {
            let first = self.runs.len();
            self.runs.extend(self.cut.runs(piece));
            let n_runs = (self.runs.len() - first) as u32;
            if self.cut.folded {
                self.folds.push(Fold { first_run: first as u32, n_runs });
            }
        }
        let n_runs = self.runs.len() - first_run;
        let n_tile_pairs = triangle_len(self.n_tiles);
        let marks_at = n_runs * self.n_values;
        let marks_end = marks_at + n_runs * n_tile_pairs;
        let params = self.tables.push_params(GramParams {
            n_tasks: self.layout.n_tasks() as u32,
            n_values: self.n_values as u32,
            first_run: first_run as u32,
            n_tile_pairs: n_tile_pairs as u32,
            marks: marks_at as u32,
            stamp: self.stamp,
        });
        let kernel = Kernel::Gram { format, tile: self.tile };
        self.steps.push(Step::Dispatch { kernel, params, groups: [n_tile_pairs as u32, n_runs as u32, 1] });
        if !self.cut.folded {
            self.read_back(0, marks_end, pieces, 0, std::slice::from_ref(&(marks_at..marks_end)));
            return;
        }
        let n_folds = pieces.len();
        let folded_end = marks_end + n_folds * self.n_values;
        let value_groups = self.n_values.div_ceil(THREADS as usize);
        let end = folded_end + n_folds * value_groups;
        let params = self.tables.push_params(FoldParams {
            n_values: self.n_values as u32,
            first_fold: first_fold as u32,
            first_run: first_run as u32,
            folded: marks_end as u32,
            marks: folded_end as u32,
            stamp: self.stamp,
        });
        let groups = [value_groups as u32, n_folds as u32, 1];
        self.steps.push(Step::Dispatch { kernel: Kernel::GramFold, params, groups });
        self.read_back(marks_at, end, pieces, marks_end, &[marks_at..marks_end, folded_end..end]);
    }

    /// Has the output's words from..end read back: the pieces' triangles from word `triangles` on, and marks.
    fn read_back(&mut self, from: usize, end: usize, pieces: &[Piece], triangles: usize, marks: &[Range<usize>]) {
        let to = self.readback_words;
        self.steps.push(Step::Copy { from, to, n_words: end - from });
        let moved = |word: usize| word - from + to;
        self.marks.extend(marks.iter().map(|marks| moved(marks.start)..moved(marks.end)));
        let words = (0..).map(|at| moved(triangles + at * self.n_values));
        self.pieces.extend(pieces.iter().zip(words).map(|(piece, word)| (piece.segment, word)));
        self.readback_words += end - from;
        self.out_words = self.out_words.max(end);
    }

    fn finish(mut self) -> Result<Plan<TriangleParts>, KernelError> {
        let slices = self.tables.push(&slices(self.layout)?);
        let runs = self.tables.push(&self.runs);
        let folds = (!self.folds.is_empty()).then(|| self.tables.push(&self.folds));
        Ok(Plan {
            tables: self.tables.finish(),
            slices,
            runs,
            folds,
            steps: self.steps,
            out_words: self.out_words,
            readback_words: self.readback_words,
            marks: self.marks,
            stamp: self.stamp,
            parts: TriangleParts {
                n_tasks: self.layout.n_tasks(),
                n_segments: self.layout.segments.len(),
                pieces: self.pieces,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{Dtype, Segment, Slice};

    fn layout(n_tasks: usize, rows: &[usize]) -> ChunkLayout {
        ChunkLayout {
            n_columns: n_tasks + 1,
            segments: rows.iter().map(|&n_rows| Segment::new(n_rows)).collect(),
            slices: vec![Slice::new(0, Dtype::F32); rows.len() * (n_tasks + 1)],
            n_bytes: 1 << 24,
            ..ChunkLayout::default()
        }
    }

    /// Where a segment's runs are cut and which of them are folded must not depend on what comes before it.
    #[test]
    fn a_segment_is_cut_the_same_way_wherever_it_lies() {
        for (n_tasks, n_rows) in [(20, 9000), (33, 70_000), (300, 60_000), (1024, 10_000)] {
            for shape in [Shape::LARGE, Shape::SMALL] {
                let cuts = |rows: &[usize]| {
                    let cut = Cut::of(n_tasks, shape);
                    let pieces: Vec<Piece> =
                        rows.iter().enumerate().flat_map(|(at, &n_rows)| cut.pieces(at, n_rows)).collect();
                    let batches: Vec<&[Piece]> = cut.batches(&pieces).collect();
                    assert_eq!(batches.concat(), pieces, "every piece is in one dispatch");
                    for batch in &batches {
                        let n_runs: usize = batch.iter().map(|&piece| cut.runs(piece).count()).sum();
                        assert!(n_runs <= cut.dispatch_runs, "{n_tasks} tasks: {n_runs} runs in a dispatch");
                    }
                    let last = pieces.iter().filter(|piece| piece.segment + 1 == rows.len());
                    let cuts: Vec<(usize, usize)> = last.map(|piece| (piece.start, piece.n_rows)).collect();
                    (cuts, batches.len())
                };
                let (alone, n_alone) = cuts(&[n_rows]);
                assert_eq!(alone.iter().map(|(_, n_rows)| n_rows).sum::<usize>(), n_rows);
                for before in [1, 5, 150, 4000] {
                    let (found, n_batches) = cuts(&[&vec![1; before][..], &[n_rows]].concat());
                    assert_eq!(found, alone, "{n_tasks} tasks, {before} segments before");
                    assert!(n_batches >= n_alone);
                }
            }
        }
    }

    /// Kernels are chosen by a segment's own format, so that its neighbours' cannot show in its bits.
    #[test]
    fn a_segments_kernel_is_of_its_own_format() {
        let mut layout = layout(2, &[10, 10, 10]);
        for slice in &mut layout.slices[3..6] {
            slice.dtype = Dtype::Bf16;
        }
        layout.slices[8].dtype = Dtype::F16;
        let plan = Gram::ALL.plan(&layout, Shape::LARGE, 1).expect("a sound layout");
        let formats = plan.kernels().filter_map(|kernel| match kernel {
            Kernel::Gram { format, .. } => Some(format),
            _ => None,
        });
        assert_eq!(formats.collect::<Vec<_>>(), [Format::F32, Format::Bf16, Format::Mixed]);
    }
}
