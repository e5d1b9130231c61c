//! The GPU that tests run on: llvmpipe, the software adapter, by name, or what `TVB_TEST_DEVICE` names, among the adapters of
//! `TVB_TEST_BACKEND` where that is set.
//!
//! One test at a time on a device. Where there is none the tests that need it say so and
//! pass, unless `TVB_REQUIRE_GPU=1`, under which they fail.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tvb_kernels::{Backend, DeviceChoice, DeviceSetup, Engine, GpuEngine, open_as};

/// The shared device, held until the guard is dropped; `None` where there is no adapter.
pub(crate) fn gpu() -> Option<(GpuEngine, MutexGuard<'static, ()>)> {
    static DEVICE: OnceLock<Option<GpuEngine>> = OnceLock::new();
    let engine = DEVICE.get_or_init(|| device(DeviceSetup::default()));
    engine.clone().map(|engine| (engine, turn()))
}

/// One test at a time on a device in this process.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed while it held the turn is reported by itself.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A device of its own with this setup, its results poisoned; `None` where there is no adapter.
pub(crate) fn device(setup: DeviceSetup) -> Option<GpuEngine> {
    let named = std::env::var("TVB_TEST_DEVICE").ok();
    let (name, backend) = match &named {
        Some(name) => {
            let backend = std::env::var("TVB_TEST_BACKEND").ok();
            let known = |name: String| Backend::from_name(&name).unwrap_or_else(|| panic!("TVB_TEST_BACKEND={name}"));
            (name.as_str(), backend.map(known))
        }
        None => ("llvmpipe", Some(Backend::Vulkan)),
    };
    match open_as(&DeviceChoice::Name(name.to_owned()), backend, setup).map(|opened| opened.engine) {
        Ok(Engine::Gpu(engine)) => {
            engine.poison_results(true);
            Some(engine)
        }
        other => {
            let required = std::env::var("TVB_REQUIRE_GPU").is_ok_and(|value| value == "1");
            assert!(!required, "TVB_REQUIRE_GPU=1, but {other:?}");
            eprintln!("skipped on the GPU: no {name} (install mesa-vulkan-drivers for a software adapter)");
            None
        }
    }
}
