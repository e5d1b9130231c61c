//! Jobs → one unit of work for each output, in the file's order.

use super::after::After;
use super::file::JobFile;
use super::inputs::Inputs;
use super::job::Job;
use crate::checkpoint::{self, Checkpoint, Existing, true_place};
use crate::error::{Error, Result};
use crate::jobs::compress::{CodingOptions, CodingWords, CompressOptions, atoms_for_ratio};
use crate::jobs::method_options::MethodOptions;
use crate::solve::{Coordinates, Method};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tvb_kernels::Dtype;

/// The most outputs of a job file: every combination of what a job lists, and the steps on each.
const N_OUTPUTS_MAX: usize = 20_000;
/// No system takes a longer path.
const TEMPLATE_BYTES_MAX: usize = 4096;

/// A number of atoms, and the ratio it came from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// M.
    pub n_atoms: usize,
    /// The share of the tasks, where one was asked for.
    pub ratio: Option<f64>,
}

/// One basis to be made, and the steps that follow it.
#[derive(Clone, Debug)]
pub struct Unit {
    /// The job's name.
    pub job: String,
    /// What is read.
    pub inputs: Rc<Inputs>,
    /// How B and W are found.
    pub method: Rc<Method>,
    /// How many atoms.
    pub size: Size,
    /// How they are stored where they are not coded.
    pub dtype: Dtype,
    /// How they are coded; `None` where they are stored as floats.
    pub coding: Option<CodingOptions>,
    /// Whether tasks that are adapters are kept as their factors where that is smaller.
    pub keep_factors: bool,
    /// The rank of the spaces that adapters share.
    pub shared_rank: Option<usize>,
    /// Write the largest finite value of the type in place of one beyond it.
    pub clip: bool,
    /// Solve with every task vector scaled to the same norm.
    pub balance: bool,
    /// Convex or orthogonal atoms.
    pub coordinates: Coordinates,
    /// The basis folder.
    pub output: PathBuf,
    /// Replace what is there and is not what the job says.
    pub overwrite: bool,
    /// The base's name on the Hugging Face hub, for model cards.
    pub base_model: Option<String>,
    /// The steps; their outputs are filled in.
    pub after: Vec<(Rc<After>, PathBuf)>,
    /// The file of the initial A.
    init: Option<PathBuf>,
}

/// Everything a job file asks for.
#[derive(Clone, Debug)]
pub struct Batch {
    /// In the file's order.
    pub units: Vec<Unit>,
    /// The folder for Gram files and records.
    pub work: PathBuf,
    /// Jobs whose inputs or options make no sense: they fail, the others run.
    pub unusable: Vec<(String, Error)>,
}

impl Batch {
    /// Spells out a job file that was read from `path`.
    ///
    /// # Errors
    /// Rejected: a template with an unknown word, or outputs that are in each other's or an input's way.
    pub fn new(file: &JobFile, path: &Path) -> Result<Batch> {
        let path = std::path::absolute(path).map_err(|error| Error::io("opening", path, &error))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let work = match &file.work {
            Some(work) => folder.join(work),
            None => path.with_extension("work"),
        };
        let mut batch = Batch { units: Vec::new(), work, unusable: Vec::new() };
        let mut known: Vec<Rc<Inputs>> = Vec::new();
        let n_outputs = file.jobs.iter().map(n_combinations).fold(0, usize::saturating_add);
        if n_outputs > N_OUTPUTS_MAX {
            return Err(Error::rejected(format!("at most {N_OUTPUTS_MAX} outputs expected, {n_outputs} asked for"))
                .hint("make several job files"));
        }
        for job in &file.jobs {
            let units = Inputs::of(job, folder).and_then(|inputs| {
                let inputs = match known.iter().find(|known| ***known == inputs) {
                    Some(same) => same.clone(),
                    None => {
                        let inputs = Rc::new(inputs);
                        known.push(inputs.clone());
                        inputs
                    }
                };
                units_of(job, &inputs, folder)
            });
            match units {
                Ok(units) => batch.units.extend(units),
                Err(error) => batch.unusable.push((job.name.clone(), error)),
            }
        }
        batch.check_outputs(&path)?;
        Ok(batch)
    }

