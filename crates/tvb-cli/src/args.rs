//! The flags that every command has, as they were typed ([`CommonArgs`]) and as they are meant ([`Context`]).

use crate::given::Given;
use crate::interrupt::asked_to_stop;
use crate::machine::processor;
use crate::progress::{Display, Listener};
use clap::{ArgAction, ValueEnum};
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::Path;
use tvb::checkpoint::{Budget, Checkpoint, OpenOptions};
use tvb::columns::tasks::split_key;
use tvb::cost::{Choice, Work};
use tvb::pass::{Auto, Runtime};
use tvb::progress::{Progress, unless_cancelled};
use tvb::shown::escaped;
use tvb::{Result, units};
use tvb_kernels::{Backend, CpuEngine, DeviceChoice, Engine};

/// Flags common to all commands, as typed.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct CommonArgs {
    /// Where to compute: auto (what does the job soonest, by `tvb devices`), cpu, gpu, an index from `tvb devices`, or a part of an
    /// adapter's name
    #[arg(long, global = true, env = "TVB_DEVICE", default_value = "auto")]
    pub device: String,
    /// Graphics interfaces to look for adapters on; all of them by default
    #[arg(long, global = true, env = "WGPU_BACKEND", value_enum, value_delimiter = ',', ignore_case = true)]
    pub backend: Vec<BackendName>,
    /// Cap on host buffers, and on what is kept of files, such as 512M or 4G
    #[arg(long, global = true, default_value = "512M", value_name = "SIZE", value_parser = units::parse_bytes)]
    pub memory: u64,
    /// Cap on what stays in a GPU's own memory between two passes, so that it is read and uploaded once; 0 for nothing. Half of what
    /// `tvb devices` shows by default, 2G where the driver does not say
    #[arg(long, global = true, env = "TVB_DEVICE_MEMORY", value_name = "SIZE", value_parser = units::parse_bytes)]
    pub device_memory: Option<u64>,
    /// Threads to compute and read with; one per core by default
    #[arg(long, short = 'j', global = true, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// More detail on stderr; twice for everything
    #[arg(long, short = 'v', global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// No progress and no remarks on stderr; twice to drop warnings too
    #[arg(long, short = 'q', global = true, action = ArgAction::Count, conflicts_with = "verbose")]
    pub quiet: u8,
    /// Print exactly one JSON object on stdout
    #[arg(long, global = true)]
    pub json: bool,
}

/// `--backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendName {
    #[value(alias = "vk")]
    Vulkan,
    #[value(alias = "mtl")]
    Metal,
    #[value(alias = "d3d12")]
    Dx12,
    #[value(aliases = ["gles", "opengl"])]
    Gl,
}

impl BackendName {
    fn kernel(self) -> Backend {
        match self {
            BackendName::Vulkan => Backend::Vulkan,
            BackendName::Metal => Backend::Metal,
            BackendName::Dx12 => Backend::Dx12,
            BackendName::Gl => Backend::Gl,
        }
    }
}

/// What the common flags mean, shared by all commands.
pub(crate) struct Context {
    /// Shows how far long work is and hears Ctrl-C.
    pub progress: Display,
    /// The command as it was typed, the program's name first.
    words: Vec<OsString>,
    /// The graphics interface asked for, where one was.
    pub backend: Option<Backend>,
    /// Threads to compute and read with.
    pub n_threads: usize,
    device: DeviceChoice,
    /// Cap on host buffers.
    pub memory_bytes: u64,
    /// What is kept of all files that are read, taken from the same cap; hears Ctrl-C.
    pub budget: Budget,
    device_memory_bytes: Option<u64>,
    /// Checkpoints that need not be opened.
    pub given: Given,
}

impl Context {
    /// Checks the common flags of a command that was typed as `words`. A listener takes the place of the terminal and its signals.
    pub(crate) fn new(common: CommonArgs, words: Vec<OsString>, listener: Option<Listener>) -> Result<Self> {
        let cores = std::thread::available_parallelism();
        let limit = common.memory.max(Budget::LEAST_BYTES);
        let budget = match listener.clone() {
            Some(listener) => Budget::cancelled_by(limit, move || listener.cancelled()),
            None => Budget::cancelled_by(limit, asked_to_stop),
        };
        Ok(Self {
            progress: listener.map_or_else(|| Display::new(common.quiet > 0), Display::heard_by),
            words,
            backend: common.backend.first().map(|name| name.kernel()),
            device: DeviceChoice::from_name(&common.device),
            memory_bytes: common.memory,
            budget,
            device_memory_bytes: common.device_memory,
            given: Given::default(),
            n_threads: common.threads.or(cores.ok()).map_or(1, NonZeroUsize::get),
        })
    }

    /// The same with checkpoints that are open already.
    pub(crate) fn with(self, given: Given) -> Self {
        Self { given, ..self }
    }

