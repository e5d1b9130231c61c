//! `tvb bench --save`: whole passes of every device are timed and kept for `--device auto`.

use crate::args::Context;
use crate::bench::passes::Passes;
use crate::commands::rates;
use crate::output::Answer;
use serde_json::{Value, json};
use tvb::cost::{Believed, Machine, Origin, SavedDevice};
use tvb::pass::Runtime;
use tvb::progress::Progress;
use tvb::shown::{escaped, path_json, shown_path};
use tvb::{Error, Result};
use tvb_kernels::{DeviceChoice, Engine};

/// Measures `devices`, puts them into the file beside what is there, and shows what is believed now.
pub(super) fn save(devices: &[DeviceChoice], quick: bool, date: &str, context: &Context) -> Result<Answer> {
    let mut saved = crate::saved::load(&context.progress);
    let (mut text, mut measured) = (String::new(), Vec::<Value>::new());
    for device in devices {
        let believed = match one(device, quick, date, context) {
            Ok((machine, believed)) => {
                saved.put(SavedDevice::new(machine, context.n_threads, date, &believed.rates));
                believed
            }
            // Where one device was asked for, that it cannot be measured is all there is to say.
            Err(error) if devices.len() == 1 || error.kind() == tvb::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                context.progress.warn(&error.to_string());
                continue;
            }
        };
        let (name, open_s) = (escaped(&believed.name), believed.rates.open_s);
        text.push_str(&format!("{name}: opens in {open_s:.2} s\n{}\n", rates::table(&believed.rates)));
        measured.push(json!({ "name": believed.name, "believed": rates::json(&believed) }));
    }
    if measured.is_empty() {
        return Err(Error::failed("no device could be measured").hint("the warnings say why"));
    }
    let path = crate::saved::save(&saved)?;
    text.push_str(&format!("{}\n{}: kept for `--device auto`\n", rates::LEGEND, shown_path(&path)));
    Ok(Answer::new(text, json!({ "saved": path_json(&path), "date": date, "devices": measured })))
}

fn one(device: &DeviceChoice, quick: bool, date: &str, context: &Context) -> Result<(Machine, Believed)> {
    let runtime = context.runtime_on(device)?;
    let machine = match &runtime.engine {
        Engine::Cpu(engine) => Machine::cpu(&crate::machine::processor(), engine.instruction_set()),
        Engine::Gpu(engine) => Machine::of(engine.facts()),
    };
    let mut flags = vec!["--device".to_owned(), index_of(&runtime)];
    if let Some(backend) = context.backend {
        flags.extend(["--backend".to_owned(), backend.name().to_owned()]);
    }
    let rates = Passes { runtime: &runtime, flags, quick, progress: &context.progress }.run()?;
    let name = runtime.device_name();
    Ok((machine, Believed { name, rates, origin: Origin::Saved(date.to_owned()) }))
}

/// What `--device` means it by.
fn index_of(runtime: &Runtime) -> String {
    match &runtime.engine {
        Engine::Cpu(_) => "cpu".to_owned(),
        Engine::Gpu(engine) => engine.facts().index.to_string(),
    }
}
