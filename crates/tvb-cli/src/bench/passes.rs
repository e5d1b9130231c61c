//! Whole passes from files to files: what `auto` believes of this machine.
//!
//! Each stage is timed on a megabyte and on many, at a few numbers of tasks: what the first takes is the beginning, what the
//! second takes beyond it is the rate. Rows that come out are told from those that go in by writing few and many; the beginning is that
//! of many, as each is a file. The best of a
//! few runs counts, as what else the machine does is not the device's. Results on the small files are checked before
//! anything is timed.

use super::end_to_end::{Files, Quiet};
use super::stages::{code, n_atoms};
use super::timing::Budget;
use super::values::Values;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tvb::basis::Basis;
use tvb::checkpoint::Existing;
use tvb::columns::plan::Plan;
use tvb::cost::{Rate, Rates, Stage, Width};
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::jobs::edit::{Edit, EditJob, EditOutput, Source};
use tvb::jobs::gram::make_gram_file;
use tvb::pass::Runtime;
use tvb::progress::Progress;
use tvb::solve::Method;
use tvb::{Error, Result};
use tvb_kernels::{AdapterKind, Dtype, Engine};

/// Bytes of the small files: too few to take any time.
const SMALL_BYTES: u64 = 1 << 20;
/// Time for the runs of one measurement; at least one run is made, and no more than [`RUNS_MAX`].
const TIME: Duration = Duration::from_millis(600);
const QUICK_TIME: Duration = Duration::from_millis(60);
const RUNS_MAX: usize = 9;
/// No rate is believed beyond this, in 1e9 bytes a second: what is too short to see is not free.
const MOST: f64 = 200.0;

/// One device's passes.
pub(crate) struct Passes<'a> {
    /// The device.
    pub(crate) runtime: &'a Runtime,
    /// As `--device` and `--backend` name it, for a process of its own.
    pub(crate) flags: Vec<String>,
    /// Less data, fewer numbers of tasks.
    pub(crate) quick: bool,
    /// Hears how far it is.
    pub(crate) progress: &'a dyn Progress,
}

/// Files of one shape with what is made of them.
struct Job<'a> {
    passes: &'a Passes<'a>,
    files: Files,
    plan: Plan,
    dtype: Dtype,
    n_tasks: usize,
}

/// How long each stage takes on one set of files, in seconds.
struct Times {
    gram: f64,
    /// Few rows out, and many; and few from a device that has kept what goes in.
    project: [f64; 2],
    kept: Option<f64>,
    reconstruct: f64,
    code: f64,
    decode: f64,
}

impl Passes<'_> {
    /// Measures them all.
    ///
    /// # Errors
    /// Failed: a result that is wrong, the disk, the device. Interrupted.
    pub(crate) fn run(&self) -> Result<Rates> {
        let tasks: &[usize] = if self.quick { &[8, 64] } else { &[4, 16, 64, 256] };
        let dtypes = [Dtype::F32, Dtype::Bf16];
        self.progress.begin("bench", (tasks.len() * dtypes.len()) as u64 * self.large_bytes());
        let mut rates = Rates { open_s: 0.0, rates: Vec::new() };
        for (dtype, n_tasks) in dtypes.into_iter().flat_map(|dtype| tasks.iter().map(move |n| (dtype, *n))) {
            let small = Job::new(self, dtype, n_tasks, SMALL_BYTES)?;
            // The first use on a GPU compiles and tests what it needs: each process pays for that once more.
            let on_gpu = matches!(self.runtime.engine, Engine::Gpu(_));
            let first = if on_gpu { Some(small.times(1)?) } else { None };
            small.check()?;
            let begin = small.times(RUNS_MAX)?;
            let first = first.as_ref().unwrap_or(&begin);
            if rates.rates.is_empty() {
                rates.open_s = self.open_seconds(&small, first.gram)?;
            }
            let large = Job::new(self, dtype, n_tasks, self.large_bytes())?;
            rates.rates.extend(large.rates(&large.times(RUNS_MAX)?, &begin, first)?);
            self.progress.advance(self.large_bytes());
            self.progress.check()?;
        }
        self.progress.finish();
        Ok(rates)
    }

    fn large_bytes(&self) -> u64 {
        let is_software =
            |engine: &Engine| matches!(engine, Engine::Gpu(gpu) if gpu.facts().kind == AdapterKind::Software);
        match &self.runtime.engine {
            engine if is_software(engine) => 16 << 20,
            _ if self.quick => 16 << 20,
            Engine::Cpu(_) if self.runtime.n_threads <= 4 => 64 << 20,
            _ => 256 << 20,
        }
    }

    /// Seconds until a device can be used, by processes of their own: in this one the drivers are loaded already.
    /// `first_s` is what the first Gram pass took here.
    fn open_seconds(&self, small: &Job<'_>, first_s: f64) -> Result<f64> {
        if matches!(self.runtime.engine, Engine::Cpu(_)) {
            return Ok(0.0);
        }
        let cpu = vec!["--device".to_owned(), "cpu".to_owned()];
        let on_cpu = Runtime::on_cpu(self.runtime.n_threads, self.runtime.memory_bytes);
        // What the pass itself takes longer on the device is no part of its opening.
        let pass_s = first_s - small.best(RUNS_MAX, || small.gram(&on_cpu).map(drop))?;
        let process = |flags: &[String]| small.best(RUNS_MAX, || small.process(flags));
        let process_s = process(&self.flags)? - process(&cpu)?;
        Ok((process_s - pass_s.max(0.0)).max(1e-3))
    }
}

