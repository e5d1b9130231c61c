//! What `tvb bench --save` keeps of a machine: a small JSON file, read as any foreign file is.
//!
//! An entry is of one device as it was: another driver, another version of this program or another instruction set voids it,
//! since each may have changed every rate.

use super::choice::{Believed, Origin};
use super::rates::{Rate, Rates};
use super::work::{Stage, Width};
use serde::{Deserialize, Serialize};
use tvb_kernels::{AdapterFacts, AdapterKind};

/// A file larger than this is something else.
pub const SAVED_BYTES_MAX: u64 = 1 << 20;
/// The version of the file.
const VERSION: u32 = 1;
/// Devices and rates that a file may have.
const DEVICES_MAX: usize = 64;
const RATES_MAX: usize = 2_000;

/// The kind of the CPU engine.
const CPU: &str = "cpu";

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// The file's version.
    pub version: u32,
    /// This program and its version.
    pub tool: String,
    /// Each device once.
    pub devices: Vec<SavedDevice>,
}

/// What tells one device from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The adapter's name, or the processor's.
    pub name: String,
    /// The driver and its version; the instruction set of the CPU engine.
    pub driver: String,
    /// The graphics interface, or `native`.
    pub backend: String,
    /// `cpu`, or the kind of adapter.
    pub kind: String,
}

impl Machine {
    /// Of an adapter.
    pub fn of(facts: &AdapterFacts) -> Machine {
        Machine {
            name: facts.name.clone(),
            driver: facts.driver.clone(),
            backend: facts.backend.name().to_owned(),
            kind: facts.kind.name().to_owned(),
        }
    }

    /// The CPU engine on this processor.
    pub fn cpu(processor: &str, instruction_set: &str) -> Machine {
        Machine {
            name: processor.to_owned(),
            driver: instruction_set.to_owned(),
            backend: "native".to_owned(),
            kind: CPU.to_owned(),
        }
    }
}

/// One device as it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedDevice {
    /// Which one.
    #[serde(flatten)]
    pub machine: Machine,
    /// Threads that computed or fed it.
    pub n_threads: usize,
    /// The day, as `2026-11-27`.
    pub date: String,
    /// Seconds to open and test it.
    pub open_s: f64,
    /// What was measured.
    pub rates: Vec<SavedRate>,
}

/// A [`Rate`] as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedRate {
    stage: String,
    dtype: String,
    n_columns: usize,
    begin_s: f64,
    from_files: f64,
    kept: Option<f64>,
    out: f64,
}

impl SavedDevice {
    /// A device with what was measured of it.
    pub fn new(machine: Machine, n_threads: usize, date: &str, rates: &Rates) -> SavedDevice {
        let saved = |rate: &Rate| SavedRate {
            stage: rate.stage.name().to_owned(),
            dtype: rate.width.name().to_owned(),
            n_columns: rate.n_columns,
            begin_s: rate.begin_s,
            from_files: rate.from_files,
            kept: rate.kept,
            out: rate.out,
        };
        let (date, open_s) = (date.to_owned(), rates.open_s);
        SavedDevice { machine, n_threads, date, open_s, rates: rates.rates.iter().map(saved).collect() }
    }

    /// Its rates; `None` where a number or a name cannot be one.
    fn to_rates(&self) -> Option<Rates> {
        let rate = |saved: &SavedRate| {
            Some(Rate {
                stage: Stage::ALL.into_iter().find(|stage| stage.name() == saved.stage)?,
                width: [Width::Two, Width::Four].into_iter().find(|width| width.name() == saved.dtype)?,
                n_columns: saved.n_columns,
                begin_s: saved.begin_s,
                from_files: saved.from_files,
                kept: saved.kept,
                out: saved.out,
            })
        };
        let rates = Rates { open_s: self.open_s, rates: self.rates.iter().map(rate).collect::<Option<_>>()? };
        rates.are_sane().then_some(rates)
    }
}

