//! At which orders a device gains at eigendecompositions: one matrix and a batch, beside the CPU engine.
//!
//! `cargo run --release -p tvb-kernels --example eigh_speed -- NAME`: milliseconds a matrix, best of several, on the adapter whose
//! name has NAME in it; "f32" is the device's part, "all" has the host's too, which refines to f64.

use std::time::{Duration, Instant};
use tvb_kernels::{DeviceChoice, Engine, KernelError, open};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).ok_or("a part of an adapter's name is expected")?;
    let Engine::Gpu(gpu) = open(&DeviceChoice::Name(name), None)?.engine else {
        return Err("a GPU is expected".into());
    };
    let cpu = tvb_kernels::CpuEngine::new();
    println!("{}, ms a matrix", gpu.facts());
    println!("order  batch       CPU       f32       all");
    for (n, batch) in [(8, 1), (8, 256), (20, 1), (20, 256), (64, 1), (64, 64), (65, 1), (256, 1), (512, 1)] {
        let matrices: Vec<f64> = (0..batch).flat_map(|seed| gram(n, seed)).collect();
        let mut failed = None;
        let mut each = |work: &mut dyn FnMut() -> Result<(), KernelError>| best(batch, &mut failed, work);
        let on_cpu = each(&mut || cpu.eigh(&matrices, n, batch).map(drop));
        let raw = each(&mut || gpu.raw_eigh(&matrices, n, batch).map(drop));
        let all = each(&mut || gpu.eigh(&matrices, n, batch).map(drop));
        if let Some(error) = failed {
            return Err(error.into());
        }
        println!("{n:5} {batch:6} {on_cpu:9.3} {raw:9.3} {all:9.3}");
    }
    println!("{} matrices were done on the host", gpu.n_eigh_on_host());
    Ok(())
}

/// Milliseconds a matrix: the best of what fits into a second, twice at least.
fn best(batch: usize, failed: &mut Option<KernelError>, work: &mut dyn FnMut() -> Result<(), KernelError>) -> f64 {
    let (begun, mut least, mut n_done) = (Instant::now(), f64::INFINITY, 0);
    while n_done < 2 || begun.elapsed() < Duration::from_secs(1) {
        let started = Instant::now();
        if let Err(error) = work() {
            *failed = Some(error);
            break;
        }
        least = least.min(1e3 * started.elapsed().as_secs_f64() / batch as f64);
        n_done += 1;
    }
    least
}

/// The Gram matrix of n vectors that have a part in common.
fn gram(n: usize, seed: usize) -> Vec<f64> {
    let entry =
        |x: usize, t: usize| (x as f64 * 0.3).cos() + ((13 * x + 7 * t * t + 3 * x * t + seed) as f64 * 0.37).sin();
    let columns: Vec<Vec<f64>> = (0..n).map(|t| (0..2 * n).map(|x| entry(x, t)).collect()).collect();
    let inner = |i: usize, j: usize| -> f64 { columns[i].iter().zip(&columns[j]).map(|(a, b)| a * b).sum() };
    (0..n * n).map(|at| inner(at % n, at / n)).collect()
}
