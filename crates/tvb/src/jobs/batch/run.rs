//! Runs a batch: Gram files as they are needed, bases, the steps after them; failures are recorded and the rest goes on.

use super::after::After;
use super::expand::{Batch, Unit};
use super::inputs::Inputs;
use super::note::{Note, Noted, contents_of, debug_text, is_stamp_of, stamp_of};
use crate::basis::Basis;
use crate::basis::gram_file;
use crate::checkpoint::{Budget, Checkpoint, Existing, FileStamp, remove_stale_lock};
use crate::columns::plan::Plan;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::jobs::bookmarks::inputs_key;
use crate::jobs::compress::{CLIPPED, CodingOptions, compress};
use crate::jobs::edit::{Edit, EditJob, EditOutput, Source};
use crate::jobs::gram::make_gram_file;
use crate::jobs::verify::verify_files;
use crate::ops::Grams;
use crate::pass::Runtime;
use crate::progress::{Progress, unless_cancelled};
use crate::shown::path_json;
use crate::solve::{Coding, Method, Rule};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Instant, SystemTime};

/// What became of an output.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Made.
    Made,
    /// There already, from the same inputs with the same options.
    Current,
    /// Failed.
    Failed(Error),
    /// Not tried: something before it failed, or the batch was stopped.
    NotTried,
}

/// One output and what became of it.
#[derive(Clone, Debug)]
pub struct Record {
    /// The job.
    pub job: String,
    /// `compress`, or the word of a step after it.
    pub step: &'static str,
    /// The method of the basis; empty where the job came to none.
    pub method: String,
    /// M.
    pub n_atoms: usize,
    /// Where it is; empty where the job came to none.
    pub output: PathBuf,
    /// What became of it.
    pub outcome: Outcome,
    /// Seconds it took.
    pub seconds: f64,
    /// The largest relative squared error of a task, for a basis.
    pub worst_error: Option<f64>,
}

impl Record {
    /// The outcome in one word.
    pub fn word(&self) -> &'static str {
        match &self.outcome {
            Outcome::Made => "made",
            Outcome::Current => "current",
            Outcome::Failed(error) if error.kind() == ErrorKind::Interrupted => "interrupted",
            Outcome::Failed(_) => "failed",
            Outcome::NotTried => "not tried",
        }
    }

    /// One flat object.
    pub fn to_json(&self) -> Value {
        let error = match &self.outcome {
            Outcome::Failed(error) => json!({ "message": error.message(), "hint": error.hint_text() }),
            _ => Value::Null,
        };
        json!({
            "job": self.job,
            "step": self.step,
            "method": self.method,
            "n_atoms": self.n_atoms,
            "output": path_json(&self.output),
            "outcome": self.word(),
            "seconds": self.seconds,
            "worst_error": self.worst_error,
            "error": error,
        })
    }
}

/// What became of a batch.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// One for each output, in order.
    pub records: Vec<Record>,
}

impl Summary {
    /// Outputs that failed.
    pub fn n_failed(&self) -> usize {
        self.records.iter().filter(|record| matches!(&record.outcome, Outcome::Failed(_))).count()
    }

    /// Whether the user stopped it.
    pub fn is_interrupted(&self) -> bool {
        let interrupted =
            |record: &Record| matches!(&record.outcome, Outcome::Failed(e) if e.kind() == ErrorKind::Interrupted);
        self.records.iter().any(interrupted)
    }
}

/// Inputs that are open, with their Gram file.
struct Opened {
    inputs: Rc<Inputs>,
    plan: Plan,
    gram_path: PathBuf,
    grams: Grams,
}

struct Runner<'a> {
    batch: &'a Batch,
    fail_fast: bool,
    command: &'a str,
    runtime: &'a Runtime,
    progress: &'a dyn Progress,
    on_record: &'a mut dyn FnMut(&Record) -> Result<()>,
    summary: Summary,
    opened: Option<Opened>,
    /// Inputs that cannot be read: they are not tried again for every job.
    unreadable: Vec<(Rc<Inputs>, Error)>,
}

