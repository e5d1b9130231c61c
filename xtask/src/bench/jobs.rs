//! The jobs, each by turns with the others, and their tables.

use super::inputs::{Inputs, Kind};
use super::peers;
use super::timed::{Run, run, summary};
use super::turns::{Contender, by_turns, clear, megabytes};
use crate::process::Result;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The built programs.
#[derive(Debug)]
pub(super) struct Programs {
    pub(super) tvb: PathBuf,
    pub(super) io_floor: PathBuf,
    pub(super) make_inputs: PathBuf,
}

/// Measures and collects tables.
pub(super) struct Jobs {
    programs: Programs,
    n_rounds: usize,
    text: String,
}

impl Jobs {
    pub(super) fn new(programs: Programs, n_rounds: usize) -> Jobs {
        Jobs { programs, n_rounds, text: String::new() }
    }

    /// The tables so far, as Markdown.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// `gram`, `compress` and `add` beside their floors and, with a Python, beside other programs.
    pub(super) fn side_by_side(&mut self, n_tasks: usize, n_parameters: usize, python: Option<&Path>) -> Result<()> {
        let inputs = Inputs::make(&self.programs.make_inputs, Kind::Vit, n_tasks, n_parameters)?;
        let measured = self.contend(&inputs, python);
        inputs.remove()?;
        let n_atoms = n_atoms(n_tasks);
        let _ = writeln!(
            self.text,
            "\n{n_tasks} f32 checkpoints of {:.1} M parameters and their base, M = {n_atoms}\n\n{}",
            n_parameters as f64 / 1e6,
            measured?
        );
        Ok(())
    }

    fn contend(&self, inputs: &Inputs, python: Option<&Path>) -> Result<String> {
        let out = inputs.folder.join("out");
        // What `add` reads.
        let basis = inputs.folder.join("basis");
        run(&mut self.compress(inputs, &basis))?;
        let (n_atoms, one) = (n_atoms(inputs.n_tasks), inputs.checkpoint_bytes());
        let files = || std::iter::once(inputs.base()).chain(inputs.tasks()).collect::<Vec<_>>();
        let atoms = || -> Vec<PathBuf> {
            let digits = (n_atoms - 1).max(10).to_string().len();
            let atoms = (0..n_atoms).map(|atom| basis.join(format!("atom-{atom:0digits$}.safetensors")));
            std::iter::once(inputs.base()).chain(atoms).collect()
        };
        let floor = |n_reads: u32, write_bytes: u64, files: Vec<PathBuf>| {
            let mut command = Command::new(&self.programs.io_floor);
            command.args([n_reads.to_string(), write_bytes.to_string()]).arg(out.join("floor")).args(files);
            Ok(command)
        };
        let tvb = |words: &[&str]| {
            let mut command = Command::new(&self.programs.tvb);
            command.args(["-q", "--device", "cpu"]).args(words);
            command
        };
        let mut contenders = vec![
            Contender::new("floor: read once", None, move || floor(1, 0, files())),
            Contender::new("`tvb gram`", Some(0), || {
                let mut command = tvb(&["gram", "--base"]);
                command.arg(inputs.base()).args(inputs.tasks()).arg("-o").arg(out.join("run.gram"));
                Ok(command)
            }),
            Contender::new("floor: read twice, write M", None, move || floor(2, n_atoms as u64 * one, files())),
            Contender::new("`tvb compress`", Some(2), || Ok(self.compress(inputs, &out.join("basis")))),
            Contender::new("floor: read M + 1, write 1", None, move || floor(1, one, atoms())),
            Contender::new("`tvb add` from the basis", Some(4), || {
                let mut command = tvb(&["add"]);
                command.arg(&basis).arg("--base").arg(inputs.base()).args(["--scale", "0.3", "-o"]);
                command.arg(out.join("edited.safetensors"));
                Ok(command)
            }),
            Contender::new("floor: read once, write 1", None, move || floor(1, one, files())),
            Contender::new("`tvb add --from-checkpoints`", Some(6), || {
                let mut command = tvb(&["add", "--scale", "0.3", "--base"]);
                command.arg(inputs.base()).arg("-o").arg(out.join("edited.safetensors"));
                command.arg("--from-checkpoints").args(inputs.tasks());
                Ok(command)
            }),
        ];
        let codes = Codes::make(inputs, &self.programs.tvb)?;
        for (at, bits) in BITS.into_iter().enumerate() {
            let floor_at = contenders.len();
            let n_bytes = codes.n_bytes(at)?;
            let name = format!("floor: read once, write codes of {bits} bits");
            contenders.push(Contender::new(&name, None, move || floor(1, n_bytes, files())));
            let compress = || Ok(coded(&self.programs.tvb, inputs, bits, &out.join("basis")));
            contenders.push(Contender::new(&format!("`tvb compress --bits {bits}`"), Some(floor_at), compress));
        }
        for (at, bits) in BITS.into_iter().enumerate() {
            let (all, own) = (codes.all(at), codes.one(at));
            let with_base = |columns: Vec<PathBuf>| std::iter::once(inputs.base()).chain(columns).collect::<Vec<_>>();
            let (all, own) = (with_base(all), with_base(own));
            let floor_at = contenders.len();
            let name = format!("floor: read base and codes of {bits} bits, write 1");
            contenders.push(Contender::new(&name, None, move || floor(1, one, all.clone())));
            let name = format!("`tvb add` of all from codes of {bits} bits");
            let (tvb, folder, out) = (&tvb, codes.folder(at), &out);
            let of_all = folder.clone();
            contenders.push(Contender::new(&name, Some(floor_at), move || {
                let mut command = tvb(&["add"]);
                command.arg(&of_all).arg("--base").arg(inputs.base()).args(["--scale", "0.3", "-o"]);
                command.arg(out.join("edited.safetensors"));
                Ok(command)
            }));
            let name = format!("floor: read base and one task of {bits} bits, write 1");
            contenders.push(Contender::new(&name, None, move || floor(1, one, own.clone())));
            let name = format!("`tvb recover` of one from codes of {bits} bits");
            contenders.push(Contender::new(&name, Some(floor_at + 2), move || {
                let mut command = tvb(&["recover"]);
                command.arg(&folder).arg("task000").arg("--base").arg(inputs.base()).arg("-o").arg(out.join("one"));
                Ok(command)
            }));
        }
        if let Some(python) = python {
            let start = || Ok(peers::torch_start(python, inputs, &out));
            contenders.push(Contender::new("PyTorch script: start-up alone", None, start));
            let compress = || Ok(peers::torch_compress(python, inputs, n_atoms, &out));
            contenders.push(Contender::new("PyTorch script: Gram, eigh, atoms", Some(2), compress));
            let add = || Ok(peers::torch_add(python, inputs, &out));
            contenders.push(Contender::new("PyTorch script: add", Some(6), add));
            if peers::can_import(python, "mergekit") {
                let add = || peers::mergekit_add(python, inputs, &out);
                contenders.push(Contender::new("mergekit: task_arithmetic", Some(6), add));
            }
        }
        by_turns(&contenders, self.n_rounds, &out)
    }

