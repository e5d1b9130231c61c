//! Many jobs from one file: `tvb batch JOBS.toml`.
//!
//! ```toml
//! work = "work"                    # folder for Gram files and records; default: the job file's name with .work
//!
//! [defaults]                       # every key of a job but `name`
//! base = "base.safetensors"        # paths are relative to the job file
//! tasks = ["cars.safetensors", "dtd=runs/dtd"]
//! method = ["anchored", "pca"]     # one or several
//! m = [2, 4]                       # numbers of atoms, or
//! ratio = 0.5                      # shares of the number of tasks
//! output = "out/{job}-{method}-m{m}"
//!
//! [[job]]
//! name = "vision"
//!
//! [[job]]
//! name = "digits"
//! from = "runs"                    # zeroshot.pt and */finetuned.pt, in place of base and tasks
//! m = 4
//! dtype = "bf16"
//! [[job.after]]
//! add = { scale = 0.3, output = "out/{job}-{method}-m{m}-all.safetensors" }
//! [[job.after]]
//! negate = { task = "MNIST", scale = 0.5, output = "out/{job}-{method}-m{m}-without.safetensors" }
//! ```
//!
//! | keys | |
//! |---|---|
//! | `base`, `tasks` or `from`; `include`, `exclude`, `skip_mismatched`, `vocab`, `rename`, `key` | the inputs |
//! | `base_model` | the base's name on the Hugging Face hub, for model cards |
//! | `method`, `m`, `ratio`, `dtype` or `bits` | one or a list: an output for each combination. Without `method`, `m` and `ratio` every task is coded as it is, at 2 bits |
//! | `keep_sum` (bits or `"off"`), `keep = ["a + b", "a - c:4"]` | what coded atoms keep exact, as the flags of `tvb compress` |
//! | `balance`, `coordinates`, `seed`, `weights = { TASK = 2.0 }`, `restarts`, `eigengap`, `paper`, `steps`, `lr`, `tau`, `anneal = "EVERY:FACTOR"`, `batch_columns`, `grad_clip`, `weight_decay`, `encoder`, `w_activation`, `init` (a JSON file, relative to the job file) | as the flags of `tvb compress` |
//! | `output` | the basis folder, with `{job}`, `{method}`, `{m}`, `{ratio}`, `{dtype}` and `{bits}` filled in |
//! | `overwrite` | replace outputs that are there and are not what the job says |
//! | `after` | steps on each basis: `add = { tasks = ["a", "b:0.5"], rule }`, `negate = { task }`, `analogy = { tasks = [a, b, c] }` or `apply = { expression }`, each with `scale`, `weight_for = ["REGEX=W"]`, `lines = "ALPHA:BETA"`, `output`, `dtype`, `delta` and `overwrite` |
//!
//! A job's own keys replace those of `[defaults]`: `from` also replaces `base` and `tasks`, and the other way round; `m` also
//! replaces `ratio`, and the other way round; `bits` replaces `dtype`, and `dtype` all that is said about codes.
//!
//! Inputs are read once for their Gram matrices, whatever number of jobs shares them; the Gram file stays in the work
//! folder and is taken again as long as no input is written to. An output that is there with the fingerprints of the same
//! inputs and the same options is not made again; it is read, so that damage is found. So a batch that was stopped goes on when it is run again.

mod after;
mod check;
mod expand;
mod file;
mod inputs;
mod job;
mod log;
mod note;
mod reading;
mod run;
mod work;

pub use after::{After, Step};
pub use check::{Check, check};
pub use expand::{Batch, Size, Unit};
pub use file::{JobFile, MAX_BYTES};
pub use inputs::Inputs;
pub use job::Job;
pub use log::Log;
pub use run::{Outcome, Record, Summary, run};
pub use work::batch_work;
