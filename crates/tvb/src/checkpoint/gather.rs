//! Strided tensors: collecting a row-major piece of a view whose elements lie scattered in the file.
//!
//! PyTorch saves views as they are: transposed matrices, channels-last convolutions, columns of a larger matrix. A
//! piece of such a tensor is cut into boxes (products of index ranges), and each box is walked in the order of the
//! *file*, through a window, so that the disk is read forwards and a dense box is read once.

use super::limits::GATHER_WINDOW_BYTES;
use crate::error::Result;
use std::ops::Range;

/// Runs at least this long go straight into the output, past the window.
const DIRECT_BYTES: usize = 64 << 10;
/// One read of this many bytes costs about as much as a read of a few.
const SHORT_BYTES: usize = 4 << 10;

/// A strided view: `shape[k]` steps of `strides[k]` elements of `size` bytes, from `offset` bytes of the file on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) offset: u64,
    pub(crate) shape: &'a [usize],
    pub(crate) strides: &'a [usize],
    pub(crate) size: usize,
}

/// Fills `out` with the view's row-major bytes from `byte_offset` on, reading the file by `read(offset, bytes)`.
/// The caller has checked that the view lies in the file and the piece in the view.
pub(crate) fn gather(
    view: View,
    byte_offset: u64,
    out: &mut [u8],
    read: &mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
) -> Result<()> {
    if out.is_empty() {
        return Ok(());
    }
    let size = view.size;
    let (skip, tail) = ((byte_offset % size as u64) as usize, out.len());
    let first = (byte_offset / size as u64) as usize;
    let end = first + (skip + tail).div_ceil(size);
    if skip != 0 || tail % size != 0 {
        // Cuts through an element: gather whole elements and keep the middle. Rare, so it may copy.
        let mut whole = vec![0; (end - first) * size];
        gather(view, first as u64 * size as u64, &mut whole, read)?;
        out.copy_from_slice(&whole[skip..skip + tail]);
        return Ok(());
    }
    let mut window = Window { bytes: Vec::new(), begin: 0, read };
    let mut boxes = Vec::new();
    let mut prefix = Vec::with_capacity(view.shape.len());
    cut_into_boxes(view.shape, first..end, &mut prefix, &mut boxes);
    for ranges in &boxes {
        gather_box(view, ranges, first, out, &mut window)?;
    }
    Ok(())
}

/// Cuts the flat row-major range of elements into boxes: at most two partial ones for each dimension and a full one.
fn cut_into_boxes(
    shape: &[usize],
    flat: Range<usize>,
    prefix: &mut Vec<Range<usize>>,
    boxes: &mut Vec<Vec<Range<usize>>>,
) {
    if flat.is_empty() {
        return;
    }
    let depth = prefix.len();
    if depth == shape.len() {
        boxes.push(prefix.clone());
        return;
    }
    let inner: usize = shape[depth + 1..].iter().product();
    let mut with = |range: Range<usize>, rest: Range<usize>| {
        prefix.push(range);
        cut_into_boxes(shape, rest, prefix, boxes);
        prefix.pop();
    };
    let (first, last) = (flat.start / inner, (flat.end - 1) / inner);
    if first == last {
        return with(first..first + 1, flat.start - first * inner..flat.end - first * inner);
    }
    let full_from = flat.start.div_ceil(inner);
    let full_to = flat.end / inner;
    if full_from > first {
        with(first..first + 1, flat.start - first * inner..inner);
    }
    if full_from < full_to {
        with(full_from..full_to, 0..inner);
    }
    if full_to == last {
        with(last..last + 1, 0..flat.end - last * inner);
    }
}

/// One dimension of a box: how many steps, and how far a step goes in the file and in the output.
#[derive(Clone, Copy)]
struct Axis {
    n: usize,
    source_step: usize,
    out_step: usize,
}

