//! A Python with PyTorch, made under `target/` on the first run, and the libraries that the table of cases needs.

use crate::process::{Result, root, run as run_command, succeeds};
use std::path::{Path, PathBuf};
use std::process::Command;

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
/// Libraries whose files the table of cases is about. A case whose library cannot be installed is skipped with a word.
const LIBRARIES: &[&str] =
    &["transformers", "accelerate", "peft", "diffusers", "open_clip_torch", "huggingface_hub", "mergekit==0.1.5"];
/// What they are imported as.
const LIBRARY_IMPORTS: &str = "import transformers, accelerate, peft, diffusers, open_clip, huggingface_hub, mergekit";
/// What the comparison of mergers needs.
const MERGER_IMPORTS: &str = "import mergekit, transformers, yaml";

/// A virtual environment with PyTorch, made on the first run.
pub(super) fn environment() -> Result<PathBuf> {
    let folder = root().join("target/interop-venv");
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let works = |python: &Path| imports(python, IMPORTS);
    if works(&python) {
        add_libraries(&python);
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
    let pip = |words: &[&str]| pip(&python, words);
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
    if !works(&python) {
        return Err(format!("{}: `{IMPORTS}` fails", python.display()));
    }
    add_libraries(&python);
    Ok(python)
}

/// Installs the libraries of the table where they are not there yet; without a network the table skips their cases.
fn add_libraries(python: &Path) {
    if imports(python, LIBRARY_IMPORTS) {
        return;
    }
    for library in LIBRARIES {
        if pip(python, &[library]).is_err() {
            eprintln!("{library} cannot be installed: its cases are skipped");
        }
    }
}

/// Whether this Python has what the comparison of mergers needs.
pub(super) fn has_mergekit(python: &Path) -> bool {
    imports(python, MERGER_IMPORTS)
}

fn imports(python: &Path, line: &str) -> bool {
    python.to_str().is_some_and(|python| succeeds(python, &["-c", line]))
}

fn pip(python: &Path, words: &[&str]) -> Result<()> {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "install", "-q", "--disable-pip-version-check"]).args(PATIENCE).args(words);
    run_command(&mut command)
}
