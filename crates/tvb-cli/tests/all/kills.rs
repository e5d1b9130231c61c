//! The binary under attack: killed at random moments, run twice at once, with no room, no permission, vanished inputs.
//!
//! `TVB_KILLS` sets the number of kills in each test (a dozen where nothing is said), `TVB_KILL_SEED` where they fall.
#![cfg(unix)]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tvb_tests::number;
use tvb_tests::small_models::{Random, Run, contents, write_run};

fn tvb() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tvb"));
    command
        .env_remove("TVB_DEVICE")
        .env_remove("TVB_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn compress(run: &Run, output: &Path, more: &[&str]) -> Command {
    let mut command = tvb();
    command.args(["compress", "-q", "-m", "2", "-j", "2", "--base"]).arg(&run.base).args(&run.tasks);
    command.arg("-o").arg(output).args(more);
    command
}

fn succeed(command: &mut Command) -> Duration {
    let started = Instant::now();
    let Output { status, stderr, .. } = command.stderr(Stdio::piped()).output().expect("tvb runs");
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    started.elapsed()
}

/// Waits for a random part of `length`, then kills.
fn kill(mut child: Child, length: Duration, random: &mut Random) {
    std::thread::sleep(length.mul_f64(random.below(1200) as f64 / 1000.0));
    let _ = child.kill();
    child.wait().expect("ends");
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Shapes of several blocks and tensors: some 25 chunks.
const SHAPES: &[&[usize]] = &[&[300, 500], &[7], &[100_000], &[0, 3], &[257, 300], &[]];

#[test]
fn a_compression_killed_anywhere_leaves_the_old_or_the_new_and_goes_on() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), SHAPES, 4, 1);
    let work = top.path().join("work");
    std::fs::create_dir(&work).expect("a folder");
    let (output, reference) = (work.join("basis"), top.path().join("reference"));
    succeed(&mut compress(&run, &reference, &["--method", "pca"]));
    let old = contents(&reference);
    let length = succeed(compress(&run, &reference, &["--overwrite"]).env("TVB_BOOKMARK_SECONDS", "0"));
    let new = contents(&reference);
    assert!(old != new && new.len() == 4, "{:?}", new.keys());

    let mut random = Random(number("TVB_KILL_SEED", 7));
    let (mut n_taken_up, n_kills) = (0, number("TVB_KILLS", 12_u64));
    for round in 0..n_kills.div_ceil(3) {
        let _ = std::fs::remove_dir_all(&output);
        let overwrites = round % 2 == 1;
        if overwrites {
            succeed(&mut compress(&run, &output, &["--method", "pca"]));
        }
        for _ in 0..3 {
            let seconds = ["0", "0", "0.005", "30"][random.below(4)];
            let mut command = compress(&run, &output, &["--overwrite"]);
            kill(command.env("TVB_BOOKMARK_SECONDS", seconds).spawn().expect("starts"), length, &mut random);
            n_taken_up += usize::from(work.join("basis.partial/bookmarks").exists());
            let found = contents(&output);
            let is_whole = found == new || found == old || (found.is_empty() && !output.exists());
            assert!(is_whole || work.join("basis.partial.old").exists(), "{:?}", names(&work));
        }
        succeed(&mut compress(&run, &output, &["--overwrite"]));
        assert_eq!(contents(&output).keys().collect::<Vec<_>>(), new.keys().collect::<Vec<_>>());
        assert!(contents(&output) == new, "round {round}: other bytes after kills");
        assert_eq!(names(&work), ["basis"], "round {round}");
    }
    println!("{n_kills} kills, {n_taken_up} of them left bookmarks");
}

