//! A task formed into memory beside the same task recovered to a file, and an edit added to a model in memory: seconds of wall and of
//! processor time, by turns, and what the last takes of memory beyond the model. Linux alone.
//! `cargo run --release -p tvb-benches --example in_memory -- BASIS BASE FOLDER 5`

use std::path::{Path, PathBuf};
use std::time::Instant;
use tvb::checkpoint::{Checkpoint, Dtype, Lent, LentTensor};
use tvb::jobs::edit::Edit;
use tvb::jobs::in_memory::{InMemoryOptions, apply_in_place, edit_tensors, form};
use tvb::jobs::recover::{RecoverOptions, recover};
use tvb::{Basis, FloatDtype, Runtime, Silent};

const N_THREADS: usize = 2;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [basis, base, folder, n_rounds] = args.as_slice() else { panic!("BASIS BASE FOLDER ROUNDS expected") };
    let n_rounds: usize = n_rounds.parse().expect("a number");
    let basis = Basis::open(Path::new(basis)).expect("a basis");
    let tensors = edit_tensors(&basis).expect("its tensors");
    let n_elements: usize = tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    println!("{n_elements} elements, {}", basis.in_words());
    let model = loaded(Path::new(base));
    let runtime = Runtime::on_cpu(N_THREADS, 512 << 20);
    let options = InMemoryOptions::default();
    let mut alpha = vec![0.0; basis.n_tasks()];
    alpha[0] = 1.0;
    let edit = Edit::new(alpha, 1.0);
    let apply = || {
        apply_in_place(&basis, &edit, &model, &options, &runtime, &Silent).expect("applied");
    };
    // While nothing else has taken more.
    let before = peak();
    apply();
    println!("most memory {before:.1} MB with the model, {:.1} MB more for an edit in place", peak() - before);
    let own: Vec<LentTensor> = targets(&tensors);
    for round in 0..n_rounds {
        let out = PathBuf::from(folder).join(format!("task {round}"));
        report("recover", n_elements, || {
            let options = RecoverOptions::new(vec![0], &out).dtype(Some(FloatDtype::F32));
            recover(&basis, None, &options, &runtime, &Silent).expect("recovered");
        });
        std::fs::remove_dir_all(&out).expect("removed");
        report("form, new memory", n_elements, || {
            form(&basis, &edit, &targets(&tensors), &options, &runtime, &Silent).expect("formed");
        });
        report("form, same memory", n_elements, || {
            form(&basis, &edit, &own, &options, &runtime, &Silent).expect("formed");
        });
        report("apply", n_elements, apply);
    }
}

fn targets(tensors: &[(String, Vec<usize>)]) -> Vec<LentTensor> {
    let target = |(name, shape): &(String, Vec<usize>)| {
        let bytes = Lent::owned(vec![0; 4 * shape.iter().product::<usize>()]);
        LentTensor { name: name.clone(), dtype: Dtype::F32, shape: shape.clone(), bytes }
    };
    tensors.iter().map(target).collect()
}

fn loaded(path: &Path) -> Checkpoint {
    let file = Checkpoint::open(path).expect("a base");
    let load = |tensor: &tvb::checkpoint::Tensor| {
        let mut bytes = vec![0; tensor.n_bytes() as usize];
        file.read(tensor, 0, &mut bytes).expect("read");
        LentTensor {
            name: tensor.name.clone(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            bytes: Lent::owned(bytes),
        }
    };
    Checkpoint::in_memory("model", file.tensors().iter().map(load).collect()).expect("a model")
}

fn report(what: &str, n_elements: usize, work: impl FnOnce()) {
    let (start, before) = (Instant::now(), processor_seconds());
    work();
    let (wall, used) = (start.elapsed().as_secs_f64(), processor_seconds() - before);
    let rate = 4.0 * n_elements as f64 / 1e9 / wall;
    println!("{what:18} {wall:.3} s wall, {used:.3} s of processors, {rate:.2} GB/s of f32");
}

/// User and system time of this process.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = text.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

/// The most memory so far, in MB.
fn peak() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).expect("a number").parse::<f64>().expect("a number") / 1000.0
}
