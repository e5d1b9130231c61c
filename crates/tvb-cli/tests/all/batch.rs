//! `tvb batch` as a user meets it.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use tvb_tests::number;
use tvb_tests::small_models::{Random, contents, write_run};

fn tvb(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command.args(args).env_remove("TVB_DEVICE").env_remove("TVB_LOG").stdin(Stdio::null());
    command
}

/// Runs `tvb batch FILE --json …`; answers exit code and JSON.
fn batch(file: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let output = tvb(&["batch", "--json", "-q"]).arg(file).args(more).output().expect("tvb runs");
    let answer = serde_json::from_slice(&output.stdout);
    let answer = answer.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), answer)
}

/// Outcomes in order.
fn outcomes(answer: &Value) -> Vec<&str> {
    let records = answer["records"].as_array().unwrap_or_else(|| panic!("no records in {answer:#}"));
    records.iter().map(|record| record["outcome"].as_str().expect("a word")).collect()
}

const SHAPES: &[&[usize]] = &[&[200, 300], &[40_000], &[5]];

const JOBS: &str = r#"
[defaults]
base = "models/base.safetensors"
tasks = ["models/task0.safetensors", "b=models/task1.safetensors", "models/task2.safetensors"]
output = "out/{job}-{method}-m{m}"

[[job]]
name = "all"
method = ["anchored", "exact", "ae", "pca", "sample", "cluster", "nmf", "identity"]
m = [1, 2]

[[job]]
name = "edits"
ratio = 0.5
dtype = "bf16"
[[job.after]]
add = { tasks = ["task0", "b:0.5"], scale = 0.3, output = "out/{job}-add.safetensors" }
[[job.after]]
negate = { task = "b", output = "out/{job}-negate.safetensors", delta = true }
[[job.after]]
apply = { expression = "task0 - b", output = "out/{job}-apply.safetensors", dtype = "f16" }
"#;

#[test]
fn a_batch_reads_shared_inputs_once_and_makes_nothing_twice() {
    let top = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(top.path().join("models")).expect("a folder");
    write_run(&top.path().join("models"), SHAPES, 3, 1);
    let (file, log) = (top.path().join("jobs.toml"), top.path().join("log.jsonl"));
    std::fs::write(&file, JOBS).expect("written");
    let log_flag = ["--log", log.to_str().expect("UTF-8")];

    let (code, answer) = batch(&file, &["--dry-run"]);
    assert_eq!((code, &answer["problems"], &answer["n_gram_passes"]), (Some(0), &serde_json::json!([]), &1.into()));
    assert!(!top.path().join("out").exists() && !top.path().join("jobs.work").exists());

    let (code, answer) = batch(&file, &log_flag);
    let n_outputs = 7 * 2 + 1 + 4;
    assert_eq!((code, outcomes(&answer)), (Some(0), vec!["made"; n_outputs]), "{answer:#}");
    let grams = contents(&top.path().join("jobs.work"));
    let n_grams = grams.keys().filter(|name| name.to_string_lossy().starts_with("gram-")).count();
    assert_eq!(n_grams, 1, "{:?}", grams.keys());
    let made = contents(&top.path().join("out"));
    let lines = std::fs::read_to_string(&log).expect("a log");
    let words: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((words.len(), words[0]["outcome"].as_str()), (n_outputs, Some("made")));

    // The same again: everything is current, nothing is written.
    let (code, answer) = batch(&file, &log_flag);
    assert_eq!((code, outcomes(&answer)), (Some(0), vec!["current"; n_outputs]), "{answer:#}");
    assert!(contents(&top.path().join("out")) == made);
    assert_eq!(std::fs::read_to_string(&log).expect("a log").lines().count(), 2 * n_outputs);

    // What batch makes is what the single commands make.
    let single = top.path().join("single");
    let models = top.path().join("models");
    let status = tvb(&["compress", "-q", "--method", "exact", "-m", "2", "-o"])
        .arg(&single)
        .arg("--base")
        .arg(models.join("base.safetensors"))
        .arg(models.join("task0.safetensors"))
        .arg(format!("b={}", models.join("task1.safetensors").display()))
        .arg(models.join("task2.safetensors"))
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("tvb runs").success());
    let both = [single.join("atom-01.safetensors"), top.path().join("out/all-exact-m2/atom-01.safetensors")];
    assert!(std::fs::read(&both[0]).expect("an atom") == std::fs::read(&both[1]).expect("an atom"));

    // One other number: only that output is another; the rest is current.
    std::fs::write(&file, JOBS.replace("scale = 0.3", "scale = 0.4")).expect("written");
    let (code, answer) = batch(&file, &[]);
    let mut expected = vec!["current"; n_outputs];
    expected[n_outputs - 3] = "made";
    assert_eq!((code, outcomes(&answer)), (Some(0), expected), "{answer:#}");

    // Other inputs: the bases are others, and stay unless the file says overwrite.
    write_run(&models, SHAPES, 3, 2);
    let (code, answer) = batch(&file, &[]);
    assert_eq!(code, Some(1));
    assert!(outcomes(&answer).iter().all(|word| ["failed", "not tried"].contains(word)), "{answer:#}");
    let hint = answer["records"][0]["error"]["hint"].as_str().expect("a hint");
    assert!(hint.contains("overwrite = true"), "{hint}");
    let (code, answer) = batch(&file, &["--dry-run"]);
    assert_eq!((code, answer["problems"].as_array().map(Vec::len)), (Some(3), Some(16)), "{answer:#}");
    std::fs::write(&file, JOBS.replace("[defaults]", "[defaults]\noverwrite = true")).expect("written");
    let (code, answer) = batch(&file, &[]);
    assert_eq!((code, outcomes(&answer)), (Some(0), vec!["made"; n_outputs]), "{answer:#}");
}

