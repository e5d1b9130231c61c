//! Staged outputs: what is visible when, what is cleared, who is kept out.

use super::{Existing, Leftover, StagedOutput, remove_stale_lock};
use crate::ErrorKind;
use std::path::Path;

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

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
    let staged = StagedOutput::folder(&target, Existing::Refuse, Leftover::Clear).unwrap();
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
    let staged = StagedOutput::folder(&top.path().join("a/b/basis"), Existing::Refuse, Leftover::Clear).unwrap();
    write(&staged.path().join("atom"), "x");
    drop(staged);
    let staged = StagedOutput::file(&top.path().join("c/model.safetensors"), Existing::Refuse).unwrap();
    write(staged.path(), "x");
    drop(staged);
    assert_eq!(names(top.path()), ["kept"]);
}

#[test]
fn a_file_appears_whole_and_replaces_only_when_told() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("model.safetensors");
    for text in ["first", "second"] {
        let staged = StagedOutput::file(&target, Existing::Replace).unwrap();
        write(staged.path(), text);
        staged.commit().unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), text);
    }
    let error = StagedOutput::file(&target, Existing::Refuse).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.hint_text().unwrap().contains("--overwrite"));
    assert_eq!(names(top.path()), ["model.safetensors"]);
}

#[test]
fn an_output_that_appears_during_the_work_is_kept() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    let staged = StagedOutput::file(&target, Existing::Refuse).unwrap();
    write(staged.path(), "ours");
    write(&target, "theirs");
    assert_eq!(staged.commit().unwrap_err().kind(), ErrorKind::Rejected);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "theirs");
    assert_eq!(names(top.path()), ["out"]);
}

#[test]
fn a_folder_is_replaced_only_when_it_looks_like_an_output() {
    let cases: [(&[&str], Option<&str>); 6] = [
        (&[], None),
        (&["basis.json", "notes.txt"], None),
        (&["model.safetensors"], None),
        (&["pytorch_model.bin"], None),
        (&["thesis.tex"], Some("other files")),
        (&["model.safetensors", ".git"], Some("git repository")),
    ];
    for (files, refusal) in cases {
        let top = tempfile::tempdir().unwrap();
        let target = top.path().join("out");
        std::fs::create_dir(&target).unwrap();
        for file in files {
            write(&target.join(file), "old");
        }
        assert!(StagedOutput::folder(&target, Existing::Refuse, Leftover::Clear).is_err());
        match (StagedOutput::folder(&target, Existing::Replace, Leftover::Clear), refusal) {
            (Ok(staged), None) => {
                write(&staged.path().join("basis.json"), "new");
                staged.commit().unwrap();
                assert_eq!(names(&target), ["basis.json"]);
            }
            (Err(error), Some(refusal)) => {
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
    let file = top.path().join("file");
    write(&file, "");
    for target in [Path::new("."), Path::new("/"), Path::new("nowhere/.."), &file] {
        assert!(StagedOutput::folder(target, Existing::Replace, Leftover::Clear).is_err(), "{target:?}");
    }
    assert!(StagedOutput::file(top.path(), Existing::Replace).is_err());
    assert_eq!(names(top.path()), ["file"]);
}

#[test]
fn a_second_run_stops_and_a_dead_one_does_not_matter() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    // What a killed run leaves: its lock file and its partial folder.
    write(&top.path().join("out.partial.lock"), "1\n");
    std::fs::create_dir(top.path().join("out.partial")).unwrap();
    write(&top.path().join("out.partial/old"), "");

    let first = StagedOutput::folder(&target, Existing::Refuse, Leftover::Clear).unwrap();
    assert!(!first.resumed());
    assert!(names(first.path()).is_empty());
    let error = StagedOutput::folder(&target, Existing::Refuse, Leftover::Clear).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    let process = format!("another run is writing this output (process {})", std::process::id());
    assert!(error.message().contains(&process), "{error}");
    assert!(first.path().exists(), "the second run must not touch the first one's folder");
    drop(first);
    assert!(names(top.path()).is_empty());
}

#[test]
fn an_interrupted_run_can_be_taken_up() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    let staged = StagedOutput::folder(&target, Existing::Refuse, Leftover::Keep).unwrap();
    assert!(!staged.resumed());
    write(&staged.path().join("half"), "1");
    staged.keep();
    assert_eq!(names(top.path()), ["out.partial"]);
    let staged = StagedOutput::folder(&target, Existing::Refuse, Leftover::Keep).unwrap();
    assert!(staged.resumed());
    assert_eq!(names(staged.path()), ["half"]);
    staged.commit().unwrap();
    assert_eq!(names(top.path()), ["out"]);
}

#[test]
fn an_old_output_comes_back_when_a_run_died_between_two_renames() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("out");
    std::fs::create_dir(top.path().join("out.partial.old")).unwrap();
    write(&top.path().join("out.partial.old/basis.json"), "old");
    let error = StagedOutput::folder(&target, Existing::Refuse, Leftover::Clear).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert_eq!(std::fs::read_to_string(target.join("basis.json")).unwrap(), "old");

    // Died after the new one was in place: the old one goes.
    std::fs::create_dir(top.path().join("out.partial.old")).unwrap();
    let _ = StagedOutput::folder(&target, Existing::Replace, Leftover::Clear).unwrap();
    assert_eq!(names(top.path()), ["out"]);
    // A folder of that name that is not ours stays.
    std::fs::create_dir(top.path().join("out.partial.old")).unwrap();
    write(&top.path().join("out.partial.old/diary"), "");
    drop(StagedOutput::folder(&target, Existing::Replace, Leftover::Clear).unwrap());
    assert_eq!(names(top.path()), ["out", "out.partial.old"]);
}

#[cfg(unix)]
#[test]
fn a_link_is_followed_and_stays() {
    let top = tempfile::tempdir().unwrap();
    std::fs::create_dir(top.path().join("disk")).unwrap();
    std::fs::create_dir(top.path().join("disk/out")).unwrap();
    std::os::unix::fs::symlink("disk/out", top.path().join("out")).unwrap();
    let staged = StagedOutput::folder(&top.path().join("out"), Existing::Replace, Leftover::Clear).unwrap();
    write(&staged.path().join("basis.json"), "new");
    staged.commit().unwrap();
    assert!(top.path().join("out").is_symlink());
    assert_eq!(names(&top.path().join("disk/out")), ["basis.json"]);
}

#[test]
fn a_stale_lock_is_removed_and_a_held_one_stays() {
    let top = tempfile::tempdir().unwrap();
    let target = top.path().join("basis");
    write(&top.path().join("basis.partial.lock"), "1");
    remove_stale_lock(&target);
    assert_eq!(names(top.path()), [] as [&str; 0]);
    let staged = StagedOutput::folder(&target, Existing::Refuse, Leftover::Clear).unwrap();
    remove_stale_lock(&target);
    assert!(names(top.path()).contains(&"basis.partial.lock".to_owned()));
    drop(staged);
    remove_stale_lock(&target);
    assert_eq!(names(top.path()), [] as [&str; 0]);
}
