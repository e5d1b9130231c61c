//! The measurement of one device: each stage on the same made-up data, checked against f64 before it is timed.
//!
//! The yardstick is the device's own copy, memory to memory: bytes read and bytes written both count, as they do for
//! every other stage. *Resident* stages work on data in the device's memory (for the CPU: beyond its caches); `upload` is
//! the way from host memory to a device, `end-to-end` goes from files to files through [`compress`](tvb::jobs::compress),
//! and `end-to-end-coded` back again, by adding up all tasks from their codes.
//! Nothing that was found wrong gets a time. `passes` is apart: whole passes for `tvb bench --save`, by which `auto` chooses.

mod check;
mod check_codes;
mod codes;
mod data;
mod end_to_end;
mod moves;
pub(crate) mod passes;
mod resident;
pub(crate) mod stages;
mod threads;
pub(crate) mod timing;
mod values;

pub(crate) use stages::{Report, Row, Verdict, run};

use std::time::Duration;
use tvb_kernels::{AdapterKind, Dtype, Engine, GpuEngine};

/// What to measure, and how long.
#[derive(Clone, Debug)]
pub(crate) struct BenchOptions {
    /// Formats of the data.
    pub(crate) dtypes: Vec<Dtype>,
    /// Numbers of tasks T.
    pub(crate) task_counts: Vec<usize>,
    /// Less data and less time for each stage.
    pub(crate) quick: bool,
    /// Bytes of resident data of each stage; `None` chooses by the kind of device.
    pub(crate) size_bytes: Option<u64>,
}

impl Default for BenchOptions {
    fn default() -> Self {
        BenchOptions {
            dtypes: vec![Dtype::F32, Dtype::Bf16],
            task_counts: vec![8, 20, 64, 256],
            quick: false,
            size_bytes: None,
        }
    }
}

impl BenchOptions {
    fn budget(&self) -> timing::Budget {
        match self.quick {
            true => timing::Budget { time: Duration::from_millis(60), least_samples: 3 },
            false => timing::Budget { time: Duration::from_millis(1000), least_samples: 7 },
        }
    }

    /// Whole runs over files take their time: fewer samples.
    fn file_budget(&self) -> timing::Budget {
        match self.quick {
            true => timing::Budget { time: Duration::ZERO, least_samples: 1 },
            false => timing::Budget { time: Duration::from_millis(1000), least_samples: 3 },
        }
    }

    /// Whether the eigendecomposition of a matrix of this order is worth its time: an emulated device takes seconds for it.
    fn has_eigh(&self, engine: &Engine, n: usize) -> bool {
        let is_software = |engine: &GpuEngine| engine.facts().kind == AdapterKind::Software;
        !(self.quick && n > 64 && matches!(engine, Engine::Gpu(engine) if is_software(engine)))
    }

    /// Bytes of resident data: beyond any cache, unless the device is slow; within the memory cap, which also has to hold
    /// results and what is on its way, and within what the device binds at once.
    fn resident_bytes(&self, engine: &Engine, memory_bytes: u64) -> u64 {
        let (wanted, bound) = match engine {
            Engine::Cpu(_) if self.quick => (64 << 20, u64::MAX),
            Engine::Cpu(_) => (256 << 20, u64::MAX),
            Engine::Gpu(engine) => {
                let facts = engine.facts();
                let wanted = match (facts.kind, self.quick) {
                    (AdapterKind::Software, true) => 1 << 20,
                    (AdapterKind::Software, false) => 8 << 20,
                    _ => 256 << 20,
                };
                (wanted, facts.max_binding_bytes.min(facts.max_buffer_bytes))
            }
        };
        self.size_bytes.unwrap_or(wanted).min(memory_bytes / 3).min(bound)
    }
}
