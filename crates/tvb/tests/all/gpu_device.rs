//! The device that passes on a GPU are tested on (llvmpipe, the software adapter, or what `TVB_TEST_DEVICE` names), their
//! inputs, and what such a pass says.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tvb::checkpoint::Checkpoint;
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::progress::Progress;
use tvb_kernels::{Backend, DeviceChoice, DeviceSetup, Engine, GpuEngine, open_as};
use tvb_tests::small_models::{Shape, Values, write_model};

/// The device with this setup, and the turn on it, which lasts until it is dropped; `None` where it is not there. One test at a
/// time: a driver of NVIDIA's was seen to crash when one of several devices of a process was lost.
pub(crate) fn test_gpu(setup: DeviceSetup) -> Option<(GpuEngine, MutexGuard<'static, ()>)> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed while it had the turn is reported by itself.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let named = std::env::var("TVB_TEST_DEVICE").ok();
    let (name, backend) = match &named {
        Some(name) => (name.as_str(), None),
        None => ("llvmpipe", Some(Backend::Vulkan)),
    };
    match open_as(&DeviceChoice::Name(name.to_owned()), backend, setup).map(|opened| opened.engine) {
        Ok(Engine::Gpu(engine)) => Some((engine, turn)),
        other => {
            let required = std::env::var("TVB_REQUIRE_GPU").is_ok_and(|value| value == "1");
            assert!(!required, "TVB_REQUIRE_GPU=1, but {other:?}");
            eprintln!("skipped: no {name} (install mesa-vulkan-drivers for a software adapter)");
            None
        }
    }
}

/// Writes these models into `folder` and plans over them.
pub(crate) fn write_plan(folder: &Path, shapes: &[Shape], base: &Values, tasks: &[Values]) -> Plan {
    let write = |name: &str, values| {
        Checkpoint::open(&write_model(folder, name, shapes, values, 1)).expect("a checkpoint that was just written")
    };
    let tasks = tasks.iter().enumerate().map(|(index, values)| {
        let name = format!("task{index}");
        Task { checkpoint: write(&name, values), name }
    });
    let tasks = tasks.collect();
    Plan::new(write("base", base), tasks, &Selection::default()).expect("a plan")
}

/// Keeps the notes of a run.
#[derive(Default)]
pub(crate) struct Notes(Mutex<Vec<String>>);

impl Progress for Notes {
    fn begin(&self, _stage: &'static str, _total_bytes: u64) {}
    fn advance(&self, _n_bytes: u64) {}
    fn finish(&self) {}

    fn note(&self, line: &str) {
        self.0.lock().expect("no panic").push(line.to_owned());
    }
}

impl Notes {
    /// The notes so far, which are forgotten.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }
}
