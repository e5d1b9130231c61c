//! The factors of many low-rank matrices Δ = s·L·R side by side, multiplied with a few columns from either side: all that a
//! search for shared spaces needs of them.
//!
//! Factors stay in f32 and are widened a tile at a time. A tile depends on the factors alone and is added in order, so the bits
//! do not depend on the number of threads.

use crate::error::{Error, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Columns of a stack that one tile has, where no single matrix has more.
const TILE: usize = 512;
/// Rows of a stack that are multiplied at once.
const SLAB: usize = 1024;

/// One of the matrices: Δ = `scale`·`left`·`right`.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// \[n, rank\], row-major.
    pub left: &'a [f32],
    /// \[rank, m\], row-major.
    pub right: &'a [f32],
    /// Columns of `left` and rows of `right`.
    pub rank: usize,
    /// s; finite.
    pub scale: f64,
    /// How much it counts: the search maximises Σ weight·‖UᵀΔVᵀ‖².
    pub weight: f64,
}

/// All matrices of one module, \[n, m\] each.
#[derive(Debug)]
pub struct Stacks<'a> {
    n: usize,
    m: usize,
    members: &'a [Member<'a>],
    /// Where each member's columns begin in the stack; one more for the end.
    firsts: Vec<usize>,
    /// Members of each tile.
    tiles: Vec<Range<usize>>,
    n_threads: usize,
}

/// Which factor is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// L, n long.
    Left,
    /// Rᵀ, m long.
    Right,
}

