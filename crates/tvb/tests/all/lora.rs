//! LoRA adapters as columns, against the models that PEFT itself makes of them (tests/fixtures/lora), alone and beside full
//! checkpoints.

use crate::gpu_device::test_gpu;
use crate::numbers::{edit, read, runtime};
use std::path::{Path, PathBuf};
use tvb::checkpoint::{Checkpoint, OpenOptions};
use tvb::columns::adapter::{Found, Writer};
use tvb::columns::open::{open_base, open_columns};
use tvb::columns::plan::{Plan, Selection};
use tvb::columns::tasks::TaskSource;
use tvb::jobs::compress::{CodingWords, CompressOptions, compress};
use tvb::jobs::edit::{EditJob, EditOutput, Source};
use tvb::ops::gram::gram;
use tvb::pass::Runtime;
use tvb::progress::Silent;
use tvb::solve::{ExactOptions, Method};
use tvb::{Error, ErrorKind};
use tvb_kernels::{DeviceSetup, Engine, Rate};
use tvb_tests::fixture;

fn case(name: &str) -> PathBuf {
    fixture("lora").join(name)
}

fn open(base: &Path, tasks: &[(&str, &Path)]) -> Result<Plan, Error> {
    let source =
        |(name, path): &(&str, &Path)| TaskSource { name: (*name).into(), path: path.to_path_buf(), key: None };
    let sources: Vec<TaskSource> = tasks.iter().map(source).collect();
    let (base, tasks) = open_columns(base, &sources, &OpenOptions::default())?;
    Plan::new(base, tasks, &Selection::all())
}

fn refused(base: &Path, task: &Path) -> String {
    let error = open(base, &[("a", task)]).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    format!("{} / {}", error.message(), error.hint_text().unwrap_or_default())
}

/// The moved model of a column, tensor by tensor in the plan's order.
fn moved(plan: &Plan, column: usize) -> Vec<Vec<f64>> {
    let of = |planned: &tvb::columns::plan::PlannedTensor| {
        let own = read(plan.column_checkpoint(column), &planned.name);
        let base = read(&plan.base, &planned.name);
        match plan.column_tensor(planned, column).is_delta() {
            true => own.iter().zip(base).map(|(delta, base)| delta + base).collect(),
            false => own,
        }
    };
    plan.tensors.iter().map(of).collect()
}

/// Every tensor of column 1 is as in `merged` under `prefix`, or the base's where that lacks it. Answers how many moved.
fn assert_merged(plan: &Plan, merged: &Path, prefix: &str) -> usize {
    let merged = Checkpoint::open(merged).expect("a merged model");
    let mut n_moved = 0;
    for (planned, found) in plan.tensors.iter().zip(moved(plan, 1)) {
        let own = format!("{prefix}{}", planned.name.strip_prefix("unet/").unwrap_or(&planned.name));
        let expected = match merged.get(&own) {
            Some(_) => read(&merged, &own),
            None => read(&plan.base, &planned.name),
        };
        n_moved += usize::from(expected != read(&plan.base, &planned.name));
        let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        for (expected, found) in expected.iter().zip(&found) {
            let error = (expected - found).abs();
            assert!(error <= 1e-6 * largest, "{}: {expected} expected, {found} found", planned.name);
        }
    }
    n_moved
}

#[test]
fn adapters_of_peft_are_what_peft_merges() {
    for (name, n_moved) in [
        ("gpt2", 5),
        ("llama", 7),
        ("bert", 14),
        ("convolutions", 8),
        ("biased", 2),
        ("dora-llama", 5),
        ("dora-gpt2", 2),
        ("dora-convolutions", 2),
    ] {
        let folder = case(name);
        let plan = open(&folder.join("base.safetensors"), &[("a", &folder.join("adapter"))]);
        let plan = plan.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(assert_merged(&plan, &folder.join("merged.safetensors"), ""), n_moved, "{name}");
    }
}

