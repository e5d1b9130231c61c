//! The job file as it is written: TOML, known keys only, a job's keys laid over the defaults.

use super::after::{self, After};
use super::settings::Settings;
use crate::columns::tasks::check_name;
use crate::error::{Error, Result};
use crate::solve::{
    Activation, AeOptions, AnchoredOptions, Anneal, ClusterOptions, Coordinates, ExactOptions, Method, NmfOptions,
};
use std::collections::BTreeMap;
use std::path::Path;
use toml::{Table, Value};
use tvb_kernels::Dtype;

/// A job file larger than this is none.
pub const MAX_BYTES: u64 = 16 << 20;

const KEYS: &[&str] = &[
    "base",
    "tasks",
    "from",
    "include",
    "exclude",
    "skip_mismatched",
    "key",
    "method",
    "m",
    "ratio",
    "dtype",
    "balance",
    "coordinates",
    "seed",
    "weights",
    "restarts",
    "eigengap",
    "paper",
    "steps",
    "lr",
    "tau",
    "anneal",
    "batch_columns",
    "grad_clip",
    "weight_decay",
    "encoder",
    "w_activation",
    "init",
    "output",
    "overwrite",
    "after",
];
/// Keys of which a job's own drives out the defaults' others.
const RIVALS: &[(&[&str], &[&str])] =
    &[(&["base", "tasks"], &["from"]), (&["from"], &["base", "tasks"]), (&["m"], &["ratio"]), (&["ratio"], &["m"])];

/// A job file that was read; nothing it names has been opened.
#[derive(Clone, Debug)]
pub struct JobFile {
    /// The folder for Gram files and records, as written.
    pub work: Option<String>,
    /// At least one; names are unique.
    pub jobs: Vec<Job>,
}

/// One job, defaults filled in.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// The base, as written.
    pub base: Option<String>,
    /// `NAME=PATH` or `PATH` each.
    pub tasks: Vec<String>,
    /// A run folder in place of both.
    pub from: Option<String>,
    /// Only tensors whose name matches.
    pub include: Option<String>,
    /// No tensor whose name matches.
    pub exclude: Option<String>,
    /// Leave out what does not match.
    pub skip_mismatched: bool,
    /// Where in a PyTorch file the state dict lies.
    pub key: Option<String>,
    /// Methods; weights of tasks and the initial A are not in them yet.
    pub methods: Vec<Method>,
    /// Weights of tasks by name, for `anchored`.
    pub weights: BTreeMap<String, f64>,
    /// The file of the initial A, for `ae`, as written; it is not in the methods yet.
    pub init: Option<String>,
    /// Numbers of atoms.
    pub atoms: Vec<usize>,
    /// Shares of the number of tasks.
    pub ratios: Vec<f64>,
    /// How atoms are stored.
    pub dtypes: Vec<Dtype>,
    /// Solve with every task vector scaled to the same norm.
    pub balance: bool,
    /// Convex or orthogonal atoms.
    pub coordinates: Coordinates,
    /// The template of the basis folder.
    pub output: String,
    /// Replace what is there and is not what the job says.
    pub overwrite: bool,
    /// Steps on each basis.
    pub after: Vec<After>,
}

impl JobFile {
    /// Reads a job file.
    ///
    /// # Errors
    /// Failed: I/O. Rejected: as [`parse`](JobFile::parse), with the file's name.
    pub fn read(path: &Path) -> Result<JobFile> {
        let bytes = crate::checkpoint::read_capped_or_pipe(path, "a job file", MAX_BYTES)?;
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
        let file = Settings { table: &table, place: "job file" };
        file.check_keys(&["work", "defaults", "job"])?;
        let none = Table::new();
        let defaults = file.table("defaults")?.unwrap_or(&none);
        Settings { table: defaults, place: "[defaults]" }.check_keys(KEYS)?;
        let tables = file.tables("job")?;
        if tables.is_empty() {
            return Err(Error::rejected("at least one [[job]] expected, none found"));
        }
        let mut jobs: Vec<Job> = Vec::with_capacity(tables.len());
        for (number, table) in tables.into_iter().enumerate() {
            let job = job(number, table, defaults)?;
            if jobs.iter().any(|earlier| earlier.name == job.name) {
                return Err(Error::rejected(format!("two jobs are named {:?}", job.name)));
            }
            jobs.push(job);
        }
        Ok(JobFile { work: file.text("work")?, jobs })
    }
}

