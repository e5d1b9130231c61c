//! Tasks that join mixtures whose originals are gone: the paper's online setting. What is there are the stored atoms S and the newcomers
//! X, side by side U = \[S, X\], whose inner products are known exactly. Each task is known by its approximation U·a; an old one has
//! more, the rest r, of which only the length is known. The method that made the basis solves for the approximations.
//!
//! Where S = VB and the Gram matrix G of the old tasks is exact, the best approximation of an old task by the atoms is too, and its rest
//! is orthogonal to all atoms. That is all that can be said of it: ⟨r, x⟩ is unknown, at most ‖r‖ times the length of what of x is
//! orthogonal to the atoms too, and taken for zero. An estimate like that is off to one side, not by noise: fine-tunes share
//! directions, and what the atoms lost of an old task is likely to be there in a new one.
//!
//! Once an entry of G is an estimate, the atoms' products with the tasks are none that are known. The approximation is what the
//! basis gives back, S·W, then, and its rest is as long as the bound of the task's error says, in any direction.

use super::weights::solve_normal;
use super::{Coefficients, linear};
use crate::error::{Error, Result};
use crate::matrix::Matrix;

/// What is known of a basis that tasks join.
#[derive(Clone, Copy, Debug)]
pub struct Old<'a> {
    /// G, \[T, T\].
    pub gram: &'a Matrix,
    /// B, \[T, M\].
    pub encode: &'a Matrix,
    /// W, \[M, T\].
    pub decode: &'a Matrix,
}

/// Old tasks and newcomers as they are known: approximations in the span of atoms and newcomers.
#[derive(Clone, Debug)]
pub struct Joining {
    /// UᵀU, \[M + n, M + n\].
    columns: Matrix,
    /// B, \[T, M\].
    encode: Matrix,
    /// a of every task in its column, \[M + n, T + n\].
    known: Matrix,
    /// \[T + n\]: ‖r‖, as it is to be expected; 0 of newcomers.
    rest: Vec<f64>,
    /// \[T + n\]: what it is no longer than.
    longest: Vec<f64>,
    /// What every r is orthogonal to.
    beside: Beside,
}

/// What the rests of tasks are orthogonal to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    /// Nothing that is known.
    Nothing,
    /// Every atom.
    Atoms,
    /// Every atom and every newcomer.
    All,
}

/// Atoms of an extended basis.
#[derive(Clone, Debug)]
pub struct JoinedAtoms {
    /// P, \[M + n, M'\]: the new atoms are U·P. Every entry is a value of f32, as the engines take it.
    pub mix: Matrix,
    /// B' and W' over the true tasks.
    pub coefficients: Coefficients,
}

/// How far a task that comes back is off, in squared units of the parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JoinedError {
    /// ‖τ̂ − τ‖² where what is unknown of it is zero.
    pub expected: f64,
    /// What it is no more than.
    pub bound: f64,
}

impl Joining {
    /// Where G is exact: `columns` are UᵀU \[M + n, M + n\], the atoms first. `rounding` \[M\] is what of each atom's length is lost
    /// at most where it is stored.
    ///
    /// # Errors
    /// Rejected: matrices that do not fit together.
    pub fn exact(columns: Matrix, old: Old<'_>, rounding: &[f64]) -> Result<Joining> {
        let n_new = check(&columns, old)?;
        let n_atoms = old.encode.n_columns();
        let atom_gram = Matrix::from_fn(n_atoms, n_atoms, |i, j| columns[(i, j)]);
        let atom_task = linear::product(old.encode.view().transpose(), old.gram.view());
        let best = Matrix::of(solve_normal(atom_gram.view(), atom_task.as_ref()));
        let rest = (0..old.gram.n_rows()).map(|t| {
            let left = old.gram[(t, t)] - linear::form(atom_gram.view(), best.column(t), best.column(t));
            left.max(0.0).sqrt()
        });
        let rest: Vec<f64> = rest.chain(vec![0.0; n_new]).collect();
        let lost = best
            .columns()
            .map(|weights| -> f64 { weights.iter().zip(rounding).map(|(weight, lost)| weight.abs() * lost).sum() });
        let lost = lost.chain(vec![0.0; n_new]);
        let longest = rest.iter().zip(lost).map(|(rest, lost)| rest + lost).collect();
        // A stored atom that is rounded is another one than V·b.
        let beside = if rounding.iter().all(|lost| *lost == 0.0) { Beside::Atoms } else { Beside::Nothing };
        let known = with_identity(&best, n_new);
        Ok(Joining { known, columns, encode: old.encode.clone(), rest, longest, beside })
    }