/// Runs every unit of a batch. `on_record` hears of every output as soon as its fate is known; an error of it ends the
/// batch. With `fail_fast` nothing is tried after the first failure.
///
/// # Errors
/// Failed: the work folder cannot be made, or `on_record` fails. What happens to the jobs is in the summary.
pub fn run(
    batch: &Batch,
    fail_fast: bool,
    command: &str,
    runtime: &Runtime,
    progress: &dyn Progress,
    on_record: &mut dyn FnMut(&Record) -> Result<()>,
) -> Result<Summary> {
    std::fs::create_dir_all(&batch.work).map_err(|error| Error::io("creating", &batch.work, &error))?;
    let summary = Summary::default();
    let mut runner = Runner {
        batch,
        fail_fast,
        command,
        runtime,
        progress,
        on_record,
        summary,
        opened: None,
        unreadable: Vec::new(),
    };
    for (job, error) in &batch.unusable {
        runner.record(Record {
            job: job.clone(),
            step: "compress",
            method: String::new(),
            n_atoms: 0,
            output: PathBuf::new(),
            outcome: Outcome::Failed(error.clone()),
            seconds: 0.0,
            worst_error: None,
        })?;
    }
    for unit in &batch.units {
        runner.unit(unit)?;
    }
    Ok(runner.summary)
}