fn job(number: usize, own: &Table, defaults: &Table) -> Result<Job> {
    let place = match own.get("name") {
        Some(Value::String(name)) => format!("job {name:?}"),
        _ => format!("[[job]] number {}", number + 1),
    };
    let known: Vec<&str> = std::iter::once("name").chain(KEYS.iter().copied()).collect();
    Settings { table: own, place: &place }.check_keys(&known)?;
    let mut table = defaults.clone();
    for (keys, rivals) in RIVALS {
        if keys.iter().any(|key| own.contains_key(*key)) {
            rivals.iter().for_each(|rival| drop(table.remove(*rival)));
        }
    }
    table.extend(own.clone());
    let settings = Settings { table: &table, place: &place };
    let missing = |what: &str| Error::rejected(format!("{place}: {what} expected, none found"));
    let name = settings.text("name")?.ok_or_else(|| missing("a name"))?;
    check_name(&name).map_err(|_| Error::rejected(format!("{place}: a name that can stand in file names expected")))?;
    let (base, from) = (settings.text("base")?, settings.text("from")?);
    let tasks = settings.texts("tasks")?.unwrap_or_default();
    match (&base, &from) {
        (Some(_), Some(_)) => {
            return Err(Error::rejected(format!("{place}: base and tasks or from expected, both found")));
        }
        (None, None) => return Err(missing("base and tasks, or from,")),
        (Some(_), None) if tasks.is_empty() => return Err(missing("tasks")),
        _ => {}
    }
    let (atoms, ratios) = (settings.counts("m")?.unwrap_or_default(), settings.numbers("ratio")?.unwrap_or_default());
    if let Some(ratio) = ratios.iter().find(|ratio| !(**ratio > 0.0 && **ratio <= 1.0)) {
        return Err(Error::rejected(format!("{place}, ratio: above 0 and at most 1 expected, {ratio} found")));
    }
    let ratios = if atoms.is_empty() && ratios.is_empty() { vec![0.5] } else { ratios };
    let names = settings.texts("method")?.unwrap_or_else(|| vec!["anchored".into()]);
    let methods = names.iter().map(|name| method(name, settings)).collect::<Result<_>>()?;
    let dtypes = settings.texts("dtype")?.unwrap_or_else(|| vec!["f32".into()]);
    let coordinates = match settings.text("coordinates")?.as_deref() {
        None | Some("convex") => Coordinates::Convex,
        Some("orthogonal") => Coordinates::Orthogonal,
        Some(other) => {
            return Err(Error::rejected(format!(
                "{place}, coordinates: convex or orthogonal expected, {other:?} found"
            )));
        }
    };
    let mut weights = BTreeMap::new();
    if let Some(table) = settings.table("weights")? {
        let place = format!("{place}, weights");
        let settings = Settings { table, place: &place };
        for task in table.keys() {
            weights.insert(task.clone(), settings.number(task)?.unwrap_or(1.0));
        }
    }
    Ok(Job {
        name,
        base,
        tasks,
        from,
        include: settings.text("include")?,
        exclude: settings.text("exclude")?,
        skip_mismatched: settings.flag("skip_mismatched")?.unwrap_or(false),
        key: settings.text("key")?,
        methods,
        weights,
        init: settings.text("init")?,
        atoms,
        ratios,
        dtypes: dtypes.iter().map(|name| dtype(name, &place)).collect::<Result<_>>()?,
        balance: settings.flag("balance")?.unwrap_or(false),
        coordinates,
        output: settings.text("output")?.ok_or_else(|| missing("an output"))?,
        overwrite: settings.flag("overwrite")?.unwrap_or(false),
        after: after::parse_all(settings)?,
    })
}

