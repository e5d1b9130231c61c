//! Nothing of the user's is lost, whatever is asked for and whatever a file says: outputs that are inputs, names that lead out
//! of a folder, what stands where an output is written.
#![cfg(unix)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tvb::basis::{Basis, gram_file};
use tvb_tests::small_models::{Random, Run, shapes, values, write_model, write_run};

fn tvb(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command
        .args(&args[..1])
        .args(["-q", "--device", "cpu"])
        .args(&args[1..])
        .env_remove("TVB_LOG")
        .stdin(Stdio::null());
    command
}

/// Exit code and stderr.
fn end_of(command: &mut Command) -> (Option<i32>, String) {
    let found = command.output().expect("tvb runs");
    (found.status.code(), String::from_utf8_lossy(&found.stderr).into_owned())
}

#[track_caller]
fn succeed(command: &mut Command) {
    let (code, text) = end_of(command);
    assert_eq!(code, Some(0), "{command:?}: {text}");
}

/// The command fails with this exit code, says `message`, and nothing below `top` is other than it was.
#[track_caller]
fn refuse(top: &Path, command: &mut Command, exit_code: i32, message: &str) {
    let before = all_below(top);
    let (code, text) = end_of(command);
    assert_eq!(code, Some(exit_code), "{command:?}: {text}");
    let line = text.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(line.contains(message), "{message:?} expected of {command:?} in {text:?}");
    assert!(all_below(top) == before, "{command:?} changed {:?}", all_below(top).keys());
}

/// Every path below a folder with its bytes, links as what they say.
fn all_below(top: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![top.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").flatten() {
            let kind = entry.file_type().expect("a kind");
            let bytes = if kind.is_symlink() {
                std::fs::read_link(entry.path()).expect("a link").into_os_string().into_encoded_bytes()
            } else if kind.is_dir() {
                folders.push(entry.path());
                Vec::new()
            } else {
                std::fs::read(entry.path()).expect("read")
            };
            all.insert(entry.path(), bytes);
        }
    }
    all
}

/// Three tasks in a folder, their basis beside it, and the base once more as a Hugging Face folder of two shards.
struct World {
    top: tempfile::TempDir,
    run: Run,
    basis: PathBuf,
    hf: PathBuf,
}

impl World {
    fn new() -> World {
        let top = tempfile::tempdir().expect("a folder");
        let d = top.path().join("d");
        std::fs::create_dir(&d).expect("a folder");
        let (basis, n_tasks) = (top.path().join("basis"), 3);
        let run = write_run(&d, &[&[40], &[3, 5]], n_tasks, 1);
        let shapes = shapes(&[&[40], &[3, 5]]);
        // The same numbers as the run's.
        let (base, _) = values(&shapes, n_tasks, &mut Random(1));
        let hf = write_model(top.path(), "hf", &shapes, &base, 2);
        std::fs::write(hf.join("config.json"), "{\"dtype\": \"float32\"}").expect("written");
        std::fs::write(hf.join("notes.txt"), "the user's").expect("written");
        let world = World { top, run, basis, hf };
        succeed(world.compress(&world.basis).args(["-m", "2"]));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    fn inputs<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.arg("--base").arg(&self.run.base).args(&self.run.tasks)
    }

    fn compress(&self, output: &Path) -> Command {
        let mut command = tvb(&["compress"]);
        self.inputs(&mut command).arg("-o").arg(output);
        command
    }

    fn add(&self, base: &Path, output: &Path) -> Command {
        let mut command = tvb(&["add", "--force"]);
        command.arg(&self.basis).arg("--base").arg(base).arg("-o").arg(output);
        command
    }
}