    /// Where entries of G are estimates: `off` \[T\] is how far each old task is off, as expected and at most.
    ///
    /// # Errors
    /// Rejected: matrices that do not fit together.
    pub fn estimated(columns: Matrix, old: Old<'_>, off: &[(f64, f64)]) -> Result<Joining> {
        let n_new = check(&columns, old)?;
        let of_new = vec![(0.0, 0.0); n_new];
        let (rest, longest) = off.iter().chain(&of_new).copied().unzip();
        let known = with_identity(old.decode, n_new);
        Ok(Joining { known, columns, encode: old.encode.clone(), rest, longest, beside: Beside::Nothing })
    }

    /// Where the Gram matrix of all tasks is there, \[T + n, T + n\]: nothing is unknown.
    ///
    /// # Errors
    /// Rejected: matrices that do not fit together.
    pub fn of_all(columns: Matrix, old: Old<'_>, all: &Matrix) -> Result<Joining> {
        let n_new = check(&columns, old)?;
        let (n_old, n_atoms) = (old.encode.n_rows(), old.encode.n_columns());
        if all.n_rows() != n_old + n_new || all.n_columns() != n_old + n_new {
            return Err(unfit());
        }
        let column_task = Matrix::from_fn(n_atoms + n_new, n_old + n_new, |i, t| match i.checked_sub(n_atoms) {
            Some(new) => all[(n_old + new, t)],
            None => old.encode.column(i).iter().enumerate().map(|(task, b)| b * all[(task, t)]).sum(),
        });
        let known = Matrix::of(solve_normal(columns.view(), column_task.view()));
        let rest = (0..n_old + n_new)
            .map(|t| (all[(t, t)] - linear::form(columns.view(), known.column(t), known.column(t))).max(0.0).sqrt());
        let rest: Vec<f64> = rest.collect();
        Ok(Joining { longest: rest.clone(), rest, known, columns, encode: old.encode.clone(), beside: Beside::All })
    }

    /// T.
    pub fn n_old(&self) -> usize {
        self.encode.n_rows()
    }

    /// M, as it was.
    pub fn n_atoms(&self) -> usize {
        self.encode.n_columns()
    }

    /// Newcomers.
    pub fn n_new(&self) -> usize {
        self.known.n_columns() - self.n_old()
    }

    /// Inner products of the approximations of all tasks, \[T + n, T + n\]: what a method solves for.
    pub fn effective(&self) -> Matrix {
        let right = linear::product(self.columns.view(), self.known.view());
        Matrix::of(linear::product(self.known.view().transpose(), right.as_ref()))
    }

    /// ⟨x, U·a⟩ of newcomers and old tasks, \[n, T\], where `columns` \[M + n, M + n\] are the inner products of U over some tensors: the
    /// estimates of their inner products.
    pub fn across(&self, columns: &Matrix) -> Matrix {
        let (n_atoms, n_new) = (self.n_atoms(), self.n_new());
        let product = |new: usize, task: usize| {
            let weights = self.known.column(task);
            weights.iter().enumerate().map(|(i, weight)| weight * columns[(n_atoms + new, i)]).sum()
        };
        Matrix::from_fn(n_new, self.n_old(), product)
    }

    /// What those estimates are no further off than, over all tensors, \[n, T\].
    pub fn bounds(&self) -> Matrix {
        let n_atoms = self.n_atoms();
        let length = |new: usize| {
            let mut weights = vec![0.0; self.columns.n_rows()];
            weights[n_atoms + new] = 1.0;
            self.length_beside(&weights)
        };
        let lengths: Vec<f64> = (0..self.n_new()).map(length).collect();
        Matrix::from_fn(self.n_new(), self.n_old(), |new, task| lengths[new] * self.longest[task])
    }

    /// ‖U·c‖, without what every rest is orthogonal to.
    fn length_beside(&self, weights: &[f64]) -> f64 {
        let n_atoms = self.n_atoms();
        match self.beside {
            Beside::Nothing => return linear::form(self.columns.view(), weights, weights).max(0.0).sqrt(),
            Beside::Atoms => {}
            Beside::All => return 0.0,
        }
        let mut own = weights.to_vec();
        own[..n_atoms].fill(0.0);
        let products = linear::times(self.columns.view(), &own);
        let right = faer::Mat::from_fn(n_atoms, 1, |i, _| products[i]);
        let atom_gram = Matrix::from_fn(n_atoms, n_atoms, |i, j| self.columns[(i, j)]);
        let along = solve_normal(atom_gram.view(), right.as_ref());
        let along: f64 = (0..n_atoms).map(|i| along[(i, 0)] * products[i]).sum();
        (linear::form(self.columns.view(), &own, &own) - along).max(0.0).sqrt()
    }

