//! Staged outputs: what is visible when, what is cleared, who is kept out.

use super::{Existing, Inputs, Leftover, StagedOutput, commit_all, remove_stale_lock};
#[cfg(unix)]
use super::{OutputKind, check_output};
use crate::{ErrorKind, Result};
use std::path::{Path, PathBuf};

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn folder(target: &Path, existing: Existing, leftover: Leftover) -> Result<StagedOutput> {
    StagedOutput::folder(target, existing, leftover, &Inputs::none())
}

fn file(target: &Path, existing: Existing) -> Result<StagedOutput> {
    StagedOutput::file(target, existing, &Inputs::none())
}

const MANIFEST: &str = "{\n  \"format\": \"tvb-basis\",\n";

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_folder_appears_whole() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("a/b/basis");
    let staged = folder(&target, Existing::Refuse, Leftover::Clear).unwrap();
    write(&staged.path().join("basis.json"), "{}");
    std::fs::create_dir(staged.path().join("sub")).unwrap();
    write(&staged.path().join("sub/x"), "x");
    assert!(!target.exists());
    staged.commit().unwrap();
    assert_eq!(names(&target), ["basis.json", "sub"]);
    assert_eq!(names(&top.path().join("a/b")), ["basis"]);
}

#[test]
fn nothing_is_left_behind_without_commit() {
    let top = tempfile::tempdir().unwrap();
    write(&top.path().join("kept"), "");
    let staged = folder(&top.path().join("a/b/basis"), Existing::Refuse, Leftover::Clear).unwrap();
    write(&staged.path().join("atom"), "x");
    drop(staged);
    let staged = file(&top.path().join("c/model.safetensors"), Existing::Refuse).unwrap();
    write(staged.path(), "x");
    drop(staged);
    assert_eq!(names(top.path()), ["kept"]);
}

#[test]
fn a_file_appears_whole_and_replaces_only_when_told() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("model.safetensors");
    for text in ["first", "second"] {
        let staged = file(&target, Existing::Replace).unwrap();
        write(staged.path(), text);
        staged.commit().unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), text);
    }
    let error = file(&target, Existing::Refuse).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.hint_text().unwrap().contains("--overwrite"));
    assert_eq!(names(top.path()), ["model.safetensors"]);
}

#[test]
fn an_output_that_appears_during_the_work_is_kept() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    let staged = file(&target, Existing::Refuse).unwrap();
    write(staged.path(), "ours");
    write(&target, "theirs");
    assert_eq!(staged.commit().unwrap_err().kind(), ErrorKind::Rejected);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "theirs");
    assert_eq!(names(top.path()), ["out"]);
}

#[test]
fn a_stale_lock_is_removed_and_a_held_one_stays() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("basis");
    write(&top.path().join("basis.partial.lock"), "1");
    remove_stale_lock(&target);
    assert_eq!(names(top.path()), [] as [&str; 0]);
    let staged = folder(&target, Existing::Refuse, Leftover::Clear).unwrap();
    remove_stale_lock(&target);
    assert!(names(top.path()).contains(&"basis.partial.lock".to_owned()));
    drop(staged);
    remove_stale_lock(&target);
    assert_eq!(names(top.path()), [] as [&str; 0]);
}

/// The model card of an edited folder.
const NEW_CARD: &str =
    "---\ntags:\n- merge\n- task-arithmetic\nlicense: \"mit\"\n---\n\n# x, edited by task arithmetic\n";
/// One of the first version.
const CARD: &str = "---\nbase_model: \"x\"\n---\n\n# x, edited by task arithmetic\n";