#[test]
fn an_output_that_would_touch_an_input_is_refused_by_every_command() {
    let world = World::new();
    let top = world.top.path();
    let d = world.path("d");
    symlink("d", world.path("alias")).expect("linked");
    symlink("d/base.safetensors", world.path("link.safetensors")).expect("linked");
    std::fs::hard_link(d.join("task1.safetensors"), world.path("hard.safetensors")).expect("linked");
    let gram = world.path("x.gram");
    succeed(world.inputs(&mut tvb(&["gram"])).arg("-o").arg(&gram));

    for output in [&d, &world.path("alias"), &world.path("d/../d/."), &world.path("d/")] {
        refuse(top, world.compress(output).arg("--overwrite"), 3, "input");
        refuse(top, &mut world.compress(output), 3, "input");
    }
    for output in [
        "d/base.safetensors",
        "d/../d/task0.safetensors",
        "alias/task2.safetensors",
        "link.safetensors",
        "hard.safetensors",
    ] {
        let output = world.path(output);
        refuse(top, world.inputs(tvb(&["gram", "--overwrite", "-o"]).arg(&output)), 3, "is the input");
        let mut edit = tvb(&["add", "--overwrite", "-o"]);
        edit.arg(&output).arg("--base").arg(&world.run.base).arg("--from-checkpoints").args(&world.run.tasks);
        refuse(top, &mut edit, 3, "is the input");
    }
    let refused_edits = [
        (world.hf.clone(), "input"),
        (world.hf.join("model.safetensors"), "would change the input"),
        (world.hf.join("model-00001-of-00002.safetensors"), "is the input"),
        (world.basis.clone(), "input"),
        (world.basis.join("atom-00.safetensors"), "is the input"),
        (world.basis.join("coefficients.safetensors"), "is the input"),
        (world.basis.join("atom-07.safetensors"), "would change the input"),
    ];
    for (output, message) in &refused_edits {
        refuse(top, world.add(&world.hf, output).arg("--overwrite"), 3, message);
    }
    for kind in ["negate", "apply"] {
        let mut command = tvb(&[kind, "--overwrite", "--force"]);
        command.arg(&world.basis).args(["task0", "-o"]).arg(&world.hf).arg("--base").arg(&world.hf);
        refuse(top, &mut command, 3, "input");
    }
    let basis = |words: &[&str], output: &Path| {
        let mut command = tvb(&words[..1]);
        command.arg(&world.basis).args(&words[1..]).arg("-o").arg(output).arg("--overwrite");
        command
    };
    refuse(top, &mut basis(&["export"], &world.basis), 3, "input");
    refuse(top, &mut basis(&["report"], &world.basis.join("basis.json")), 3, "input");
    refuse(top, &mut basis(&["report"], &world.basis.join("coefficients.safetensors")), 3, "input");
    // Nor onto the checkpoints that the basis was made from, which these commands do not read.
    refuse(top, &mut basis(&["report"], &world.run.base), 3, "is the input");
    refuse(top, &mut basis(&["recover"], world.run.base.parent().expect("a folder")), 3, "input");
    let mut plot = tvb(&["plan", "--overwrite", "--plot"]);
    refuse(top, plot.arg(&gram).arg("--gram").arg(&gram), 3, "is the input");
    let mut compress = world.compress(top);
    refuse(top, compress.arg("--gram").arg(&gram).arg("--overwrite"), 3, "input");
    let mut export = tvb(&["export", "--overwrite", "--format", "pt", "-o"]);
    refuse(top, export.arg(&world.run.base).arg(&world.run.base), 3, "is the input");
    // A published basis is not imported onto itself.
    let published = world.path("published");
    succeed(&mut basis(&["export"], &published));
    refuse(top, tvb(&["import", "--overwrite", "-o"]).arg(&published).arg(&published), 3, "input");
    for output in [&d, &world.basis, &world.hf] {
        let mut sweep = tvb(&["sweep", "add"]);
        sweep.arg(&world.basis).arg("--base").arg(&world.run.base).args([
            "--scales",
            "1",
            "--metric",
            "x",
            "--overwrite",
            "-o",
        ]);
        refuse(top, sweep.arg(output).args(["--", "echo", "{checkpoint}"]), 3, "something else found");
    }
    // Not even into a sweep's own folder, when it holds its base.
    let swept = world.path("swept");
    std::fs::create_dir(&swept).expect("made");
    std::fs::write(swept.join("points.jsonl"), "").expect("written");
    std::fs::copy(&world.run.base, swept.join("best.safetensors")).expect("copied");
    let mut sweep = tvb(&["sweep", "add"]);
    sweep.arg(&world.basis).arg("--base").arg(swept.join("best.safetensors"));
    sweep.args(["--scales", "1", "--metric", "x", "-o"]).arg(&swept).args(["--", "echo", "{checkpoint}"]);
    refuse(top, &mut sweep, 3, "input");
    std::fs::write(swept.join("points.jsonl"), "{\"the user's\": 1}\n").expect("written");
    std::fs::remove_file(swept.join("best.safetensors")).expect("removed");
    let mut sweep = tvb(&["sweep", "add", "--overwrite"]);
    sweep.arg(&world.basis).arg("--base").arg(&world.run.base);
    sweep.args(["--scales", "1", "--metric", "x", "-o"]).arg(&swept).args(["--", "echo", "{checkpoint}"]);
    refuse(top, &mut sweep, 3, "a sweep's points expected");
    // Beside its inputs an output has room.
    succeed(&mut world.compress(&world.path("d/basis")));
    succeed(&mut world.add(&world.run.base, &world.path("d/edited.safetensors")));
    succeed(&mut world.add(&world.hf, &world.path("hf/edited.safetensors")));
}