    /// The atoms that a method found for [`effective`](Self::effective), over the true tasks.
    pub fn solved(&self, found: &Coefficients) -> JoinedAtoms {
        let mix = Matrix::of(linear::product(self.known.view(), found.encode.view()));
        self.of_mix(mix, found.clone())
    }

    /// The old atoms as they are, and each newcomer as one more. `found` is what the basis has.
    pub fn appended(&self, old: &Coefficients) -> JoinedAtoms {
        let mix = Matrix::identity(self.n_atoms() + self.n_new());
        let mut coefficients = old.clone();
        coefficients.decode = with_identity(&old.decode, self.n_new());
        coefficients.n_atoms = old.n_atoms + self.n_new();
        coefficients.in_sum.extend(vec![true; self.n_new()]);
        self.of_mix(mix, coefficients)
    }

    fn of_mix(&self, mix: Matrix, mut coefficients: Coefficients) -> JoinedAtoms {
        let (n_atoms, n_old) = (self.n_atoms(), self.n_old());
        // What the engines multiply by is what B' must follow from, or it would drift from one extension to the next.
        let mix = Matrix::from_fn(mix.n_rows(), mix.n_columns(), |i, j| f64::from(mix[(i, j)] as f32));
        let of_old =
            |task: usize, atom: usize| -> f64 { (0..n_atoms).map(|m| self.encode[(task, m)] * mix[(m, atom)]).sum() };
        coefficients.encode =
            Matrix::from_fn(n_old + self.n_new(), mix.n_columns(), |task, atom| match task.checked_sub(n_old) {
                Some(new) => mix[(n_atoms + new, atom)],
                None => of_old(task, atom),
            });
        JoinedAtoms { mix, coefficients }
    }

    /// How far every task is off that comes back from these atoms, \[T + n\].
    pub fn errors(&self, atoms: &JoinedAtoms) -> Vec<JoinedError> {
        let back = linear::product(atoms.mix.view(), atoms.coefficients.decode.view());
        let error = |(task, (rest, longest)): (usize, (&f64, &f64))| {
            let known = self.known.column(task);
            let moved: Vec<f64> = known.iter().enumerate().map(|(i, known)| known - back[(i, task)]).collect();
            let squared = linear::form(self.columns.view(), &moved, &moved).max(0.0);
            let across = if *longest > 0.0 { 2.0 * longest * self.length_beside(&moved) } else { 0.0 };
            JoinedError { expected: rest * rest + squared, bound: longest * longest + squared + across }
        };
        self.rest.iter().zip(&self.longest).enumerate().map(error).collect()
    }

    /// ⟨x, x̂⟩ of every newcomer and what it comes back as, \[n\].
    pub fn newcomers_back(&self, atoms: &JoinedAtoms) -> Vec<f64> {
        let back = linear::product(atoms.mix.view(), atoms.coefficients.decode.view());
        let (n_atoms, n_old) = (self.n_atoms(), self.n_old());
        let product = |new: usize| -> f64 {
            (0..self.columns.n_rows()).map(|i| self.columns[(n_atoms + new, i)] * back[(i, n_old + new)]).sum()
        };
        (0..self.n_new()).map(product).collect()
    }
}

/// `old` \[M, T\] above and left of an identity: \[M + n, T + n\].
fn with_identity(old: &Matrix, n_new: usize) -> Matrix {
    let (n_rows, n_columns) = (old.n_rows(), old.n_columns());
    Matrix::from_fn(n_rows + n_new, n_columns + n_new, |i, j| match (i.checked_sub(n_rows), j.checked_sub(n_columns)) {
        (None, None) => old[(i, j)],
        (Some(i), Some(j)) if i == j => 1.0,
        _ => 0.0,
    })
}

fn unfit() -> Error {
    Error::rejected("inner products of atoms and newcomers expected, of others found")
}

/// How many newcomers there are.
fn check(columns: &Matrix, Old { gram, encode, decode }: Old<'_>) -> Result<usize> {
    let (n_old, n_atoms) = (encode.n_rows(), encode.n_columns());
    let is_square = columns.n_columns() == columns.n_rows() && (gram.n_rows(), gram.n_columns()) == (n_old, n_old);
    let fits = is_square && n_atoms > 0 && (decode.n_rows(), decode.n_columns()) == (n_atoms, n_old);
    columns.n_rows().checked_sub(n_atoms).filter(|_| fits).ok_or_else(unfit)
}
