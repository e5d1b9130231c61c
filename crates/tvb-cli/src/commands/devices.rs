//! `tvb devices`: every adapter and the CPU engine, and which one `auto` takes.

use crate::args::Context;
use crate::output::{Align, Answer, Table};
use serde_json::{Value, json};
use tvb::pass::usual_device_memory;
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
        ("memory", Align::Right),
        ("bus", Align::Left),
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
            facts.memory_bytes.map_or_else(|| "?".to_owned(), units::bytes),
            if facts.bus.is_empty() { "-".to_owned() } else { facts.bus.clone() },
            facts.driver.clone(),
        ]);
    }
    let engine = CpuEngine::new();
    let cpu_name = format!("CPU engine, {}, {} threads", engine.instruction_set(), context.n_threads);
    let mark = if auto.is_none() { "*" } else { "" };
    let [none_1, none_2, none_3, none_4, none_5] = [(); 5].map(|()| "-".to_owned());
    table.row([
        mark.into(),
        "cpu".into(),
        cpu_name,
        "native".into(),
        "cpu".into(),
        none_1,
        none_2,
        none_3,
        none_4,
        none_5,
    ]);
    let unknown = match adapters.iter().any(|facts| facts.memory_bytes.is_none()) {
        true => ", 2 GB of a card whose driver does not say (?)",
        false => "",
    };
    let text = format!(
        "{table}* is what `--device auto` takes; a software adapter is used only when it is named\n\
         memory is what lies on the device's side; a card of its own keeps half of it between passes unless --device-memory says \
         otherwise{unknown}\n"
    );
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
        "device_id": facts.device_id,
        "bus": facts.bus,
        "twin": facts.twin.map(|twin| json!({ "number": twin.number, "of": twin.of })),
        "memory_bytes": facts.memory_bytes,
        "device_memory_default_bytes": usual_device_memory(facts),
        "max_buffer_bytes": facts.max_buffer_bytes,
        "max_binding_bytes": facts.max_binding_bytes,
        "max_workgroups": facts.max_workgroups,
        "max_storage_buffers": facts.max_storage_buffers,
        "max_workgroup_bytes": facts.max_workgroup_bytes,
        "mappable_storage": facts.mappable_storage,
        "auto": is_auto,
    })
}
