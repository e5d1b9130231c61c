//! What a finished sweep leaves for people and programs: results.json, results.csv and plot.svg.

use super::options::{SweepOptions, Swept};
use crate::checkpoint::{Existing, Inputs, write_whole};
use crate::error::{Error, Result};
use crate::jobs::report::{Series, sweep_svg};
use crate::shown::{csv_cell, path_json};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Writes all three, each whole.
pub(super) fn write(swept: &Swept, options: &SweepOptions, inputs: &Inputs) -> Result<()> {
    let put =
        |name: &str, text: String| write_whole(&options.output.join(name), text.as_bytes(), Existing::Replace, inputs);
    let json = serde_json::to_string_pretty(&to_json(swept, options))
        .map_err(|error| Error::failed(format!("the results cannot be written as JSON: {error}")))?;
    put("results.csv", to_csv(swept))?;
    put("plot.svg", plot(swept, options)?)?;
    put("results.json", json + "\n")
}

pub(super) fn to_json(swept: &Swept, options: &SweepOptions) -> Value {
    let goal = &options.goal;
    let points = swept.points.iter().zip(&swept.choice.eligible).map(|(point, eligible)| {
        json!({ "scale": point.scale, "metrics": point.metrics, "eligible": eligible, "seconds": point.seconds })
    });
    json!({
        "format": "tvb-sweep",
        "version": 1,
        "tool": crate::TOOL,
        "command": options.command,
        "fingerprint": swept.fingerprint,
        "options": {
            "evaluator": options.evaluator.command,
            "timeout_seconds": options.evaluator.timeout.map(|timeout| timeout.as_secs_f64()),
            "metric": goal.metric,
            "minimize": goal.minimize,
            "control": goal.control.as_ref().map(|control| json!({
                "name": control.name, "keep": control.keep, "reference": control.reference, "floor": swept.choice.floor,
            })),
            "normalize_by": options.fine_tuned,
            "dtype": options.dtype.map(|dtype| crate::checkpoint::Dtype::from(dtype).to_string()),
        },
        "points": points.collect::<Vec<_>>(),
        "zero_shot": swept.zero_shot,
        "best": swept.best().map(|best| json!({
            "scale": best.scale, "metrics": best.metrics, "checkpoint": swept.best_path.as_deref().map(path_json),
        })),
    })
}

fn to_csv(swept: &Swept) -> String {
    let names: BTreeSet<&String> = swept.points.iter().flat_map(|point| point.metrics.keys()).collect();
    let mut out = String::from("scale,eligible,seconds");
    for name in &names {
        out.push(',');
        out.push_str(&csv_cell(name));
    }
    out.push('\n');
    for (point, eligible) in swept.points.iter().zip(&swept.choice.eligible) {
        out.push_str(&format!("{},{eligible},{:.3}", point.scale, point.seconds));
        for name in &names {
            let value = point.metrics.get(*name).map_or(String::new(), f64::to_string);
            out.push_str(&format!(",{value}"));
        }
        out.push('\n');
    }
    out
}

fn plot(swept: &Swept, options: &SweepOptions) -> Result<String> {
    let goal = &options.goal;
    let series = |name: &str| Series {
        name: name.to_owned(),
        values: swept.points.iter().filter_map(|point| Some((point.scale, *point.metrics.get(name)?))).collect(),
    };
    let control =
        goal.control.as_ref().filter(|control| control.name != goal.metric).map(|control| series(&control.name));
    let best = swept.best().and_then(|best| Some((best.scale, *best.metrics.get(&goal.metric)?)));
    sweep_svg(&series(&goal.metric), control.as_ref(), swept.choice.floor, best)
}