impl Runner<'_> {
    fn record(&mut self, record: Record) -> Result<()> {
        (self.on_record)(&record)?;
        self.summary.records.push(record);
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.summary.is_interrupted() || (self.fail_fast && self.summary.n_failed() > 0)
    }

    fn unit(&mut self, unit: &Unit) -> Result<()> {
        let started = Instant::now();
        let made = if self.is_over() { None } else { Some(self.basis(unit)) };
        let mut record = Record {
            job: unit.job.clone(),
            step: "compress",
            method: unit.method.name().into(),
            n_atoms: unit.size.n_atoms,
            output: unit.output.clone(),
            outcome: Outcome::NotTried,
            seconds: started.elapsed().as_secs_f64(),
            worst_error: None,
        };
        let mut basis = None;
        match made {
            None => {}
            Some(Err(error)) => record.outcome = Outcome::Failed(error),
            Some(Ok((made, is_new))) => {
                let errors = made.manifest.tasks.iter().filter_map(|task| task.relative_error);
                record.worst_error = errors.reduce(f64::max);
                record.outcome = if is_new { Outcome::Made } else { Outcome::Current };
                basis = Some(made);
            }
        }
        self.record(record.clone())?;
        for (after, output) in &unit.after {
            let started = Instant::now();
            let outcome = match &basis {
                Some(basis) if !self.is_over() => match self.step(unit, after, output, basis) {
                    Ok(true) => Outcome::Made,
                    Ok(false) => Outcome::Current,
                    Err(error) => Outcome::Failed(error),
                },
                _ => Outcome::NotTried,
            };
            let seconds = started.elapsed().as_secs_f64();
            let output = output.clone();
            let step = after.step.name();
            self.record(Record { step, output, outcome, seconds, worst_error: None, ..record.clone() })?;
        }
        Ok(())
    }

    /// The basis of a unit, and whether it was made now.
    fn basis(&mut self, unit: &Unit) -> Result<(Basis, bool)> {
        self.progress.check()?;
        self.open(&unit.inputs)?;
        let Some(opened) = &self.opened else { return Err(Error::failed("the inputs were not opened")) };
        if let Some(basis) = current_basis(unit, &opened.grams, &self.runtime.budget) {
            // Its manifest and its times look the same when a bit of an atom has flipped.
            let checks = verify_files(&basis, self.runtime, self.progress)?;
            match checks.iter().find_map(|check| Some((&check.file, check.damage.as_ref()?))) {
                None => {
                    remove_stale_lock(&unit.output);
                    return Ok((basis, false));
                }
                Some((file, damage)) if !unit.overwrite => {
                    return Err(Error::rejected(format!("{}: {file}: {damage}", unit.output.display()))
                        .hint("the basis was damaged; overwrite = true makes it again"));
                }
                Some(_) => {}
            }
        }
        let existing = if unit.overwrite { Existing::Replace } else { Existing::Refuse };
        let options = unit.options(Some(opened.gram_path.clone()), existing).protect(self.batch.protected(unit)?);
        let made = compress(&opened.plan, &options, self.runtime, self.progress).map_err(|error| {
            let is_other = !unit.overwrite && Basis::is_at(&unit.output);
            if is_other { error.hint("it is not what the job says; overwrite = true replaces it") } else { error }
        })?;
        Ok((made.basis, true))
    }

    /// Makes sure that `inputs` are the open ones, with a Gram file.
    fn open(&mut self, inputs: &Rc<Inputs>) -> Result<()> {
        if self.opened.as_ref().is_some_and(|opened| opened.inputs == *inputs) {
            return Ok(());
        }
        if let Some((_, error)) = self.unreadable.iter().find(|(known, _)| known == inputs) {
            return Err(error.clone());
        }
        self.opened = None;
        match self.read(inputs) {
            Ok(opened) => self.opened = Some(opened),
            Err(error) => {
                self.unreadable.push((inputs.clone(), error.clone()));
                return Err(error);
            }
        }
        Ok(())
    }

    fn read(&self, inputs: &Rc<Inputs>) -> Result<Opened> {
        let (named, budget) = (Inputs::clone(inputs), self.runtime.budget.clone());
        let plan = unless_cancelled(self.progress, move |_| named.plan(&budget))?;
        plan.tell(self.progress);
        let gram_path = gram_path(&self.batch.work, &plan);
        let grams = match gram_file::read_within(&gram_path, &self.runtime.budget) {
            Ok(grams) => grams,
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            // Missing, or damaged: ours to replace.
            Err(_) => make_gram_file(&plan, &gram_path, Existing::Replace, self.runtime, self.progress)?,
        };
        Ok(Opened { inputs: inputs.clone(), plan, gram_path, grams })
    }

    /// Runs a step after a basis; false where its output is there already.
    fn step(&self, unit: &Unit, after: &After, output: &Path, basis: &Basis) -> Result<bool> {
        self.progress.check()?;
        let base = unit.inputs.open_base(&self.runtime.budget)?;
        let names = basis.task_names();
        let edit = Edit {
            alpha: after.step.alpha(&names)?,
            scale: after.scale,
            rule: after.step.rule(),
            by_tensor: Source::Basis(basis).tensor_weights(&after.weights)?,
        };
        let note = Note::new(&self.batch.work, output);
        let recipe = recipe(basis, &edit, after, unit.base_model.as_deref(), &base);
        let noted = note.read();
        let existing = match &noted {
            // An earlier run was stopped while it made this output, which was its to make.
            Some(Noted::Begun) => Existing::Replace,
            Some(Noted::Made { recipe: made_by, stamp, contents }) if is_stamp_of(*stamp, output) => {
                let is_intact = match contents {
                    Some(contents) => *contents == contents_of(output, self.progress)?,
                    None => true,
                };
                if !is_intact && !after.overwrite && !unit.overwrite {
                    return Err(Error::rejected(format!("{}: was damaged since it was made", output.display()))
                        .hint("overwrite = true makes it again"));
                }
                if is_intact && *made_by == recipe {
                    remove_stale_lock(output);
                    return Ok(false);
                }
                // Made by an earlier run of a batch and untouched since.
                Existing::Replace
            }
            _ if after.overwrite || unit.overwrite => Existing::Replace,
            _ => Existing::Refuse,
        };
        let written = EditOutput::new(output)
            .dtype(after.dtype)
            .clip(after.clip)
            .existing(existing)
            .delta(after.delta)
            .command(self.command)
            .base_model(unit.base_model.clone())
            .protect(self.batch.protected(unit)?);
        // Said first: a kill between the output's appearance and its note must not leave what no run takes for its own.
        // Only of an output that may be replaced or is not there, so that a file of the user's is never taken for ours.
        let begun = existing == Existing::Replace || std::fs::symlink_metadata(output).is_err();
        if begun {
            note.write(&Noted::Begun)?;
        }
        let job = EditJob { source: Source::Basis(basis), edit: &edit, base: Some(&base), output: &written };
        let result = job.write(self.runtime, self.progress);
        if let Err(error) = result {
            // What was there is there still.
            if begun {
                note.restore(noted.as_ref())?;
            }
            return Err(error);
        }
        let contents = Some(contents_of(output, self.progress)?);
        note.write(&Noted::Made { recipe, stamp: stamp_of(output), contents })?;
        Ok(true)
    }
}

/// The Gram file of a plan whose inputs are as they are now.
pub(super) fn gram_path(work: &Path, plan: &Plan) -> PathBuf {
    work.join(format!("gram-{:032x}.safetensors", inputs_key(plan).0))
}