impl<'a> Stacks<'a> {
    /// # Errors
    /// Rejected: factors of other sizes than \[n, rank\] and \[rank, m\].
    pub fn new(n: usize, m: usize, members: &'a [Member<'a>], n_threads: usize) -> Result<Stacks<'a>> {
        let mut firsts = vec![0];
        let mut tiles: Vec<Range<usize>> = Vec::new();
        let mut width = 0;
        for (number, member) in members.iter().enumerate() {
            let (left, right, rank) = (member.left.len(), member.right.len(), member.rank);
            if left != n * rank || right != rank * m || rank == 0 {
                return Err(Error::rejected(format!(
                    "factors of [{n}, {rank}] and [{rank}, {m}] expected, {left} and {right} numbers found"
                )));
            }
            firsts.push(firsts[number] + rank);
            match tiles.last_mut().filter(|_| width + rank <= TILE) {
                Some(tile) => {
                    tile.end += 1;
                    width += rank;
                }
                None => {
                    tiles.push(number..number + 1);
                    width = rank;
                }
            }
        }
        Ok(Stacks { n, m, members, firsts, tiles, n_threads: n_threads.max(1) })
    }

    /// Bytes that a search for spaces of rank `rank` takes beside the factors.
    pub fn bytes(n: usize, m: usize, stacked_rank: usize, widest: usize, rank: usize, n_threads: usize) -> u64 {
        let [n, m, stacked, widest, rank, n_threads] =
            [n, m, stacked_rank, widest, rank, n_threads].map(|number| number as u64);
        let tile = SLAB as u64 * widest.max(TILE as u64);
        // Dots of both sides and of a doubled one; sides, doubled and their reflectors; small Grams; a tile for each thread.
        8 * (8 * stacked * rank + 10 * n.max(m) * rank + 4 * stacked * widest + 2 * n_threads * tile)
    }

    pub(super) fn members(&self) -> &'a [Member<'a>] {
        self.members
    }

    pub(super) fn len(&self, which: Which) -> usize {
        match which {
            Which::Left => self.n,
            Which::Right => self.m,
        }
    }

    pub(super) fn stacked_rank(&self) -> usize {
        self.firsts.last().copied().unwrap_or(0)
    }

    /// A member's columns of the stack.
    pub(super) fn columns(&self, member: usize) -> Range<usize> {
        self.firsts[member]..self.firsts[member + 1]
    }

    /// Rows of one tile of a stack, \[rows, width\].
    fn tile(&self, which: Which, members: &Range<usize>, rows: &Range<usize>) -> Mat<f64> {
        let first = self.firsts[members.start];
        let mut out = Mat::zeros(rows.len(), self.firsts[members.end] - first);
        for (member, at) in self.members[members.clone()].iter().zip(&self.firsts[members.start..]) {
            for k in 0..member.rank {
                let to = out.col_as_slice_mut(at - first + k);
                match which {
                    Which::Left => {
                        let from = member.left[rows.start * member.rank..rows.end * member.rank].iter();
                        let from = from.skip(k).step_by(member.rank);
                        to.iter_mut().zip(from).for_each(|(to, from)| *to = f64::from(*from));
                    }
                    Which::Right => {
                        let from = &member.right[k * self.m..][rows.clone()];
                        to.iter_mut().zip(from).for_each(|(to, from)| *to = f64::from(*from));
                    }
                }
            }
        }
        out
    }

    fn slabs(&self, which: Which) -> Vec<Range<usize>> {
        let len = self.len(which);
        (0..len).step_by(SLAB).map(|start| start..(start + SLAB).min(len)).collect()
    }

    /// stackᵀ·x: x is \[n or m, k\], the answer \[ΣR, k\].
    pub(super) fn dots(&self, which: Which, x: MatRef<'_, f64>) -> Mat<f64> {
        let slabs = self.slabs(which);
        let parts = self.parallel(self.tiles.len(), |number| {
            let members = &self.tiles[number];
            let width = self.firsts[members.end] - self.firsts[members.start];
            let mut part = Mat::zeros(width, x.ncols());
            for rows in &slabs {
                let tile = self.tile(which, members, rows);
                let x = x.subrows(rows.start, rows.len());
                matmul(part.as_mut(), Accum::Add, tile.transpose(), x, 1.0, Par::Seq);
            }
            part
        });
        stacked(self.stacked_rank(), x.ncols(), &parts)
    }

    /// stack·w: w is \[ΣR, k\], the answer \[n or m, k\].
    pub(super) fn combine(&self, which: Which, w: MatRef<'_, f64>) -> Mat<f64> {
        let slabs = self.slabs(which);
        let parts = self.parallel(slabs.len(), |number| {
            let rows = &slabs[number];
            let mut part = Mat::zeros(rows.len(), w.ncols());
            for members in &self.tiles {
                let tile = self.tile(which, members, rows);
                let w = w.subrows(self.firsts[members.start], tile.ncols());
                matmul(part.as_mut(), Accum::Add, tile.as_ref(), w, 1.0, Par::Seq);
            }
            part
        });
        stacked(self.len(which), w.ncols(), &parts)
    }

    /// LᵀL or RRᵀ of every member, \[rank, rank\] each.
    pub(super) fn small_grams(&self, which: Which) -> Vec<Mat<f64>> {
        let slabs = self.slabs(which);
        self.parallel(self.members.len(), |number| {
            let rank = self.members[number].rank;
            let mut gram = Mat::zeros(rank, rank);
            for rows in &slabs {
                let tile = self.tile(which, &(number..number + 1), rows);
                matmul(gram.as_mut(), Accum::Add, tile.transpose(), tile.as_ref(), 1.0, Par::Seq);
            }
            gram
        })
    }

    /// `work` of every number below `n`, in order.
    pub(super) fn parallel<T: Send>(&self, n: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(n)));
        let run = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= n {
                    return;
                }
                let found = work(number);
                done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((number, found));
            }
        };
        std::thread::scope(|scope| {
            (1..self.n_threads.min(n)).for_each(|_| drop(scope.spawn(run)));
            run();
        });
        let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        done.sort_by_key(|(number, _)| *number);
        done.into_iter().map(|(_, found)| found).collect()
    }
}

/// Parts one below the other.
fn stacked(n_rows: usize, n_columns: usize, parts: &[Mat<f64>]) -> Mat<f64> {
    let mut out = Mat::zeros(n_rows, n_columns);
    let mut at = 0;
    for part in parts {
        out.subrows_mut(at, part.nrows()).copy_from(part);
        at += part.nrows();
    }
    out
}
