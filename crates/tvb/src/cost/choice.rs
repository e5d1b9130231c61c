//! Which device does a job soonest, and the line that says so.

use super::rates::{Rates, shown};
use super::work::Work;
use serde_json::{Value, json};
use std::fmt;

/// Where rates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table of [`classes`](super::classes).
    Class,
    /// `tvb bench --save` on this day.
    Saved(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Class => f.write_str("class table"),
            Origin::Saved(date) => write!(f, "saved {date}"),
        }
    }
}

/// A device and what is believed of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Believed {
    /// Its name.
    pub name: String,
    /// How fast it is.
    pub rates: Rates,
    /// Who says so.
    pub origin: Origin,
}

/// What is expected of one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Its name.
    pub name: String,
    /// Seconds for the whole job; `None` where a stage of it is not known.
    pub seconds: Option<f64>,
    /// Whose figures these are.
    pub origin: Origin,
}

/// The device that is taken, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Place among the adapters; `None` is the CPU engine.
    pub adapter: Option<usize>,
    /// What is expected of it.
    pub taken: Estimate,
    /// What is expected of the best that is not taken.
    pub passed_over: Option<Estimate>,
    /// Why none was compared, where that is so.
    pub only_on_cpu: Option<&'static str>,
}

/// Of the CPU's time, what a GPU has to stay below: as saved rates say it, and as the class table does.
const SAVED_SHARE: f64 = 0.9;
const CLASS_SHARE: f64 = 0.67;

/// Chooses for `work` between the CPU engine and `adapters`, each with its place among all, where `device_bytes` may stay on a device between passes.
pub fn choose(work: &Work, cpu: &Believed, adapters: &[(usize, Believed)], device_bytes: u64) -> Choice {
    let estimate = |of: &Believed| Estimate {
        name: of.name.clone(),
        seconds: of.rates.seconds(work, device_bytes),
        origin: of.origin.clone(),
    };
    let on_cpu = estimate(cpu);
    if let Some(why) = work.only_on_cpu {
        let taken = Estimate { seconds: None, ..on_cpu };
        return Choice { adapter: None, taken, passed_over: None, only_on_cpu: Some(why) };
    }
    let found = adapters.iter().map(|(at, adapter)| (*at, estimate(adapter)));
    let known = found.filter_map(|(at, estimate)| Some((at, estimate.seconds?, estimate)));
    let best = known.min_by(|(_, a, _), (_, b, _)| a.total_cmp(b));
    match (best, on_cpu.seconds) {
        (Some((at, seconds, best)), Some(on_cpu_s)) => {
            let is_measured = best.origin != Origin::Class && on_cpu.origin != Origin::Class;
            let share = if is_measured { SAVED_SHARE } else { CLASS_SHARE };
            match seconds < share * on_cpu_s {
                true => Choice { adapter: Some(at), taken: best, passed_over: Some(on_cpu), only_on_cpu: None },
                false => Choice { adapter: None, taken: on_cpu, passed_over: Some(best), only_on_cpu: None },
            }
        }
        (best, _) => {
            let passed_over = best.map(|(_, _, best)| best);
            Choice { adapter: None, taken: on_cpu, passed_over, only_on_cpu: None }
        }
    }
}

/// Seconds of a job of which nobody asks where it was done.
const SHORT_S: f64 = 1.0;

/// What helps where nothing was measured.
const MEASURE: &str = "`tvb bench --save` measures";

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device: {}", self.taken.name)?;
        if let Some(why) = self.only_on_cpu {
            return write!(f, ": {why}");
        }
        let Some(seconds) = self.taken.seconds else { return f.write_str(": nothing is known of this job") };
        write!(f, ": {} expected", shown(seconds))?;
        let Some(other) = &self.passed_over else {
            return Ok(());
        };
        write!(f, ", {} on {}", other.seconds.map_or("unknown".to_owned(), shown), other.name)?;
        match (&self.taken.origin, &other.origin) {
            (Origin::Class, Origin::Class) => write!(f, " ({}; {MEASURE})", Origin::Class),
            (ours, others) if ours == others => write!(f, " ({ours})"),
            (ours, others) => write!(f, " ({ours}, the other {others}; {MEASURE})"),
        }
    }
}

impl Choice {
    /// Whether there is little to tell anybody: a short job on the CPU engine by the class table alone.
    pub fn is_of_little_work(&self) -> bool {
        let by_class = |other: &Estimate| other.origin == Origin::Class;
        let is_short = self.taken.seconds.is_none_or(|seconds| seconds < SHORT_S);
        self.only_on_cpu.is_none()
            && self.adapter.is_none()
            && is_short
            && self.passed_over.as_ref().is_none_or(by_class)
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let estimate = |of: &Estimate| json!({ "device": of.name, "expected_seconds": of.seconds, "rates": of.origin.to_string() });
        json!({
            "taken": estimate(&self.taken),
            "passed_over": self.passed_over.as_ref().map(estimate),
            "why": self.only_on_cpu,
        })
    }
}
