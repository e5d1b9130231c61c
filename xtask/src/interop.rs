//! `cargo xtask interop`: `tvb` and PyTorch exchange files, which must say the same on both sides.
//!
//! `interop.py` writes checkpoints with today's PyTorch and checks at the end; between the two `tvb` compresses, imports,
//! exports, edits and recovers, as a user would. The default tests need no Python: they run on committed fixtures.

use crate::process::{Result, cargo, root, run as run_command, succeeds, target};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The Python half.
const SCRIPT: &str = "xtask/src/interop.py";
/// Bases that the reference code wrote, and the run folder that they were made from.
const FIXTURES: &str = "tests/fixtures/reference";
/// What the script imports.
const IMPORTS: &str = "import torch, numpy, safetensors.torch";
/// What PyTorch needs on a machine without a graphics card. Its own list of dependencies adds gigabytes of CUDA libraries.
const PACKAGES: &[&str] = &[
    "torch",
    "numpy",
    "safetensors",
    "typing_extensions",
    "sympy",
    "mpmath",
    "networkx",
    "jinja2",
    "MarkupSafe",
    "fsspec",
    "filelock",
    "packaging",
];

/// Where builds of PyTorch for CPUs are.
const CPU_INDEX: &str = "https://download.pytorch.org/whl/cpu";
/// A network that is not there shall be noticed soon.
const PATIENCE: &[&str] = &["--timeout", "20", "--retries", "1"];

/// Exchange files with real PyTorch, both ways, and compare (installs PyTorch under target/ on the first run)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A Python with torch, numpy and safetensors, in place of an environment of our own
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// A built tvb, in place of building one
    #[arg(long, value_name = "PATH")]
    tvb: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let python = match &args.python {
        Some(python) => python.clone(),
        None => environment()?,
    };
    let tvb = match &args.tvb {
        Some(tvb) => tvb.clone(),
        None => build()?,
    };
    let work = root().join("target/interop");
    if work.exists() {
        std::fs::remove_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    }
    std::fs::create_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    let script =
        |what: &str| run_command(Command::new(&python).current_dir(root()).args([SCRIPT, what, FIXTURES]).arg(&work));
    script("write")?;
    for line in commands() {
        let words = line
            .split_whitespace()
            .map(|word| word.replace("WORK", &work.to_string_lossy()).replace("FIXTURES", FIXTURES));
        run_command(Command::new(&tvb).current_dir(root()).arg("-q").args(words).stdout(Stdio::null()))?;
    }
    script("check")?;
    // The decoder in docs/format.md: the default tests run it where they find a Python with numpy, and here there is one.
    // It runs elsewhere; a bare name is looked up.
    let python = if python.components().count() > 1 { std::path::absolute(&python).unwrap_or(python) } else { python };
    let mut decoder =
        cargo(["test", "--locked", "--package", "tvb-cli", "--test", "all", "the_decoder_in_the_document"]);
    run_command(decoder.env("TVB_PYTHON", &python))
}

/// What `tvb` does between the two halves of the script.
fn commands() -> Vec<String> {
    let mut lines = Vec::new();
    for method in ["AE", "PCA", "Random", "RandomSample"] {
        lines.push(format!("import FIXTURES/published/ViT-tiny_{method}_M4_8task -o WORK/imported/{method}"));
        lines.push(format!("export WORK/imported/{method} -o WORK/exported/{method}"));
        lines.push(format!("recover WORK/imported/{method} -o WORK/recovered/{method}"));
        lines.push(format!("add WORK/imported/{method} --rule sum --delta -o WORK/sums/{method}.safetensors"));
    }
    for method in ["anchored", "pca"] {
        lines.push(format!(
            "compress --base WORK/base.pt WORK/a.pt WORK/b.pt WORK/c.pt -m 2 --method {method} -o WORK/bases/{method}"
        ));
        lines.push(format!("export WORK/bases/{method} -o WORK/exported/{method}"));
        lines.push(format!("import WORK/exported/{method} -o WORK/again/{method}"));
        lines.push(format!("recover WORK/bases/{method} -o WORK/recovered/{method}"));
        lines.push(format!("add WORK/bases/{method} --rule sum --delta -o WORK/sums/{method}.safetensors"));
    }
    for base in ["base", "sharded"] {
        let tasks = "a=WORK/a.pt b=WORK/b.pt c=WORK/c.pt";
        lines.push(format!("add --base WORK/{base} --scale 0.5 -o WORK/edited/{base} --from-checkpoints {tasks}"));
        lines.push(format!("export --format pt WORK/edited/{base} -o WORK/edited/{base}.pt"));
    }
    lines.push("recover WORK/bases/anchored a --base WORK/base.pt -o WORK/whole".into());
    lines.push("export --format pt WORK/whole/a.safetensors -o WORK/whole/a.pt".into());
    lines
}

fn build() -> Result<PathBuf> {
    run_command(&mut cargo(["build", "--locked", "--workspace", "--all-targets"]))?;
    Ok(target().join("debug/tvb"))
}

/// A virtual environment with PyTorch, made on the first run.
fn environment() -> Result<PathBuf> {
    let folder = root().join("target/interop-venv");
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let works = |python: &Path| python.to_str().is_some_and(|python| succeeds(python, &["-c", IMPORTS]));
    if works(&python) {
        return Ok(python);
    }
    let system = if cfg!(windows) { "python" } else { "python3" };
    if !succeeds(system, &["-c", "import venv, ensurepip"]) {
        return Err(format!(
            "no {system} with the venv module (Debian, Ubuntu: `apt-get install python3-venv`); or --python PATH names one \
             that has torch, numpy and safetensors"
        ));
    }
    run_command(Command::new(system).args(["-m", "venv"]).arg(&folder))?;
    let pip = |words: &[&str]| {
        let mut command = Command::new(&python);
        command.args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]).args(PATIENCE).args(words);
        run_command(&mut command)
    };
    let no_network = |error: String| {
        format!(
            "{error}\n       PyTorch could not be installed; without a network, --python PATH names a Python that has it"
        )
    };
    // The build for CPUs is a fifth of the other, and its index may be out of reach where PyPI is not.
    if pip(&["--no-deps", "torch", "--index-url", CPU_INDEX]).is_err() {
        eprintln!("{CPU_INDEX} cannot be had: taking the package index's own build");
    }
    pip(&[&["--no-deps"], PACKAGES].concat()).map_err(no_network)?;
    if !works(&python) {
        eprintln!("this build of PyTorch needs its CUDA libraries even without a graphics card: installing them");
        pip(&["torch"]).map_err(no_network)?;
    }
    if works(&python) { Ok(python) } else { Err(format!("{}: `{IMPORTS}` fails", python.display())) }
}
