//! The solvers: what callers rely on, what holds for every method, the reference's figures, and their times.

mod cases;
mod coding;
mod interface;
mod properties;
mod reference;
mod times;
