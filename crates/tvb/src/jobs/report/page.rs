//! The report: one HTML page that shows what a basis keeps and loses, with nothing to load from elsewhere.

use super::bars::bars_svg;
use super::heatmap::{Heatmap, no_frame};
use super::history::{history_svg, history_table};
use super::svg::{escape, number};
use super::{Pareto, pareto_svg, spectrum_svg};
use crate::basis::Basis;
use crate::basis::manifest::TaskRecord;
use crate::error::Result;
use crate::jobs::spectra::find_spectra;
use crate::jobs::tensor_spectra::{TensorSpectra, tensor_spectra_of_basis};
use crate::matrix::Matrix;
use crate::solve::{
    Gram, LADDER, Method, Parts, PlanRow, SolveOptions, Storage, TableCodes, TableOptions, assess, plan_table,
};
use crate::units;
use std::fmt::Write as _;
use tvb_kernels::Engine;

/// Tensors shown where the change lies.
const MAX_TENSORS: usize = 30;
/// Sizes and methods are compared for up to this many tasks; beyond, `tvb plan` does it with progress.
const MAX_COMPARED_TASKS: usize = 64;
/// What shares are shares of.
const IN_F32: Storage = Storage::Plain(tvb_kernels::Dtype::F32);
/// What the basis is compared with.
const COMPARED: [&str; 5] = ["anchored", "exact", "pca", "cluster", "sample"];

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2330;--paper:#fff;--faint:#8a93a3;--line:#d8dde6;--bar:#2f6fb5;--behind:#c9d7e8}
@media(prefers-color-scheme:dark){:root{--ink:#e3e7ee;--paper:#14181f;--faint:#8a93a3;--line:#2c3442;--bar:#6aa5e6;--behind:#2b3d55}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:980px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.4rem;border-bottom:1px solid var(--line)}
p.about{color:var(--faint);margin-top:0}svg{max-width:100%;height:auto;font:11px system-ui,sans-serif}
svg text{fill:var(--ink)}figure{margin:0;overflow-x:auto}svg .paper{fill:none}
table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:left;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}.bar{fill:var(--bar)}.behind{fill:var(--behind)}
.two{display:flex;flex-wrap:wrap;gap:1.5rem}";

/// The page of a basis, and what the user should be told of the device. Spectra are found on `engine`. `go_on` is asked
/// between the pieces of longer work and stops it by answering false.
///
/// # Errors
/// Rejected: coefficients that do not fit together. Interrupted.
pub fn basis_report(basis: &Basis, engine: &Engine, go_on: &dyn Fn(f64) -> bool) -> Result<(String, Vec<String>)> {
    let mut warnings = Vec::new();
    let mut page = Page { html: String::new() };
    page.head(basis);
    page.history(basis);
    page.errors(basis);
    if let Some(total) = basis.total_gram() {
        let gram = Gram::new(total)?;
        if basis.n_tasks() <= MAX_COMPARED_TASKS {
            warnings.extend(find_spectra(&gram, &compared()?, (false, false), engine));
        }
        page.spectrum(basis)?;
        page.tasks(basis, &gram);
        page.compare(basis, &gram, go_on)?;
    }
    page.coefficients(basis);
    page.tensors(basis);
    if let Some(spectra) = tensor_spectra_of_basis(basis, engine) {
        page.tensor_spectra(&spectra, basis.n_tasks());
        warnings.extend(spectra.warning);
    }
    page.files(basis);
    page.html += "</body></html>\n";
    Ok((page.html, warnings))
}

/// The methods that it is compared with.
fn compared() -> Result<Vec<Method>> {
    COMPARED.map(Method::parse).into_iter().collect()
}

struct Page {
    html: String,
}

impl Page {
    fn heading(&mut self, title: &str, about: &str) {
        let _ = write!(self.html, "<h2>{}</h2>\n<p class=\"about\">{}</p>\n", escape(title), escape(about));
    }

    fn figure(&mut self, svg: &str) {
        let _ = writeln!(self.html, "<figure>{svg}</figure>");
    }

    fn head(&mut self, basis: &Basis) {
        let manifest = &basis.manifest;
        let name = basis.folder.file_name().map_or_else(|| "basis".into(), |name| name.to_string_lossy().into_owned());
        let _ = write!(
            self.html,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\
             <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n<h1>{0}: {1}</h1>\n",
            escape(&name),
            escape(&basis.in_words()),
        );
        let stored = stored_bytes(basis);
        let mut rows: Vec<(&str, String)> = vec![
            ("method", manifest.method.name.clone()),
            ("base", manifest.base.source.clone()),
            (
                "stored",
                match manifest.generated {
                    Some(_) => "nothing: the atoms are made from a seed".to_owned(),
                    None => match basis.full_bytes() {
                        Some(full) => format!(
                            "{}, {:.1} % of the {} of all task vectors in float32",
                            units::bytes(stored),
                            100.0 * stored as f64 / full.max(1) as f64,
                            units::bytes(full)
                        ),
                        None => units::bytes(stored),
                    },
                },
            ),
        ];
        if let Some(coded) = &manifest.coded {
            rows.push(("codes", format!("{} bits an element of an atom", coded.bits)));
            let kept = coded.kept.iter().map(|kept| (format!("at {} bits", coded.kept_bits), kept));
            rows.extend(kept.map(|(bits, kept)| ("kept", format!("{kept} {bits}, {} columns in all", coded.n_kept))));
        }
        if let Some(loss) = manifest.relative_loss {
            let bound = manifest.loss.zip(manifest.spectral_bound).filter(|(loss, _)| *loss > 0.0);
            let least = bound.map_or(String::new(), |(of, bound)| {
                format!(" (no basis of this size has less than {})", number(loss * bound / of))
            });
            let (label, least) = match manifest.coded {
                Some(_) => ("squared errors over squared norms", String::new()),
                None => ("share of all squared norms lost", least),
            };
            rows.push((label, format!("{}{least}", number(loss))));
        }
        if let Some(addition) = manifest.addition {
            let of = addition.projected;
            rows.push((
                "sum of all tasks",
                format!("cosine {}, norm ratio {}", number(of.cosine), number(of.norm_ratio)),
            ));
            let of = addition.sum;
            rows.push((
                "plain sum of atoms",
                format!("cosine {}, norm ratio {}", number(of.cosine), number(of.norm_ratio)),
            ));
        }
        for (key, label) in [
            ("effective_rank", "effective rank"),
            ("epsilon", "largest |cosine| of two tasks"),
            ("condition", "condition of the atoms"),
        ] {
            if let Some(value) = manifest.diagnostics.get(key).and_then(serde_json::Value::as_f64) {
                rows.push((label, number(value)));
            }
        }
        rows.push(("made by", manifest.tool.clone()));
        rows.extend(manifest.notes.iter().map(|note| ("note", note.clone())));
        self.html += "<table>\n";
        for (label, value) in rows {
            let _ = writeln!(self.html, "<tr><th>{}</th><td>{}</td></tr>", escape(label), escape(&value));
        }
        self.html += "</table>\n";
    }

    fn history(&mut self, basis: &Basis) {
        let history = &basis.manifest.history;
        if history.is_empty() {
            return;
        }
        self.heading(
            "How it came to be",
            "Bars: bytes of the atoms. Line: cosine of the sum of all tasks with the same sum from the originals, 1 at the bottom. Errors \
             of tasks that were there before the last event are what is to be expected; `tvb verify` with originals measures them.",
        );
        let svg = history_svg(history);
        self.figure(&svg);
        self.html += &history_table(history);
    }

    fn errors(&mut self, basis: &Basis) {
        let tasks = &basis.manifest.tasks;
        if tasks.iter().all(|task| task.relative_error.is_none()) {
            self.heading("Errors", "Not known without the originals: tvb verify BASIS --base … measures them.");
            return;
        }
        let bars = |value: &dyn Fn(usize, &TaskRecord) -> f64, behind| -> Vec<(String, f64, Option<f64>)> {
            tasks.iter().enumerate().map(|(t, task)| (task.name.clone(), value(t, task), behind)).collect()
        };
        let Some((gains, noises)) = gains_and_noises(basis) else {
            self.heading(
                "What each task loses",
                "‖τ̂ − τ‖²/‖τ‖² for each task, exact: 0 is a perfect recovery, 1 a task that is lost altogether.",
            );
            let bars = bars(&|_, task| task.relative_error.unwrap_or(f64::NAN), Some(1.0));
            self.figure(&bars_svg("relative errors", &bars, 1.0));
            return;
        };
        self.heading(
            "What each task loses",
            "What comes back is gain·τ and noise beside it. A gain of 1 is right; less is a task that is shrunk, 0 one that is \
             lost. Networks feel it far more than noise of the same length.",
        );
        let of = |values: &[f64], t: usize| values.get(t).copied().unwrap_or(f64::NAN);
        let longest = |values: &[f64]| values.iter().filter(|x| x.is_finite()).fold(0.0, |most: f64, x| most.max(*x));
        let _ = writeln!(self.html, "<p>gain, ⟨τ, τ̂⟩/‖τ‖²</p>");
        let gain = bars_svg("gains", &bars(&|t, _| of(&gains, t), Some(1.0)), longest(&gains).max(1.0));
        self.figure(&gain);
        let _ = writeln!(self.html, "<p>noise, ‖τ̂ − gain·τ‖²/‖τ‖²</p>");
        let noise = bars_svg("noises", &bars(&|t, _| of(&noises, t), None), longest(&noises).max(0.01));
        self.figure(&noise);
    }

    fn spectrum(&mut self, basis: &Basis) -> Result<()> {
        let manifest = &basis.manifest;
        self.heading("How many vectors these tasks need", "The least loss of any basis of each size, and this one's.");
        let svg = spectrum_svg(&basis.coefficients.eigenvalues, manifest.n_vectors(), manifest.relative_loss)?;
        self.figure(&svg);
        Ok(())
    }

    fn tasks(&mut self, basis: &Basis, gram: &Gram) {
        let names = basis.task_names();
        let cosines = gram.cosines();
        let errors = basis.coefficients.gram_errors.as_ref();
        let about = match &basis.manifest.estimates {
            None => "Cosines of the task vectors; red together, blue against each other.".to_owned(),
            Some(estimates) => format!(
                "Cosines of the task vectors; red together, blue against each other. Framed ones ({} pairs) are estimates from codes, with \
                 standard errors up to {}.",
                estimates.n_pairs,
                number(estimates.cosine_error)
            ),
        };
        self.heading("How alike the tasks are", &about);
        let is_estimate = |i: usize, j: usize| errors.is_some_and(|errors| errors.is_estimate(i, j));
        let map = |label, matrix: &Matrix, framed: &dyn Fn(usize, usize) -> bool| {
            let value = |i: usize, j: usize| matrix[(i, j)];
            Heatmap { label, rows: &names, columns: &names, value: &value, full: 1.0, framed }.svg()
        };
        let svg = map("cosines of the task vectors", &cosines, &is_estimate);
        self.figure(&svg);
        let leakage = basis.manifest.diagnostics.get("leakage").and_then(|rows| matrix(rows, names.len()));
        if let Some(leakage) = leakage {
            self.heading(
                "What negating a task takes along",
                "Cosine of the recovered task of a row with the task of a column: off the diagonal, what else an edit touches.",
            );
            let svg = map("leakage", &leakage, &no_frame);
            self.figure(&svg);
        }
    }

    fn compare(&mut self, basis: &Basis, gram: &Gram, go_on: &dyn Fn(f64) -> bool) -> Result<()> {
        let n_tasks = basis.n_tasks();
        if n_tasks > MAX_COMPARED_TASKS {
            return Ok(());
        }
        self.heading(
            "Other sizes and methods",
            "What other bases of the same tasks would lose, from the same Gram matrix.",
        );
        let methods = compared()?;
        let step = n_tasks.div_ceil(20);
        let ms: Vec<usize> = (1..=n_tasks).filter(|m| m % step == 0 || *m == n_tasks).collect();
        let mut options = TableOptions::new(SolveOptions::atoms(1));
        let shapes = stored_shapes(basis);
        if shapes.is_some() {
            let all_coded = || Parts { coded: gram.matrix().clone(), raw: Matrix::zeros(n_tasks, n_tasks) };
            options.codes = Some(TableCodes {
                parts: basis.parts().unwrap_or_else(all_coded),
                tasks: LADDER.to_vec(),
                mixtures: Vec::new(),
                kept: vec![vec![1.0; n_tasks]],
            });
        }
        let rows = plan_table(gram, &methods, &ms, &options, go_on)?;
        let full_bytes = shapes.as_ref().map_or(n_tasks as u64, |shapes| IN_F32.bytes(n_tasks, shapes));
        // Where the shapes are not known, atoms are counted.
        let bytes = |row: &PlanRow| {
            shapes.as_ref().map_or(row.n_stored as u64, |shapes| row.storage.bytes(row.n_stored, shapes))
        };
        let mut points: Vec<Pareto> = rows.iter().map(|row| Pareto::of(row, bytes(row), full_bytes)).collect();
        if let (Some((gains, noises)), true) = (gains_and_noises(basis), shapes.is_some()) {
            points.push(Pareto::measured("this basis", stored_bytes(basis), full_bytes, &gains, &noises));
        }
        let svg = pareto_svg(&points)?;
        self.figure(&svg);
        Ok(())
    }

    fn coefficients(&mut self, basis: &Basis) {
        let names = basis.task_names();
        let group = &basis.coefficients;
        let atoms: Vec<String> = (0..basis.manifest.n_vectors()).map(|m| format!("atom {m}")).collect();
        self.heading(
            "How tasks become atoms, and atoms tasks",
            "Encode B: the part of each task in each atom. Decode W: the weight of each atom in each recovered task.",
        );
        let largest = |matrix: &Matrix| {
            let values = (0..matrix.n_rows()).flat_map(|i| (0..matrix.n_columns()).map(move |j| (i, j)));
            values.map(|at| matrix[at].abs()).fold(f64::MIN_POSITIVE, f64::max)
        };
        self.html += "<div class=\"two\">";
        if group.encode.n_columns() == atoms.len() {
            let value = |i: usize, j: usize| group.encode[(i, j)];
            let full = largest(&group.encode);
            let svg =
                Heatmap { label: "encode B", rows: &names, columns: &atoms, value: &value, full, framed: &no_frame }
                    .svg();
            self.figure(&svg);
        }
        let value = |t: usize, m: usize| group.decode[(m, t)];
        let full = largest(&group.decode);
        let svg =
            Heatmap { label: "decode W", rows: &names, columns: &atoms, value: &value, full, framed: &no_frame }.svg();
        self.figure(&svg);
        self.html += "</div>\n";
    }

    fn tensors(&mut self, basis: &Basis) {
        let names = basis.task_names();
        // Tensors that no task moves have a Gram of zeros and are not among the group's.
        let moved: Vec<&Matrix> =
            basis.coefficients.grams.iter().filter(|gram| (0..names.len()).any(|t| gram[(t, t)] > 0.0)).collect();
        let tensors = &basis.manifest.stored.tensors;
        if moved.len() != tensors.len() || moved.len() < 2 {
            return;
        }
        let norms: Vec<f64> = (0..names.len()).map(|t| moved.iter().map(|gram| gram[(t, t)]).sum()).collect();
        let share = |tensor: usize, t: usize| match (moved.get(tensor), norms.get(t)) {
            (Some(gram), Some(&norm)) if norm > 0.0 => gram[(t, t)] / norm,
            _ => 0.0,
        };
        let total = |tensor: usize| (0..names.len()).map(|t| share(tensor, t)).sum::<f64>() / names.len() as f64;
        let mut order: Vec<usize> = (0..tensors.len()).collect();
        order.sort_by(|&a, &b| total(b).total_cmp(&total(a)));
        order.truncate(MAX_TENSORS);
        order.sort_unstable();
        self.heading(
            "Where the change lies",
            "Share of each task's squared norm in each tensor: the tensors that change most, in the model's order.",
        );
        let rows: Vec<String> = order.iter().filter_map(|&tensor| tensors.get(tensor).cloned()).collect();
        let full = order.iter().flat_map(|&tensor| (0..names.len()).map(move |t| (tensor, t)));
        let full = full.map(|(tensor, t)| share(tensor, t)).fold(f64::MIN_POSITIVE, f64::max);
        let value = |i: usize, t: usize| order.get(i).map_or(0.0, |&tensor| share(tensor, t));
        let svg = Heatmap {
            label: "share of squared norm by tensor",
            rows: &rows,
            columns: &names,
            value: &value,
            full,
            framed: &no_frame,
        }
        .svg();
        self.figure(&svg);
    }

    fn tensor_spectra(&mut self, spectra: &TensorSpectra, n_tasks: usize) {
        self.heading(
            "How many directions the change has there",
            &format!(
                "Effective rank of the {n_tasks} tasks in each of the tensors that change most, those first: where it is low, few \
                 atoms hold what the tasks do; where it is near {n_tasks}, no two tasks change the tensor alike."
            ),
        );
        let shown = spectra.tensors.iter().take(MAX_TENSORS);
        let bars: Vec<(String, f64, Option<f64>)> = shown
            .filter_map(|tensor| Some((tensor.tensor.clone(), tensor.effective_rank?, Some(n_tasks as f64))))
            .collect();
        let svg = bars_svg("effective rank by tensor", &bars, n_tasks as f64);
        self.figure(&svg);
    }

    fn files(&mut self, basis: &Basis) {
        let manifest = &basis.manifest;
        self.heading("What is in the folder", "Every file carries a checksum; tvb verify reads them all.");
        self.html += "<table><tr><th>task</th><th>norm</th><th>gain</th><th>noise</th><th>relative error</th><th>source</th></tr>\n";
        let shown = |value: Option<f64>| value.map_or("unknown".to_owned(), number);
        let (gains, noises) = gains_and_noises(basis).unwrap_or_default();
        for (t, task) in manifest.tasks.iter().enumerate() {
            let _ = writeln!(
                self.html,
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
                 <td>{}</td></tr>",
                escape(&task.name),
                shown(task.norm),
                shown(gains.get(t).copied()),
                shown(noises.get(t).copied()),
                shown(task.relative_error),
                escape(task.source.as_deref().unwrap_or("unknown")),
            );
        }
        self.html += "</table>\n<table><tr><th>atom</th><th>bytes</th><th>type</th></tr>\n";
        for atom in &manifest.atoms {
            let _ = writeln!(
                self.html,
                "<tr><td>{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
                escape(&atom.file),
                units::bytes(atom.bytes),
                atom.dtype
            );
        }
        self.html += "</table>\n";
    }
}

/// Gain and noise of every task: as recorded, or what the coefficients and the Gram matrix make of them.
fn gains_and_noises(basis: &Basis) -> Option<(Vec<f64>, Vec<f64>)> {
    let recorded: Option<(Vec<f64>, Vec<f64>)> =
        basis.manifest.tasks.iter().map(|task| task.gain.zip(task.noise)).collect();
    recorded.or_else(|| {
        let (gram, coefficients) = (Gram::new(basis.total_gram()?).ok()?, basis.solved().ok()?);
        let assessed = assess(&gram, &coefficients).ok()?;
        Some((assessed.gains, assessed.noises))
    })
}

fn stored_bytes(basis: &Basis) -> u64 {
    basis.manifest.stored_bytes()
}

/// Shapes of the stored tensors, where they are known.
fn stored_shapes(basis: &Basis) -> Option<Vec<Vec<usize>>> {
    let manifest = &basis.manifest;
    match (&manifest.coded, &manifest.generated) {
        (Some(coded), _) => Some(coded.tensors.iter().map(|tensor| tensor.shape.clone()).collect()),
        (_, Some(generated)) => Some(generated.shapes.clone()),
        _ => Some(basis.open_atom(0).ok()?.tensors().iter().map(|tensor| tensor.shape.clone()).collect()),
    }
}

/// A square matrix out of JSON rows; `None` for anything else.
fn matrix(rows: &serde_json::Value, n: usize) -> Option<Matrix> {
    let rows: Vec<Vec<f64>> = serde_json::from_value(rows.clone()).ok()?;
    let is_square = rows.len() == n && rows.iter().all(|row| row.len() == n);
    is_square.then(|| Matrix::from_rows(&rows).ok()).flatten()
}
