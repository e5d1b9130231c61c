//! Whole jobs on the CPU, from files to files: bytes per second of input.
//!
//! Eight f32 fine-tunes of 5 M parameters, in the page cache; small ones where the benches only run as a test.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::path::{Path, PathBuf};
use tvb::checkpoint::{Checkpoint, Existing};
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::edit::{Edit, EditJob, EditOutput, Source};
use tvb::pass::Runtime;
use tvb::progress::Silent;
use tvb_benches::{Shapes, make_inputs};

const N_TASKS: usize = 8;

/// `cargo bench` says that it is one; `cargo test` runs each bench once.
fn is_measured() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}

fn open(paths: &[PathBuf]) -> Plan {
    let open = |path: &PathBuf| Checkpoint::open(path).expect("a checkpoint that was just written");
    let tasks = paths[1..].iter().enumerate();
    let tasks = tasks.map(|(task, path)| Task { name: format!("task{task}"), checkpoint: open(path) }).collect();
    Plan::new(open(&paths[0]), tasks, &Selection::default()).expect("checkpoints that fit")
}

fn add_up(source: Source<'_>, base: &Checkpoint, target: &Path, runtime: &Runtime) {
    let edit = Edit::new(vec![1.0; N_TASKS], 0.3);
    let output = EditOutput::new(target).existing(Existing::Replace);
    EditJob { source, edit: &edit, base: Some(base), output: &output }
        .write(runtime, &Silent)
        .expect("an edited model");
}

fn jobs(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let n_parameters = if is_measured() { 5_000_000 } else { 20_000 };
    let paths = make_inputs(folder.path(), N_TASKS, n_parameters, false, Shapes::Vit).expect("inputs");
    let plan = open(&paths);
    let n_threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let runtime = Runtime::on_cpu(n_threads, 512 << 20);

    let mut group = criterion.benchmark_group("end_to_end");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(plan.n_bytes()));
    group.bench_function("gram", |bencher| {
        bencher.iter(|| tvb::ops::gram::gram(&plan, &runtime, &Silent).expect("a Gram matrix"));
    });
    // Removing what the last run wrote is not this one's work.
    let basis_folder = folder.path().join("basis");
    let without = |path: &Path| {
        if path.is_dir() {
            std::fs::remove_dir_all(path).expect("a folder of ours");
        }
    };
    group.bench_function("compress", |bencher| {
        let make = |()| {
            compress(&plan, &CompressOptions::mixtures(&basis_folder), &runtime, &Silent).expect("a basis");
        };
        bencher.iter_batched(|| without(&basis_folder), make, BatchSize::PerIteration);
    });
    let target = folder.path().join("edited.safetensors");
    group.bench_function("add, from checkpoints", |bencher| {
        bencher.iter(|| add_up(Source::Checkpoints(&plan), &plan.base, &target, &runtime));
    });
    without(&basis_folder);
    let basis = compress(&plan, &CompressOptions::mixtures(&basis_folder), &runtime, &Silent).expect("a basis").basis;
    let atoms: u64 = basis.manifest.atoms.iter().map(|atom| atom.bytes).sum();
    group.throughput(Throughput::Bytes(atoms + plan.n_bytes() / (N_TASKS as u64 + 1)));
    group.bench_function("add, from the basis", |bencher| {
        bencher.iter(|| add_up(Source::Basis(&basis), &plan.base, &target, &runtime));
    });
    group.finish();
}

criterion_group!(benches, jobs);
criterion_main!(benches);