/// The base as one file, and under the names that the parts of a pipeline have.
#[test]
fn files_of_diffusers_and_kohya_are_read() {
    let folder = case("diffusion");
    let top = tempfile::tempdir().expect("a folder");
    let base = folder.join("base.safetensors");
    let pipeline = top.path().join("pipeline.safetensors");
    write_renamed(&base, &pipeline, |name| vec![format!("unet/{name}"), format!("text_encoder/{name}")]);
    for (file, merged, prefix) in [
        ("diffusers", "merged.safetensors", ""),
        ("diffusers/pytorch_lora_weights.safetensors", "merged.safetensors", ""),
        ("old_diffusers.safetensors", "merged.safetensors", ""),
        ("kohya.safetensors", "merged_others.safetensors", "kohya/"),
        ("kohya_tucker.pt", "merged_others.safetensors", "tucker/"),
    ] {
        for base in [&base, &pipeline] {
            let plan = open(base, &[("a", &folder.join(file))]);
            let plan = plan.unwrap_or_else(|error| panic!("{file}: {error}"));
            // The copy in the other part stays where it is.
            let n_moved = plan.tensors.iter().zip(moved(&plan, 1)).filter(|(t, v)| *v != read(&plan.base, &t.name));
            assert_eq!(n_moved.count(), 3, "{file}");
            if base.ends_with("base.safetensors") {
                assert_eq!(assert_merged(&plan, &folder.join(merged), prefix), 3, "{file}");
            }
        }
    }
}

/// A safetensors file with every tensor of `from` under the names that `rename` gives it.
fn write_renamed(from: &Path, to: &Path, rename: impl Fn(&str) -> Vec<String>) {
    let bytes = std::fs::read(from).expect("read");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensors = file.tensors();
    let renamed = tensors.iter().flat_map(|(name, view)| rename(name).into_iter().map(move |name| (name, view)));
    std::fs::write(to, safetensors::serialize(renamed, None).expect("a file")).expect("written");
}

/// Wrapped, headless and headed bases: whatever stands before the names.
#[test]
fn bases_may_be_wrapped() {
    let folder = case("bert");
    let top = tempfile::tempdir().expect("a folder");
    let wrapped = top.path().join("wrapped.safetensors");
    write_renamed(&folder.join("base.safetensors"), &wrapped, |name| vec![format!("module.{name}")]);
    let plan = open(&wrapped, &[("a", &folder.join("adapter"))]).expect("a wrapped base");
    let found = moved(&plan, 1);
    let plain = open(&folder.join("base.safetensors"), &[("a", &folder.join("adapter"))]).expect("a plain base");
    assert_eq!(found, moved(&plain, 1));
    // A headless base lacks the head that the adapter brings: the plan says so, and goes on where it may.
    let headless = top.path().join("headless.safetensors");
    let without = |name: &str| name.strip_prefix("bert.").map(str::to_owned).into_iter().collect();
    write_renamed(&folder.join("base.safetensors"), &headless, without);
    let said = refused(&headless, &folder.join("adapter"));
    assert!(said.contains("classifier.weight") && said.contains("not in the base"), "{said}");
    let (base, tasks) = open_columns(
        &headless,
        &[TaskSource { name: "a".into(), path: folder.join("adapter"), key: None }],
        &OpenOptions::default(),
    )
    .expect("columns");
    let plan = Plan::new(base, tasks, &Selection::all().skip_mismatched(true)).expect("a plan without the head");
    assert_eq!(plan.tensors.len(), plain.tensors.len() - 2);
}

/// A full checkpoint of what PEFT merged.
fn write_merged(folder: &Path, to: &Path) {
    let base = std::fs::read(folder.join("base.safetensors")).expect("read");
    let merged = std::fs::read(folder.join("merged.safetensors")).expect("read");
    let base = safetensors::SafeTensors::deserialize(&base).expect("a file");
    let merged = safetensors::SafeTensors::deserialize(&merged).expect("a file");
    let all = base.tensors();
    let views = all.iter().map(|(name, view)| (name.clone(), merged.tensor(name).unwrap_or_else(|_| view.clone())));
    std::fs::write(to, safetensors::serialize(views, None).expect("a file")).expect("written");
}

/// Columns of every kind side by side: an adapter, the same merged by PEFT, and another model of that shape.
pub(crate) fn mixed(top: &Path, name: &str, other: &str) -> Plan {
    let (folder, other) = (case(name), case(other).join("base.safetensors"));
    let (adapter, merged) = (folder.join("adapter"), top.join("merged.safetensors"));
    write_merged(&folder, &merged);
    let columns: [(&str, &Path); 3] = [("adapter", &adapter), ("merged", &merged), ("other", &other)];
    open(&folder.join("base.safetensors"), &columns).expect("a plan")
}

fn dense_gram(plan: &Plan) -> Vec<Vec<f64>> {
    let base: Vec<f64> = moved(plan, 0).concat();
    let delta = |column| -> Vec<f64> {
        moved(plan, column).concat().iter().zip(&base).map(|(moved, base)| moved - base).collect()
    };
    let deltas: Vec<Vec<f64>> = (1..plan.n_columns()).map(delta).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
    deltas.iter().map(|a| deltas.iter().map(|b| dot(a, b)).collect()).collect()
}

