//! `tvb devices`: every adapter and the CPU engine, and which one `auto` takes.

use crate::args::Context;
use crate::output::{Align, Answer, Table};
use serde_json::{Value, json};
use tvb::{Result, units};
use tvb_kernels::{AdapterFacts, CpuEngine, DeviceChoice, choose, list_adapters};

/// List every adapter and the CPU engine, with the limits that matter
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(context: &Context) -> Result<Answer> {
    let adapters = list_adapters(context.backend);
    let auto = choose(&DeviceChoice::Auto, &adapters).ok().flatten();
    let mut table = Table::new([
        ("", Align::Left),
        ("index", Align::Left),
        ("name", Align::Left),
        ("backend", Align::Left),
        ("kind", Align::Left),
        ("largest buffer", Align::Right),
        ("binding", Align::Right),
        ("driver", Align::Left),
    ]);
    for facts in &adapters {
        let mark = if auto == Some(facts.index) { "*" } else { "" };
        table.row([
            mark.into(),
            facts.index.to_string(),
            facts.name.clone(),
            facts.backend.name().into(),
            facts.kind.name().into(),
            units::bytes(facts.max_buffer_bytes),
            units::bytes(facts.max_binding_bytes),
            facts.driver.clone(),
        ]);
    }
    let engine = CpuEngine::new();
    let cpu_name = format!("CPU engine, {}, {} threads", engine.instruction_set(), context.n_threads);
    let mark = if auto.is_none() { "*" } else { "" };
    table.row([mark.into(), "cpu".into(), cpu_name, "native".into(), "cpu".into(), "-".into(), "-".into(), "-".into()]);
    let text = format!("{table}* is what `--device auto` takes; a software adapter is used only when it is named\n");
    let mut devices: Vec<Value> = adapters.iter().map(|facts| adapter_json(facts, auto == Some(facts.index))).collect();
    devices.push(json!({
        "index": "cpu",
        "name": "CPU engine",
        "backend": "native",
        "kind": "cpu",
        "instruction_set": engine.instruction_set(),
        "n_threads": context.n_threads,
        "auto": auto.is_none(),
    }));
    Ok(Answer::new(text, json!({ "devices": devices })))
}

fn adapter_json(facts: &AdapterFacts, is_auto: bool) -> Value {
    json!({
        "index": facts.index,
        "name": facts.name,
        "vendor": facts.vendor,
        "backend": facts.backend.name(),
        "kind": facts.kind.name(),
        "driver": facts.driver,
        "max_buffer_bytes": facts.max_buffer_bytes,
        "max_binding_bytes": facts.max_binding_bytes,
        "max_workgroups": facts.max_workgroups,
        "max_storage_buffers": facts.max_storage_buffers,
        "max_workgroup_bytes": facts.max_workgroup_bytes,
        "mappable_storage": facts.mappable_storage,
        "auto": is_auto,
    })
}