#[test]
fn coding_killed_anywhere_goes_on_to_the_same_bytes() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), SHAPES, 4, 14);
    let work = top.path().join("work");
    std::fs::create_dir(&work).expect("a folder");
    let (output, reference) = (work.join("basis"), top.path().join("reference"));
    let mut random = Random(number("TVB_KILL_SEED", 14));
    // Tasks as they are, in one pass; mixtures, after the Gram matrix.
    for more in [&["--bits", "1.6", "--keep", "task0 + task1"][..], &["-m", "3", "--bits", "2"]] {
        let code = |output: &Path| {
            let mut command = tvb();
            command.args(["compress", "-q", "-j", "2", "--overwrite", "--base"]).arg(&run.base).args(&run.tasks);
            command.args(more).arg("-o").arg(output).env("TVB_BOOKMARK_SECONDS", "0");
            command
        };
        let length = succeed(&mut code(&reference));
        let expected = contents(&reference);
        let _ = std::fs::remove_dir_all(&output);
        for _ in 0..number("TVB_KILLS", 12_u64).div_ceil(2) {
            kill(code(&output).spawn().expect("starts"), length, &mut random);
            let found = contents(&output);
            assert!(found.is_empty() || found == expected || work.join("basis.partial.old").exists(), "half an output");
        }
        succeed(&mut code(&output));
        assert!(contents(&output) == expected, "{more:?}: other bytes after kills");
        assert_eq!(names(&work), ["basis"]);
    }
}

#[test]
fn a_gram_file_and_an_edit_killed_anywhere_are_whole_in_the_end() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), SHAPES, 4, 2);
    let basis = top.path().join("basis");
    succeed(&mut compress(&run, &basis, &[]));
    let gram = |output: &Path| {
        let mut command = tvb();
        command.args(["gram", "-q", "--overwrite", "--base"]).arg(&run.base).args(&run.tasks).arg("-o").arg(output);
        command.env("TVB_BOOKMARK_SECONDS", "0");
        command
    };
    let known = top.path().join("known.gram");
    succeed(tvb().args(["gram", "-q", "--base"]).arg(&run.base).args(&run.tasks[..3]).arg("-o").arg(&known));
    let extend = |output: &Path| {
        let mut command = gram(output);
        command.arg("--extend").arg(&known);
        command
    };
    let add = |output: &Path| {
        let mut command = tvb();
        command.args(["add", "-q", "--overwrite"]).arg(&basis).arg("--base").arg(&run.base).arg("-o").arg(output);
        command
    };
    let mut random = Random(number("TVB_KILL_SEED", 8));
    let commands: [&dyn Fn(&Path) -> Command; 3] = [&gram, &extend, &add];
    for (index, command) in commands.iter().enumerate() {
        let reference = top.path().join(format!("reference{index}.safetensors"));
        let length = succeed(&mut command(&reference));
        let expected = std::fs::read(&reference).expect("read");
        let work = top.path().join(format!("work{index}"));
        std::fs::create_dir(&work).expect("a folder");
        let output = work.join("out.safetensors");
        for _ in 0..number("TVB_KILLS", 12_u64).div_ceil(2) {
            kill(command(&output).spawn().expect("starts"), length, &mut random);
            let found = std::fs::read(&output).ok();
            assert!(found.is_none_or(|found| found == expected), "half an output under its final name");
        }
        succeed(&mut command(&output));
        assert!(std::fs::read(&output).expect("read") == expected);
        assert_eq!(names(&work), ["out.safetensors"]);
    }
}

#[test]
fn a_recovery_killed_anywhere_is_whole_in_the_end() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), &[&[20_000], &[7]], 10, 13);
    let basis = top.path().join("basis");
    succeed(&mut compress(&run, &basis, &[]));
    let recover = |output: &Path| {
        let mut command = tvb();
        command.args(["recover", "-q"]).arg(&basis).arg("-o").arg(output);
        command
    };
    let reference = top.path().join("reference");
    let length = succeed(&mut recover(&reference));
    let mut random = Random(number("TVB_KILL_SEED", 13));
    for round in 0..number("TVB_KILLS", 12_u64).div_ceil(2) {
        let work = top.path().join(format!("work{round}"));
        let output = work.join("out");
        // Into a folder that is there, and into one that is not.
        std::fs::create_dir_all(if round % 2 == 0 { &output } else { &work }).expect("a folder");
        kill(recover(&output).spawn().expect("starts"), length, &mut random);
        // Killed when all was there, but for its locks.
        let found = contents(&output);
        let is_done = contents(&reference).iter().all(|(name, bytes)| found.get(name) == Some(bytes));
        let mut again = recover(&output);
        if is_done {
            again.arg("--overwrite");
        }
        succeed(&mut again);
        assert!(contents(&output) == contents(&reference), "round {round}");
        assert_eq!(names(&work), ["out"], "round {round}");
    }
}

