//! What a finished fit leaves for people and programs: results.json, results.csv and plot.svg.

use super::options::FitOptions;
use super::point::{Fitted, Point};
use crate::checkpoint::{Existing, Inputs, write_whole};
use crate::error::{Error, Result};
use crate::jobs::edit::Over;
use crate::jobs::report::{Series, fit_svg};
use crate::shown::{csv_cell, path_json};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Writes all three, each whole.
pub(super) fn write(fitted: &Fitted, options: &FitOptions, inputs: &Inputs) -> Result<()> {
    let put =
        |name: &str, text: String| write_whole(&options.output.join(name), text.as_bytes(), Existing::Replace, inputs);
    let json = serde_json::to_string_pretty(&to_json(fitted, options)?)
        .map_err(|error| Error::failed(format!("the results cannot be written as JSON: {error}")))?;
    put("results.csv", to_csv(fitted, options)?)?;
    let value = |(index, point): (usize, &Point)| Ok((index as f64 + 1.0, point.metric(options)?));
    let values = fitted.points.iter().enumerate().map(value).collect::<Result<_>>()?;
    put("plot.svg", fit_svg(&Series { name: options.metric.clone(), values }, options.minimize))?;
    put("results.json", json + "\n")
}

fn to_json(fitted: &Fitted, options: &FitOptions) -> Result<Value> {
    let shape = &fitted.combination;
    let point = |point: &Point| -> Result<Value> {
        Ok(json!({
            "number": point.number, "from": point.from, "values": point.values, "metrics": point.metrics,
            "objective": point.objective(options)?, "seconds": point.seconds,
        }))
    };
    let mut best = fitted.best().map(point).transpose()?;
    if let Some(Value::Object(best)) = &mut best {
        best.insert("checkpoint".to_owned(), path_json(&fitted.best_path));
    }
    Ok(json!({
        "format": "tvb-fit",
        "version": 1,
        "tool": crate::TOOL,
        "command": options.command,
        "fingerprint": fitted.fingerprint,
        "options": {
            "evaluator": options.evaluator.command,
            "serve": options.evaluator.serve,
            "timeout_seconds": options.evaluator.timeout.map(|timeout| timeout.as_secs_f64()),
            "metric": options.metric,
            "minimize": options.minimize,
            "evaluations": options.n_evaluations,
            "time_seconds": options.time.map(|time| time.as_secs_f64()),
            "l1": options.l1,
            "l2": options.l2,
            "seed": options.seed,
            "dtype": options.dtype.map(|dtype| crate::checkpoint::Dtype::from(dtype).to_string()),
        },
        "over": if shape.over == Over::Tasks { "tasks" } else { "atoms" },
        "names": shape.names,
        "blocks": shape.blocks.as_ref().map(|blocks| blocks.iter().map(|block| &block.name).collect::<Vec<_>>()),
        "points": fitted.points.iter().map(point).collect::<Result<Vec<_>>>()?,
        "best": best,
    }))
}

/// One line for each point: what it is worth, the metrics, and every coefficient under `NAME` or `BLOCK/NAME`.
fn to_csv(fitted: &Fitted, options: &FitOptions) -> Result<String> {
    let shape = &fitted.combination;
    let names: BTreeSet<&String> = fitted.points.iter().flat_map(|point| point.metrics.keys()).collect();
    let mut out = String::from("number,from,objective,seconds");
    for name in &names {
        out.push_str(&format!(",{}", csv_cell(name)));
    }
    let columns: Vec<String> = match &shape.blocks {
        None => shape.names.clone(),
        Some(blocks) => {
            let of_block = |block: &crate::jobs::edit::Block| {
                shape.names.iter().map(|name| format!("{}/{name}", block.name)).collect::<Vec<_>>()
            };
            blocks.iter().flat_map(of_block).collect()
        }
    };
    columns.iter().for_each(|name| out.push_str(&format!(",{}", csv_cell(name))));
    out.push('\n');
    for point in &fitted.points {
        let number = point.number.map_or(String::new(), |number| number.to_string());
        out.push_str(&format!("{number},{},{},{:.3}", csv_cell(&point.from), point.objective(options)?, point.seconds));
        for name in &names {
            let value = point.metrics.get(*name).map_or(String::new(), f64::to_string);
            out.push_str(&format!(",{value}"));
        }
        point.values.iter().flatten().for_each(|value| out.push_str(&format!(",{value}")));
        out.push('\n');
    }
    Ok(out)
}
