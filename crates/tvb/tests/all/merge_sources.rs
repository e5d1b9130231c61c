//! Mergers from a basis, on a GPU, and of values that are not finite.

use crate::merge::{asked, job, load, merged, runtime};
use std::path::PathBuf;
use tvb::basis::Basis;
use tvb::checkpoint::Checkpoint;
use tvb::columns::plan::Plan;
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::edit::{EditOutput, Source};
use tvb::jobs::merge::Method;
use tvb::progress::Silent;
use tvb::{ErrorKind, Runtime};
use tvb_tests::small_models::{Random, Stored, shapes, values, write_model, write_run};

/// From coded tasks: the same rules over what the basis gives back.
#[test]
fn a_basis_merges_what_it_recovers() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = write_run(folder.path(), &[&[300], &[64, 100], &[40, 9]], 3, 4);
    let plan = Plan::open(&run.base, &run.tasks).expect("models");
    for (name, options) in [
        ("coded", CompressOptions::new(folder.path().join("coded"))),
        ("mixed", CompressOptions::new(folder.path().join("mixed")).atoms(2)),
    ] {
        compress(&plan, &options, &runtime(), &Silent).expect("compressed");
        let basis = Basis::open(&folder.path().join(name)).expect("a basis");
        let base = Checkpoint::open(&run.base).expect("a base");
        // What it gives back, as checkpoints of their own.
        let recovered: Vec<PathBuf> = (0..3)
            .map(|task| {
                let target = folder.path().join(format!("{name}-{task}.safetensors"));
                let mut alpha = vec![0.0; 3];
                alpha[task] = 1.0;
                let edit =
                    tvb::jobs::edit::Edit { alpha, scale: 1.0, rule: tvb::solve::Rule::Projected, by_tensor: None };
                let output = EditOutput::new(&target);
                let source = Source::Basis(&basis);
                let job = tvb::jobs::edit::EditJob { source, edit: &edit, base: Some(&base), output: &output };
                job.write(&runtime(), &Silent).expect("recovered");
                target
            })
            .collect();
        for method in [Method::Ties, Method::TsvM, Method::ModelStock, Method::Consensus] {
            let mut asked = asked(method, 3);
            asked.settings.density = vec![0.4; 3];
            asked.settings.normalize = true;
            let target = folder.path().join("from-basis.safetensors");
            let output = EditOutput::new(&target).existing(tvb::checkpoint::Existing::Replace);
            let settings = |_: &str| Ok(asked.settings.clone());
            job(Source::Basis(&basis), &base, &asked, &settings, &output).write(&runtime(), &Silent).expect("merged");
            let (found, expected) = (load(&target), merged(folder.path(), &run.base, &recovered, &asked));
            // Recovered checkpoints are rounded once more, so a few values may be on the other side of a threshold.
            for (tensor, found) in &found {
                let far = found.iter().zip(&expected[tensor]).filter(|(a, b)| (*a - *b).abs() > 1e-5).count();
                assert!(far * 100 <= found.len(), "{name} {method} {tensor}: {far} of {}", found.len());
            }
        }
        // A damaged column is found.
        let atom = folder.path().join(name).join(&basis.manifest.atoms[0].file);
        let mut bytes = std::fs::read(&atom).expect("an atom");
        let last = bytes.len() - 40;
        bytes[last] ^= 1;
        std::fs::write(&atom, bytes).expect("written");
        let asked = asked(Method::Ties, 3);
        let output = EditOutput::new(folder.path().join("damaged.safetensors"));
        let settings = |_: &str| Ok(asked.settings.clone());
        let error =
            job(Source::Basis(&basis), &base, &asked, &settings, &output).write(&runtime(), &Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        assert!(!output.target.exists());
    }
}

#[test]
fn values_that_are_not_finite_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let shapes = shapes(&[&[8, 8]]);
    let (base, mut tasks) = values(&shapes, 2, &mut Random(3));
    tasks[1][0][5] = f32::NAN;
    let base = write_model(folder.path(), "base", &shapes, &base, 1);
    let tasks: Vec<PathBuf> = tasks
        .iter()
        .enumerate()
        .map(|(at, task)| write_model(folder.path(), &format!("task{at}"), &shapes, task, 1))
        .collect();
    let plan = Plan::open(&base, &tasks).expect("models");
    let opened = Checkpoint::open(&base).expect("a base");
    for method in [Method::Ties, Method::DareTies, Method::DellaLinear, Method::TsvM, Method::ModelStock] {
        let mut asked = asked(method, 2);
        asked.settings.density = vec![0.5; 2];
        let output = EditOutput::new(folder.path().join("out.safetensors"));
        let settings = |_: &str| Ok(asked.settings.clone());
        let job = job(Source::Checkpoints(&plan), &opened, &asked, &settings, &output);
        let error = job.write(&runtime(), &Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{method}: {error}");
        assert!(error.to_string().contains("t0"), "{method}: {error}");
        assert!(!output.target.exists());
    }
}

/// A GPU merges what is read as it is: the same decisions, and values that differ by rounding alone.
#[test]
fn a_gpu_merges_as_the_cpu_does() {
    let Some((engine, _turn)) = crate::gpu_device::test_gpu(tvb_kernels::DeviceSetup::default()) else { return };
    let gpu = Runtime::on(tvb_kernels::Engine::Gpu(engine.clone())).with_threads(2);
    for stored in [Stored::F32, Stored::Bf16] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut shapes = shapes(&[&[7], &[33, 65], &[120, 300]]);
        shapes.iter_mut().for_each(|shape| shape.stored = stored);
        let (base, tasks) = values(&shapes, 3, &mut Random(8));
        let base = write_model(folder.path(), "base", &shapes, &base, 1);
        let tasks: Vec<PathBuf> = tasks
            .iter()
            .enumerate()
            .map(|(at, task)| write_model(folder.path(), &format!("task{at}"), &shapes, task, 1))
            .collect();
        let plan = Plan::open(&base, &tasks).expect("models");
        let opened = Checkpoint::open(&base).expect("a base");
        for method in [Method::Ties, Method::DareLinear, Method::Sce, Method::Emr, Method::ModelStock] {
            let mut asked = asked(method, 3);
            asked.settings.density = vec![0.5; 3];
            asked.settings.select_topk = 0.5;
            asked.settings.normalize = true;
            let expected = merged(folder.path(), &base, &tasks, &asked);
            let target = folder.path().join("on-gpu.safetensors");
            let output = EditOutput::new(&target).existing(tvb::checkpoint::Existing::Replace);
            let settings = |_: &str| Ok(asked.settings.clone());
            job(Source::Checkpoints(&plan), &opened, &asked, &settings, &output).write(&gpu, &Silent).expect("merged");
            for (name, found) in load(&target) {
                let tolerance = if stored == Stored::F32 { 1e-6 } else { 0.01 };
                let far = found.iter().zip(&expected[&name]).filter(|(a, b)| (*a - *b).abs() > tolerance).count();
                assert!(far * 1000 <= found.len(), "{method} {name}: {far} of {}", found.len());
            }
        }
    }
}
