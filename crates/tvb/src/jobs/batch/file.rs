//! The job file as it is written: TOML, known keys only, a job's keys laid over the defaults.

use super::job::{Job, JobKeys};
use super::reading::{check_keys, read};
use crate::checkpoint::Budget;
use crate::error::{Error, Result};
use serde::Deserialize;
use std::collections::HashSet;
use std::path::Path;
use toml::{Table, Value};

/// A job file larger than this is none; what is read of one takes many times its bytes.
pub const MAX_BYTES: u64 = 4 << 20;
/// The most jobs of one file.
const N_JOBS_MAX: usize = 10_000;
/// The defaults are laid under every job; together they may have this many bytes.
const DEFAULTS_BYTES_MAX: usize = 64 << 20;

/// Keys of which a job's own drives out the defaults' others.
const RIVALS: &[(&[&str], &[&str])] = &[
    (&["base", "tasks"], &["from"]),
    (&["from"], &["base", "tasks"]),
    (&["m"], &["ratio", "shared_rank"]),
    (&["ratio"], &["m", "shared_rank"]),
    (&["method"], &["shared_rank"]),
    (&["bits"], &["dtype", "shared_rank"]),
    (&["dtype"], &["bits", "keep_sum", "keep"]),
    (&["shared_rank"], &["method", "m", "ratio", "bits", "keep_sum", "keep"]),
];

/// A job file that was read; nothing it names has been opened.
#[derive(Clone, Debug)]
pub struct JobFile {
    /// The folder for Gram files and records, as written.
    pub work: Option<String>,
    /// At least one; names are unique.
    pub jobs: Vec<Job>,
}

/// The keys of the file.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileKeys {
    work: Option<String>,
    defaults: Table,
    job: Vec<Table>,
}

impl JobFile {
    /// Reads a job file.
    ///
    /// # Errors
    /// Failed: I/O. Rejected: as [`parse`](JobFile::parse), with the file's name.
    pub fn read(path: &Path) -> Result<JobFile> {
        JobFile::read_within(path, &Budget::default())
    }

    /// [`read`](JobFile::read), where a pipe that has nothing to say yet hears that the user asked to stop.
    ///
    /// # Errors
    /// As [`read`](JobFile::read). Interrupted.
    pub fn read_within(path: &Path, budget: &Budget) -> Result<JobFile> {
        let bytes = crate::checkpoint::read_capped_or_pipe(path, "a job file", MAX_BYTES, budget)?;
        let text = String::from_utf8(bytes)
            .map_err(|error| Error::rejected(format!("{}: not UTF-8: {error}", path.display())))?;
        JobFile::parse(&text).map_err(|error| error.context(path.display()))
    }

    /// Reads the text of a job file.
    ///
    /// # Errors
    /// Rejected: no TOML, an unknown key (with the nearest known one), a value of another kind, no job, two of one name.
    pub fn parse(text: &str) -> Result<JobFile> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| 1 + text.get(..span.start).unwrap_or("").matches('\n').count());
            Error::rejected(format!("line {line}: {}", error.message().replace('\n', "; ")))
        })?;
        let file: FileKeys = read(&table, "job file")?;
        check_keys(&file.defaults, &JobKeys::of_defaults(), "[defaults]")?;
        if file.job.is_empty() {
            return Err(Error::rejected("at least one [[job]] expected, none found"));
        }
        if file.job.len() > N_JOBS_MAX {
            return Err(Error::rejected(format!("at most {N_JOBS_MAX} jobs expected, {} found", file.job.len())));
        }
        let n_defaults_bytes = file.defaults.to_string().len().saturating_mul(file.job.len());
        if n_defaults_bytes > DEFAULTS_BYTES_MAX {
            return Err(Error::rejected(format!(
                "[defaults]: at most {DEFAULTS_BYTES_MAX} bytes expected for all {} jobs together, {n_defaults_bytes} found",
                file.job.len()
            ))
            .hint("name the tasks by a run folder with `from`, or make several job files"));
        }
        let mut names = HashSet::new();
        let mut jobs: Vec<Job> = Vec::with_capacity(file.job.len());
        for (index, own) in file.job.iter().enumerate() {
            let place = match own.get("name") {
                Some(Value::String(name)) => format!("job {:?}", name.chars().take(60).collect::<String>()),
                _ => format!("[[job]] number {}", index + 1),
            };
            let job = Job::read(&over(own, &file.defaults), &place)?;
            if !names.insert(job.name.clone()) {
                return Err(Error::rejected(format!("two jobs are named {:?}", job.name)));
            }
            jobs.push(job);
        }
        Ok(JobFile { work: file.work, jobs })
    }
}