#[test]
fn a_folder_with_anything_of_the_user_s_is_not_replaced() {
    let world = World::new();
    let edited = world.path("edited");
    succeed(&mut world.add(&world.hf, &edited));
    succeed(world.add(&world.hf, &edited).arg("--overwrite"));
    succeed(world.compress(&world.basis).arg("--overwrite"));
    let strangers: [(&Path, &str, bool); 6] = [
        (&edited, "training_args.bin", false),
        (&edited, "checkpoint-500", true),
        (&edited, "other.safetensors", false),
        (&world.basis, "notes.txt", false),
        (&world.basis, "model.safetensors", false),
        (&world.basis, ".git", true),
    ];
    for (folder, name, is_folder) in strangers {
        match is_folder {
            true => std::fs::create_dir(folder.join(name)).expect("made"),
            false => std::fs::write(folder.join(name), "the user's").expect("written"),
        }
        let mut command = if *folder == edited { world.add(&world.hf, &edited) } else { world.compress(&world.basis) };
        refuse(world.top.path(), command.arg("--overwrite"), 3, name);
        let _ = std::fs::remove_file(folder.join(name)).or_else(|_| std::fs::remove_dir(folder.join(name)));
    }
    // A checkpoint of the user's own has no model card of ours.
    let own = world.path("own");
    std::fs::create_dir(&own).expect("made");
    for name in ["model.safetensors", "config.json"] {
        std::fs::write(own.join(name), "the user's").expect("written");
    }
    refuse(world.top.path(), world.add(&world.hf, &own).arg("--overwrite"), 3, "config.json");
}