    /// Every output with its unit's number.
    fn outputs(&self) -> impl Iterator<Item = (usize, &Path)> {
        let units = self.units.iter().enumerate();
        units.flat_map(|(number, unit)| unit.outputs().map(move |output| (number, output)))
    }

    /// Outputs must not get into each other's way, nor into that of an input, the job file or the work folder. One may be the
    /// input of a later job.
    fn check_outputs(&self, file: &Path) -> Result<()> {
        let mut unit_of: HashMap<PathBuf, usize> = HashMap::new();
        let job = |number: usize| self.units.get(number).map_or("", |unit| unit.job.as_str());
        for (number, output) in self.outputs() {
            if let Some(earlier) = unit_of.insert(place(output)?, number) {
                return Err(Error::rejected(format!(
                    "{}: two outputs have this path, of job {:?} and job {:?}",
                    output.display(),
                    job(earlier),
                    job(number)
                ))
                .hint("tell them apart in the template with {job}, {method}, {m}, {ratio}, {dtype} or {bits}"));
            }
        }
        let above = |path: &Path| -> Result<Option<usize>> {
            Ok(place(path)?.ancestors().skip(1).find_map(|folder| unit_of.get(folder)).copied())
        };
        let at = |path: &Path| -> Result<Option<usize>> {
            Ok(place(path)?.ancestors().find_map(|folder| unit_of.get(folder)).copied())
        };
        for (number, output) in self.outputs() {
            if let Some(other) = above(output)? {
                return Err(Error::rejected(format!(
                    "{}: this output of job {:?} lies in one of job {:?}",
                    output.display(),
                    job(number),
                    job(other)
                ))
                .hint("give each its own place"));
            }
        }
        for (what, path) in [("the job file", file), ("the work folder", &self.work)] {
            if let Some(number) = at(path)? {
                return Err(Error::rejected(format!(
                    "{}: {what} is or lies in an output of job {:?}",
                    path.display(),
                    job(number)
                ))
                .hint("choose another output"));
            }
        }
        let mut seen: HashSet<*const Inputs> = HashSet::new();
        for (number, unit) in self.units.iter().enumerate() {
            // The first job that reads them is the one that matters.
            if !seen.insert(Rc::as_ptr(&unit.inputs)) {
                continue;
            }
            let paths = unit.inputs.paths().chain(unit.init());
            for path in paths {
                match at(path)? {
                    Some(maker) if maker >= number => {
                        return Err(Error::rejected(format!(
                            "{}: this input of job {:?} is or lies in an output of job {:?}",
                            path.display(),
                            job(number),
                            job(maker)
                        ))
                        .hint("choose another output; only an earlier job's may be read"));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What a unit's outputs must leave alone: every job's inputs, but those of later jobs that it makes.
    ///
    /// # Errors
    /// Failed: a path that the system cannot follow.
    pub(super) fn protected(&self, unit: &Unit) -> Result<checkpoint::Inputs> {
        let own: Vec<PathBuf> = unit.outputs().map(place).collect::<Result<_>>()?;
        let mut inputs = checkpoint::Inputs::none();
        let mut seen: HashSet<&Path> = HashSet::new();
        for other in &self.units {
            for path in other.inputs.paths().chain(other.init()).filter(|path| seen.insert(path)) {
                let real = place(path)?;
                if !own.iter().any(|output| real.starts_with(output)) {
                    inputs = inputs.with(&Checkpoint::inputs_at(path));
                }
            }
        }
        Ok(inputs)
    }

    /// Whether a file that the batch appends to is none of what it reads or makes.
    ///
    /// # Errors
    /// Rejected, with the reason.
    pub(super) fn check_log(&self, log: &Path) -> Result<()> {
        let real = place(log)?;
        for (number, output) in self.outputs() {
            if real.starts_with(place(output)?) {
                let job = self.units.get(number).map_or("", |unit| unit.job.as_str());
                return Err(Error::rejected(format!(
                    "{}: the log is or lies in an output of job {job:?}",
                    log.display()
                ))
                .hint("choose another log"));
            }
        }
        let paths = self.units.iter().flat_map(|unit| unit.inputs.paths().chain(unit.init()));
        let mut seen: HashSet<&Path> = HashSet::new();
        for path in paths.filter(|path| seen.insert(path)) {
            Checkpoint::inputs_at(path).check(&real)?;
        }
        Ok(())
    }
}

/// Where a path leads, the same for every way to it.
fn place(path: &Path) -> Result<PathBuf> {
    let real = true_place(path)?;
    // Where the file system knows no case, paths that differ in it are one.
    Ok(if cfg!(any(windows, target_vendor = "apple")) { real.to_string_lossy().to_lowercase().into() } else { real })
}

impl Unit {
    /// The basis folder, then the steps' outputs.
    fn outputs(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.output.as_path()).chain(self.after.iter().map(|(_, output)| output.as_path()))
    }

    /// The file of the initial A, where there is one.
    fn init(&self) -> impl Iterator<Item = &Path> {
        self.init.as_deref().into_iter()
    }

    /// What `compress` is asked for.
    pub fn options(&self, gram: Option<PathBuf>, existing: Existing) -> CompressOptions {
        CompressOptions {
            method: Method::clone(&self.method),
            size: crate::jobs::compress::Size::Atoms(self.size.n_atoms),
            balance: self.balance,
            coordinates: self.coordinates,
            dtype: self.dtype,
            coding: self.coding.clone(),
            keep_factors: self.keep_factors,
            shared_rank: self.shared_rank,
            clip: self.clip,
            gram,
            existing,
            ..CompressOptions::new(self.output.clone())
        }
    }
}

fn units_of(job: &Job, inputs: &Rc<Inputs>, folder: &Path) -> Result<Vec<Unit>> {
    let names = inputs.names();
    let n_tasks = names.len();
    let atoms = job.atoms.iter().map(|&n_atoms| Ok(Size { n_atoms, ratio: None }));
    let ratios =
        job.ratios.iter().map(|&ratio| Ok(Size { n_atoms: atoms_for_ratio(ratio, n_tasks)?, ratio: Some(ratio) }));
    let sizes: Vec<Size> = atoms.chain(ratios).collect::<Result<_>>()?;
    let mut units: Vec<Unit> = Vec::new();
    let mut known = HashSet::new();
    let steps: Vec<Rc<After>> = job.after.iter().cloned().map(Rc::new).collect();
    steps.iter().try_for_each(|after| after.step.alpha(&names).map(drop))?;
    // Paths in a job file are relative to it.
    let init = job.options.init.as_ref().map(|path| folder.join(path));
    let options = MethodOptions { init, ..job.options.clone() };
    let weights: Vec<(String, f64)> = options.weights.iter().map(|(name, weight)| (name.clone(), *weight)).collect();
    let coded = job.bits.iter().map(|&rate| {
        let words = CodingWords { bits: Some(rate), ..job.codes.clone() };
        let coding = words.options(&names, &weights, options.seed.unwrap_or(0))?;
        coding.kept_edits(n_tasks)?;
        Ok((Dtype::F32, Some(coding)))
    });
    let storages: Vec<(Dtype, Option<CodingOptions>)> =
        job.dtypes.iter().map(|&dtype| Ok((dtype, None))).chain(coded).collect::<Result<_>>()?;
    for name in &job.methods {
        let method = Rc::new(options.method(name, &names)?);
        if !job.bits.is_empty() && !method.stores_atoms() {
            return Err(Error::rejected(format!("bits with method {name:?}: its atoms are made from a seed")));
        }
        for size in &sizes {
            let n_atoms = method.fixed_atoms(n_tasks).unwrap_or(size.n_atoms);
            if !(1..=n_tasks).contains(&n_atoms) {
                return Err(Error::rejected(format!("m = {n_atoms} for {n_tasks} tasks: expected 1 to {n_tasks}")));
            }
            for (dtype, coding) in &storages {
                let rate = coding.as_ref().map(|coding| coding.rung.rate);
                // A method with only one number of atoms is asked for once, whatever sizes are listed.
                if !known.insert((method.name(), n_atoms, *dtype, rate)) {
                    continue;
                }
                let mut unit = Unit {
                    job: job.name.clone(),
                    inputs: inputs.clone(),
                    method: method.clone(),
                    size: Size { n_atoms, ..*size },
                    dtype: *dtype,
                    coding: coding.clone(),
                    keep_factors: job.keep_factors,
                    shared_rank: job.shared_rank,
                    clip: job.clip,
                    balance: job.options.balance,
                    coordinates: job.options.coordinates,
                    output: PathBuf::new(),
                    overwrite: job.overwrite,
                    base_model: job.base_model.clone(),
                    after: Vec::new(),
                    init: options.init.clone(),
                };
                unit.output = folder.join(fill(&job.output, &unit)?);
                for after in &steps {
                    let output = folder.join(fill(&after.output, &unit)?);
                    unit.after.push((after.clone(), output));
                }
                units.push(unit);
            }
        }
    }
    Ok(units)
}

/// How many outputs a job asks for, at most.
fn n_combinations(job: &Job) -> usize {
    let n_sizes = job.atoms.len() + job.ratios.len();
    let n_storages = job.dtypes.len() + job.bits.len();
    [job.methods.len(), n_sizes, n_storages, 1 + job.after.len()].into_iter().fold(1, usize::saturating_mul)
}

/// Puts a unit's words into a template.
fn fill(template: &str, unit: &Unit) -> Result<String> {
    if template.len() > TEMPLATE_BYTES_MAX {
        return Err(Error::rejected(format!("output: a path of more than {TEMPLATE_BYTES_MAX} bytes")));
    }
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((word, behind)) = after.split_once('}') else {
            return Err(Error::rejected(format!("output {template:?}: `}}` expected after `{{`, none found")));
        };
        filled.push_str(before);
        match word {
            "job" => filled.push_str(&unit.job),
            "method" => filled.push_str(unit.method.name()),
            "m" => filled.push_str(&unit.size.n_atoms.to_string()),
            "ratio" => match unit.size.ratio {
                Some(ratio) => filled.push_str(&ratio.to_string()),
                None => return Err(Error::rejected(format!("output {template:?}: {{ratio}} where m was given"))),
            },
            "dtype" if unit.coding.is_some() => {
                return Err(Error::rejected(format!("output {template:?}: {{dtype}} of atoms that are coded"))
                    .hint("{bits} says how finely"));
            }
            "dtype" => filled.push_str(&crate::checkpoint::Dtype::from(unit.dtype).to_string()),
            "bits" => match &unit.coding {
                Some(coding) => filled.push_str(coding.rung.rate.name()),
                None => {
                    return Err(Error::rejected(format!("output {template:?}: {{bits}} of atoms that are not coded")));
                }
            },
            _ => {
                return Err(Error::rejected(format!("output {template:?}: unknown word {{{word}}}"))
                    .hint("known words: {job}, {method}, {m}, {ratio}, {dtype}, {bits}"));
            }
        }
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(text: &str) -> Result<Batch> {
        Batch::new(&JobFile::parse(text)?, Path::new("/data/jobs.toml"))
    }

    fn outputs(batch: &Batch) -> Vec<String> {
        let units = batch.units.iter();
        units
            .flat_map(|unit| std::iter::once(&unit.output).chain(unit.after.iter().map(|(_, path)| path)))
            .map(|path| path.display().to_string())
            .collect()
    }

    const HEAD: &str = "[defaults]\nbase = 'b.pt'\ntasks = ['a=a.pt', 'x/c.pt', '/d.pt']\n[[job]]\nname = 'j'\n";

    #[test]
    fn every_combination_becomes_one_output() {
        let text = format!(
            "{HEAD}method = ['pca', 'identity']\nm = 1\nratio = [0.5, 0.6]\ndtype = ['f32', 'bf16']\n\
             output = 'o/{{job}}-{{method}}-{{m}}-{{dtype}}'\nafter = [{{ negate = {{ task = 'c', output = '{{method}}-{{m}}{{dtype}}' }} }}]"
        );
        let batch = batch(&text).unwrap();
        let unusable: Vec<_> = batch.unusable.iter().map(|(_, error)| error.message()).collect();
        assert!(unusable.is_empty(), "{unusable:?}");
        let expected: Vec<String> = [("pca", 1), ("pca", 2), ("identity", 3)]
            .iter()
            .flat_map(|(method, m)| ["f32", "bf16"].map(|dtype| (method, m, dtype)))
            .flat_map(|(method, m, dtype)| {
                [format!("/data/o/j-{method}-{m}-{dtype}"), format!("/data/{method}-{m}{dtype}")]
            })
            .collect();
        assert_eq!(outputs(&batch), expected);
        let unit = &batch.units[0];
        assert_eq!(unit.inputs.names(), ["a", "c", "d"]);
        assert_eq!(unit.inputs.tasks[1].path, Path::new("/data/x/c.pt"));
        assert_eq!(unit.inputs.tasks[2].path, Path::new("/d.pt"));
        assert_eq!(batch.work, Path::new("/data/jobs.work"));
        assert!(batch.units.iter().all(|other| Rc::ptr_eq(&other.inputs, &unit.inputs)));
    }

    #[test]
    fn every_number_of_bits_becomes_one_output() {
        let batch =
            batch(&format!("{HEAD}bits = [1, 1.6, '2']\nkeep = 'a + c:4'\noutput = 'o/{{method}}-{{bits}}'")).unwrap();
        assert!(batch.unusable.is_empty(), "{:?}", batch.unusable);
        assert_eq!(outputs(&batch), ["1", "1.6", "2"].map(|bits| format!("/data/o/identity-{bits}")));
        let options = batch.units[1].options(None, Existing::Refuse);
        let coding = options.coding.expect("codes");
        assert_eq!(coding.rung.to_string(), "1.6+4");
        assert_eq!(coding.kept_edits(3).unwrap()[1].alpha, [1.0, 1.0, 0.0]);
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let unusable = [
            ("m = 4\noutput = 'o'", "m = 4 for 3 tasks"),
            ("m = 1\noutput = 'o{x}'", "unknown word {x}"),
            ("m = 1\noutput = 'o{m'", "`}` expected"),
            ("m = 1\noutput = 'o{ratio}'", "{ratio} where m was given"),
            ("m = 1\noutput = 'o{bits}'", "{bits} of atoms that are not coded"),
            ("output = 'o{dtype}'", "{dtype} of atoms that are coded"),
            ("m = 1\nbits = 1\nmethod = 'random'\noutput = 'o'", "made from a seed"),
            ("keep = 'a + q'\noutput = 'o'", "q"),
            ("keep = ['a', 'c', 'd', 'a + c']\noutput = 'o'", "at most 3 kept edits"),
            ("keep = ['a:4', 'c:3']\noutput = 'o'", "the same bits for all that is kept"),
            ("m = 1\noutput = 'o'\nweights = { q = 2 }", "q"),
            ("m = 1\noutput = 'o'\nmethod = 'ae'\ninit = 'nowhere.json'", "/data/nowhere.json"),
            ("m = 1\noutput = 'o'\nafter = [{ negate = { task = 'q', output = 'p' } }]", "q"),
        ];
        for (text, expected) in unusable {
            let batch = batch(&format!("{HEAD}{text}")).unwrap();
            let message = batch.unusable[0].1.message();
            assert!(message.contains(expected), "{expected:?} expected, found {message:?}");
        }
        let error = batch(&format!("{HEAD}m = [1, 2]\noutput = 'o'")).unwrap_err();
        assert!(error.message().contains("two outputs have this path"), "{error}");
    }
}