fn method(name: &str, settings: Settings<'_>) -> Result<Method> {
    let unknown = |error: Error| {
        let rejected = Error::rejected(format!("{}, method: {}", settings.place, error.message()));
        match error.hint_text() {
            Some(hint) => rejected.hint(hint),
            None => rejected,
        }
    };
    let method = match Method::parse(name).map_err(unknown)? {
        Method::Anchored(_) => Method::Anchored(AnchoredOptions::default()),
        Method::Exact(default) => {
            Method::Exact(ExactOptions { restarts: settings.count("restarts")?.unwrap_or(default.restarts), ..default })
        }
        Method::Ae(default) => {
            let paper = settings.flag("paper")?.unwrap_or(false);
            let default = if paper { AeOptions::paper() } else { default };
            Method::Ae(AeOptions {
                steps: settings.count("steps")?.or(default.steps),
                learning_rate: settings.number("lr")?.unwrap_or(default.learning_rate),
                tau: settings.number("tau")?.unwrap_or(default.tau),
                anneal: anneal(settings)?.or(default.anneal),
                batch_columns: settings.count("batch_columns")?.or(default.batch_columns),
                grad_clip: settings.number("grad_clip")?.or(default.grad_clip),
                weight_decay: settings.number("weight_decay")?.unwrap_or(default.weight_decay),
                encoder: activation("encoder", settings)?.unwrap_or(default.encoder),
                decoder: activation("w_activation", settings)?.unwrap_or(default.decoder),
                ..default
            })
        }
        Method::Cluster(default) => Method::Cluster(ClusterOptions {
            eigengap: settings.flag("eigengap")?.unwrap_or(default.eigengap),
            ..default
        }),
        Method::Nmf(default) => {
            Method::Nmf(NmfOptions { max_steps: settings.count("steps")?.unwrap_or(default.max_steps), ..default })
        }
        other => other,
    };
    Ok(match settings.count("seed")? {
        Some(seed) => method.with_seed(seed),
        None => method,
    })
}

/// `anneal = "EVERY:FACTOR"`, as the flag has it.
fn anneal(settings: Settings<'_>) -> Result<Option<Anneal>> {
    let Some(text) = settings.text("anneal")? else { return Ok(None) };
    let parsed = text.split_once(':').and_then(|(every, factor)| {
        let anneal = Anneal { every: every.trim().parse().ok()?, factor: factor.trim().parse().ok()? };
        (anneal.every > 0 && anneal.factor > 0.0 && anneal.factor.is_finite()).then_some(anneal)
    });
    let wrong = || {
        Error::rejected(format!(
            "{}, anneal: EVERY:FACTOR such as \"1000:0.5\" expected, {text:?} found",
            settings.place
        ))
    };
    parsed.map(Some).ok_or_else(wrong)
}

/// `encoder` and `w_activation`.
fn activation(key: &str, settings: Settings<'_>) -> Result<Option<Activation>> {
    match settings.text(key)?.as_deref() {
        None => Ok(None),
        Some("softmax") => Ok(Some(Activation::Softmax)),
        Some("linear") => Ok(Some(Activation::Linear)),
        Some(other) => {
            Err(Error::rejected(format!("{}, {key}: softmax or linear expected, {other:?} found", settings.place)))
        }
    }
}

/// The element type of that name.
pub(super) fn dtype(name: &str, place: &str) -> Result<Dtype> {
    match name {
        "f32" => Ok(Dtype::F32),
        "f16" => Ok(Dtype::F16),
        "bf16" => Ok(Dtype::Bf16),
        _ => Err(Error::rejected(format!("{place}, dtype: f32, bf16 or f16 expected, {name:?} found"))),
    }
}

/// Its name in a job file and in templates.
pub(super) fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "f32",
        Dtype::F16 => "f16",
        Dtype::Bf16 => "bf16",
        Dtype::F64 => "f64",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let Method::Ae(ae) = &second.methods[1] else { panic!("{second:?}") };
        assert_eq!((ae.learning_rate, ae.anneal), (0.1, Some(Anneal { every: 100, factor: 0.5 })));
        assert_eq!((ae.encoder, ae.decoder), (Activation::Linear, Activation::Softmax));
        assert_eq!((first.init.as_deref(), second.init.as_deref()), (None, Some("a.json")));
        assert_eq!((second.dtypes[0], second.after.len()), (Dtype::Bf16, 1));
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
