//! What the user calls a task, and where its checkpoint is: `NAME=PATH` or `PATH`, and `::KEY` behind it.
//!
//! Names stand in expressions, tables and file names, so they are unique and free of what cannot be written there.

use super::default_name;
use crate::checkpoint::{Checkpoint, shown};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use tvb_kernels::MAX_TASKS;

/// A task as it was named: nothing has been opened yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSource {
    /// Its name in the basis, in expressions and in reports.
    pub name: String,
    /// A checkpoint file or folder.
    pub path: PathBuf,
    /// The key of a PyTorch file under which its state dict lies, where this path has one of its own.
    pub key: Option<String>,
}

/// One fine-tuned checkpoint under the name its task goes by.
#[derive(Clone, Debug)]
pub struct Task {
    /// Unique among the tasks of a run.
    pub name: String,
    /// The fine-tune θt; for an adapter, what it adds to the base, under the base's names.
    pub checkpoint: Checkpoint,
}

impl TaskSource {
    /// Reads `NAME=PATH` or `PATH`, each with `::KEY` behind it where one key of a PyTorch file is meant.
    ///
    /// What stands before the first `=` is a name if it is not empty and has no path separator, unless the whole is the name of
    /// a file that is there. A path that is there is never taken apart at `::`.
    ///
    /// # Errors
    /// Usage errors for an empty path or key and for names that are empty or hold `/`, `\` or control characters.
    ///
    /// ```
    /// # use tvb::columns::tasks::TaskSource;
    /// # use std::ffi::OsStr;
    /// assert_eq!(TaskSource::parse(OsStr::new("cars=runs/7.safetensors")).unwrap().name, "cars");
    /// assert_eq!(TaskSource::parse(OsStr::new("runs/Cars/finetuned.pt")).unwrap().name, "Cars");
    /// assert_eq!(TaskSource::parse(OsStr::new("runs/cars.pt::ema")).unwrap().key.as_deref(), Some("ema"));
    /// ```
    pub fn parse(text: &OsStr) -> Result<Self> {
        Typed::read(text, Path::new("")).map(|typed| typed.source)
    }

    /// Reads a whole task list; the order is kept. Tasks without names that their paths call the same are told apart by the
    /// folders above them.
    ///
    /// # Errors
    /// As [`TaskSource::parse`] and [`check_unique`].
    pub fn parse_all<S: AsRef<OsStr>>(texts: &[S]) -> Result<Vec<Self>> {
        Self::parse_all_in(Path::new(""), texts).map(|(tasks, _)| tasks)
    }

    /// As [`parse_all`](TaskSource::parse_all), with paths that are relative to `folder`; and what was done to tell tasks apart,
    /// a line each.
    ///
    /// # Errors
    /// As [`parse_all`](TaskSource::parse_all).
    pub fn parse_all_in<S: AsRef<OsStr>>(folder: &Path, texts: &[S]) -> Result<(Vec<Self>, Vec<String>)> {
        check_count(texts.len())?;
        let mut typed = texts.iter().map(|text| Typed::read(text.as_ref(), folder)).collect::<Result<Vec<_>>>()?;
        let notes = tell_apart(&mut typed);
        let tasks: Vec<Self> = typed.into_iter().map(|typed| typed.source).collect();
        check_unique(&tasks)?;
        tasks.iter().try_for_each(|task| check_name(&task.name))?;
        Ok((tasks, notes))
    }
}

/// A task as it was typed.
struct Typed {
    source: TaskSource,
    /// Whether it was given its name.
    is_named: bool,
}

impl Typed {
    fn read(text: &OsStr, folder: &Path) -> Result<Typed> {
        let whole = folder.join(text);
        let named = split_at_equals(text).filter(|(name, path)| {
            let is_name = !name.is_empty() && !name.contains(['/', '\\']);
            // Such as `epoch=3-step=100.ckpt`.
            is_name && (folder.join(path).exists() || !whole.exists())
        });
        let (name, path) = named.map_or((None, text), |(name, path)| (Some(name.to_owned()), path));
        if path.is_empty() {
            return Err(Error::usage(format!("task {text:?}: no path")).hint("write tasks as NAME=PATH or PATH"));
        }
        let context = |error: Error| error.context(format!("task {text:?}"));
        let (path, key) = split_key(&folder.join(path)).map_err(context)?;
        let is_named = name.is_some();
        let name = name.or_else(|| default_name::candidates(&path).into_iter().next()).unwrap_or_default();
        check_name(&name).map_err(context)?;
        Ok(Typed { source: TaskSource { name, path, key }, is_named })
    }