fn assert_mixed_columns_agree(runtime: &Runtime) {
    assert_columns_agree("llama", "dora-llama", runtime);
    assert_columns_agree("dora-llama", "llama", runtime);
}

fn assert_columns_agree(name: &str, other: &str, runtime: &Runtime) {
    let top = tempfile::tempdir().expect("a folder");
    let plan = mixed(top.path(), name, other);
    let expected = dense_gram(&plan);
    let found = gram(&plan, runtime, &Silent).expect("a Gram matrix").total();
    for (a, row) in expected.iter().enumerate() {
        for (b, expected) in row.iter().enumerate() {
            let size = found[(a, a)].sqrt() * found[(b, b)].sqrt();
            assert!((found[(a, b)] - expected).abs() <= 2e-6 * size, "{a} {b}: {expected} {}", found[(a, b)]);
        }
    }
    // The adapter is the merged model.
    assert!((found[(0, 1)] / found[(0, 0)] - 1.0).abs() < 1e-5);

    // Sums of both kinds, from the originals and from a basis that holds all of them.
    let basis = top.path().join("basis");
    let options = CompressOptions::mixtures(&basis).method(Method::Identity);
    let basis = compress(&plan, &options, runtime, &Silent).expect("a basis").basis;
    let weights = [0.5, -0.25, 0.125];
    let expected: Vec<Vec<f64>> = moved(&plan, 0)
        .iter()
        .enumerate()
        .map(|(index, base)| {
            let columns: Vec<Vec<f64>> = (1..4).map(|column| moved(&plan, column).swap_remove(index)).collect();
            let sum = |at: usize| -> f64 { columns.iter().zip(weights).map(|(c, w)| w * (c[at] - base[at])).sum() };
            (0..base.len()).map(|at| base[at] + sum(at)).collect()
        })
        .collect();
    for (name, source) in [("originals", Source::Checkpoints(&plan)), ("basis", Source::Basis(&basis))] {
        let target = top.path().join(format!("{name}.safetensors"));
        let output = EditOutput::new(&target);
        let job = EditJob { source, edit: &edit(&weights, 1.0), base: Some(&plan.base), output: &output };
        job.write(runtime, &Silent).expect("an edit");
        let edited = Checkpoint::open(&target).expect("an edited checkpoint");
        for (planned, expected) in plan.tensors.iter().zip(&expected) {
            let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
            for (expected, found) in expected.iter().zip(read(&edited, &planned.name)) {
                assert!((expected - found).abs() <= 2e-6 * largest, "{name}, {}", planned.name);
            }
        }
    }
    // Two atoms for three tasks, two of which are one: nothing is lost.
    let options =
        CompressOptions::mixtures(top.path().join("two")).method(Method::Exact(ExactOptions::default())).atoms(2);
    let two = compress(&plan, &options, runtime, &Silent).expect("a basis of two").basis;
    assert!(two.manifest.tasks.iter().all(|task| task.relative_error.is_some_and(|error| error < 1e-5)));
    // Codes.
    let names: Vec<String> = plan.tasks.iter().map(|task| task.name.clone()).collect();
    let words = CodingWords { bits: Rate::from_name("4"), ..CodingWords::default() };
    let coding = words.options(&names, &[], 1).expect("options");
    let options = CompressOptions::new(top.path().join("coded")).coding(Some(coding));
    let coded = compress(&plan, &options, runtime, &Silent).expect("codes").basis;
    for task in &coded.manifest.tasks {
        let error = task.relative_error.expect("an error");
        assert!(error > 0.0 && error < 0.05, "{}: {error}", task.name);
    }
}

#[test]
fn adapters_and_full_checkpoints_mix() {
    assert_mixed_columns_agree(&runtime());
}

#[test]
fn adapters_and_full_checkpoints_mix_on_a_gpu() {
    let Some((engine, _turn)) = test_gpu(DeviceSetup::default()) else { return };
    assert_mixed_columns_agree(&Runtime::on(Engine::Gpu(engine)).with_threads(2));
}