    /// How the time of `compress` grows with T and with d, and one large T.
    pub(super) fn linearity(&mut self) -> Result<()> {
        let by_tasks = [8, 16, 32, 64].map(|n_tasks| (n_tasks, 2_500_000));
        let by_rows = [2_500_000, 5_000_000, 10_000_000, 20_000_000].map(|d| (8, d));
        for (title, cases) in [("T grows", &by_tasks[..]), ("d grows", &by_rows), ("T = 100", &[(100, 10_000_000)])] {
            let _ = writeln!(self.text, "\n`tvb compress`, M = T/2, f32: {title}\n");
            self.text += "| T | d | time, s | of it, ns per T·d | resident |\n|---:|---:|---:|---:|---:|\n";
            for &(n_tasks, d) in cases {
                let inputs = Inputs::make(&self.programs.make_inputs, Kind::Vit, n_tasks, d)?;
                let out = inputs.folder.join("out");
                let runs: Result<Vec<Run>> = (0..self.n_rounds.min(3))
                    .map(|_| {
                        clear(&out)?;
                        run(&mut self.compress(&inputs, &out.join("basis")))
                    })
                    .collect();
                inputs.remove()?;
                let (seconds, resident_bytes) = summary(&runs?);
                let each_ns = seconds * 1e9 / (n_tasks * d) as f64;
                let resident = megabytes(resident_bytes);
                let _ = writeln!(self.text, "| {n_tasks} | {d} | {seconds:.2} | {each_ns:.2} | {resident} |");
            }
        }
        Ok(())
    }

    fn compress(&self, inputs: &Inputs, out: &Path) -> Command {
        let mut command = Command::new(&self.programs.tvb);
        command.args(["-q", "--device", "cpu", "compress", "--base"]).arg(inputs.base()).args(inputs.tasks());
        command.args(["-m", &n_atoms(inputs.n_tasks).to_string(), "-o"]).arg(out);
        command
    }
}

/// Coded bases are measured at these.
const BITS: [&str; 2] = ["1", "2"];

/// Coded bases, made before they are measured.
struct Codes {
    folders: Vec<PathBuf>,
    n_tasks: usize,
}

impl Codes {
    fn make(inputs: &Inputs, tvb: &Path) -> Result<Codes> {
        let folders: Vec<PathBuf> = BITS.iter().map(|bits| inputs.folder.join(format!("coded-{bits}"))).collect();
        for (bits, folder) in BITS.into_iter().zip(&folders) {
            run(&mut coded(tvb, inputs, bits, folder))?;
        }
        Ok(Codes { folders, n_tasks: inputs.n_tasks })
    }

    fn folder(&self, at: usize) -> PathBuf {
        self.folders[at].clone()
    }

    fn column(&self, at: usize, column: usize) -> PathBuf {
        let digits = self.n_tasks.max(10).to_string().len();
        self.folders[at].join(format!("atom-{column:0digits$}.safetensors"))
    }

    /// The files of all columns.
    fn all(&self, at: usize) -> Vec<PathBuf> {
        (0..=self.n_tasks).map(|column| self.column(at, column)).collect()
    }

    /// Those of the first task: its own and the shared one.
    fn one(&self, at: usize) -> Vec<PathBuf> {
        vec![self.column(at, 0), self.column(at, self.n_tasks)]
    }

    fn n_bytes(&self, at: usize) -> Result<u64> {
        let size = |path: PathBuf| {
            std::fs::metadata(&path).map(|found| found.len()).map_err(|error| format!("{}: {error}", path.display()))
        };
        self.all(at).into_iter().map(size).sum()
    }
}

/// Tasks coded as they are, with the sum kept at 3 bits.
fn coded(tvb: &Path, inputs: &Inputs, bits: &str, out: &Path) -> Command {
    let mut command = Command::new(tvb);
    command.args(["-q", "--device", "cpu", "compress", "--bits", bits, "--base"]).arg(inputs.base());
    command.args(inputs.tasks()).arg("-o").arg(out);
    command
}

fn n_atoms(n_tasks: usize) -> usize {
    n_tasks.div_ceil(2)
}