#[test]
fn a_job_that_fails_does_not_stop_the_others() {
    let top = tempfile::tempdir().expect("a folder");
    write_run(top.path(), &[&[3, 4]], 2, 1);
    let file = top.path().join("jobs.toml");
    let text = r#"
        defaults = { base = "base.safetensors", tasks = ["task0.safetensors", "task1.safetensors"], output = "out/{job}", m = 1 }
        job = [
            { name = "gone", tasks = ["no.safetensors"] },
            { name = "fine" },
            { name = "large", m = 9 },
            { name = "broken", base = "broken.safetensors" },
            { name = "after", after = [{ apply = { expression = "task0 + task1", output = "out/{job}.safetensors" } }] },
        ]
    "#;
    std::fs::write(&file, text).expect("written");
    std::fs::write(top.path().join("broken.safetensors"), "no header").expect("written");

    let (code, answer) = batch(&file, &["--dry-run"]);
    let problems: Vec<&str> =
        answer["problems"].as_array().expect("problems").iter().filter_map(Value::as_str).collect();
    assert_eq!((code, problems.len()), (Some(3), 3), "{problems:?}");
    for (job, what) in [("large", "m = 9 for 2 tasks"), ("gone", "no.safetensors"), ("broken", "broken.safetensors")] {
        assert!(problems.iter().any(|line| line.contains(job) && line.contains(what)), "{job} in {problems:?}");
    }

    let (code, answer) = batch(&file, &["--fail-fast"]);
    assert_eq!(
        (code, outcomes(&answer)),
        (Some(1), vec!["failed", "not tried", "not tried", "not tried", "not tried", "not tried"])
    );
    let (code, answer) = batch(&file, &["--keep-going"]);
    assert_eq!((code, outcomes(&answer)), (Some(1), vec!["failed", "failed", "made", "failed", "made", "made"]));
    assert!(top.path().join("out/after.safetensors").is_file());

    for (text, message) in [("[[job]]\nnam = 'x'", "unknown key \"nam\""), ("job = 1", "a list of tables")] {
        std::fs::write(&file, text).expect("written");
        let output = tvb(&["batch"]).arg(&file).output().expect("tvb runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{error}");
        assert!(error.contains("jobs.toml") && error.contains(message), "{error}");
    }
}

#[test]
fn a_batch_killed_anywhere_goes_on_to_the_same_outputs() {
    let tops = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let models = tops[0].path().join("models");
    std::fs::create_dir(&models).expect("a folder");
    write_run(&models, SHAPES, 3, 1);
    // Both read the same files, so that records of sources are the same too.
    let jobs = JOBS
        .replace("\"models/", &format!("\"{}/", models.display()))
        .replace("b=models", &format!("b={}", models.display()));
    let files = [0, 1].map(|index: usize| tops[index].path().join("jobs.toml"));
    files.iter().for_each(|file| std::fs::write(file, &jobs).expect("written"));
    let started = std::time::Instant::now();
    assert_eq!(batch(&files[0], &[]).0, Some(0));
    let length = started.elapsed();
    let mut random = Random(number("TVB_KILL_SEED", 10));
    for _ in 0..number("TVB_KILLS", 12) / 2 {
        let mut command = tvb(&["batch", "-q"]);
        let child =
            command.arg(&files[1]).env("TVB_BOOKMARK_SECONDS", "0").stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("starts");
        std::thread::sleep(length.mul_f64(random.below(600) as f64 / 1000.0));
        let _ = child.kill();
        child.wait().expect("ends");
    }
    let (code, answer) = batch(&files[1], &[]);
    assert_eq!(code, Some(0), "{answer:#}");
    let found = tops.each_ref().map(|top| contents(&top.path().join("out")));
    assert_eq!(found[0].keys().collect::<Vec<_>>(), found[1].keys().collect::<Vec<_>>());
    let other: Vec<_> =
        found[0].iter().filter(|(name, bytes)| found[1][*name] != **bytes).map(|(name, _)| name).collect();
    assert!(other.is_empty(), "other bytes after kills: {other:?}");
}