/// Folders, and why they stay.
#[test]
fn a_folder_is_replaced_only_when_all_of_it_could_be_ours() {
    const INDEX: &str = "{\"weight_map\": {\"w\": \"part-1.safetensors\"}}";
    let cases: [(&[(&str, &str)], Option<&str>); 24] = [
        (&[], None),
        (&[("basis.json", MANIFEST)], None),
        (&[("basis.json", MANIFEST), ("coefficients.safetensors", ""), ("atom-00.safetensors", "")], None),
        (&[("basis.json", MANIFEST), ("atom-00-00001-of-00002.safetensors", "")], None),
        (&[("basis.json", MANIFEST), ("notes.txt", "")], Some("`notes.txt`")),
        (&[("basis.json", MANIFEST), ("base.safetensors", "")], Some("`base.safetensors`")),
        (&[("basis.json", MANIFEST), ("sub/", "")], Some("`sub`")),
        (&[("basis.json", "{\"format\": \"mine\"}")], Some("`basis.json`")),
        (&[("atom-00.safetensors", "")], Some("`atom-00.safetensors`")),
        (&[("model.safetensors", "")], None),
        (&[("model.safetensors", ""), ("README.md", CARD), ("config.json", ""), ("vocab.txt", "")], None),
        (&[("model.safetensors", ""), ("README.md", NEW_CARD), ("config.json", "")], None),
        (&[("model.safetensors", ""), ("config.json", "")], Some("`config.json`")),
        (&[("model.safetensors", ""), ("README.md", "# My model")], Some("`README.md`")),
        (&[("model.safetensors", ""), ("README.md", CARD), ("training_args.bin", "")], Some("`training_args.bin`")),
        (&[("model.safetensors", ""), ("README.md", CARD), ("checkpoint-500/", "")], Some("`checkpoint-500`")),
        (&[("model.safetensors", ""), (".git/", "")], Some("`.git`")),
        (&[("model.safetensors.index.json", INDEX), ("part-1.safetensors", "")], None),
        (&[("model.safetensors.index.json", INDEX), ("part-2.safetensors", "")], Some("`part-2.safetensors`")),
        (&[("model.safetensors.index.json", "x")], Some("`model.safetensors.index.json`")),
        (&[("base.safetensors", ""), ("task.safetensors", "")], Some("`base.safetensors`")),
        (&[("pytorch_model.bin", "")], Some("`pytorch_model.bin`")),
        (&[("method_info.json", ""), ("AWB.pt", ""), ("basis_vectors.pt", "")], None),
        (&[("method_info.json", ""), ("thesis.tex", "")], Some("`thesis.tex`")),
    ];
    for (files, refusal) in cases {
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("out");
        std::fs::create_dir(&target).unwrap();
        for (name, text) in files {
            match name.strip_suffix('/') {
                Some(name) => std::fs::create_dir(target.join(name)).unwrap(),
                None => write(&target.join(name), text),
            }
        }
        assert!(folder(&target, Existing::Refuse, Leftover::Clear).is_err());
        match (folder(&target, Existing::Replace, Leftover::Clear), refusal) {
            (Ok(staged), None) => {
                write(&staged.path().join("basis.json"), "new");
                staged.commit().unwrap();
                assert_eq!(names(&target), ["basis.json"]);
            }
            (Err(error), Some(refusal)) => {
                assert_eq!(error.kind(), ErrorKind::Rejected);
                assert!(error.message().contains(refusal), "{error}");
                assert_eq!(names(&target).len(), files.len());
            }
            (result, _) => panic!("{files:?}: {result:?}"),
        }
        assert_eq!(names(top.path()), ["out"]);
    }
}

#[test]
fn odd_targets_are_refused() {
    let top = tempfile::tempdir().unwrap();
    let plain = top.path().join("file");
    write(&plain, "");
    for target in [Path::new("."), Path::new(".."), Path::new("/"), Path::new(""), Path::new("nowhere/.."), &plain] {
        assert!(folder(target, Existing::Replace, Leftover::Clear).is_err(), "{target:?}");
    }
    let long = "x".repeat(250);
    let usage = ["", "x.safetensors/", "x.safetensors//", "x.safetensors/.", ".", "..", "/", "x/..", &long];
    for target in usage.map(|target| if target.is_empty() { PathBuf::new() } else { top.path().join(target) }) {
        let error = file(&target, Existing::Replace).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{target:?}: {error}");
    }
    for target in [plain.join("child"), plain.join("deep/child"), top.path().to_owned()] {
        let error = file(&target, Existing::Replace).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{target:?}: {error}");
    }
    // A folder may be written with its slash.
    drop(folder(&top.path().join("new/"), Existing::Refuse, Leftover::Clear).unwrap());
    assert_eq!(names(top.path()), ["file"]);
}

