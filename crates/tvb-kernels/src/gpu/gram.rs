//! gram on the GPU: one workgroup for each run of rows and pair of task tiles; partial Grams come back in f32 and are
//! added in f64 in row order. Where T is above 32 (16 in small blocks) the device adds up neighbouring runs first
//! (gram_fold.wgsl), so that at most a few percent of the input is read back.

use super::plan::{Plan, ResultPlan, Step, Tables, slices};
use super::shader::Kernel;
use super::variant::{Format, Shape};
use crate::check::gram_groups;
use crate::limits::{FOLD_RUNS, MOST_GROUPS, PARTIALS_BYTES, RUN_ROWS_ALONE, RUN_ROWS_SHARED, THREADS};
use crate::params::{Fold, FoldParams, GramParams, Run};
use crate::{ChunkLayout, KernelError, triangle_len};

/// Plans one chunk's Gram.
pub(crate) fn plan(layout: &ChunkLayout, shape: Shape, stamp: u32) -> Result<Plan, KernelError> {
    let n_tasks = layout.n_tasks();
    let n_values = triangle_len(n_tasks);
    let tiles = shape.tiles();
    let tile = tiles.iter().copied().find(|&tile| tile as usize >= n_tasks).unwrap_or(tiles[tiles.len() - 1]);
    let n_tiles = n_tasks.div_ceil(tile as usize);
    let n_tile_pairs = triangle_len(n_tiles);
    let tiles_held = if n_tiles > 1 { 2 } else { 1 };
    let kernel = Kernel::Gram { format: Format::of(layout), tile, block: shape.block, tiles_held };
    // Partials of few tasks are small.
    let folded = n_tasks > shape.most_shared_tasks();

    let (slots, group_of_segment) = gram_groups(layout);
    let (runs, group_of_run) = runs(layout, &group_of_segment, if folded { RUN_ROWS_ALONE } else { RUN_ROWS_SHARED });
    let mut tables = Tables::default();
    let (mut folds, mut steps, mut marks, mut parts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut out_words, mut read) = (0, 0);
    let runs_per_batch = (PARTIALS_BYTES as usize / 4 / n_values).clamp(1, MOST_GROUPS);
    for (batch, batch_groups) in group_of_run.chunks(runs_per_batch).enumerate() {
        let first_run = batch * runs_per_batch;
        let n_runs = batch_groups.len();
        let marks_at = n_runs * n_values;
        let marks_end = marks_at + n_runs * n_tile_pairs;
        let params = tables.push_params(GramParams {
            n_tasks: n_tasks as u32,
            n_values: n_values as u32,
            first_run: first_run as u32,
            n_tile_pairs: n_tile_pairs as u32,
            marks: marks_at as u32,
            stamp,
        });
        steps.push(Step::Dispatch { kernel, params, groups: [n_runs as u32, n_tile_pairs as u32, 1] });
        if !folded {
            steps.push(Step::Copy { from: 0, to: read, n_words: marks_end });
            parts.extend(batch_groups.iter().enumerate().map(|(run, group)| (*group, read + run * n_values)));
            marks.push(read + marks_at..read + marks_end);
            read += marks_end;
            out_words = out_words.max(marks_end);
            continue;
        }
        let first_fold = folds.len();
        let batch_folds = folds_of(batch_groups, first_run);
        let n_folds = batch_folds.len();
        let folded_end = marks_end + n_folds * n_values;
        let value_groups = n_values.div_ceil(THREADS as usize);
        let end = folded_end + n_folds * value_groups;
        let params = tables.push_params(FoldParams {
            n_values: n_values as u32,
            first_fold: first_fold as u32,
            first_run: first_run as u32,
            folded: marks_end as u32,
            marks: folded_end as u32,
            stamp,
        });
        let groups = [value_groups as u32, n_folds as u32, 1];
        steps.push(Step::Dispatch { kernel: Kernel::GramFold, params, groups });
        steps.push(Step::Copy { from: marks_at, to: read, n_words: end - marks_at });
        // What was at `from` is now at `read`.
        let moved = |word: usize| word - marks_at + read;
        for (at, (group, fold)) in batch_folds.into_iter().enumerate() {
            parts.push((group, moved(marks_end + at * n_values)));
            folds.push(fold);
        }
        marks.push(moved(marks_at)..moved(marks_end));
        marks.push(moved(folded_end)..moved(end));
        read += end - marks_at;
        out_words = out_words.max(end);
    }
    let slices = tables.push(&slices(layout)?);
    let runs = tables.push(&runs);
    let folds = (!folds.is_empty()).then(|| tables.push(&folds));
    let result = ResultPlan::Gram { slots, n_tasks, parts };
    Ok(Plan {
        tables: tables.finish(),
        slices,
        runs,
        folds,
        steps,
        out_words,
        readback_words: read,
        marks,
        stamp,
        result,
    })
}

/// The runs of a chunk, each within one segment, and the group (Gram) each belongs to.
fn runs(layout: &ChunkLayout, group_of_segment: &[usize], run_rows: usize) -> (Vec<Run>, Vec<usize>) {
    let mut runs = Vec::new();
    let mut groups = Vec::new();
    for (at, segment) in layout.segments.iter().enumerate() {
        for start in (0..segment.n_rows).step_by(run_rows) {
            let n_rows = run_rows.min(segment.n_rows - start);
            runs.push(Run { segment: at as u32, start: start as u32, n_rows: n_rows as u32, place: 0, dtype: 0 });
            groups.push(group_of_segment[at]);
        }
    }
    (runs, groups)
}

/// Neighbouring runs of one group, at most [`FOLD_RUNS`] of them together.
fn folds_of(group_of_run: &[usize], first_run: usize) -> Vec<(usize, Fold)> {
    let mut folds: Vec<(usize, Fold)> = Vec::new();
    for (run, &group) in group_of_run.iter().enumerate() {
        match folds.last_mut() {
            Some((last, fold)) if *last == group && (fold.n_runs as usize) < FOLD_RUNS => fold.n_runs += 1,
            _ => folds.push((group, Fold { first_run: (first_run + run) as u32, n_runs: 1 })),
        }
    }
    folds
}