#[test]
fn what_an_adapter_is_is_told() {
    let Found::Adapter(adapter) = Found::at(&case("llama").join("adapter"), &OpenOptions::default()).expect("read")
    else {
        panic!("an adapter expected");
    };
    assert_eq!(adapter.writer(), Writer::Peft);
    let facts: Vec<(String, usize, f64)> = adapter.modules().into_iter().map(|m| (m.name, m.rank, m.scale)).collect();
    let scale_of = |path: &str| facts.iter().find(|(own, ..)| own == path).map(|(_, rank, scale)| (*rank, *scale));
    // Rank-stabilised: alpha/√r, with patterns for both.
    assert_eq!(scale_of("lm_head"), Some((4, 6.0 / 2.0)));
    assert_eq!(scale_of("model.layers.0.self_attn.v_proj"), Some((2, 1.0 / 2f64.sqrt())));
    assert_eq!(scale_of("model.layers.0.self_attn.q_proj"), Some((4, 9.0 / 2.0)));
    assert_eq!(scale_of("model.layers.1.mlp.down_proj"), Some((3, 6.0 / 3f64.sqrt())));
}

#[test]
fn what_cannot_be_placed_is_refused_by_name() {
    let top = tempfile::tempdir().expect("a folder");
    let (llama, gpt2) = (case("llama"), case("gpt2"));
    let (base, adapter) = (llama.join("base.safetensors"), llama.join("adapter"));

    let error = open_base(&adapter, &OpenOptions::default()).expect_err("no base");
    assert!(error.message().contains("a whole model expected, an adapter (LoRA) found"), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("NAME=PATH")));

    let said = refused(&gpt2.join("base.safetensors"), &adapter);
    assert!(said.contains("7 of 7 modules of the adapter have no place") && said.contains("lm_head"), "{said}");

    // The same names with other shapes.
    let dora = case("dora-llama").join("adapter");
    let narrow = top.path().join("narrow.safetensors");
    write_narrow(&base, &narrow);
    let said = refused(&narrow, &dora);
    assert!(said.contains("q_proj") && said.contains("[16, 16] expected") && said.contains("[16, 8] found"), "{said}");

    // An embedding that PEFT saved beside its factors is another base's.
    let said = refused(&base, &dora);
    assert!(said.contains("not the base's") && said.contains("embed_tokens"), "{said}");

    // Without its configuration the scale is unknown.
    let alone = top.path().join("adapter_model.safetensors");
    std::fs::copy(adapter.join("adapter_model.safetensors"), &alone).expect("copied");
    let said = refused(&base, &alone);
    assert!(said.contains("without its `adapter_config.json`"), "{said}");
    let config = std::fs::read_to_string(adapter.join("adapter_config.json")).expect("read");
    std::fs::write(top.path().join("adapter_config.json"), &config).expect("written");
    open(&base, &[("a", &alone)]).expect("the configuration lies beside it");
    std::fs::write(top.path().join("adapter_config.json"), config.replace("\"LORA\"", "\"IA3\"")).expect("written");
    assert!(refused(&base, top.path()).contains("one of `IA3` found"));
    std::fs::write(top.path().join("adapter_config.json"), config.replace("\"r\": 4", "\"r\": 5")).expect("written");
    assert!(refused(&base, top.path()).contains("rank 5 expected by its configuration, 4 found"));

    // Adapters that are no product of two factors, and names that are not known.
    for (name, said) in [
        ("lora_unet_a.hada_w1_a", "LoHa"),
        ("lora_unet_a.dora_scale", "DoRA"),
        ("base_model.model.attn.base_layer.out_proj.lora_A.weight", "not known in an adapter"),
        ("base_model.model.a.lora_diag.weight", "not known in an adapter"),
    ] {
        let file = top.path().join("other.safetensors");
        let add = |own: &str| {
            if own.contains("conv_shortcut.lora_up") { vec![own.into(), name.to_owned()] } else { vec![own.into()] }
        };
        write_renamed(&case("diffusion").join("kohya.safetensors"), &file, add);
        let found = refused(&case("diffusion").join("base.safetensors"), &file);
        assert!(found.contains(said), "{name}: {found}");
    }
}

/// The llama base with its attention half as wide.
fn write_narrow(from: &Path, to: &Path) {
    let bytes = std::fs::read(from).expect("read");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensors = file.tensors();
    let views = tensors.iter().map(|(name, view)| {
        let narrow = name.contains("q_proj");
        let (shape, data) =
            if narrow { (vec![16, 8], &view.data()[..512]) } else { (view.shape().to_vec(), view.data()) };
        (name.clone(), safetensors::tensor::TensorView::new(view.dtype(), shape, data).expect("a tensor"))
    });
    std::fs::write(to, safetensors::serialize(views, None).expect("a file")).expect("written");
}