#[test]
fn a_second_run_stops_and_a_dead_one_does_not_matter() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    // What a killed run leaves: its lock file, which knows its partial folder.
    let dead = folder(&target, Existing::Refuse, Leftover::Clear).unwrap();
    write(&dead.path().join("old"), "");
    dead.keep();
    assert_eq!(names(top.path()), ["out.partial", "out.partial.lock"]);

    let first = folder(&target, Existing::Refuse, Leftover::Clear).unwrap();
    assert!(!first.resumed());
    assert!(names(first.path()).is_empty());
    let error = folder(&target, Existing::Refuse, Leftover::Clear).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    let process = format!("another run is writing this output (process {})", std::process::id());
    assert!(error.message().contains(&process), "{error}");
    assert!(first.path().exists(), "the second run must not touch the first one's folder");
    drop(first);
    assert!(names(top.path()).is_empty());
    // Killed before it made anything, or before it could say that it had; the first version's lock.
    for text in ["", "1\n", "tvb 1\n"] {
        write(&top.path().join("out.partial.lock"), text);
        if !text.is_empty() {
            std::fs::create_dir(top.path().join("out.partial")).unwrap();
        }
        drop(folder(&target, Existing::Refuse, Leftover::Clear).unwrap());
        assert!(names(top.path()).is_empty());
    }
}

#[test]
fn an_interrupted_run_can_be_taken_up() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    let staged = folder(&target, Existing::Refuse, Leftover::Keep).unwrap();
    assert!(!staged.resumed());
    write(&staged.path().join("half"), "1");
    staged.keep();
    remove_stale_lock(&target);
    assert_eq!(names(top.path()), ["out.partial", "out.partial.lock"]);
    let staged = folder(&target, Existing::Refuse, Leftover::Keep).unwrap();
    assert!(staged.resumed());
    assert_eq!(names(staged.path()), ["half"]);
    staged.commit().unwrap();
    assert_eq!(names(top.path()), ["out"]);
}

