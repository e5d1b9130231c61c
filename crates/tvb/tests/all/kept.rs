//! Inputs that fit in memory are read once: the same bytes come out, and nothing is read after the first pass.

use std::path::Path;
use tvb::ErrorKind;
use tvb::checkpoint::Checkpoint;
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::jobs::compress::{CompressOptions, compress, forecast};
use tvb::ops::gram::{gram, gram_from};
use tvb::pass::bookmark::NoBookmarks;
use tvb::pass::kept::Keep;
use tvb::pass::{ChunkReader, ChunkSize, Grid, Reads, Runtime};
use tvb::progress::Silent;
use tvb::solve::Method;
use tvb_tests::small_models::{contents, write_run};

/// Several chunks, a tensor that shares a chunk with others, an empty one.
const SHAPES: &[&[usize]] = &[&[40_000], &[3, 5], &[0], &[300, 100], &[2]];

fn plan(folder: &Path) -> Plan {
    let run = write_run(folder, SHAPES, 3, 1);
    let task = |(index, path): (usize, &std::path::PathBuf)| Task {
        name: format!("task{index}"),
        checkpoint: Checkpoint::open(path).expect("a task"),
    };
    let tasks = run.tasks.iter().enumerate().map(task).collect();
    Plan::new(Checkpoint::open(&run.base).expect("a base"), tasks, &Selection::default()).expect("a plan")
}

fn runtime(memory_bytes: u64) -> Runtime {
    Runtime::on_cpu(2, memory_bytes)
}

#[test]
fn what_is_kept_makes_the_same_basis() {
    let top = tempfile::tempdir().expect("a folder");
    let plan = plan(top.path());
    for (name, method) in [("pca", Method::Pca), ("random", Method::Random { seed: 3 })] {
        let made = [(Keep::Never, 64 << 20), (Keep::Always, 1 << 20), (Keep::Always, 64 << 20)];
        let made = made.map(|(keep, memory_bytes)| {
            let output = top.path().join(format!("{name}-{keep:?}-{memory_bytes}"));
            let options = CompressOptions::mixtures(&output).method(method.clone()).atoms(2).keep(keep);
            let told = forecast(&plan, &options, memory_bytes).expect("a forecast");
            let made = compress(&plan, &options, &runtime(memory_bytes), &Silent).expect("a basis");
            assert!(made.read_bytes <= told.read_bytes && made.read_bytes > told.read_bytes / 2, "{name}: {told:?}");
            (told.n_reads, contents(&output))
        });
        assert_eq!(made.each_ref().map(|made| made.0), [2, 2, 1], "the inputs are {} bytes", plan.n_bytes());
        assert!(made.iter().all(|other| other.1 == made[0].1), "{name}: the same bytes");
    }
}

#[test]
fn a_second_pass_reads_no_file() {
    let top = tempfile::tempdir().expect("a folder");
    let (plan, runtime) = (plan(top.path()), runtime(64 << 20));
    let reads = Reads::new().keeping();
    let first = gram_from(&plan, &reads, &runtime, &Silent, &mut NoBookmarks).expect("a Gram matrix");
    for column in 0..plan.n_columns() {
        let path = plan.column_checkpoint(column).path();
        let file = std::fs::File::options().write(true).open(path).expect("an input");
        file.set_len(100).expect("cut short");
    }
    // The files are cut short: whoever reads them fails, whoever has kept them does not look.
    let read = gram(&plan, &runtime, &Silent).expect_err("nothing to read");
    assert_ne!(read.kind(), ErrorKind::Interrupted, "{read}");
    let moved = plan.only(|index| !first.tensors[index].frozen);
    let grid = Grid::new(moved.tensors.iter().map(|tensor| tensor.n_rows), ChunkSize { n_rows: 50_000, n_blocks: 9 });
    let mut reader = ChunkReader::default();
    for chunk in 0..grid.n_chunks() {
        reader.read(&moved, &reads, &grid.blocks(chunk)).expect("kept");
        for (block, digests) in grid.blocks(chunk).iter().zip(reader.digests().chunks(moved.n_columns())) {
            assert!(digests.iter().all(|digest| digest.0 != 0), "{block:?}");
        }
    }
}