/// Copies one box. `first` is the flat element at which `out` begins.
fn gather_box(view: View, ranges: &[Range<usize>], first: usize, out: &mut [u8], window: &mut Window) -> Result<()> {
    let size = view.size;
    let mut axes = Vec::with_capacity(ranges.len());
    let (mut source, mut target, mut out_step) = (0usize, 0usize, 1usize);
    for k in (0..ranges.len()).rev() {
        source += ranges[k].start * view.strides[k];
        target += ranges[k].start * out_step;
        if ranges[k].len() > 1 {
            axes.push(Axis { n: ranges[k].len(), source_step: view.strides[k], out_step });
        }
        out_step *= view.shape[k];
    }
    // The file's order: long steps outside, short steps inside.
    axes.sort_by_key(|axis| std::cmp::Reverse(axis.source_step));

    // Elements that lie side by side in both are copied as one run.
    let mut run = 1;
    while let Some(axis) = axes.last() {
        if axis.source_step != run || axis.out_step != run {
            break;
        }
        run *= axis.n;
        axes.pop();
    }

    // The innermost axes that together cover at least a quarter of the span they lie in, or lie in a short span, are
    // read through the window; axes outside them jump, and reading what lies between the jumps would be waste.
    let (mut n_dense, mut span, mut n_elements) = (0, run, run);
    for axis in axes.iter().rev() {
        let wider = span + (axis.n - 1) * axis.source_step;
        let more = n_elements * axis.n;
        if wider / 4 > more && wider * size > SHORT_BYTES {
            break;
        }
        (n_dense, span, n_elements) = (n_dense + 1, wider, more);
    }
    let n_jumps = axes.len() - n_dense;

    // The innermost axis is copied in steps that fit into the window.
    let inner = axes.pop().unwrap_or(Axis { n: 1, source_step: 0, out_step: 0 });
    let n_per_copy = match inner.source_step {
        _ if n_dense == 0 || run * size >= DIRECT_BYTES => 1,
        0 => inner.n,
        step => (GATHER_WINDOW_BYTES / size).saturating_sub(run) / step + 1,
    };
    let bytes_of = |axis: Axis| Axis { source_step: axis.source_step * size, out_step: axis.out_step * size, ..axis };

    let mut index = vec![0usize; axes.len()];
    let (mut at, mut to, mut dense_begin) = (source, target - first, source);
    loop {
        let mut n_copied = 0;
        while n_copied < inner.n {
            let n = n_per_copy.min(inner.n - n_copied);
            let from = at + n_copied * inner.source_step;
            // Where the innermost axis jumps, every run is a dense block of its own.
            let dense_end = if n_dense == 0 { from + run } else { dense_begin + span };
            let out = &mut out[(to + n_copied * inner.out_step) * size..];
            let copy = bytes_of(Axis { n, ..inner });
            window.copy(
                view.offset + (from * size) as u64,
                view.offset + (dense_end * size) as u64,
                run * size,
                copy,
                out,
            )?;
            n_copied += n;
        }
        // One step of the odometer, innermost axis first.
        let mut k = axes.len();
        loop {
            if k == 0 {
                return Ok(());
            }
            k -= 1;
            let axis = axes[k];
            index[k] += 1;
            at += axis.source_step;
            to += axis.out_step;
            if index[k] < axis.n {
                break;
            }
            index[k] = 0;
            at -= axis.n * axis.source_step;
            to -= axis.n * axis.out_step;
        }
        if k < n_jumps {
            dense_begin = at;
        }
    }
}

/// The part of the file that was read last.
struct Window<'a> {
    bytes: Vec<u8>,
    begin: u64,
    read: &'a mut dyn FnMut(u64, &mut [u8]) -> Result<()>,
}