/// What a user has where an output is written, whatever lock a dead run left there.
#[test]
fn a_user_s_own_files_beside_an_output_stay() {
    type Put<'a> = &'a dyn Fn(&Path);
    let puts: [(&str, Put<'_>); 5] = [
        ("out.partial", &|path| {
            std::fs::create_dir(path).unwrap();
            write(&path.join("thesis.tex"), "mine");
        }),
        ("out.partial", &|path| write(path, "mine")),
        ("out.partial.lock", &|path| write(path, "mine")),
        ("out.partial.lock", &|path| write(path, "12 monkeys")),
        ("out.partial.lock", &|path| std::fs::create_dir(path).unwrap()),
    ];
    for (name, put) in puts {
        for lock in [None, Some("1\n"), Some("tvb 1\npartial 1:1\nold -\n")] {
            let top = tempfile::tempdir().unwrap();
            put(&top.path().join(name));
            if let Some(lock) = lock.filter(|_| name == "out.partial") {
                write(&top.path().join("out.partial.lock"), lock);
            }
            let before = std::fs::symlink_metadata(top.path().join(name)).unwrap().modified().unwrap();
            let target = top.path().join("out");
            for existing in [Existing::Refuse, Existing::Replace] {
                for leftover in [Leftover::Clear, Leftover::Keep] {
                    let error = folder(&target, existing, leftover).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
                    assert!(error.message().contains(name) && error.hint_text().is_some(), "{error}");
                }
                let error = file(&target, existing).unwrap_err();
                assert!(error.message().contains(name), "{error}");
            }
            remove_stale_lock(&target);
            let after = std::fs::symlink_metadata(top.path().join(name)).unwrap().modified().unwrap();
            assert_eq!(before, after);
            assert_eq!(names(top.path()), [name]);
        }
    }
}

#[cfg(unix)]
#[test]
fn links_and_pipes_beside_an_output_are_not_followed() {
    use std::os::unix::fs::symlink;
    let top = tempfile::tempdir().unwrap();
    let (target, secret) = (top.path().join("out"), top.path().join("secret"));
    write(&secret, "secret");
    for name in ["out.partial", "out.partial.lock"] {
        for to in [secret.as_path(), Path::new("secret"), Path::new("nowhere"), top.path()] {
            let link = top.path().join(name);
            symlink(to, &link).unwrap();
            for error in [folder(&target, Existing::Replace, Leftover::Keep), file(&target, Existing::Replace)] {
                assert_eq!(error.unwrap_err().kind(), ErrorKind::Rejected);
            }
            remove_stale_lock(&target);
            assert!(link.is_symlink());
            assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
            std::fs::remove_file(link).unwrap();
        }
        let pipe = std::process::Command::new("mkfifo").arg(top.path().join(name)).status();
        assert!(pipe.is_ok_and(|status| status.success()));
        assert_eq!(file(&target, Existing::Replace).unwrap_err().kind(), ErrorKind::Rejected);
        std::fs::remove_file(top.path().join(name)).unwrap();
    }
    assert_eq!(names(top.path()), ["secret"]);
}

/// Every state that a kill inside the replacement of a folder leaves.
#[test]
fn an_old_output_comes_back_or_goes_when_a_run_died_while_it_replaced_it() {
    for state in ["before", "swapped", "moved", "between", "renamed"] {
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        std::fs::create_dir(path("out")).unwrap();
        write(&path("out/basis.json"), MANIFEST);
        write(&path("out/atom-00.safetensors"), "old");
        let staged = folder(&path("out"), Existing::Replace, Leftover::Clear).unwrap();
        write(&staged.path().join("basis.json"), MANIFEST);
        staged.die_while_replacing();
        let rename = |from: &str, to: &str| std::fs::rename(path(from), path(to)).unwrap();
        match state {
            "before" => {}
            "swapped" => {
                rename("out", "aside");
                rename("out.partial", "out");
                rename("aside", "out.partial");
            }
            "moved" | "renamed" => {
                rename("out", "out.partial.old");
                rename("out.partial", "out");
            }
            _ => rename("out", "out.partial.old"),
        }
        let is_new = !["before", "between"].contains(&state);
        let error = folder(&path("out"), Existing::Refuse, Leftover::Clear).unwrap_err();
        assert!(error.message().contains("exists already"), "{state}: {error}");
        if state == "between" {
            // It comes back when the output may be made.
            drop(folder(&path("out"), Existing::Replace, Leftover::Clear).unwrap());
        }
        drop(folder(&path("out"), Existing::Replace, Leftover::Clear).unwrap());
        assert_eq!(names(top.path()), ["out"], "{state}");
        assert_eq!(path("out/atom-00.safetensors").exists(), !is_new, "{state}");
    }
    // A folder of that name that no run left stays, and is said.
    let top = tempfile::tempdir().unwrap();
    std::fs::create_dir(top.path().join("out.partial.old")).unwrap();
    write(&top.path().join("out.partial.old/basis.json"), MANIFEST);
    let error = folder(&top.path().join("out"), Existing::Replace, Leftover::Clear).unwrap_err();
    assert!(error.message().contains("out.partial.old"), "{error}");
    assert_eq!(names(top.path()), ["out.partial.old"]);
}

#[cfg(unix)]
#[test]
fn a_link_is_followed_and_stays() {
    let top = tempfile::tempdir().unwrap();
    std::fs::create_dir(top.path().join("disk")).unwrap();
    std::fs::create_dir(top.path().join("disk/out")).unwrap();
    std::os::unix::fs::symlink("disk/out", top.path().join("out")).unwrap();
    for name in ["out", "out/", "./out//"] {
        let staged = folder(&top.path().join(name), Existing::Replace, Leftover::Clear).unwrap();
        write(&staged.path().join("basis.json"), MANIFEST);
        staged.commit().unwrap();
        assert!(top.path().join("out").is_symlink());
        assert_eq!(names(&top.path().join("disk/out")), ["basis.json"]);
        assert_eq!(names(&top.path().join("disk")), ["out"]);
    }
}

/// Every way to an input: its own name, `..`, links to it and to what is above it, hard links, and folders that hold any.
#[cfg(unix)]
#[test]
fn an_output_that_would_touch_an_input_is_refused() {
    use std::os::unix::fs::symlink;
    let top = tempfile::tempdir().unwrap();
    let path = |name: &str| top.path().join(name);
    std::fs::create_dir_all(path("data/deep")).unwrap();
    std::fs::create_dir_all(path("elsewhere")).unwrap();
    std::fs::create_dir_all(path("links")).unwrap();
    std::fs::create_dir_all(path("hard")).unwrap();
    write(&path("data/deep/base.safetensors"), "base");
    write(&path("elsewhere/task.safetensors"), "task");
    write(&path("model.safetensors"), "hf");
    symlink("../elsewhere/task.safetensors", path("links/task.safetensors")).unwrap();
    symlink("data", path("alias")).unwrap();
    symlink("links/task.safetensors", path("way")).unwrap();
    std::fs::hard_link(path("data/deep/base.safetensors"), path("hard/model.safetensors")).unwrap();
    let inputs = Inputs::none().and(&path("data/deep/base.safetensors")).and(&path("way")).and_folder(&path("hf"));
    std::fs::create_dir(path("hf")).unwrap();
    let inputs = inputs.and_folder(&path("hf")).and(&path("nowhere"));
    let refused = |kind, name: &str| {
        let error = check_output(kind, &path(name), Existing::Replace, &inputs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{name}: {error}");
        assert!(error.message().contains("input"), "{name}: {error}");
    };
    for name in [
        "data/deep/base.safetensors",
        "data/../data/deep/./base.safetensors",
        "alias/deep/base.safetensors",
        "hard/model.safetensors",
        "way",
        "links/task.safetensors",
        "elsewhere/task.safetensors",
        "hf/model.safetensors",
        "hf/Model.safetensors",
        "hf/config.json",
        "hf/model.safetensors.index.json",
        "hf/basis.json",
    ] {
        refused(OutputKind::File, name);
    }
    for name in ["data", "data/deep", "alias", "alias/deep", "data/deep/..", "links", "elsewhere", "hf", "hard", "."] {
        refused(OutputKind::Folder, name);
    }
    // Beside the inputs there is room.
    for name in ["data/deep/new.safetensors", "hf/edited.safetensors", "data/x/y", "model.safetensors"] {
        check_output(OutputKind::File, &path(name), Existing::Replace, &inputs).unwrap();
    }
    for name in ["data/basis", "hf/basis", "data/deep/basis"] {
        check_output(OutputKind::Folder, &path(name), Existing::Replace, &inputs).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path("data/deep/base.safetensors")).unwrap(), "base");
    inputs.check_outside(&path("alias")).unwrap_err();
    inputs.check_outside(&path("new")).unwrap();
}

#[test]
fn several_outputs_appear_together_or_not_at_all() {
    let top = tempfile::tempdir().unwrap();
    let staged = |name: &str| {
        let staged = file(&top.path().join(name), Existing::Refuse).unwrap();
        write(staged.path(), name);
        staged
    };
    commit_all(vec![staged("a"), staged("b")]).unwrap();
    assert_eq!(names(top.path()), ["a", "b"]);
    let three = vec![staged("c"), staged("d"), staged("e")];
    std::fs::remove_file(three[2].path()).unwrap();
    assert!(commit_all(three).is_err());
    assert_eq!(names(top.path()), ["a", "b"]);
    let three = vec![staged("c"), staged("d"), staged("e")];
    write(&top.path().join("e"), "theirs");
    assert_eq!(commit_all(three).unwrap_err().kind(), ErrorKind::Rejected);
    assert_eq!(names(top.path()), ["a", "b", "e"]);

    // Killed when one of two had appeared: it is made again, and one whose run lived on is not.
    let mut two = vec![staged("f"), staged("g")];
    two.iter_mut().for_each(StagedOutput::die_while_appearing);
    let partial = two[0].path().to_owned();
    two.into_iter().for_each(std::mem::forget);
    std::fs::rename(partial, top.path().join("f")).unwrap();
    let two = vec![staged_after_death(&top.path().join("f")), staged_after_death(&top.path().join("g"))];
    commit_all(two).unwrap();
    assert_eq!(names(top.path()), ["a", "b", "e", "f", "g"]);
    for name in ["a", "f", "g"] {
        assert_eq!(file(&top.path().join(name), Existing::Refuse).unwrap_err().kind(), ErrorKind::Rejected);
    }
}

/// The output of a run after one that was killed, whose lock this process still holds.
fn staged_after_death(target: &Path) -> StagedOutput {
    let lock = target.with_file_name(format!("{}.partial.lock", target.file_name().unwrap().to_string_lossy()));
    // Another file with the same text has no lock on it.
    let text = std::fs::read(&lock).unwrap();
    std::fs::remove_file(&lock).unwrap();
    std::fs::write(&lock, text).unwrap();
    let staged = file(target, Existing::Refuse).unwrap();
    write(staged.path(), "again");
    staged
}
