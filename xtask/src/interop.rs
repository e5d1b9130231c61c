//! `cargo xtask interop`: `tvb` and the libraries of its users exchange files, which must say the same on both sides.
//!
//! First the table of cases, in `interop/table.py`: files that transformers, PyTorch, PEFT, diffusers and open_clip wrote are
//! edited and compared with PyTorch arithmetic, or refused. Then `interop/exchange.py` writes checkpoints with today's PyTorch and
//! checks at the end; between the two `tvb` compresses, imports, exports, edits and recovers, as a user would. Last, recipes are run by
//! mergekit 0.1.5 and by `tvb merge` (`interop/merges.py`). The default tests need no Python: they run on committed fixtures.

mod python;

use crate::process::{Result, cargo, root, run as run_command, target};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The Python half of the exchange.
const EXCHANGE: &str = "xtask/src/interop/exchange.py";
/// Mergers beside mergekit.
const MERGES: &str = "xtask/src/interop/merges.py";
/// The table of cases.
const TABLE: &str = "xtask/src/interop/table.py";
/// Bases that the reference code wrote, and the run folder that they were made from.
const FIXTURES: &str = "tests/fixtures/reference";

/// Exchange files with PyTorch, transformers, PEFT, diffusers, open_clip and mergekit, and compare (installs them under target/ on the first
/// run)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A Python with torch, numpy and safetensors, in place of an environment of our own; cases of other libraries are skipped
    /// where it lacks them
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// A built tvb, in place of building one
    #[arg(long, value_name = "PATH")]
    tvb: Option<PathBuf>,
    /// Only the mergers beside mergekit
    #[arg(long)]
    merges: bool,
    /// Only cases of the table whose title, or the name of whose file, matches
    #[arg(long, value_name = "REGEX")]
    only: Option<String>,
    /// The table.json of another run: what that tvb did is a column of its own
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let python = match &args.python {
        Some(python) => python.clone(),
        None => python::environment()?,
    };
    let tvb = match &args.tvb {
        Some(tvb) => tvb.clone(),
        None => build()?,
    };
    let work = root().join("target/interop");
    // It may be the table of the last run, which lies where this one's goes.
    let read = |path: &PathBuf| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let against = args.against.as_ref().map(read).transpose()?;
    if work.exists() {
        std::fs::remove_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    }
    std::fs::create_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
    // It runs elsewhere; a bare name is looked up.
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let python = if python.components().count() > 1 { absolute(&python) } else { python };
    if args.merges {
        return merges(&python, &absolute(&tvb), &work);
    }
    let mut table = Command::new(&python);
    table.current_dir(root()).env("PYTHONDONTWRITEBYTECODE", "1").arg(TABLE).arg(absolute(&tvb)).arg(&work);
    if let Some(only) = &args.only {
        table.arg("--only").arg(only);
    }
    if let Some(against) = against {
        let path = work.join("against.json");
        std::fs::write(&path, against).map_err(|error| format!("{}: {error}", path.display()))?;
        table.arg("--against").arg(path);
    }
    let table = run_command(&mut table);
    println!("the table: {}", work.join("table.md").display());
    if args.only.is_some() {
        return table;
    }
    let script =
        |what: &str| run_command(Command::new(&python).current_dir(root()).args([EXCHANGE, what, FIXTURES]).arg(&work));
    script("write")?;
    for line in commands() {
        let words = line
            .split_whitespace()
            .map(|word| word.replace("WORK", &work.to_string_lossy()).replace("FIXTURES", FIXTURES));
        run_command(Command::new(&tvb).current_dir(root()).arg("-q").args(words).stdout(Stdio::null()))?;
    }
    script("check")?;
    // The decoder in docs/format.md: the default tests run it where they find a Python with numpy, and here there is one.
    let mut decoder =
        cargo(["test", "--locked", "--package", "tvb-cli", "--test", "all", "the_decoder_in_the_document"]);
    run_command(decoder.env("TVB_PYTHON", &python))?;
    merges(&python, &tvb, &work)?;
    table
}

/// The same recipes by mergekit and by `tvb merge`.
fn merges(python: &Path, tvb: &Path, work: &Path) -> Result<()> {
    if !python::has_mergekit(python) {
        println!("mergers: skipped, since this Python has no mergekit");
        return Ok(());
    }
    let mut command = Command::new(python);
    command.current_dir(root()).env("PYTHONDONTWRITEBYTECODE", "1").arg(MERGES).arg(tvb).arg(work.join("merges"));
    run_command(&mut command)
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