#[test]
fn what_stands_beside_an_output_stays() {
    let world = World::new();
    let top = world.top.path();
    let secret = world.path("secret");
    std::fs::write(&secret, "secret").expect("written");
    let (a, b, c) = (world.path("out"), world.path("x.gram"), world.path("e.safetensors"));
    let mut commands: Vec<(PathBuf, Box<dyn Fn() -> Command + '_>)> = Vec::new();
    commands.push((a.clone(), Box::new(|| world.compress(&a))));
    commands.push((
        b.clone(),
        Box::new(|| {
            let mut command = tvb(&["gram", "-o"]);
            world.inputs(command.arg(&b));
            command
        }),
    ));
    commands.push((c.clone(), Box::new(|| world.add(&world.run.base, &c))));
    for (output, command) in &commands {
        let beside = |end: &str| PathBuf::from(format!("{}{end}", output.display()));
        let (partial, lock, bookmarks) = (beside(".partial"), beside(".partial.lock"), beside(".partial.bookmarks"));
        for more in [&[][..], &["--overwrite"]] {
            let run = || {
                let mut command = command();
                command.args(more);
                command
            };
            std::fs::create_dir(&partial).expect("made");
            std::fs::write(partial.join("thesis.tex"), "mine").expect("written");
            refuse(top, &mut run(), 3, ".partial");
            std::fs::remove_dir_all(&partial).expect("removed");
            std::fs::write(&partial, "mine").expect("written");
            refuse(top, &mut run(), 3, ".partial");
            std::fs::remove_file(&partial).expect("removed");
            symlink(&secret, &partial).expect("linked");
            refuse(top, &mut run(), 3, ".partial");
            std::fs::remove_file(&partial).expect("removed");
            symlink(&secret, &lock).expect("linked");
            refuse(top, &mut run(), 3, ".partial.lock");
            std::fs::remove_file(&lock).expect("removed");
            std::fs::write(&lock, "my shopping list").expect("written");
            refuse(top, &mut run(), 3, ".partial.lock");
            std::fs::remove_file(&lock).expect("removed");
        }
        std::fs::create_dir(&bookmarks).expect("made");
        std::fs::write(bookmarks.join("thesis.tex"), "mine").expect("written");
        succeed(command().env("TVB_BOOKMARK_SECONDS", "0"));
        assert_eq!(std::fs::read(bookmarks.join("thesis.tex")).expect("there"), b"mine");
        assert_eq!(std::fs::read_dir(&bookmarks).expect("there").count(), 1);
    }
    assert_eq!(std::fs::read(secret).expect("there"), b"secret");
}

/// Names that lead out of a folder, or are no file's.
#[test]
fn names_of_tasks_in_files_are_checked() {
    let world = World::new();
    let top = world.top.path();
    let gram = world.path("x.gram");
    succeed(world.inputs(&mut tvb(&["gram"])).arg("-o").arg(&gram));
    std::fs::write(world.path("victim.safetensors"), "the user's").expect("written");
    let basis = Basis::open(&world.basis).expect("a basis");
    let grams = gram_file::read(&gram).expect("a Gram file");
    let absolute = world.path("victim").display().to_string();
    let out = world.path("out");
    for name in
        ["../victim", &absolute, "..", ".", "", "a/b", "a\\b", "x\0y", "x\ny", "\u{1b}[2J", "task1", &"x".repeat(300)]
    {
        let mut manifest = basis.manifest.clone();
        manifest.tasks[0].name = name.into();
        manifest.write(&world.basis).expect("written");
        for more in [&["--overwrite"][..], &["--overwrite", "--base"]] {
            let mut command = tvb(&["recover"]);
            command.arg(&world.basis).arg("-o").arg(&out).args(more);
            if more.len() > 1 {
                command.arg(&world.run.base);
            }
            refuse(top, &mut command, 3, "basis.json");
        }
        let mut grams = grams.clone();
        grams.tasks[0].name = name.into();
        std::fs::write(&gram, gram_file::to_bytes(&grams).expect("bytes")).expect("written");
        refuse(top, tvb(&["plan", "--gram"]).arg(&gram), 3, "x.gram");
        refuse(top, world.compress(&out).arg("--gram").arg(&gram), 3, "x.gram");
    }
}

#[test]
fn recovered_tasks_appear_together_or_not_at_all() {
    let top = tempfile::tempdir().expect("a folder");
    // Two passes over the atoms.
    let run = write_run(top.path(), &[&[40]], 10, 2);
    let basis = top.path().join("basis");
    succeed(tvb(&["compress", "-m", "2", "--base"]).arg(&run.base).args(&run.tasks).arg("-o").arg(&basis));
    let recover = |folder: &str| {
        let mut command = tvb(&["recover"]);
        command.arg(&basis).arg("-o").arg(top.path().join(folder));
        command
    };
    // A task of the second pass is there already.
    let there = top.path().join("there");
    std::fs::create_dir(&there).expect("made");
    std::fs::write(there.join("task9.safetensors"), "the user's").expect("written");
    refuse(top.path(), &mut recover("there"), 3, "exists already");
    // What stands in the way of the second pass is found in it.
    std::fs::remove_file(there.join("task9.safetensors")).expect("removed");
    std::fs::write(there.join("task9.safetensors.partial"), "the user's").expect("written");
    refuse(top.path(), &mut recover("there"), 3, "task9.safetensors.partial");
    std::fs::remove_file(there.join("task9.safetensors.partial")).expect("removed");
    succeed(&mut recover("there"));
    succeed(&mut recover("new/deep"));
    assert_eq!(std::fs::read_dir(&there).expect("made").count(), 10);
    assert_eq!(std::fs::read_dir(top.path().join("new/deep")).expect("made").count(), 10);
    refuse(top.path(), recover("twice").args(["task1", "task2", "task1"]), 2, "asked for twice");
    // A damaged atom is found when all is formed.
    let atom = basis.join("atom-00.safetensors");
    let mut bytes = std::fs::read(&atom).expect("an atom");
    *bytes.last_mut().expect("bytes") ^= 1;
    std::fs::write(&atom, bytes).expect("written");
    refuse(top.path(), &mut recover("damaged"), 3, "atom-00");
    refuse(top.path(), recover("there").arg("--overwrite"), 3, "atom-00");
}

#[test]
fn side_files_do_not_lead_out_of_the_base() {
    let world = World::new();
    std::fs::write(world.path("secret"), "secret").expect("written");
    for name in ["tokenizer.json", "vocab.txt", "config.json"] {
        let _ = std::fs::remove_file(world.hf.join(name));
        symlink("../secret", world.hf.join(name)).expect("linked");
        refuse(world.top.path(), &mut world.add(&world.hf, &world.path("out")), 3, name);
        let mut recover = tvb(&["recover", "--force"]);
        recover.arg(&world.basis).arg("--base").arg(&world.hf).arg("-o").arg(world.path("out"));
        refuse(world.top.path(), &mut recover, 3, name);
        std::fs::remove_file(world.hf.join(name)).expect("removed");
    }
}

#[test]
fn paths_that_no_output_can_have_are_said_before_the_work() {
    let world = World::new();
    let top = world.top.path();
    for (output, exit_code) in
        [("x.safetensors/", 2), ("x.safetensors/.", 2), ("d/base.safetensors/x.safetensors", 3), ("x.pt", 2)]
    {
        refuse(top, &mut world.add(&world.run.base, &world.path(output)), exit_code, "");
    }
    refuse(top, &mut world.add(&world.run.base, Path::new("")), 2, "");
    refuse(top, world.inputs(tvb(&["gram", "-o"]).arg(world.path("x.gram/"))), 2, "");
    refuse(top, tvb(&["report", "-o"]).arg(world.path("x.html/")).arg(&world.basis), 2, "");
    refuse(top, &mut world.compress(&world.path("d/base.safetensors/basis")), 3, "a folder expected");
}

fn batch(file: &Path, more: &[&str]) -> (Option<i32>, String, Value) {
    let found = tvb(&["batch", "--json"]).arg(file).args(more).output().expect("tvb runs");
    let answer = serde_json::from_slice(&found.stdout).unwrap_or(Value::Null);
    (found.status.code(), String::from_utf8_lossy(&found.stderr).into_owned(), answer)
}

#[test]
fn a_batch_s_outputs_keep_out_of_each_other_s_way_and_of_the_inputs() {
    let world = World::new();
    let file = world.path("jobs.toml");
    symlink("q", world.path("s")).expect("linked");
    let head = "[defaults]\nbase = 'd/base.safetensors'\ntasks = ['d/task0.safetensors', 'd/task1.safetensors']\nm = 1\noverwrite = true\n";
    let job = |name: &str, rest: &str| format!("[[job]]\nname = '{name}'\n{rest}\n");
    let cases = [
        (job("a", "output = 'o'") + &job("b", "output = 'q/../o'"), "two outputs have this path"),
        (job("a", "output = 'q/o'") + &job("b", "output = 's/o'"), "two outputs have this path"),
        (job("a", "output = 'o'") + &job("b", "output = './o/'"), "two outputs have this path"),
        (job("a", "output = 'o'") + &job("b", "output = 'o/p'"), "lies in one"),
        (
            job("a", "output = 'o'\nafter = [{ negate = { task = 'task0', output = 'o/n.safetensors' } }]"),
            "lies in one",
        ),
        (job("a", "output = 'd'"), "is or lies in an output"),
        (job("a", "output = 'd/../d/task1.safetensors'"), "is or lies in an output"),
        (job("a", "output = 'o'") + &job("b", "output = 'p'\nbase = 'p/x.safetensors'"), "is or lies in an output"),
        (job("a", "output = 'o'\nbase = 'p'") + &job("b", "output = 'p'"), "is or lies in an output"),
        (job("a", "output = '.'"), "is or lies in an output"),
        (job("a", "output = 'jobs.work'"), "is or lies in an output"),
    ];
    for (text, message) in &cases {
        std::fs::write(&file, format!("{head}{text}")).expect("written");
        refuse(world.top.path(), tvb(&["batch"]).arg(&file), 3, message);
    }
    // An edit that a later job reads is no one's loss; a log is a log.
    let chain = job("a", "output = 'o'\nafter = [{ add = { output = 'e.safetensors' } }]")
        + &job("b", "output = 'p'\ntasks = ['d/task0.safetensors', 'e.safetensors']");
    std::fs::write(&file, format!("{head}{chain}")).expect("written");
    let base = world.run.base.display().to_string();
    for log in ["o/log", "e.safetensors", "jobs.toml", &base] {
        refuse(world.top.path(), tvb(&["batch"]).arg(&file).arg("--log").arg(world.path(log)), 3, "");
    }
    for _ in 0..2 {
        let (code, text, answer) = batch(&file, &[]);
        assert_eq!(code, Some(0), "{text}{answer:#}");
    }
}

#[test]
fn a_batch_finds_a_flipped_bit_that_no_time_shows() {
    let world = World::new();
    let file = world.path("jobs.toml");
    let text = "[[job]]\nname = 'a'\nbase = 'd/base.safetensors'\ntasks = ['d/task0.safetensors', 'd/task1.safetensors']\nm = 1\noutput = 'o'\nafter = [{ add = { output = 'e.safetensors' } }]\n";
    std::fs::write(&file, text).expect("written");
    let outcomes = |answer: &Value| -> Vec<String> {
        let records = answer["records"].as_array().cloned().unwrap_or_default();
        records.iter().map(|record| record["outcome"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(outcomes(&batch(&file, &[]).2), ["made", "made"]);
    let flip = |name: &str| {
        let path = world.path(name);
        let mut bytes = std::fs::read(&path).expect("read");
        let modified = std::fs::metadata(&path).and_then(|found| found.modified()).expect("a time");
        *bytes.last_mut().expect("bytes") ^= 4;
        std::fs::write(&path, bytes).expect("written");
        std::fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(modified)).expect("set");
    };
    flip("o/atom-00.safetensors");
    let (code, _, answer) = batch(&file, &[]);
    assert_eq!((code, outcomes(&answer)), (Some(1), vec!["failed".into(), "not tried".into()]), "{answer:#}");
    assert!(
        answer["records"][0]["error"]["message"].as_str().is_some_and(|text| text.contains("atom-00")),
        "{answer:#}"
    );
    std::fs::write(&file, text.replace("m = 1\n", "m = 1\noverwrite = true\n")).expect("written");
    assert_eq!(outcomes(&batch(&file, &[]).2), ["made", "current"]);
    std::fs::write(&file, text).expect("written");
    flip("e.safetensors");
    let (code, _, answer) = batch(&file, &[]);
    assert_eq!((code, outcomes(&answer)), (Some(1), vec!["current".into(), "failed".into()]), "{answer:#}");
    std::fs::write(&file, text.replace("m = 1\n", "m = 1\noverwrite = true\n")).expect("written");
    assert_eq!(outcomes(&batch(&file, &[]).2), ["current", "made"]);
}