    /// The command as it was typed, quoted where a shell needs it.
    pub(crate) fn command_line(&self) -> String {
        let quoted = |word: &OsString| {
            let word = word.to_string_lossy();
            let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
            let is_plain = !word.is_empty() && word.chars().all(plain);
            if is_plain { word.into_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
        };
        let words = self.words.iter().skip(1).map(quoted);
        std::iter::once("tvb".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
    }

    /// Does work that makes no output (headers are read, a page is drawn), for as long as the user does not ask to stop.
    pub(crate) fn unless_stopped<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Fn(f64) -> bool) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        unless_cancelled(&self.progress, work)
    }

    /// What `--device` means.
    pub(crate) fn device(&self) -> &DeviceChoice {
        &self.device
    }

    /// Opens the device that was asked for, or the one that does `work` soonest where none was, and says which and why.
    pub(crate) fn runtime_for(&self, work: impl FnOnce() -> Result<Work>) -> Result<Runtime> {
        if self.device != DeviceChoice::Auto {
            return self.runtime_on(&self.device);
        }
        if !may_have_a_card() {
            return self.runtime_on(&DeviceChoice::Cpu);
        }
        let (runtime, words) = Runtime::open_for(&work()?, &self.auto());
        words.iter().for_each(|word| self.progress.warn(word));
        match &runtime.choice {
            Some(choice) if choice.is_of_little_work() => tracing::debug!("{}", escaped(&choice.to_string())),
            Some(choice) => self.progress.note(&escaped(&choice.to_string())),
            None => {}
        }
        Ok(self.limited(runtime))
    }

    /// Opens the device that was asked for, for work that is the host's on any.
    pub(crate) fn runtime(&self) -> Result<Runtime> {
        self.runtime_on(&self.device)
    }

    /// What would be taken for `work`, where that is left to `auto` and there is anything to choose.
    pub(crate) fn choice_for(&self, work: impl FnOnce() -> Result<Work>) -> Result<Option<Choice>> {
        if self.device != DeviceChoice::Auto || !may_have_a_card() {
            return Ok(None);
        }
        let (choice, words) = self.auto().choice(&work()?);
        words.iter().for_each(|word| self.progress.warn(word));
        Ok(choice)
    }

    /// What `auto` chooses by.
    pub(crate) fn auto(&self) -> Auto {
        Auto {
            backend: self.backend,
            n_threads: self.n_threads,
            device_memory_bytes: self.device_memory_bytes,
            processor: processor(),
            with_software: software_as_card(),
            saved: crate::saved::load(&self.progress),
        }
    }

    /// The engine for what takes milliseconds on any: the device that was asked for, else the CPU, without a look at what
    /// devices there are.
    pub(crate) fn small_engine(&self) -> Result<Engine> {
        match self.device {
            DeviceChoice::Auto => Ok(Engine::Cpu(CpuEngine::new())),
            _ => Ok(self.runtime()?.engine),
        }
    }

    /// Opens a checkpoint.
    pub(crate) fn open(&self, path: &Path) -> Result<Checkpoint> {
        let (path, key) = split_key(path)?;
        Checkpoint::open_with(&path, &OpenOptions { key, budget: self.budget.clone() })
    }

    /// Opens another device than the one that was asked for, if any was.
    pub(crate) fn runtime_on(&self, device: &DeviceChoice) -> Result<Runtime> {
        Ok(self.limited(Runtime::open_on(device, self.backend)?))
    }

    /// With the limits that were asked for; a warning of it, where there is one, goes to the log.
    fn limited(&self, runtime: Runtime) -> Runtime {
        let runtime =
            runtime.with_threads(self.n_threads).with_memory(self.memory_bytes).with_budget(self.budget.clone());
        let runtime = match self.device_memory_bytes {
            Some(n_bytes) => runtime.with_device_memory(n_bytes),
            None => runtime,
        };
        if let Some(warning) = &runtime.warning {
            self.progress.warn(warning);
        }
        runtime
    }
}

/// Whether `auto` takes a software adapter for a card (CONTRIBUTING.md): its choices are tried that way where there is none.
pub(crate) fn software_as_card() -> bool {
    std::env::var_os("TVB_SOFTWARE_AS_CARD").is_some_and(|value| value == "1")
}

/// Whether there may be a GPU that is not emulated. Where the system has no device file of one, `auto` need not ask every driver:
/// Mesa's alone would load a compiler of 60 MB for the software adapter that `auto` does not take.
pub(crate) fn may_have_a_card() -> bool {
    const DEVICE_FILES: [&str; 10] = [
        "/dev/dri",
        "/dev/nvidiactl",
        "/dev/nvidia0",
        "/dev/kfd",
        "/dev/dxg",
        "/dev/mali0",
        "/dev/kgsl-3d0",
        "/dev/nvgpu",
        "/dev/nvhost-gpu",
        "/dev/nvmap",
    ];
    software_as_card() || !cfg!(target_os = "linux") || DEVICE_FILES.iter().any(|path| Path::new(path).exists())
}