#[test]
fn ctrl_c_stops_cleanly_and_the_same_command_goes_on() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), SHAPES, 4, 3);
    let (output, reference) = (top.path().join("out/basis"), top.path().join("reference"));
    let length = succeed(compress(&run, &reference, &[]).env("TVB_BOOKMARK_SECONDS", "0"));
    let mut random = Random(number("TVB_KILL_SEED", 9));
    for _ in 0..number("TVB_KILLS", 12_u64).div_ceil(3) {
        let mut command = compress(&run, &output, &["--overwrite"]);
        let mut child = command.env("TVB_BOOKMARK_SECONDS", "0").spawn().expect("starts");
        std::thread::sleep(length.mul_f64(random.below(1000) as f64 / 1000.0));
        let id = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(id, rustix::process::Signal::INT);
        let status = child.wait().expect("ends");
        // Done before the signal, stopped by it, or hit before it listened.
        assert!(matches!(status.code(), Some(0 | 130) | None), "{status}");
    }
    succeed(&mut compress(&run, &output, &["--overwrite"]));
    assert!(contents(&output) == contents(&reference));
    assert_eq!(names(&top.path().join("out")), ["basis"]);
}

/// Runs a command that must fail with this exit code and one line that holds `message`.
#[track_caller]
fn fail(command: &mut Command, exit_code: i32, message: &str) {
    let Output { status, stderr, .. } = command.stderr(Stdio::piped()).output().expect("tvb runs");
    let text = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(exit_code), "{command:?}: {status}\n{text}");
    let line = text.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(line.contains(message), "{message:?} expected in {text:?}");
}

#[test]
fn a_second_run_on_one_output_stops() {
    use tvb::checkpoint::{Existing, Inputs, Leftover, StagedOutput};
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), &[&[10]], 2, 4);
    let output = top.path().join("basis");
    let held = StagedOutput::folder(&output, Existing::Refuse, Leftover::Clear, &Inputs::none()).expect("held");
    let expected = format!("another run is writing this output (process {})", std::process::id());
    fail(&mut compress(&run, &output, &[]), 1, &expected);
    assert!(held.path().is_dir(), "the second run must leave the first one's work alone");
    drop(held);
    // A lock file without a living process behind it is no lock.
    std::fs::write(top.path().join("basis.partial.lock"), "1\n").expect("written");
    succeed(&mut compress(&run, &output, &[]));
}

#[test]
fn limits_of_the_system_are_said_in_one_line_and_nothing_is_left() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), &[&[100_000]], 2, 5);
    let work = top.path().join("work");
    std::fs::create_dir(&work).expect("a folder");
    let output = work.join("deep/basis");
    let arguments = |command: &mut Command, output: &Path| {
        command.args(["compress", "-q", "-m", "1", "--base"]).arg(&run.base).args(&run.tasks).arg("-o").arg(output);
        command.stdin(Stdio::null());
    };

    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 64; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tvb")]);
    arguments(&mut command, &output);
    fail(&mut command, 1, "but files may have at most");
    assert!(names(&work).is_empty(), "{:?}", names(&work));

    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 5; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tvb")]);
    arguments(&mut command, &output);
    fail(&mut command, 1, "opening");

    fail(&mut compress(&run, Path::new("/proc/tvb/basis"), &[]), 1, "/proc/tvb");
    fail(&mut compress(&run, &run.base, &["--overwrite"]), 3, "the output is a folder, found something else");

    let locked = top.path().join("locked.safetensors");
    std::fs::copy(&run.base, &locked).expect("copied");
    std::fs::set_permissions(&locked, std::os::unix::fs::PermissionsExt::from_mode(0o000)).expect("changed");
    // The superuser may read it all the same.
    if std::fs::File::open(&locked).is_err() {
        let locked = Run { base: locked, tasks: run.tasks.clone() };
        fail(&mut compress(&locked, &output, &[]), 1, "ermission denied");
    }

    std::fs::remove_file(&run.tasks[1]).expect("removed");
    fail(&mut compress(&run, &output, &[]), 1, "task1.safetensors");
    assert!(names(&work).is_empty(), "{:?}", names(&work));
}

