//! What the user calls a task, and where its checkpoint is: `NAME=PATH` or `PATH`.
//!
//! Names stand in expressions, tables and file names, so they are unique and free of what cannot be written there.

use crate::checkpoint::{Checkpoint, shown};
use crate::error::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use tvb_kernels::MAX_TASKS;

/// File stems that say nothing about the task; the parent folder's name is taken instead.
const EMPTY_STEMS: &[&str] = &["model", "finetuned", "pytorch_model", "adapter_model", "diffusion_pytorch_model"];

/// Endings of checkpoint files; any other ending belongs to a folder's name (`vit-b.32`).
const EXTENSIONS: &[&str] = &["safetensors", "pt", "pth", "bin"];

/// A task as it was named: nothing has been opened yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSource {
    /// Its name in the basis, in expressions and in reports.
    pub name: String,
    /// A checkpoint file or folder.
    pub path: PathBuf,
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
    /// Reads `NAME=PATH` or `PATH`.
    ///
    /// What stands before the first `=` is a name if it is not empty and has no path separator; a file `lr=0.1.pt` of
    /// the current folder is written `./lr=0.1.pt`.
    ///
    /// # Errors
    /// Usage errors for an empty path and for names that are empty or hold `/`, `\` or control characters.
    ///
    /// ```
    /// # use tvb::columns::tasks::TaskSource;
    /// # use std::ffi::OsStr;
    /// assert_eq!(TaskSource::parse(OsStr::new("cars=runs/7.safetensors")).unwrap().name, "cars");
    /// assert_eq!(TaskSource::parse(OsStr::new("runs/Cars/finetuned.pt")).unwrap().name, "Cars");
    /// ```
    pub fn parse(text: &OsStr) -> Result<Self> {
        let (name, path) = match split_at_equals(text) {
            Some((name, path)) if !name.is_empty() && !name.contains(['/', '\\']) => (name.to_owned(), Path::new(path)),
            _ => (default_name(Path::new(text)), Path::new(text)),
        };
        if path.as_os_str().is_empty() {
            return Err(Error::usage(format!("task {text:?}: no path")).hint("write tasks as NAME=PATH or PATH"));
        }
        check_name(&name).map_err(|error| error.context(format!("task {text:?}")))?;
        Ok(Self { name, path: path.to_path_buf() })
    }

    /// Reads a whole task list; the order is kept.
    ///
    /// # Errors
    /// As [`TaskSource::parse`] and [`check_unique`].
    pub fn parse_all<S: AsRef<OsStr>>(texts: &[S]) -> Result<Vec<Self>> {
        let tasks = texts.iter().map(|text| Self::parse(text.as_ref())).collect::<Result<Vec<_>>>()?;
        check_unique(&tasks)?;
        Ok(tasks)
    }
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
            tasks.push(TaskSource { name, path });
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

/// The file's stem or the folder's name, or, where that says nothing, the name of the folder it is in.
fn default_name(path: &Path) -> String {
    // A relative path such as `.` or `model.safetensors` has its telling part in the current folder's path.
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let names = whole.ancestors().filter_map(|ancestor| ancestor.file_name().map(without_extension));
    let mut names = names.filter(|name| name != ".");
    let own = names.next().unwrap_or_default();
    if !EMPTY_STEMS.contains(&own.as_str()) {
        return own;
    }
    names.next().unwrap_or(own)
}

/// `cars` of `cars.safetensors`.
fn without_extension(name: &OsStr) -> String {
    let is_checkpoint = |extension: &str| EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known));
    let name = name.to_string_lossy();
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && is_checkpoint(extension) => stem.to_owned(),
        _ => name.into_owned(),
    }
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
            let expected = TaskSource { name: name.into(), path: path.into() };
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
            let expected = TaskSource { name: name.into(), path: OsStr::from_bytes(path).into() };
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
    fn two_tasks_of_one_name_are_rejected_with_both_paths() {
        let error = TaskSource::parse_all(&["a/x.pt", "b/y.pt", "c/x.pt"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        assert!(error.message().contains("a/x.pt") && error.message().contains("c/x.pt"), "{error}");
        assert_eq!(TaskSource::parse_all(&["a/x.pt", "y=c/x.pt"]).unwrap().len(), 2);
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