impl Saved {
    /// Nothing yet.
    pub fn none() -> Saved {
        Saved { version: VERSION, tool: crate::TOOL.to_owned(), devices: Vec::new() }
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote; in words what is wrong, where something is.
    ///
    /// # Errors
    /// One line: it is of another version of this program, damaged, or no such file at all.
    pub fn from_bytes(bytes: &[u8]) -> Result<Saved, String> {
        if bytes.len() as u64 > SAVED_BYTES_MAX {
            return Err(format!("{} bytes at most expected", SAVED_BYTES_MAX));
        }
        // The version first: the rest may look different in another.
        #[derive(Deserialize)]
        struct Head {
            version: u32,
            tool: String,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(|error| format!("no saved bench: {error}"))?;
        if (head.version, head.tool.as_str()) != (VERSION, crate::TOOL) {
            let shown = crate::shown::shown(&head.tool);
            return Err(format!("measured by {shown}, not by {}: measure again with `tvb bench --save`", crate::TOOL));
        }
        let saved: Saved = serde_json::from_slice(bytes).map_err(|error| format!("no saved bench: {error}"))?;
        let n_rates: usize = saved.devices.iter().map(|device| device.rates.len()).sum();
        if saved.devices.len() > DEVICES_MAX || n_rates > RATES_MAX {
            return Err(format!("{DEVICES_MAX} devices and {RATES_MAX} rates at most expected"));
        }
        for device in &saved.devices {
            let is_day =
                device.date.len() == 10 && device.date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
            if device.to_rates().is_none() || !is_day || !(1..=1 << 16).contains(&device.n_threads) {
                let name = crate::shown::shown(&device.machine.name);
                return Err(format!("{name}: a stage or a number that cannot be one"));
            }
        }
        Ok(saved)
    }

    /// As it is kept in a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Puts a device in place of what was known of it, whatever its driver was.
    pub fn put(&mut self, device: SavedDevice) {
        let is_same = |known: &SavedDevice| {
            let (a, b) = (&known.machine, &device.machine);
            (&a.name, &a.backend, &a.kind) == (&b.name, &b.backend, &b.kind)
        };
        self.devices.retain(|known| !is_same(known));
        self.devices.push(device);
    }

    /// What was measured of every adapter, whether it is still there or not; software ones only where `with_software`.
    pub fn adapters(&self, n_threads: usize, with_software: bool) -> Vec<Believed> {
        let is_meant = |kind: &str| kind != CPU && (with_software || kind != AdapterKind::Software.name());
        let adapters = self.devices.iter().filter(|device| is_meant(&device.machine.kind));
        let believed = adapters.filter_map(|device| {
            let rates = device.to_rates()?.fed_by(n_threads);
            Some(Believed { name: device.machine.name.clone(), rates, origin: Origin::Saved(device.date.clone()) })
        });
        believed.collect()
    }

    /// What was measured of a device, for this many threads; the word for a driver that has changed since.
    ///
    /// # Errors
    /// One line where it was measured with another driver or instruction set.
    pub fn find(&self, machine: &Machine, n_threads: usize) -> Result<Option<Believed>, String> {
        let is_named = |device: &&SavedDevice| {
            let known = &device.machine;
            (&known.name, &known.backend, &known.kind) == (&machine.name, &machine.backend, &machine.kind)
        };
        let Some(found) = self.devices.iter().find(is_named) else { return Ok(None) };
        if found.machine.driver != machine.driver {
            let [name, was, is] =
                [&machine.name, &found.machine.driver, &machine.driver].map(|text| crate::shown::shown(text));
            return Err(format!("{name}: measured with {was}, now {is}: measure again with `tvb bench --save`"));
        }
        let Some(rates) = found.to_rates() else { return Ok(None) };
        let rates = match machine.kind.as_str() {
            CPU => rates.with_threads(n_threads, found.n_threads),
            _ => rates.fed_by(n_threads),
        };
        Ok(Some(Believed { name: machine.name.clone(), rates, origin: Origin::Saved(found.date.clone()) }))
    }
}