/// `tvb` under one of the shell's limits.
fn limited(limit: &str, command: &Command) -> Command {
    let mut outer = Command::new("sh");
    outer.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_tvb")]);
    outer.args(command.get_args()).stdin(Stdio::null());
    outer
}

#[test]
fn writing_past_the_limit_on_file_sizes_is_an_error_and_no_death() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), &[&[2000]], 40, 9);
    let work = top.path().join("work");
    std::fs::create_dir(&work).expect("a folder");
    let mut gram = tvb();
    gram.args(["gram", "-q", "--base"]).arg(&run.base).args(&run.tasks).arg("-o").arg(work.join("x.gram"));
    // Two blocks of 512 bytes (dash) or of 1024 (others): too few for a record of forty tasks.
    fail(&mut limited("-f 2", &gram), 1, "File too large");
    assert!(names(&work).is_empty(), "{:?}", names(&work));
    // Room for the atoms, none for the Gram matrix and the names in the small files.
    let mut basis = tvb();
    basis.args(["compress", "-q", "-m", "1", "--base"]).arg(&run.base).args(&run.tasks).arg("-o").arg(work.join("b"));
    fail(&mut limited("-f 20", &basis), 1, "File too large");
    assert!(names(&work).is_empty(), "{:?}", names(&work));
}

#[test]
fn more_tasks_than_files_may_be_open_is_said_with_the_way_out() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), &[&[10]], 80, 10);
    let output = top.path().join("basis");
    let command = compress(&run, &output, &[]);
    let found = limited("-n 64", &command).output().expect("tvb runs");
    let text = String::from_utf8_lossy(&found.stderr);
    assert_eq!(found.status.code(), Some(1), "{text}");
    assert!(text.contains("Too many open files") && text.contains("hint: ") && text.contains("ulimit -n"), "{text}");
    assert!(text.lines().count() == 2 && !output.exists(), "{text}");
    succeed(&mut limited("-n 120", &command));
}

#[test]
fn what_stands_in_a_file_s_place_is_said_and_nothing_is_left() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), &[&[100]], 2, 11);
    let work = top.path().join("work");
    std::fs::create_dir(&work).expect("a folder");
    let task = &run.tasks[1];
    type Put<'a> = &'a dyn Fn(&Path);
    let pipe: Put<'_> = &|path| assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success());
    let folder: Put<'_> = &|path| std::fs::create_dir(path).expect("made");
    let dangling: Put<'_> = &|path| std::os::unix::fs::symlink("/nowhere/at/all", path).expect("linked");
    let circle: Put<'_> = &|path| std::os::unix::fs::symlink(path, path).expect("linked");
    let device: Put<'_> = &|path| std::os::unix::fs::symlink("/dev/zero", path).expect("linked");
    let empty: Put<'_> = &|path| std::fs::write(path, "").expect("written");
    let cases = [
        (pipe, 3, "task1.safetensors: expected a regular file"),
        (folder, 3, "task1.safetensors"),
        (dangling, 1, "task1.safetensors"),
        (circle, 1, "task1.safetensors"),
        (device, 3, "task1.safetensors: expected a regular file"),
        (empty, 3, "task1.safetensors"),
    ];
    for (put, exit_code, message) in cases {
        std::fs::remove_file(task).or_else(|_| std::fs::remove_dir(task)).expect("removed");
        put(task);
        fail(&mut compress(&run, &work.join("basis"), &[]), exit_code, message);
        assert!(names(&work).is_empty(), "{:?}", names(&work));
    }
}