    /// What it could be called, the first choice first.
    fn candidates(&self) -> Vec<String> {
        default_name::candidates(&self.source.path)
    }
}

/// `PATH::KEY` taken apart; a path that is there stays whole.
///
/// # Errors
/// Usage: no path or no key beside `::`.
pub fn split_key(path: &Path) -> Result<(PathBuf, Option<String>)> {
    let whole = || (path.to_owned(), None);
    if path.exists() {
        return Ok(whole());
    }
    // A path that is not Unicode has no key.
    let Some((file, key)) = path.to_str().and_then(|text| text.rsplit_once("::")) else { return Ok(whole()) };
    if file.is_empty() || key.is_empty() {
        return Err(Error::usage(format!("{}: PATH::KEY expected", path.display())));
    }
    Ok((file.into(), Some(key.to_owned())))
}

/// Path and key of what a record says a column was opened from.
pub fn recorded(source: &str) -> (PathBuf, Option<String>) {
    split_key(Path::new(source)).unwrap_or_else(|_| (source.into(), None))
}

/// Gives tasks that are called the same without having been given names the first names above that differ; those of one file
/// are called after their keys. What cannot be told apart keeps its name.
fn tell_apart(typed: &mut [Typed]) -> Vec<String> {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (number, task) in typed.iter().enumerate() {
        groups.entry(task.source.name.clone()).or_default().push(number);
    }
    let mut notes = Vec::new();
    for (name, group) in groups.into_iter().filter(|(_, group)| group.len() > 1) {
        let members: Vec<&Typed> = group.iter().filter_map(|&number| typed.get(number)).collect();
        if members.iter().any(|task| task.is_named) {
            continue;
        }
        let candidates: Vec<Vec<String>> = members.iter().map(|task| task.candidates()).collect();
        let keys = members.iter().map(|task| task.source.key.clone()).collect::<Option<Vec<String>>>();
        let above = (1..candidates.iter().map(Vec::len).min().unwrap_or(0))
            .map(|level| candidates.iter().filter_map(|names| names.get(level).cloned()).collect::<Vec<_>>());
        let others: HashSet<&str> =
            typed.iter().map(|task| task.source.name.as_str()).filter(|other| *other != name).collect();
        let differ = |names: &Vec<String>| {
            let distinct: HashSet<&str> = names.iter().map(String::as_str).collect();
            distinct.len() == names.len()
                && distinct.is_disjoint(&others)
                && names.iter().all(|name| check_name(name).is_ok())
        };
        let Some(chosen) = keys.into_iter().chain(above).find(differ) else { continue };
        notes.push(format!("{} tasks called {} are named {}", chosen.len(), shown(&name), in_words(&chosen)));
        for (number, name) in group.into_iter().zip(chosen) {
            if let Some(task) = typed.get_mut(number) {
                task.source.name = name;
            }
        }
    }
    notes
}

fn in_words(names: &[String]) -> String {
    const N_TOLD: usize = 4;
    let told: Vec<String> = names.iter().take(N_TOLD).map(|name| shown(name).to_string()).collect();
    let more = if names.len() > N_TOLD { format!(" and {} more", names.len() - N_TOLD) } else { String::new() };
    format!("{}{more}", told.join(", "))
}

/// Finds the base and the fine-tunes of a run folder: `zeroshot.pt` (or `.safetensors`) and `*/finetuned.pt`.
///
/// Tasks are named by their folders, a trailing `Val` dropped, in the order of their names. Where the folder itself has no
/// `zeroshot` file, those inside the task folders are taken, which must all be one: the first stands for them.
///
/// # Errors
/// Rejected: no base, or no fine-tune. Failed: the folder cannot be read.
pub fn find_run(folder: &Path) -> Result<(PathBuf, Vec<TaskSource>)> {
    let find = |folder: &Path, stem: &str| {
        ["pt", "pth", "bin", "safetensors"]
            .iter()
            .map(|extension| folder.join(format!("{stem}.{extension}")))
            .find(|path| path.is_file())
    };
    let mut base = find(folder, "zeroshot");
    let mut tasks = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(|error| Error::io("reading", folder, &error))?;
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(|error| Error::io("reading", folder, &error)))
        .collect::<Result<_>>()?;
    folders.retain(|path| path.is_dir());
    folders.sort();
    for task_folder in folders {
        if base.is_none() {
            base = find(&task_folder, "zeroshot");
        }
        if let Some(path) = find(&task_folder, "finetuned") {
            let name = task_folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = name.strip_suffix("Val").filter(|name| !name.is_empty()).unwrap_or(&name).to_owned();
            check_name(&name).map_err(|error| Error::rejected(error.message()).context(task_folder.display()))?;
            tasks.push(TaskSource { name, path, key: None });
        }
    }
    let missing = |what: &str| {
        Error::rejected(format!("{}: {what} expected, none found", folder.display()))
            .hint("a run folder holds zeroshot.pt and NAME/finetuned.pt; name other layouts with --base and NAME=PATH")
    };
    let base = base.ok_or_else(|| missing("zeroshot.pt"))?;
    if tasks.is_empty() {
        return Err(missing("*/finetuned.pt"));
    }
    check_unique(&tasks)?;
    Ok((base, tasks))
}

