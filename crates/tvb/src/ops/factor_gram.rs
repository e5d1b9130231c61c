//! The Gram matrix of tensors that every task knows by two factors, in f64 and without forming a row.
//!
//! ⟨s₁L₁R₁, s₂L₂R₂⟩ = Σ (L₁ᵀL₂ ∘ R₁R₂ᵀ)·s₁s₂. With all tasks' factors stacked, L \[n, R\] and R \[R, m\], the products
//! H = LᵀL ∘ RRᵀ are summed over the blocks of each pair of tasks. H is formed a tile at a time: pairs of groups of at most
//! [`TILE`] columns of the stack, one triangle of them, each over [`SLAB`] rows after another. A tile depends on the factors
//! alone, and tiles are folded in order, so the bits do not depend on threads or memory.

use crate::checkpoint::{LowRank, Place, Tensor};
use crate::columns::plan::{Plan, PlannedTensor};
use crate::digest::{BLOCK_ROWS, Digest, TableOfDigests, TensorDigests, of_factors, of_unmoved, of_unread};
use crate::error::{Error, Result};
use crate::pass::Runtime;
use crate::progress::Progress;
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, MatMut, MatRef, Par};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tvb_kernels::triangle_len;

/// Columns of the stack that one side of a tile has at most.
const TILE: usize = 512;
/// Rows of a factor that are multiplied at once.
const SLAB: usize = 1024;
/// Bytes that a tile takes at most.
pub(super) const MOST_TILE_BYTES: u64 = 16 * (TILE * TILE + TILE * SLAB) as u64;
/// Multiplications and additions of some milliseconds.
const QUICK: u128 = 1 << 28;

/// For each tensor of a plan, whether its Gram matrix is formed from factors: where every task has factors, or does not move
/// it, and forming the rows would cost more.
pub(super) fn by_factors(plan: &Plan) -> Vec<bool> {
    let n_tasks = plan.tasks.len() as u64;
    let chosen = plan.tensors.iter().map(|planned| {
        let is_known = |tensor: &Tensor| tensor.is_delta() && !matches!(tensor.place, Place::Difference { .. });
        let are_deltas = (1..plan.n_columns()).all(|column| is_known(plan.column_tensor(planned, column)));
        let mut factors = factors_of(plan, planned).map(|(_, factors)| factors);
        let Some(first) = factors.next().filter(|_| are_deltas) else { return are_deltas };
        let sides = |factors: &LowRank| [factors.n_rows(), factors.n_columns()];
        let mut ranks = first.rank() as u64;
        let are_alike = factors.all(|factors| {
            ranks += factors.rank() as u64;
            sides(factors) == sides(first)
        });
        are_alike && is_cheaper(sides(first).map(|side| side as u64), ranks, n_tasks)
    });
    chosen.collect()
}

/// Two products of one triangle each in f64, (n + m)·R² in all, against forming rows in f32, 2nm·R, and one triangle of their
/// products, nm·T². f32 is twice as fast. Where either is quick, the exact one is taken, which reads no base.
fn is_cheaper([n, m]: [u64; 2], ranks: u64, n_tasks: u64) -> bool {
    let [n, m, ranks, n_tasks] = [n, m, ranks, n_tasks].map(u128::from);
    let (own, dense) = ((n + m) * ranks * ranks, n * m * (2 * ranks + n_tasks * n_tasks));
    own <= QUICK || 2 * own <= dense
}

/// The tasks that have factors of a tensor.
fn factors_of<'a>(plan: &'a Plan, planned: &'a PlannedTensor) -> impl Iterator<Item = (usize, &'a LowRank)> {
    (0..plan.tasks.len()).filter_map(move |task| match &plan.column_tensor(planned, task + 1).place {
        Place::LowRank(factors) => Some((task, factors)),
        _ => None,
    })
}

/// Some columns of one task's left factor, and as many rows of its right one.
#[derive(Clone, Copy, Debug)]
struct Piece<'a> {
    task: usize,
    factors: &'a LowRank,
    first: usize,
    width: usize,
}

/// One side of a tile: pieces of consecutive tasks.
#[derive(Debug, Default)]
struct Group<'a> {
    pieces: Vec<Piece<'a>>,
    width: usize,
}