#[test]
fn an_edit_whose_note_was_not_written_any_more_is_made_again() {
    let top = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(top.path().join("models")).expect("a folder");
    write_run(&top.path().join("models"), &[&[50]], 2, 1);
    let file = top.path().join("jobs.toml");
    let jobs = "[[job]]\nname = 'j'\nbase = 'models/base.safetensors'\ntasks = ['models/task0.safetensors', 'models/task1.safetensors']\nm = 1\noutput = 'basis'\nafter = [{ add = { output = 'sum.safetensors' } }]\n";
    std::fs::write(&file, jobs).expect("written");
    assert_eq!(batch(&file, &[]).0, Some(0));
    let note = std::fs::read_dir(top.path().join("jobs.work")).expect("a folder").flatten().map(|entry| entry.path());
    let note = note.filter(|path| path.extension().is_some_and(|end| end == "note")).last().expect("a note");
    // As a kill between the output's appearance and its note leaves it.
    std::fs::write(&note, "begun\n").expect("written");
    assert_eq!(outcomes(&batch(&file, &[]).1), ["current", "made"]);
    assert_eq!(outcomes(&batch(&file, &[]).1), ["current", "current"]);
    // A file of the user's is no output of ours, and stays one after it was refused.
    std::fs::write(top.path().join("sum.safetensors"), "the user's").expect("written");
    for _ in 0..2 {
        let (code, answer) = batch(&file, &[]);
        assert_eq!((code, outcomes(&answer)), (Some(1), vec!["current", "failed"]), "{answer:#}");
    }
    std::fs::remove_file(&note).expect("removed");
    assert_eq!(outcomes(&batch(&file, &[]).1), ["current", "failed"]);
    assert_eq!(std::fs::read(top.path().join("sum.safetensors")).expect("read"), b"the user's");
}

/// The zoo's tasks in the order of its scenarios.
const ZOO: &str = "digits shapes stripes letters blobs mazes symmetry textures tilted gradients negatives \
                   corners arrows faces parity noisy waves dice stencils occluded";

#[test]
#[ignore = "minutes: a hundred outputs, made twice"]
fn the_zoo_s_scenarios_interrupted_twice_end_with_the_same_bytes() {
    let zoo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tvb-zoo/checkpoints");
    let mut jobs = format!(
        "[defaults]\nbase = '{0}/base.safetensors'\nratio = [0.5, 0.25]\noutput = 'out/{{job}}-{{method}}-m{{m}}'\n\
         method = ['anchored', 'exact', 'ae', 'pca', 'sample', 'random', 'cluster', 'nmf', 'identity']\n\
         after = [{{ add = {{ scale = 0.5, output = 'out/{{job}}-{{method}}-m{{m}}-add.safetensors' }} }}]\n",
        zoo.display()
    );
    for n_tasks in [8, 14, 20] {
        let tasks = ZOO.split_whitespace().take(n_tasks).map(|name| format!("'{}/{name}.safetensors'", zoo.display()));
        let tasks = tasks.collect::<Vec<_>>().join(", ");
        jobs.push_str(&format!("[[job]]\nname = 'zoo{n_tasks}'\ntasks = [{tasks}]\n"));
    }
    let tops = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let files = tops.each_ref().map(|top| top.path().join("jobs.toml"));
    files.iter().for_each(|file| std::fs::write(file, &jobs).expect("written"));
    let started = std::time::Instant::now();
    let (code, answer) = batch(&files[0], &[]);
    assert_eq!((code, outcomes(&answer)), (Some(0), vec!["made"; 102]), "{answer:#}");
    let length = started.elapsed();
    let mut random = Random(number("TVB_KILL_SEED", 1));
    for _ in 0..2 {
        let mut child = tvb(&["batch", "-q"]).arg(&files[1]).stdout(Stdio::null()).spawn().expect("starts");
        std::thread::sleep(length.mul_f64(0.05 + random.below(400) as f64 / 1000.0));
        let _ = child.kill();
        child.wait().expect("ends");
    }
    assert_eq!(batch(&files[1], &[]).0, Some(0));
    let [expected, found] = tops.each_ref().map(|top| contents(&top.path().join("out")));
    assert!(found == expected, "other names or bytes after two kills");
}