impl Window<'_> {
    /// Copies the runs of `run` bytes that lie along `axis` (steps in bytes) from `offset` on to the front of `out`.
    /// What is read ahead ends at `dense_end`.
    fn copy(&mut self, offset: u64, dense_end: u64, run: usize, axis: Axis, out: &mut [u8]) -> Result<()> {
        let span = (axis.n - 1) * axis.source_step + run;
        if axis.n == 1 && run >= DIRECT_BYTES {
            return (self.read)(offset, &mut out[..run]);
        }
        let end = self.begin + self.bytes.len() as u64;
        if offset < self.begin || offset + span as u64 > end {
            let ahead = dense_end.saturating_sub(offset).min(GATHER_WINDOW_BYTES as u64) as usize;
            self.begin = offset;
            self.bytes.resize(ahead.max(span), 0);
            let filled = (self.read)(offset, &mut self.bytes);
            if filled.is_err() {
                self.bytes.clear();
            }
            filled?;
        }
        let source = &self.bytes[(offset - self.begin) as usize..];
        match run {
            1 => copy_runs::<1>(source, axis, out),
            2 => copy_runs::<2>(source, axis, out),
            4 => copy_runs::<4>(source, axis, out),
            8 => copy_runs::<8>(source, axis, out),
            _ => {
                for k in 0..axis.n {
                    let (from, to) = (k * axis.source_step, k * axis.out_step);
                    out[to..to + run].copy_from_slice(&source[from..from + run]);
                }
            }
        }
        Ok(())
    }
}

/// Single elements, of a size that the compiler knows.
fn copy_runs<const SIZE: usize>(source: &[u8], axis: Axis, out: &mut [u8]) {
    for k in 0..axis.n {
        let (from, to) = (k * axis.source_step, k * axis.out_step);
        let mut element = [0; SIZE];
        element.copy_from_slice(&source[from..from + SIZE]);
        out[to..to + SIZE].copy_from_slice(&element);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Element by element, as the definition says.
    fn expected(view: View, file: &[u8]) -> Vec<u8> {
        let n: usize = view.shape.iter().product();
        let mut out = Vec::new();
        for flat in 0..n {
            let (mut rest, mut at) = (flat, 0);
            for k in (0..view.shape.len()).rev() {
                at += rest % view.shape[k] * view.strides[k];
                rest /= view.shape[k];
            }
            let begin = view.offset as usize + at * view.size;
            out.extend_from_slice(&file[begin..begin + view.size]);
        }
        out
    }

    fn check(shape: &[usize], strides: &[usize], size: usize, n_reads: usize) {
        let span: usize = 1 + shape.iter().zip(strides).map(|(n, step)| (n - 1) * step).sum::<usize>();
        let offset = 3;
        let file: Vec<u8> = (0..offset + span * size).map(|i| (i * 31 % 251) as u8).collect();
        let view = View { offset: offset as u64, shape, strides, size };
        let expected = expected(view, &file);
        let piece = |begin: usize, end: usize| {
            let mut n_reads = 0;
            let mut out = vec![0; end - begin];
            gather(view, begin as u64, &mut out, &mut |at, bytes| {
                n_reads += 1;
                bytes.copy_from_slice(&file[at as usize..at as usize + bytes.len()]);
                Ok(())
            })
            .unwrap();
            assert_eq!(out, expected[begin..end], "{shape:?} {strides:?} bytes {begin}..{end}");
            n_reads
        };
        assert_eq!(piece(0, expected.len()), n_reads, "{shape:?} {strides:?}");
        let n_bytes = expected.len();
        for (begin, end) in [(0, 0), (size, n_bytes), (n_bytes / 3, n_bytes / 2), (1, n_bytes.max(2) - 1)] {
            piece(begin.min(end), end);
        }
    }

    #[test]
    fn gathers_any_strides_in_few_reads() {
        check(&[], &[], 4, 1);
        check(&[7], &[1], 4, 1);
        check(&[7], &[3], 2, 1);
        // Transposed, expanded, channels last, every other column, a dimension of one.
        check(&[30, 20], &[1, 30], 4, 1);
        check(&[5, 6], &[0, 1], 8, 1);
        check(&[8, 3, 5, 5], &[75, 1, 15, 3], 4, 1);
        check(&[40, 6], &[12, 2], 4, 1);
        check(&[4, 1, 9], &[9, 77, 1], 4, 1);
        // Rows far apart: one read for each, and nothing of what lies between.
        check(&[10, 8], &[10_000, 1], 4, 10);
        // Larger than the window.
        check(&[600, 1000], &[1, 600], 4, 3);
    }

    #[test]
    fn long_rows_bypass_the_window() {
        check(&[3, 40_000], &[50_000, 1], 4, 3);
    }
}