/// Cuts the stack into groups, where tasks end if that fits.
fn groups<'a>(factors: impl Iterator<Item = (usize, &'a LowRank)>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (task, factors) in factors {
        let rank = factors.rank();
        for first in (0..rank).step_by(TILE) {
            let width = (rank - first).min(TILE);
            let piece = Piece { task, factors, first, width };
            match groups.last_mut().filter(|group| group.width + width <= TILE) {
                Some(group) => {
                    group.pieces.push(piece);
                    group.width += width;
                }
                None => groups.push(Group { pieces: vec![piece], width }),
            }
        }
    }
    groups
}

impl Group<'_> {
    /// Rows of the scaled left factors, \[rows, width\].
    fn pack_left(&self, rows: Range<usize>, out: &mut [f64]) {
        let mut at = 0;
        for piece in &self.pieces {
            let (rank, scale) = (piece.factors.rank(), piece.factors.scale());
            let left = piece.factors.left(rows.clone());
            for (from, to) in left.chunks_exact(rank).zip(out.chunks_exact_mut(self.width)) {
                let (from, to) = (&from[piece.first..][..piece.width], &mut to[at..][..piece.width]);
                to.iter_mut().zip(from).for_each(|(to, from)| *to = f64::from(*from) * scale);
            }
            at += piece.width;
        }
    }

    /// Columns of the right factors, \[width, columns\].
    fn pack_right(&self, columns: Range<usize>, out: &mut [f64]) {
        let mut rows = out.chunks_exact_mut(columns.len());
        for piece in &self.pieces {
            let n_columns = piece.factors.n_columns();
            let right = &piece.factors.right()[piece.first * n_columns..][..piece.width * n_columns];
            for (from, to) in right.chunks_exact(n_columns).zip(rows.by_ref()) {
                to.iter_mut().zip(&from[columns.clone()]).for_each(|(to, from)| *to = f64::from(*from));
            }
        }
    }
}

/// A worker's memory.
#[derive(Debug, Default)]
struct Buffers {
    packed: [Vec<f64>; 2],
    /// LᵀL and RRᵀ of a tile.
    products: [Vec<f64>; 2],
}

fn at_least(buffer: &mut Vec<f64>, len: usize) -> &mut [f64] {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
    &mut buffer[..len]
}

/// One tile of a tensor: two groups, the second no later than the first.
#[derive(Clone, Copy, Debug)]
struct Tile {
    tensor: usize,
    rows: usize,
    columns: usize,
    /// Of the progress.
    n_bytes: u64,
}

/// A sum for two tasks: the first is not the earlier one.
type PairSum = (usize, usize, f64);

impl Buffers {
    /// The sums of a tile for each pair of tasks.
    fn tile(&mut self, rows: &Group<'_>, columns: &Group<'_>, is_diagonal: bool) -> Vec<PairSum> {
        let Some(first) = rows.pieces.first() else { return Vec::new() };
        let (n, m) = (first.factors.n_rows(), first.factors.n_columns());
        let Buffers { packed: [own, other], products: [left, right] } = self;
        let (width, height) = (columns.width, rows.width);
        for (right, len, product) in [(false, n, &mut *left), (true, m, &mut *right)] {
            let product = at_least(product, width * height);
            if len == 0 {
                product.fill(0.0);
            }
            for start in (0..len).step_by(SLAB) {
                let range = start..(start + SLAB).min(len);
                let pack = |group: &Group<'_>, buffer: &mut Vec<f64>| {
                    let out = at_least(buffer, range.len() * group.width);
                    if right { group.pack_right(range.clone(), out) } else { group.pack_left(range.clone(), out) }
                };
                pack(rows, own);
                if !is_diagonal {
                    pack(columns, other);
                }
                let accum = if start == 0 { Accum::Replace } else { Accum::Add };
                let lhs = side(own, range.len(), height, right);
                let rhs = if is_diagonal { lhs } else { side(other, range.len(), width, right) };
                let out = MatMut::from_row_major_slice_mut(&mut *product, height, width);
                if is_diagonal {
                    let whole = BlockStructure::Rectangular;
                    let lower = BlockStructure::TriangularLower;
                    triangular::matmul(out, lower, accum, lhs, whole, rhs.transpose(), whole, 1.0, Par::Seq);
                } else {
                    matmul(out, accum, lhs, rhs.transpose(), 1.0, Par::Seq);
                }
            }
        }
        sums(rows, columns, is_diagonal, [left, right])
    }
}

