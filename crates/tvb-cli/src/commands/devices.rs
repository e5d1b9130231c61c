//! `tvb devices`: every adapter and the CPU engine, what is believed of each, and what `auto` takes by it.

use crate::args::Context;
use crate::commands::rates;
use crate::output::{Align, Answer, Table};
use serde_json::{Value, json};
use tvb::cost::Believed;
use tvb::pass::usual_device_memory;
use tvb::progress::Progress;
use tvb::shown::escaped;
use tvb::{Result, units};
use tvb_kernels::{AdapterFacts, CpuEngine, list_adapters};

/// List every adapter and the CPU engine, with the limits that matter and the speeds that `--device auto` goes by
///
/// The speeds are those of a class table, which knows the kind of a device and no more, or of this machine where
/// `tvb bench --save` has measured it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(context: &Context) -> Result<Answer> {
    let adapters = list_adapters(context.backend);
    let auto = context.auto();
    let mut table = Table::new([
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
        table.row([
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
    let [none_1, none_2, none_3, none_4, none_5] = [(); 5].map(|()| "-".to_owned());
    table.row(["cpu".into(), cpu_name, "native".into(), "cpu".into(), none_1, none_2, none_3, none_4, none_5]);
    let unknown = match adapters.iter().any(|facts| facts.memory_bytes.is_none()) {
        true => ", 2 GB of a card whose driver does not say (?)",
        false => "",
    };

    let known = |(believed, word): (Believed, Option<String>)| -> Believed {
        word.iter().for_each(|word| context.progress.warn(word));
        believed
    };
    let of_adapters: Vec<Believed> = adapters.iter().map(|facts| known(auto.adapter(facts))).collect();
    let cpu = known(auto.cpu());
    let candidates: Vec<(usize, Believed)> = adapters
        .iter()
        .zip(&of_adapters)
        .enumerate()
        .filter(|(_, (facts, _))| auto.may_take(facts))
        .map(|(at, (_, believed))| (at, believed.clone()))
        .collect();
    let mut text = format!(
        "{table}memory is what lies on the device's side; a card of its own keeps half of it between passes unless --device-memory says \
         otherwise{unknown}\n"
    );
    for believed in candidates.iter().map(|(_, believed)| believed).chain([&cpu]) {
        let (name, open_s) = (escaped(&believed.name), believed.rates.open_s);
        text.push_str(&format!("\n{name}: opens in {open_s:.2} s ({})\n", believed.origin));
        text.push_str(&rates::table(&believed.rates).to_string());
    }
    text.push_str(&format!("{}\n\n", rates::LEGEND));
    let (choices, choices_json) = match candidates.is_empty() {
        true => (
            "auto: the CPU engine, as there is no GPU; a software adapter is used only when it is named\n".to_owned(),
            json!([]),
        ),
        false => {
            let (lines, json) = rates::choices(&cpu, &candidates, auto.room(&adapters));
            let lead = "auto, by the job (each says; `compress --dry-run` before it does anything):";
            (format!("{lead}\n{}", tvb::shown::escaped_lines(&lines)), json)
        }
    };
    text.push_str(&choices);

    let mut devices: Vec<Value> = Vec::new();
    for (facts, believed) in adapters.iter().zip(&of_adapters) {
        devices.push(adapter_json(facts, believed, auto.may_take(facts)));
    }
    devices.push(json!({
        "index": "cpu",
        "name": "CPU engine",
        "backend": "native",
        "kind": "cpu",
        "processor": auto.processor,
        "instruction_set": engine.instruction_set(),
        "n_threads": context.n_threads,
        "auto_may_take": true,
        "believed": rates::json(&cpu),
    }));
    Ok(Answer::new(text, json!({ "devices": devices, "auto": choices_json })))
}

fn adapter_json(facts: &AdapterFacts, believed: &Believed, may_take: bool) -> Value {
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
        "auto_may_take": may_take,
        "believed": rates::json(believed),
    })
}