impl<'a> Job<'a> {
    fn new(passes: &'a Passes<'a>, dtype: Dtype, n_tasks: usize, n_bytes: u64) -> Result<Job<'a>> {
        let files = Files::write(Values { dtype }, n_tasks, n_bytes, passes.runtime.n_threads)?;
        let plan = files.plan()?;
        Ok(Job { passes, files, plan, dtype, n_tasks })
    }

    /// Compares what comes out of every stage with f64 arithmetic.
    fn check(&self) -> Result<()> {
        let (runtime, progress) = (self.passes.runtime, self.passes.progress);
        let once = Budget { time: Duration::ZERO, least_samples: 1 };
        let mixed = self.files.run(n_atoms(self.n_tasks), runtime, progress, once)?.verdict;
        let coded = self.files.run_coded(&code(tvb::Rate::Four, self.n_tasks), runtime, progress, once)?.verdict;
        mixed.and(coded).map_err(|wrong| {
            Error::failed(format!("{}: wrong results: {wrong}", runtime.device_name())).hint("update the driver")
        })
    }

    fn best(&self, most_runs: usize, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
        let (started, mut best) = (Instant::now(), f64::INFINITY);
        let time = if self.passes.quick { QUICK_TIME } else { TIME };
        for _ in 0..most_runs {
            let start = Instant::now();
            run()?;
            best = best.min(start.elapsed().as_secs_f64());
            self.passes.progress.check()?;
            if started.elapsed() > time {
                break;
            }
        }
        Ok(best)
    }

    fn gram(&self, runtime: &Runtime) -> Result<PathBuf> {
        let path = self.files.beside("gram.safetensors");
        make_gram_file(&self.plan, &path, Existing::Replace, runtime, &Quiet(self.passes.progress))?;
        Ok(path)
    }

    /// The same, by the command as users run it.
    fn process(&self, flags: &[String]) -> Result<()> {
        let failed = |what: String| Error::failed(format!("tvb gram in a process of its own: {what}"));
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(program);
        command.arg("gram").arg("--base").arg(self.files.path(0)).arg("-o").arg(self.files.beside("gram.safetensors"));
        command.args(["--overwrite", "-qq", "--threads", &self.passes.runtime.n_threads.to_string()]).args(flags);
        command.args((1..=self.n_tasks).map(|column| self.files.path(column)));
        let done = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        match done {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failed(status.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn compress(&self, options: CompressOptions) -> Result<Basis> {
        let options = options.existing(Existing::Replace);
        Ok(compress(&self.plan, &options, self.passes.runtime, &Quiet(self.passes.progress))?.basis)
    }

    fn mixtures(&self, n_atoms: usize, gram: Option<PathBuf>) -> CompressOptions {
        // Dense weights, soon found; the mean is stored beside the components.
        CompressOptions::mixtures(self.files.beside("basis"))
            .method(Method::Pca)
            .atoms(n_atoms)
            .dtype(self.dtype)
            .gram(gram)
    }

    fn edit(&self, source: Source<'_>) -> Result<()> {
        let output = EditOutput::new(self.files.beside("edited.safetensors")).existing(Existing::Replace);
        let edit = Edit::new(vec![1.0; self.n_tasks], 0.3);
        let job = EditJob { source, edit: &edit, base: Some(&self.plan.base), output: &output };
        job.write(self.passes.runtime, &Quiet(self.passes.progress)).map(drop)
    }

    /// Components that many rows are written for.
    fn many(&self) -> usize {
        (self.n_tasks / 2).max(3)
    }

    fn times(&self, most_runs: usize) -> Result<Times> {
        let runtime = self.passes.runtime;
        let gram = self.best(most_runs, || self.gram(runtime).map(drop))?;
        let gram_path = Some(self.gram(runtime)?);
        let of = |n_atoms: usize, gram: &Option<PathBuf>| {
            self.best(most_runs, || self.compress(self.mixtures(n_atoms, gram.clone())).map(drop))
        };
        let project = [of(1, &gram_path)?, of(self.many(), &gram_path)?];
        let kept = runtime.keeps_on_device().then(|| of(1, &None)).transpose()?.map(|both| both - gram);
        let reconstruct = self.best(most_runs, || self.edit(Source::Checkpoints(&self.plan)))?;
        let coded = || self.compress(CompressOptions::new(self.files.beside("coded")));
        let code = self.best(most_runs, || coded().map(drop))?;
        let basis = coded()?;
        let decode = self.best(most_runs, || self.edit(Source::Basis(&basis)))?;
        Ok(Times { gram, project, kept, reconstruct, code, decode })
    }

    fn rates(&self, times: &Times, begin: &Times, first: &Times) -> Result<Vec<Rate>> {
        let width = Width::of(self.dtype).ok_or_else(|| Error::failed("a format that shaders compute in expected"))?;
        let in_bytes = self.plan.n_bytes() as f64;
        let row_bytes = self.plan.n_rows() as f64 * self.dtype.size() as f64;
        let elements = self.plan.n_rows() as f64 * 4.0;
        // One shared column stands beside the tasks.
        let coded_bytes = elements * (self.n_tasks + 1) as f64;
        let rate = |n_bytes: f64, seconds: f64| n_bytes / 1e9 / seconds.max(n_bytes / 1e9 / MOST);
        let [few, many] = times.project;
        // What it takes to make more files is there on the small ones, too.
        let more_files = (begin.project[1] - begin.project[0]).max(0.0);
        let out = rate((self.many() - 1) as f64 * row_bytes, many - few - more_files);
        // What writing takes is at most three quarters of it all: the rest is reading, however noisy the clock.
        let without_out = |seconds: f64, rows: f64| (seconds - rows * row_bytes / 1e9 / out).max(seconds / 4.0);
        let of = |stage, times: [f64; 3], n_bytes: f64, rows: f64, out: f64| {
            let [seconds, begin_s, first_s] = times;
            let through_s = without_out((seconds - begin_s).max(seconds / 10.0), rows);
            let from_files = rate(n_bytes, through_s);
            Rate { stage, width, n_columns: self.n_tasks, begin_s: first_s.max(begin_s), from_files, kept: None, out }
        };
        let three = |of: fn(&Times) -> f64| [of(times), of(begin), of(first)];
        let kept = times.kept.map(|kept| rate(in_bytes, without_out(kept - begin.project[0], 2.0).max(kept / 10.0)));
        let begin_s = first.project[1].max(begin.project[1]);
        Ok(vec![
            of(Stage::Gram, three(|times| times.gram), in_bytes, 0.0, MOST),
            Rate { kept, begin_s, ..of(Stage::Project, three(|times| times.project[0]), in_bytes, 2.0, out) },
            of(Stage::Reconstruct, three(|times| times.reconstruct), in_bytes, 1.0, out),
            of(Stage::Code, three(|times| times.code), in_bytes, 0.0, MOST),
            of(Stage::Decode, three(|times| times.decode), coded_bytes, 1.0, out),
        ])
    }
}
