//! Checkpoints in memory in place of files: the same basis, the same edits.

use super::{loaded, values_in};
use crate::coded::models::{ODD, coded, plan, runtime, words, write_models};
use crate::numbers::edit;
use std::path::{Path, PathBuf};
use tvb::Existing;
use tvb::checkpoint::Checkpoint;
use tvb::columns::open::{take_base, take_task};
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::edit::{EditJob, EditOutput, Source};
use tvb::jobs::gram::make_gram_file;
use tvb::jobs::verify::{verify_errors, verify_files};
use tvb::progress::Silent;
use tvb_kernels::Rate;
use tvb_tests::small_models::contents;

fn in_memory(checkpoint: &Checkpoint) -> Checkpoint {
    Checkpoint::in_memory("state dict in memory", loaded(checkpoint)).expect("a checkpoint")
}

/// The same plan, all of it loaded.
fn plan_in_memory(plan: &Plan) -> Plan {
    let base = take_base(in_memory(&plan.base)).expect("a base");
    let task = |task: &Task| take_task(&task.name, in_memory(&task.checkpoint), &base).expect("a task");
    Plan::new(base.clone(), plan.tasks.iter().map(task).collect(), &Selection::default()).expect("a plan")
}

fn zoo() -> Plan {
    let path = |name: &str| PathBuf::from(format!("../tvb-zoo/checkpoints/{name}.safetensors"));
    Plan::open(path("base"), ["digits", "letters", "mazes"].map(path)).expect("a plan")
}

#[test]
fn a_basis_of_state_dicts_is_that_of_the_files() {
    let top = tempfile::tempdir().expect("a folder");
    let (files, memory) = (zoo(), plan_in_memory(&zoo()));
    for (name, options) in [
        ("coded", CompressOptions::new as fn(PathBuf) -> CompressOptions),
        ("mixtures", |path| CompressOptions::mixtures(path).atoms(2)),
    ] {
        let made = [(&files, "files"), (&memory, "memory")].map(|(plan, from)| {
            let output = top.path().join(format!("{name}-{from}"));
            let basis = compress(plan, &options(output.clone()), &runtime(), &Silent).expect("a basis").basis;
            assert!(
                verify_files(&basis, &runtime(), &Silent).expect("checked").iter().all(|file| file.damage.is_none())
            );
            let errors = verify_errors(&basis, plan, &runtime(), &Silent).expect("errors");
            let mut contents = contents(&output);
            let manifest = contents.remove(Path::new("basis.json")).expect("a manifest");
            let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
            (contents, errors, manifest)
        });
        let [(files, file_errors, _), (memory, memory_errors, manifest)] = made;
        assert!(files == memory && file_errors == memory_errors, "{name}");
        assert_eq!(manifest["base"]["source"], "state dict in memory");
    }
    let gram = |plan: &Plan, name: &str| {
        make_gram_file(plan, &top.path().join(name), Existing::Refuse, &runtime(), &Silent).expect("a Gram file")
    };
    let (files, memory) = (gram(&files, "files"), gram(&memory, "memory"));
    assert!(files.triangles == memory.triangles);
}

/// Nothing lies beside a state dict, whatever lies where its name would be a path.
#[test]
fn edits_of_a_base_in_memory_are_those_of_its_file() {
    let top = tempfile::tempdir().expect("a folder");
    let paths = write_models(top.path(), ODD, 2, 5);
    let plan = plan(&paths);
    let basis = coded(&plan, &top.path().join("basis"), &words(Rate::Four, None, &[])).basis;
    let decoy = top.path().join("decoy");
    std::fs::create_dir(&decoy).expect("a folder");
    std::fs::write(decoy.join("config.json"), r#"{"_name_or_path": "a/b"}"#).expect("written");
    let base = Checkpoint::in_memory(decoy.to_str().expect("a path"), loaded(&plan.base)).expect("a base");
    let edit = edit(&[1.0, -0.5], 1.0);
    let mut made = Vec::new();
    for (base, from) in [(&plan.base, "file"), (&base, "memory")] {
        for target in [format!("{from}.safetensors"), format!("{from} folder")] {
            let target = top.path().join(target);
            let output = EditOutput::new(&target);
            EditJob { source: Source::Basis(&basis), edit: &edit, base: Some(base), output: &output }
                .write(&runtime(), &Silent)
                .expect("an edited checkpoint");
            made.push(values_in(&target));
            assert!(!target.join("config.json").exists());
        }
    }
    assert!(made.iter().all(|other| *other == made[0]));
    assert!(base.config().expect("none").is_none() && base.hub_name().is_none());
}
