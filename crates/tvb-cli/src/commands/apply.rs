//! `tvb apply`: an edit by an expression in task names, or by a file of coefficients.

use crate::args::Context;
use crate::commands::compress::DtypeName;
use crate::commands::edit::{EditArgs, Opened, own_head, run, split, written};
use crate::inputs::left_out_json;
use crate::output::Answer;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tvb::checkpoint::{Existing, Inputs};
use tvb::jobs::edit::{Combination, CombinationJob, EditOutput, Over, edit_work};
use tvb::shown::{path_json, shown_path};
use tvb::solve::Rule;
use tvb::{Error, Result, arithmetic};

/// Apply a linear expression in task names, such as 'a + 0.5*b - c'
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ApplyArgs {
    /// The basis folder, then the expression; the expression alone with --from-checkpoints
    #[arg(value_name = "BASIS EXPRESSION", num_args = 1.., required_unless_present = "coefficients")]
    pub words: Vec<OsString>,
    /// Coefficients as `tvb fit` or tvb.torch wrote them, in place of an expression
    #[arg(long, value_name = "FILE")]
    pub coefficients: Option<PathBuf>,
    #[command(flatten)]
    pub edit: EditArgs,
}

pub(crate) fn apply(args: &ApplyArgs, context: &Context) -> Result<Answer> {
    if let Some(path) = &args.coefficients {
        return apply_coefficients(&args.words, path, &args.edit, context);
    }
    let (basis, [expression]) = split(&args.words, &args.edit.originals)?;
    run(basis, &args.edit, Rule::Projected, context, |names| arithmetic::expression(names, &expression))
}

/// `tvb apply --coefficients`.
fn apply_coefficients(words: &[OsString], path: &Path, args: &EditArgs, context: &Context) -> Result<Answer> {
    let combination = Combination::read(path, &context.budget)?;
    let (basis, []) =
        split(words, &args.originals).map_err(|error| error.context("--coefficients takes the expression's place"))?;
    if combination.over == Over::Tasks && combination.blocks.is_none() {
        return run(basis, args, Rule::Projected, context, |names| {
            let alpha = combination.alpha(names).map_err(|error| error.context(shown_path(path)))?;
            alpha.ok_or_else(|| Error::failed("weights over tasks expected"))
        });
    }
    let not_so =
        [args.lora.lora_out.as_ref().map(|_| "--lora-out"), args.bits.map(|_| "--bits"), args.by_tensor.given()];
    if let Some(flag) = not_so.into_iter().flatten().next() {
        return Err(Error::usage(format!("{flag}: coefficients over tasks and without blocks expected, others found")));
    }
    let from = Opened::new(basis.as_deref(), args.base.as_deref(), &args.originals, context)?;
    let key = args.originals.selection.key.as_deref();
    let base = args.base.as_deref().map(|path| from.open_base(path, key, context)).transpose()?;
    let target = args.output.as_ref().ok_or_else(|| Error::usage("no output given").hint("-o OUT"))?;
    if !args.scale.is_finite() {
        return Err(Error::usage(format!("--scale: a finite number expected, {} found", args.scale)));
    }
    let edits = combination.edits(from.source(), args.scale).map_err(|error| error.context(shown_path(path)))?;
    let mut text =
        "how close this is to the same edit from the originals is not predicted for weights over atoms or by blocks\n"
            .to_owned();
    let json = json!({
        "output": path_json(target), "coefficients": path_json(path), "scale": args.scale, "predicted": Value::Null,
        "left_out": left_out_json(from.left_out()), "dry_run": args.dry_run,
    });
    let head = base.as_ref().map(|base| own_head(args, base, context)).transpose()?.flatten();
    let head_words = head.as_ref().map_or_else(String::new, |head| format!("{}\n", head.in_words()));
    text.push_str(&head_words);
    if args.dry_run {
        text.push_str(&format!("would write {}\n", shown_path(target)));
        return Ok(Answer::new(text, json));
    }
    let dtype = args.dtype.map(DtypeName::kernel);
    let output = EditOutput::new(target)
        .dtype(dtype)
        .clip(args.clip)
        .existing(if args.overwrite { Existing::Replace } else { Existing::Refuse })
        .delta(args.delta)
        .force(args.force)
        .head(head)
        .protect(Inputs::none().and(path))
        .command(context.command_line())
        .base_model(args.base_model.clone());
    let onto = base.as_ref().filter(|_| !args.delta);
    let runtime = context.runtime_for(|| Ok(edit_work(from.source(), onto, combination.names.len(), 1, dtype)))?;
    let started = Instant::now();
    let (source, combination, scale) = (from.source(), &combination, args.scale);
    let job = CombinationJob { source, combination, scale, base: base.as_ref(), output: &output };
    let clipped = job.write_formed(edits, &runtime, &context.progress)?;
    let elapsed = started.elapsed();
    Ok(written((text, json), target, &clipped, elapsed, &runtime))
}