/// Packed factors as \[width, slab\].
fn side(packed: &[f64], n_slab: usize, width: usize, right: bool) -> MatRef<'_, f64> {
    let packed = &packed[..n_slab * width];
    if right {
        MatRef::from_row_major_slice(packed, width, n_slab)
    } else {
        MatRef::from_column_major_slice(packed, width, n_slab)
    }
}

/// Adds up a tile's elementwise products over the blocks of each pair of tasks.
fn sums(rows: &Group<'_>, columns: &Group<'_>, is_diagonal: bool, products: [&Vec<f64>; 2]) -> Vec<PairSum> {
    let [left, right] = products;
    let mut sums = Vec::with_capacity(rows.pieces.len() * columns.pieces.len());
    let mut first_row = 0;
    for row in &rows.pieces {
        let mut first_column = 0;
        for column in &columns.pieces {
            if is_diagonal && first_column > first_row {
                break;
            }
            let is_same = row.task == column.task;
            // Of one piece with itself one triangle is there; of two pieces of one task, one of two blocks.
            let is_triangle = is_diagonal && first_row == first_column;
            let mut sum = 0.0;
            for a in 0..row.width {
                let at = (first_row + a) * columns.width + first_column;
                let width = if is_triangle { a } else { column.width };
                let of = |product: &[f64]| -> f64 { product[at + a] };
                let dot: f64 = left[at..][..width].iter().zip(&right[at..][..width]).map(|(l, r)| l * r).sum();
                sum += match (is_triangle, is_same) {
                    (true, _) => 2.0 * dot + of(left) * of(right),
                    (false, true) => 2.0 * dot,
                    (false, false) => dot,
                };
            }
            sums.push((row.task, column.task, sum));
            first_column += column.width;
        }
        first_row += row.width;
    }
    sums
}

/// What has been folded, and what waits for its turn.
struct Folding<'a> {
    next: usize,
    waiting: BTreeMap<usize, Vec<PairSum>>,
    add: &'a mut (dyn FnMut(usize, &[PairSum]) + Send),
    failed: Option<Error>,
}