#[test]
fn a_file_cut_under_the_pass_is_said_and_nothing_is_left() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), &[&[2_000_000]], 2, 12);
    let work = top.path().join("work");
    std::fs::create_dir(&work).expect("a folder");
    let whole = std::fs::read(&run.tasks[1]).expect("read");
    let length = succeed(&mut compress(&run, &work.join("basis"), &[]));
    let mut random = Random(number("TVB_KILL_SEED", 12));
    for _ in 0..number("TVB_KILLS", 12_u64).div_ceil(2) {
        std::fs::remove_dir_all(work.join("basis")).or_else(|_| std::fs::create_dir_all(&work)).expect("cleared");
        let mut command = compress(&run, &work.join("basis"), &[]);
        let child = command.stderr(Stdio::piped()).spawn().expect("starts");
        std::thread::sleep(length.mul_f64(random.below(1000) as f64 / 1000.0));
        let file = std::fs::File::options().write(true).open(&run.tasks[1]).expect("opened");
        file.set_len(random.below(whole.len()) as u64).expect("cut");
        let found = child.wait_with_output().expect("ends");
        let text = String::from_utf8_lossy(&found.stderr);
        // Cut before it was opened, while it was read, or when all was done.
        match found.status.code() {
            Some(0) => {}
            Some(1 | 3) => {
                assert!(text.contains("error: ") && text.contains("task1"), "{text}");
                assert!(text.lines().count() <= 2 && names(&work).is_empty(), "{text}{:?}", names(&work));
            }
            _ => panic!("{}: {text}", found.status),
        }
        std::fs::write(&run.tasks[1], &whole).expect("written");
    }
}

/// A disk of one megabyte, where the system lets this test make one.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_said_before_the_work_and_nothing_is_left() {
    let top = tempfile::tempdir().expect("a folder");
    let run = write_run(top.path(), &[&[300_000]], 3, 6);
    let disk = top.path().join("disk");
    std::fs::create_dir(&disk).expect("a folder");
    let on_disk = |size: &str, command: &Command| {
        let script = "mount -t tmpfs -o size=$1 none \"$2\" || exit 77; shift; disk=$1; shift; \"$@\"; code=$?; ls -A \"$disk\"; exit $code";
        let mut outer = Command::new("unshare");
        outer
            .args(["-m", "sh", "-c", script, "sh", size])
            .arg(&disk)
            .arg(command.get_program())
            .args(command.get_args());
        outer.output().expect("unshare runs")
    };
    let found = on_disk("1m", &compress(&run, &disk.join("basis"), &[]));
    if found.status.code() == Some(77) || String::from_utf8_lossy(&found.stderr).starts_with("unshare") {
        println!("no disk of a fixed size can be made here");
        return;
    }
    let (out, err) = (String::from_utf8_lossy(&found.stdout), String::from_utf8_lossy(&found.stderr));
    assert_eq!(found.status.code(), Some(1), "{err}");
    assert!(err.contains("needed on this disk") && err.lines().count() == 2, "{err}");
    assert!(out.trim().is_empty(), "left behind: {out}");

    // An edit learns it when it reserves its file.
    let basis = top.path().join("basis");
    succeed(&mut compress(&run, &basis, &[]));
    let mut add = tvb();
    add.args(["add", "-q"]).arg(&basis).arg("--base").arg(&run.base).arg("-o").arg(disk.join("x.safetensors"));
    let found = on_disk("1m", &add);
    let (out, err) = (String::from_utf8_lossy(&found.stdout), String::from_utf8_lossy(&found.stderr));
    assert_eq!(found.status.code(), Some(1), "{err}");
    assert!(err.contains("No space left") && out.trim().is_empty(), "{err}\n{out}");

    // And there is room on a disk that is large enough.
    let found = on_disk("8m", &compress(&run, &disk.join("basis"), &[]));
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
}