/// Whether one basis takes that many tasks.
///
/// # Errors
/// Usage: more than the engines take.
pub fn check_count(n_tasks: usize) -> Result<()> {
    if n_tasks > MAX_TASKS {
        return Err(Error::usage(format!("{n_tasks} tasks: at most {MAX_TASKS} expected"))
            .hint("make several bases of some of the tasks each"));
    }
    Ok(())
}

/// Whether no two tasks share a name, and there are not too many.
///
/// # Errors
/// Rejected, with both paths. As [`check_count`].
pub fn check_unique(tasks: &[TaskSource]) -> Result<()> {
    check_count(tasks.len())?;
    let mut path_of: HashMap<&str, &Path> = HashMap::with_capacity(tasks.len());
    for task in tasks {
        if let Some(first) = path_of.insert(&task.name, &task.path) {
            let (first, second) = (first.display(), task.path.display());
            return Err(Error::rejected(format!("two tasks are named {:?}: {first} and {second}", task.name))
                .hint("give each its own name: NAME=PATH"));
        }
    }
    Ok(())
}

/// The longest name of a task in bytes: with what goes before and after it, a file system still takes it.
const NAME_BYTES_MAX: usize = 200;

/// Whether a name can stand in file names and messages.
///
/// # Errors
/// A usage error that says what is wrong with it.
pub fn check_name(name: &str) -> Result<()> {
    match wrong_with(name, cfg!(windows)) {
        Some(wrong) => Err(Error::usage(format!("{wrong}: {}", shown(name))).hint("name the task: NAME=PATH")),
        None => Ok(()),
    }
}

/// Whether names that were found in a file can stand in file names and messages, each once: whoever reads a list of tasks asks
/// this, since outputs are named after them.
///
/// # Errors
/// One line that says what is wrong with which, without the file.
pub fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> std::result::Result<(), String> {
    let mut seen = HashSet::new();
    for name in names {
        if seen.len() == MAX_TASKS {
            return Err(format!("more than {MAX_TASKS} tasks"));
        }
        if let Some(wrong) = wrong_with(name, cfg!(windows)) {
            return Err(format!("{wrong}: {}", shown(name)));
        }
        if !seen.insert(name) {
            return Err(format!("task {} is named twice", shown(name)));
        }
    }
    Ok(())
}

/// What keeps a name out of file names and messages; `on_windows` has rules of its own.
fn wrong_with(name: &str, on_windows: bool) -> Option<&'static str> {
    Some(match name {
        "" => "a task's name is empty",
        "." | ".." => "a task cannot be named like a folder's own entries",
        _ if name.len() > NAME_BYTES_MAX => "a task's name has more than 200 bytes",
        _ if name.contains(['/', '\\']) => "a task's name has a path separator",
        _ if name.chars().any(char::is_control) => "a task's name has a control character",
        _ if name.chars().any(reorders_text) => "a task's name has a character that changes the order of what is shown",
        _ if name.trim() != name => "a task's name begins or ends with a blank",
        _ if on_windows && !fits_windows(name) => "a task's name cannot be a file's on Windows",
        _ => return None,
    })
}

/// Separators of lines and paragraphs, and what turns the direction of text round.
fn reorders_text(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Windows gives some names to devices, and reads `:` as a drive or a stream of a file.
fn fits_windows(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let is_port = |stem: &str| {
        let number = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
        number.is_some_and(|number| matches!(number.chars().collect::<Vec<_>>()[..], ['0'..='9' | '¹' | '²' | '³']))
    };
    let is_device = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&stem.as_str()) || is_port(&stem);
    !is_device && !name.contains(['<', '>', ':', '"', '|', '?', '*']) && !name.ends_with(['.', ' '])
}

