//! Jobs → one unit of work for each output, in the file's order.

use super::after::After;
use super::file::JobFile;
use super::inputs::Inputs;
use super::job::Job;
use crate::checkpoint::Existing;
use crate::error::{Error, Result};
use crate::jobs::compress::{CompressOptions, atoms_for_ratio};
use crate::jobs::method_options::MethodOptions;
use crate::solve::{Coordinates, Method};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tvb_kernels::Dtype;

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
    pub method: Method,
    /// How many atoms.
    pub size: Size,
    /// How they are stored.
    pub dtype: Dtype,
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
    /// The steps; their outputs are filled in.
    pub after: Vec<(After, PathBuf)>,
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
    /// Rejected: a template with an unknown word, or two outputs of one path.
    pub fn new(file: &JobFile, path: &Path) -> Result<Batch> {
        let path = std::path::absolute(path).map_err(|error| Error::io("opening", path, &error))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        let work = match &file.work {
            Some(work) => folder.join(work),
            None => path.with_extension("work"),
        };
        let mut batch = Batch { units: Vec::new(), work, unusable: Vec::new() };
        let mut known: Vec<Rc<Inputs>> = Vec::new();
        for job in &file.jobs {
            let units = Inputs::of(job, folder).and_then(|inputs| {
                let inputs = match known.iter().find(|known| ***known == inputs) {
                    Some(same) => same.clone(),
                    None => Rc::new(inputs),
                };
                known.push(inputs.clone());
                units_of(job, &inputs, folder)
            });
            match units {
                Ok(units) => batch.units.extend(units),
                Err(error) => batch.unusable.push((job.name.clone(), error)),
            }
        }
        batch.check_outputs()?;
        Ok(batch)
    }

    fn check_outputs(&self) -> Result<()> {
        let mut seen: Vec<(&Path, &str)> = Vec::new();
        for unit in &self.units {
            for output in std::iter::once(&unit.output).chain(unit.after.iter().map(|(_, output)| output)) {
                if let Some((_, earlier)) = seen.iter().find(|(path, _)| path == output) {
                    return Err(Error::rejected(format!(
                        "{}: two outputs have this path, of job {earlier:?} and job {:?}",
                        output.display(),
                        unit.job
                    ))
                    .hint("tell them apart in the template with {job}, {method}, {m}, {ratio} or {dtype}"));
                }
                seen.push((output, &unit.job));
            }
        }
        Ok(())
    }
}

impl Unit {
    /// What `compress` is asked for.
    pub fn options(&self, gram: Option<PathBuf>, existing: Existing) -> CompressOptions {
        CompressOptions {
            method: self.method.clone(),
            size: crate::jobs::compress::Size::Atoms(self.size.n_atoms),
            balance: self.balance,
            coordinates: self.coordinates,
            dtype: self.dtype,
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
    // Paths in a job file are relative to it.
    let init = job.options.init.as_ref().map(|path| folder.join(path));
    let options = MethodOptions { init, ..job.options.clone() };
    for name in &job.methods {
        let method = options.method(name, &names)?;
        for size in &sizes {
            let n_atoms = method.fixed_atoms(n_tasks).unwrap_or(size.n_atoms);
            if !(1..=n_tasks).contains(&n_atoms) {
                return Err(Error::rejected(format!("m = {n_atoms} for {n_tasks} tasks: expected 1 to {n_tasks}")));
            }
            for &dtype in &job.dtypes {
                let mut unit = Unit {
                    job: job.name.clone(),
                    inputs: inputs.clone(),
                    method: method.clone(),
                    size: Size { n_atoms, ..*size },
                    dtype,
                    clip: job.clip,
                    balance: job.options.balance,
                    coordinates: job.options.coordinates,
                    output: PathBuf::new(),
                    overwrite: job.overwrite,
                    after: Vec::new(),
                };
                unit.output = folder.join(fill(&job.output, &unit)?);
                for after in &job.after {
                    after.step.alpha(&names)?;
                    let output = folder.join(fill(&after.output, &unit)?);
                    unit.after.push((after.clone(), output));
                }
                // A method with only one number of atoms is asked for once, whatever sizes are listed.
                let is_same = |other: &Unit| {
                    (other.method.name(), other.size.n_atoms, other.dtype) == (unit.method.name(), n_atoms, dtype)
                };
                if !units.iter().any(is_same) {
                    units.push(unit);
                }
            }
        }
    }
    Ok(units)
}

/// Puts a unit's words into a template.
fn fill(template: &str, unit: &Unit) -> Result<String> {
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
            "dtype" => filled.push_str(&crate::checkpoint::Dtype::from(unit.dtype).to_string()),
            _ => {
                return Err(Error::rejected(format!("output {template:?}: unknown word {{{word}}}"))
                    .hint("known words: {job}, {method}, {m}, {ratio}, {dtype}"));
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
    fn what_makes_no_sense_is_said() {
        let unusable = [
            ("m = 4\noutput = 'o'", "m = 4 for 3 tasks"),
            ("m = 1\noutput = 'o{x}'", "unknown word {x}"),
            ("m = 1\noutput = 'o{m'", "`}` expected"),
            ("m = 1\noutput = 'o{ratio}'", "{ratio} where m was given"),
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