/// The basis at a unit's output, where it is what the unit would make.
pub(super) fn current_basis(unit: &Unit, grams: &Grams, budget: &Budget) -> Option<Basis> {
    let basis = Basis::open_within(&unit.output, budget).ok()?;
    let manifest = &basis.manifest;
    let same_tasks = manifest.tasks.len() == grams.tasks.len()
        && manifest
            .tasks
            .iter()
            .zip(&grams.tasks)
            .all(|(stored, given)| stored.name == given.name && stored.fingerprint == Some(given.fingerprint));
    let options = &manifest.method.options;
    let same_options = manifest.method.name == unit.method.name()
        && is_said_of(&options["options"], &unit.method)
        && options["n_atoms"] == unit.size.n_atoms
        && options["balance"] == unit.balance
        && options["coordinates"] == json!(unit.coordinates);
    let same_type = match &unit.coding {
        _ if options["shared_rank"] != json!(unit.shared_rank) => false,
        // Factors take no other type than their own, sides and cores the one that was asked for.
        None if unit.shared_rank.is_some() => {
            manifest.shared().is_none_or(|shared| shared.dtype.float() == Some(unit.dtype))
        }
        Some(_) if unit.keep_factors && manifest.factors.is_some() => true,
        None => manifest.coded.is_none() && manifest.atoms.iter().all(|atom| atom.dtype.float() == Some(unit.dtype)),
        Some(coding) => is_coded_as(&basis, coding),
    };
    let whole = (0..basis.n_atoms()).all(|index| basis.open_atom(index).is_ok());
    let same_base = manifest.base.fingerprint == grams.base_fingerprint();
    // What was clipped is what the unit makes only where it clips.
    let same_values = unit.clip || options.get(CLIPPED).is_none();
    let same_fit = manifest.fit == grams.fit;
    (same_tasks && same_base && same_fit && same_options && same_type && same_values && whole).then_some(basis)
}

/// Whether a basis' atoms are coded, and keep what is kept, as these options say.
fn is_coded_as(basis: &Basis, options: &CodingOptions) -> bool {
    let (Some(found), Some(record)) = (basis.coding(), &basis.manifest.coded) else { return false };
    let wanted = basis.solved().and_then(|coefficients| options.coding(&coefficients));
    wanted.is_ok_and(|(wanted, texts)| {
        // Where nothing is kept, its bits say nothing.
        let kept_rate = if wanted.n_kept() == 0 { found.kept_rate } else { wanted.kept_rate };
        found == Coding { kept_rate, ..wanted } && record.kept == texts
    })
}

/// Whether a manifest's options are those of a method. The first manifests of version 1 have Rust's `Debug` text here, so
/// that an unchanged method is known by the same text.
fn is_said_of(options: &Value, method: &Method) -> bool {
    match options {
        Value::String(text) => debug_text(method) == *text,
        options => *options == json!(method),
    }
}

/// The digest of everything an edited checkpoint is made of.
fn recipe(basis: &Basis, edit: &Edit, after: &After, base_model: Option<&str>, base: &Checkpoint) -> Digest {
    let dtype = after.dtype.map(|dtype| crate::checkpoint::Dtype::from(dtype).safetensors_name());
    let stamps = base.files().iter().map(|file| {
        let FileStamp { len, modified, inode } = file.stamp();
        let modified = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        json!([
            file.path.as_os_str().as_encoded_bytes(),
            len,
            modified.map(|since| since.as_nanos().to_string()),
            inode
        ])
    });
    let mut text = json!({
        "basis": basis.manifest.checksum,
        "alpha": edit.alpha,
        "scale": edit.scale,
        "rule": match edit.rule {
            Rule::Projected => "projected",
            Rule::Sum => "sum",
        },
        "dtype": dtype,
        "delta": after.delta,
        "base": stamps.collect::<Vec<_>>(),
    });
    if let (true, Some(text)) = (after.clip, text.as_object_mut()) {
        text.insert("clip".to_owned(), true.into());
    }
    if let (Some(key), Some(text)) = (base.key(), text.as_object_mut()) {
        text.insert("base_key".to_owned(), key.into());
    }
    if let (Some(id), Some(text)) = (base_model, text.as_object_mut()) {
        text.insert("base_model".to_owned(), id.into());
    }
    if let (false, Some(text)) = (after.weights.is_empty(), text.as_object_mut()) {
        text.insert("by_tensor".to_owned(), after.weights.to_json());
    }
    Digest::of(text.to_string().as_bytes())
}