/// What stands before the first `=`, which is Unicode, and what behind it, which need not be.
fn split_at_equals(text: &OsStr) -> Option<(&str, &OsStr)> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let bytes = text.as_bytes();
        let at = bytes.iter().position(|byte| *byte == b'=')?;
        let (name, path) = bytes.split_at(at);
        Some((std::str::from_utf8(name).ok()?, OsStr::from_bytes(path.get(1..)?)))
    }
    #[cfg(not(unix))]
    text.to_str()?.split_once('=').map(|(name, path)| (name, OsStr::new(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn names_and_paths() {
        let cases = [
            ("cars=a/b.pt", "cars", "a/b.pt"),
            ("cars=a=b.pt", "cars", "a=b.pt"),
            ("runs/lr=0.1/model.safetensors", "lr=0.1", "runs/lr=0.1/model.safetensors"),
            ("./lr=0.1.pt", "lr=0.1", "./lr=0.1.pt"),
            ("Cars.safetensors", "Cars", "Cars.safetensors"),
            ("Cars.v2.PT", "Cars.v2", "Cars.v2.PT"),
            ("CarsVal/finetuned.pt", "CarsVal", "CarsVal/finetuned.pt"),
            ("sst2/pytorch_model.bin", "sst2", "sst2/pytorch_model.bin"),
            ("hub/vit-b.32", "vit-b.32", "hub/vit-b.32"),
            ("hub/vit/", "vit", "hub/vit/"),
            ("lora/adapter_model.safetensors", "lora", "lora/adapter_model.safetensors"),
            ("日本=x.pt", "日本", "x.pt"),
        ];
        for (text, name, path) in cases {
            let expected = TaskSource { name: name.into(), path: path.into(), key: None };
            assert_eq!(TaskSource::parse(OsStr::new(text)).unwrap(), expected, "{text:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_need_not_be_unicode() {
        use std::os::unix::ffi::OsStrExt;
        let cases: [(&[u8], &str, &[u8]); 3] = [
            (b"cars=a/\xff=.pt", "cars", b"a/\xff=.pt"),
            (b"a/\xff.pt", "\u{fffd}", b"a/\xff.pt"),
            (b"\xff=a/b.pt", "b", b"\xff=a/b.pt"),
        ];
        for (text, name, path) in cases {
            let expected = TaskSource { name: name.into(), path: OsStr::from_bytes(path).into(), key: None };
            assert_eq!(TaskSource::parse(OsStr::from_bytes(text)).unwrap(), expected);
        }
    }

    #[test]
    fn a_path_without_folders_takes_the_current_one() {
        let here = std::env::current_dir().unwrap();
        let here = here.file_name().unwrap().to_string_lossy();
        for text in [".", "./", "model.safetensors", "./finetuned.pt"] {
            assert_eq!(TaskSource::parse(OsStr::new(text)).unwrap().name, here, "{text:?}");
        }
    }

    #[test]
    fn bad_tasks_are_usage_errors() {
        for text in ["", "cars=", "a\nb=x.pt", "..=x.pt", " a=x.pt"] {
            assert_eq!(TaskSource::parse(OsStr::new(text)).unwrap_err().kind(), ErrorKind::Usage, "{text:?}");
        }
    }

    /// Every one of them would leave the folder of an output, or be no file's name.
    #[test]
    fn names_from_files_are_checked_and_unique() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let bad = [
            "",
            ".",
            "..",
            "../x",
            "/etc/passwd",
            "a/b",
            "a\\b",
            "..\\x",
            "a\0b",
            "a\nb",
            "\u{1b}[2J",
            " a",
            "a ",
            "\u{a0}a",
            "a\u{2028}b",
            "a\u{202e}b",
            "\u{85}",
            &long,
        ];
        for name in bad {
            assert!(check_names(["good", name].into_iter()).is_err(), "{name:?}");
            assert_eq!(check_name(name).unwrap_err().kind(), ErrorKind::Usage, "{name:?}");
        }
        for name in ["cars", "a b", "...", "a..b", ".hidden", "日本", "C:x", "con", "x".repeat(NAME_BYTES_MAX).as_str()]
        {
            assert_eq!(check_names(["good", name].into_iter()), Ok(()), "{name:?}");
        }
        assert_eq!(check_names(["a", "b", "a"].into_iter()), Err("task `a` is named twice".into()));
        let many: Vec<String> = (0..=MAX_TASKS).map(|task| task.to_string()).collect();
        assert!(check_names(many.iter().map(String::as_str)).is_err());
    }

    #[test]
    fn names_of_devices_and_streams_are_none_on_windows() {
        for name in ["con", "NUL", "nul.txt", "COM1", "lpt9.x", "C:x", "a:b", "a.", "a?", "COM¹"] {
            assert!(wrong_with(name, true).is_some(), "{name:?}");
            assert!(wrong_with(name, false).is_none(), "{name:?}");
        }
        for name in ["cars", "con1", "COM", "COM12", "a.b", "connect"] {
            assert!(wrong_with(name, true).is_none(), "{name:?}");
        }
    }

    #[test]
    fn two_tasks_of_one_given_name_are_rejected_with_both_paths() {
        let error = TaskSource::parse_all(&["x=a/x.pt", "b/y.pt", "x=c/x.pt"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(error.message().contains("a/x.pt") && error.message().contains("c/x.pt"), "{error}");
        assert_eq!(TaskSource::parse_all(&["a/x.pt", "y=c/x.pt"]).unwrap().len(), 2);
        // One of them was given its name, or the same file is named twice.
        assert!(TaskSource::parse_all(&["x=a/x.pt", "c/x.pt"]).is_err());
        assert!(TaskSource::parse_all(&["a/x.pt", "a/x.pt"]).is_err());
    }

    #[test]
    fn tasks_that_were_given_no_names_are_told_apart_by_folders_and_keys() {
        let cases: [(&[&str], &[&str]); 5] = [
            (&["runA/checkpoint-500", "runB/checkpoint-500"], &["runA", "runB"]),
            (&["a/x.pt", "b/x.pt", "y.pt"], &["a", "b", "y"]),
            (&["a/run/x.pt", "b/run/x.pt"], &["a", "b"]),
            (&["m.pt::tune", "m.pt::ema"], &["tune", "ema"]),
            (&["a/x.pt", "b/x.pt", "a=z.pt"], &[]),
        ];
        for (texts, expected) in cases {
            let found = TaskSource::parse_all(texts);
            match expected {
                [] => assert!(found.is_err(), "{texts:?}"),
                _ => {
                    let names: Vec<String> = found.unwrap().into_iter().map(|task| task.name).collect();
                    assert_eq!(names, expected, "{texts:?}");
                }
            }
        }
        let (_, notes) = TaskSource::parse_all_in(Path::new(""), &["a/x.pt", "b/x.pt"]).unwrap();
        assert_eq!(notes, ["2 tasks called `x` are named `a`, `b`"]);
    }

    #[test]
    fn a_key_stands_behind_a_path_that_is_not_there_as_it_is() {
        let top = tempfile::tempdir().unwrap();
        for name in ["plain.pt", "odd::name.pt", "epoch=3-step=7.ckpt"] {
            std::fs::write(top.path().join(name), "").unwrap();
        }
        let cases = [
            ("plain.pt::ema", "plain", "plain.pt", Some("ema")),
            ("odd::name.pt", "odd::name", "odd::name.pt", None),
            ("odd::name.pt::a.b", "odd::name", "odd::name.pt", Some("a.b")),
            ("x=plain.pt::ema", "x", "plain.pt", Some("ema")),
        ];
        for (text, name, path, key) in cases {
            let (found, _) = TaskSource::parse_all_in(top.path(), &[text]).unwrap();
            let expected = TaskSource { name: name.into(), path: top.path().join(path), key: key.map(str::to_owned) };
            assert_eq!(found, [expected], "{text}");
        }
        let (found, _) = TaskSource::parse_all_in(top.path(), &["epoch=3-step=7.ckpt"]).unwrap();
        assert_eq!(found[0].path, top.path().join("epoch=3-step=7.ckpt"));
        for text in ["plain.pt::", "::key", "x=::key"] {
            assert_eq!(TaskSource::parse(OsStr::new(text)).unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
    }

    #[test]
    fn too_many_tasks_are_refused_before_any_is_opened() {
        let names: Vec<String> = (0..5000).map(|index| format!("nowhere/{index}.pt")).collect();
        let error = TaskSource::parse_all(&names).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert_eq!(error.message(), "5000 tasks: at most 1024 expected");
        assert_eq!(TaskSource::parse_all(&names[..1024]).unwrap().len(), 1024);
    }
}