/// Hands out the Gram matrices of the tensors for which `chosen` is true, \[T(T+1)/2\], in order; not those that nobody moves.
/// Rows of tasks before `first` are zeros: only the tiles in which a later task is are formed, and these are cut as those of all.
///
/// # Errors
/// Usage: a memory cap that leaves no room for a tile. Interrupted.
pub(super) fn factor_grams(
    plan: &Plan,
    chosen: &[bool],
    first: usize,
    runtime: &Runtime,
    progress: &dyn Progress,
    mut each: impl FnMut(usize, &[f64]) + Send,
) -> Result<()> {
    let stacks: Vec<Vec<Group<'_>>> = plan
        .tensors
        .iter()
        .zip(chosen)
        .map(|(planned, chosen)| if *chosen { groups(factors_of(plan, planned)) } else { Vec::new() })
        .collect();
    let mut tiles = Vec::new();
    let mut widest = [0, 0];
    let mut n_tiles = Vec::with_capacity(stacks.len());
    for (tensor, groups) in stacks.iter().enumerate() {
        let is_asked = |group: &Group<'_>| group.pieces.last().is_some_and(|piece| piece.task >= first);
        let first_rows = groups.iter().position(is_asked).unwrap_or(groups.len());
        let pairs: usize = (first_rows..groups.len()).map(|rows| rows + 1).sum();
        n_tiles.push(pairs);
        let n_bytes = factor_bytes(groups) / pairs.max(1) as u64;
        for rows in first_rows..groups.len() {
            tiles.extend((0..=rows).map(|columns| Tile { tensor, rows, columns, n_bytes }));
        }
        for group in groups {
            let sides = group.pieces.first().map_or(0, |piece| piece.factors.n_rows().max(piece.factors.n_columns()));
            widest = [widest[0].max(group.width), widest[1].max(sides.min(SLAB))];
        }
    }
    let [width, slab] = widest;
    let worker_bytes = 8 * 2 * (width * width + width * slab) as u64;
    runtime.check_memory(worker_bytes, "a tile of the factors")?;
    let n_threads = runtime.n_affordable(worker_bytes, runtime.n_threads.min(tiles.len()));
    progress.begin("gram of factors", stacks.iter().map(|groups| factor_bytes(groups)).sum());
    let len = triangle_len(plan.tasks.len());
    let (mut triangle, mut n_left) = (vec![0.0; len], 0);
    let mut add = |tensor: usize, found: &[PairSum]| {
        if n_left == 0 {
            triangle.fill(0.0);
            n_left = n_tiles[tensor];
        }
        let asked = found.iter().filter(|(row, ..)| *row >= first);
        asked.for_each(|&(row, column, sum)| triangle[triangle_len(row) + column] += sum);
        n_left -= 1;
        if n_left == 0 {
            each(tensor, &triangle);
        }
    };
    let taken = AtomicUsize::new(0);
    let folding = Mutex::new(Folding { next: 0, waiting: BTreeMap::new(), add: &mut add, failed: None });
    let work = || {
        let mut buffers = Buffers::default();
        loop {
            let number = taken.fetch_add(1, Ordering::Relaxed);
            let Some(tile) = tiles.get(number) else { return };
            let groups = &stacks[tile.tensor];
            let found = progress
                .check()
                .map(|()| buffers.tile(&groups[tile.rows], &groups[tile.columns], tile.rows == tile.columns));
            let mut folding = folding.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match found {
                Ok(found) => folding.waiting.insert(number, found),
                Err(error) => {
                    folding.failed = Some(error);
                    return;
                }
            };
            while let Some(found) = {
                let next = folding.next;
                folding.waiting.remove(&next)
            } {
                let tensor = tiles[folding.next].tensor;
                (folding.add)(tensor, &found);
                folding.next += 1;
            }
            drop(folding);
            progress.advance(tile.n_bytes);
        }
    };
    std::thread::scope(|scope| {
        (1..n_threads).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    progress.finish();
    let folding = folding.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    folding.failed.map_or(Ok(()), Err)
}

fn factor_bytes(groups: &[Group<'_>]) -> u64 {
    let pieces = groups.iter().flat_map(|group| &group.pieces);
    pieces.map(|piece| 4 * (piece.width * (piece.factors.n_rows() + piece.factors.n_columns())) as u64).sum()
}

/// The digests of a tensor in every column, as a pass over its rows would take them; its base is not read.
pub(super) fn digests_of(plan: &Plan, tensor: usize) -> Vec<Digest> {
    let planned = &plan.tensors[tensor];
    let mut digests = TensorDigests::new(plan.tasks.len());
    let mut row = vec![Digest::default(); plan.tasks.len()];
    for first_row in (0..planned.n_rows).step_by(BLOCK_ROWS) {
        let n_rows = (planned.n_rows - first_row).min(BLOCK_ROWS);
        for (task, digest) in row.iter_mut().enumerate() {
            *digest = match &plan.column_tensor(planned, task + 1).place {
                Place::LowRank(factors) => of_factors(factors, first_row, n_rows),
                _ => of_unmoved(n_rows),
            };
        }
        digests.push(0, &row);
    }
    std::iter::once(of_unread()).chain(digests.finish(1).digests).collect()
}

/// The digests of all tensors, where those of the tensors that were read are known.
pub(super) fn with_digests(
    n_columns: usize,
    chosen: &[bool],
    read: &TableOfDigests,
    mut of_chosen: impl FnMut(usize) -> Vec<Digest>,
) -> TableOfDigests {
    let mut rows = read.digests.chunks_exact(n_columns);
    let mut digests = Vec::with_capacity(chosen.len() * n_columns);
    for (tensor, chosen) in chosen.iter().enumerate() {
        match chosen {
            true => digests.extend(of_chosen(tensor)),
            false => digests.extend_from_slice(rows.next().unwrap_or_default()),
        }
    }
    TableOfDigests { n_columns, digests }
}