/// A job's own keys over the defaults.
fn over(own: &Table, defaults: &Table) -> Table {
    let mut table = defaults.clone();
    for (keys, rivals) in RIVALS {
        if keys.iter().any(|key| own.contains_key(*key)) {
            rivals.iter().for_each(|rival| drop(table.remove(*rival)));
        }
    }
    table.extend(own.clone());
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::{Activation, Anneal};
    use tvb_kernels::{Dtype, Rate};

    const JOBS: &str = r#"
        [defaults]
        base = "base.safetensors"
        tasks = ["a.safetensors", "b=x/b.pt"]
        ratio = [0.5, 1]
        output = "out/{job}-{m}"
        [[job]]
        name = "first"
        [[job]]
        name = "second"
        from = "runs"
        method = ["pca", "ae"]
        m = 2
        lr = 0.1
        anneal = "100:0.5"
        encoder = "linear"
        w_activation = "softmax"
        init = "a.json"
        dtype = "bf16"
        after = [{ add = { scale = 0.3, output = "x" } }]
    "#;

    #[test]
    fn a_job_s_keys_replace_the_defaults() {
        let file = JobFile::parse(JOBS).unwrap();
        let [first, second] = &file.jobs[..] else { panic!("{file:?}") };
        assert_eq!((first.base.as_deref(), &first.tasks[1][..]), (Some("base.safetensors"), "b=x/b.pt"));
        assert_eq!((&first.atoms[..], &first.ratios[..]), (&[][..], &[0.5, 1.0][..]));
        assert_eq!((second.base.as_deref(), second.from.as_deref(), second.tasks.len()), (None, Some("runs"), 0));
        assert_eq!((&second.atoms[..], &second.ratios[..]), (&[2][..], &[][..]));
        assert_eq!(
            (&first.methods[..], &second.methods[..]),
            (&["anchored".to_owned()][..], &["pca".into(), "ae".into()][..])
        );
        let options = &second.options;
        assert_eq!((options.lr, options.anneal), (Some(0.1), Some(Anneal { every: 100, factor: 0.5 })));
        assert_eq!((options.encoder, options.w_activation), (Some(Activation::Linear), Some(Activation::Softmax)));
        assert_eq!((&first.options.init, &options.init), (&None, &Some("a.json".into())));
        assert_eq!((second.dtypes[0], second.after.len()), (Dtype::Bf16, 1));
    }

    #[test]
    fn a_job_of_no_method_and_no_size_codes_its_tasks() {
        let text = "[defaults]\nfrom = 'r'\noutput = 'o'\n[[job]]\nname = 'plain'\n[[job]]\nname = 'bits'\nbits = [0.25, 1.6, 2, '3']\n\
                    keep_sum = 'off'\nkeep = 'a + b:4'\n[[job]]\nname = 'mixed'\nratio = 0.5\nbits = 8\n[[job]]\nname = 'floats'\nmethod = 'pca'";
        let file = JobFile::parse(text).unwrap();
        let [plain, bits, mixed, floats] = &file.jobs[..] else { panic!("{file:?}") };
        assert_eq!((&plain.methods[0][..], &plain.bits[..], plain.dtypes.len()), ("identity", &[Rate::Four][..], 0));
        assert_eq!(bits.bits, [Rate::Quarter, Rate::Three, Rate::Four, Rate::Eight]);
        assert_eq!((bits.codes.keep_sum, &bits.codes.keep[..]), (Some(None), &["a + b:4".to_owned()][..]));
        assert_eq!(
            (&mixed.methods[0][..], &mixed.bits[..], mixed.dtypes.len()),
            ("anchored", &[Rate::TwoFiveSix][..], 0)
        );
        assert_eq!((floats.bits.len(), &floats.dtypes[..]), (0, &[Dtype::F32][..]));
        // A job's own word about storage drives out the other kind's.
        let over =
            "[defaults]\nfrom = 'r'\noutput = 'o'\nm = 1\nbits = 1\nkeep_sum = 4\n[[job]]\nname = 'a'\ndtype = 'f16'";
        assert!(JobFile::parse(over).unwrap().jobs[0].bits.is_empty());
        let over = over
            .replace("bits = 1\nkeep_sum = 4", "dtype = 'f16'")
            .replace("dtype = 'f16'\n[[job]]", "dtype = 'bf16'\n[[job]]");
        assert_eq!(
            JobFile::parse(&over.replace("name = 'a'\ndtype = 'f16'", "name = 'a'\nbits = 1")).unwrap().jobs[0].bits,
            [Rate::Signs]
        );
    }

    #[test]
    fn wrong_files_are_refused_with_the_place() {
        let cases: &[(&str, &str, &str)] = &[
            ("", "at least one [[job]]", ""),
            ("x = [", "line 1", ""),
            ("[default]\n", "unknown key \"default\"", "did you mean \"defaults\"?"),
            ("[defaults]\nmetod = 'pca'", "[defaults]: unknown key \"metod\"", "did you mean \"method\"?"),
            ("[[job]]\nname = 3", "[[job]] number 1, name: a text expected, 3 found", ""),
            ("job = 3", "job: a list of tables", ""),
            ("[[job]]\nbase = 'b'", "a name expected", ""),
            ("[[job]]\nname = '../x'", "job \"../x\": a name that can stand in file names", ""),
            ("[[job]]\nname = 'a'\noutput = 'o'", "base and tasks, or from, expected", ""),
            ("[[job]]\nname = 'a'\nbase = 'b'\noutput = 'o'", "tasks expected", ""),
            ("[[job]]\nname = 'a'\nfrom = 'r'", "an output expected", ""),
            ("[[job]]\nname = 'a'\nfrom = 'r'\noutput = 'o'\nm = -1", "m: a whole number", ""),
            ("[[job]]\nname = 'a'\nfrom = 'r'\noutput = 'o'\nm = []", "m: a whole number", ""),
            ("[[job]]\nname = 'a'\nfrom = 'r'\noutput = 'o'\nratio = 1.5", "at most 1 expected, 1.5 found", ""),
            ("[[job]]\nname = 'a'\nfrom = 'r'\noutput = 'o'\nratio = nan", "ratio: a finite number", ""),
            (
                "[[job]]\nname = 'a'\nfrom = 'r'\noutput = 'o'\nmethod = 'pcs'",
                "unknown method 'pcs'",
                "did you mean 'pca'",
            ),
            ("[[job]]\nname = 'a'\nfrom = 'r'\noutput = 'o'\ndtype = 'f8'", "f32, bf16 or f16 expected", ""),
            ("[[job]]\nname = 'a'\nfrom = 'r'\noutput = 'o'\nbits = [1, 7]", "bits: bits of a code (0.25, 0.5, 1,", ""),
            ("[[job]]\nname = 'a'\nfrom = 'r'\noutput = 'o'\nbits = []", "bits: bits of a code", ""),
            ("[[job]]\nname = 'a'\nfrom = 'r'\noutput = 'o'\nkeep_sum = 'no'", "or \"off\" expected, \"no\" found", ""),
            ("[[job]]\nname = 'a'\nfrom = 'r'\noutput = 'o'\ndtype = 'f16'", "dtype without a method", "\"identity\""),
            (
                "[[job]]\nname = 'a'\nfrom = 'r'\noutput = 'o'\nshared_rank = 8\nbits = 2",
                "neither mixed nor coded",
                "alone",
            ),
            ("[[job]]\nname = 'a'\nfrom = 'r'\noutput = 'o'\nshared_rank = 0", "a rank from 1 on", ""),
            ("[[job]]\nname = 'a'\nfrom = 'r'\noutput = 'o'\nm = 1\nkeep_sum = 3", "are about codes", "give bits too"),
            (
                "[[job]]\nname = 'a'\nfrom = 'r'\noutput = 'o'\nm = 1\nbits = 1\ndtype = 'f16'",
                "bits or dtype expected, both found",
                "",
            ),
            ("[[job]]\nmethod = 'ae'\nname = 'a'\nfrom = 'r'\noutput = 'o'\nanneal = '0:1'", "EVERY:FACTOR", ""),
            ("[[job]]\nmethod = 'ae'\nname = 'a'\nfrom = 'r'\noutput = 'o'\nencoder = 'x'", "softmax or linear", ""),
            (
                "[[job]]\nmethod = 'ae'\nname = 'a'\nfrom = 'r'\noutput = 'o'\nw_activaton = 'x'",
                "unknown key",
                "\"w_activation\"",
            ),
            ("[[job]]\nname = 'a'\nfrom = 'r'\noutput = 'o'\nafter = [{ ad = {} }]", "unknown key \"ad\"", "\"add\""),
        ];
        for (text, message, hint) in cases {
            let error = JobFile::parse(text).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Rejected, "{text:?}");
            assert!(error.message().contains(message), "{message:?} expected for {text:?}, found: {error}");
            assert!(error.hint_text().unwrap_or_default().contains(hint), "{hint:?} expected for {text:?}");
            assert!(!error.message().contains('\n'), "{error}");
        }
        let twice = JOBS.replace("second", "first");
        assert!(JobFile::parse(&twice).unwrap_err().message().contains("two jobs are named \"first\""));
        let both = JOBS.replace("from = \"runs\"", "from = \"runs\"\nbase = \"b\"");
        assert!(JobFile::parse(&both).unwrap_err().message().contains("both found"));
    }
}
