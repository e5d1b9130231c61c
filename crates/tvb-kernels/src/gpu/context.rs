//! The device: opened once, its errors caught and kept, its pipelines made once each.

use super::shader::Kernel;
use super::variant::Shape;
use crate::device::{AdapterFacts, AdapterKind};
use crate::error::KernelError;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest that a device may take for one submit, which is made to take some 100 ms on a slow one: hardware, and what runs
/// shaders on the processor.
const PATIENCE: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(600)];

/// The first error the device reported, kept until somebody asks. Errors come on whichever thread wgpu is on.
#[derive(Clone, Default)]
struct Fault(Arc<Mutex<Option<KernelError>>>);

impl Fault {
    fn lock(&self) -> MutexGuard<'_, Option<KernelError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, error: KernelError) {
        // A lost device is the cause of whatever else is reported.
        let mut first = self.lock();
        if first.is_none() || matches!(error, KernelError::DeviceLost { .. }) {
            *first = Some(error);
        }
    }
}

/// A device with what every kernel needs.
pub(crate) struct Context {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) facts: AdapterFacts,
    /// Whether staging buffers are bound as storage themselves, instead of being copied from.
    pub(crate) direct: bool,
    /// Whether the device's memory is its own, and not the host's.
    pub(crate) own_memory: bool,
    /// How kernels are cut among this device's threads.
    pub(crate) shape: Shape,
    pub(crate) bind_group_layout: wgpu::BindGroupLayout,
    pipeline_layout: wgpu::PipelineLayout,
    pipelines: Mutex<HashMap<Kernel, wgpu::ComputePipeline>>,
    stamp: AtomicU32,
    poison: AtomicBool,
    patience: Duration,
    hangs: AtomicBool,
    injection: Mutex<Option<Injection>>,
    passed: Mutex<HashSet<Kernel>>,
    /// A piece of the shaders and what a test puts in its place.
    miscompiled: Mutex<Option<(String, String)>>,
    fault: Fault,
}

/// A fault to come, for tests.
struct Injection {
    /// Submits until then.
    n_left: u32,
    fault: InjectedFault,
}

/// What a test lets happen to a device in the middle of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedFault {
    /// The driver reports that the device is gone, with whatever is in flight on it.
    Lost,
    /// The device does not come to the end of what it does.
    Hang,
    /// The driver reports that the device's memory is full.
    OutOfMemory,
}

/// How a device is set up, where that is not left to what the adapter can do: for tests of the paths that other adapters
/// take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceSetup {
    /// Staging buffers are copied from, never bound, as on a card with memory of its own.
    pub copies: bool,
    /// The device has the least limits that an adapter may have (bindings of 128 MiB, eight storage buffers, 65,535
    /// workgroups), and wgpu refuses whatever goes beyond them.
    pub least_limits: bool,
    /// Threads sum 4 × 4 products, as on a GPU with few registers.
    pub small_blocks: bool,
}

/// A driver's message on one line.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Context {
    /// Opens an adapter.
    pub(crate) fn open(
        adapter: &wgpu::Adapter,
        mut facts: AdapterFacts,
        setup: DeviceSetup,
    ) -> Result<Self, KernelError> {
        let limits = if setup.least_limits { wgpu::Limits::default() } else { adapter.limits() };
        facts.set_limits(&limits);
        // Where memory is shared, the copy from a staging buffer to one of the device's moves nothing anywhere.
        let shared = matches!(facts.kind, AdapterKind::Integrated | AdapterKind::Software);
        let direct = shared && facts.mappable_storage && !setup.copies;
        let shape = if setup.small_blocks { Shape::SMALL } else { Shape::of(&facts) };
        let features = if direct { wgpu::Features::MAPPABLE_PRIMARY_BUFFERS } else { wgpu::Features::empty() };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("tvb"),
            required_features: features,
            required_limits: limits,
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).map_err(|error| {
            KernelError::Device { what: "opening the device", message: one_line(&error.to_string()) }
        })?;
        let fault = Fault::default();
        let handler = fault.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let message = one_line(&error.to_string());
            handler.record(match error {
                wgpu::Error::OutOfMemory { .. } => KernelError::DeviceMemory { message },
                _ => KernelError::Device { what: "the device reported an error", message },
            });
        }));
        let handler = fault.clone();
        device.set_device_lost_callback(move |reason, message| {
            // Dropping the device at the end is no fault.
            if reason != wgpu::DeviceLostReason::Destroyed {
                handler.record(KernelError::DeviceLost { message: one_line(&message) });
            }
        });
        let patience = match facts.kind {
            AdapterKind::Discrete | AdapterKind::Integrated | AdapterKind::Virtual => PATIENCE[0],
            AdapterKind::Other | AdapterKind::Software => PATIENCE[1],
        };
        let bind_group_layout = bind_group_layout(&device);
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some("tvb"),
            bind_group_layouts: &[Some(&bind_group_layout)],
            immediate_size: 0,
        });
        let context = Self {
            device,
            queue,
            facts,
            direct,
            own_memory: !shared || setup.copies,
            shape,
            bind_group_layout,
            pipeline_layout,
            pipelines: Mutex::default(),
            stamp: AtomicU32::new(0),
            poison: AtomicBool::new(false),
            patience,
            hangs: AtomicBool::new(false),
            injection: Mutex::default(),
            passed: Mutex::default(),
            miscompiled: Mutex::default(),
            fault,
        };
        context.check()?;
        Ok(context)
    }

    /// The first error the device reported, if it did. It stays: a device that failed is not to be trusted again.
    pub(crate) fn check(&self) -> Result<(), KernelError> {
        match &*self.fault.lock() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// A number that no earlier submit of this device has left in a buffer; small enough to be exact as a float.
    pub(crate) fn next_stamp(&self) -> u32 {
        (self.stamp.fetch_add(1, Ordering::Relaxed) & 0x3f_ffff) + 1
    }

    /// Whether results are filled with NaNs first.
    pub(crate) fn poisoned(&self) -> bool {
        self.poison.load(Ordering::Relaxed)
    }

    /// Fills results with NaNs first, or no longer.
    pub(crate) fn set_poisoned(&self, poison: bool) {
        self.poison.store(poison, Ordering::Relaxed);
    }

    /// Whether this kernel has been tested on this device.
    pub(crate) fn has_passed(&self, kernel: Kernel) -> bool {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).contains(&kernel)
    }

    /// This kernel has been tested and is right.
    pub(crate) fn set_passed(&self, kernel: Kernel) {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).insert(kernel);
    }

    /// Compiles `by` in place of `piece` wherever a shader has it, from now on (nothing of no piece); nothing is compiled or tested yet
    /// then.
    pub(crate) fn miscompile(&self, piece: &str, by: &str) {
        *self.miscompiled.lock().unwrap_or_else(PoisonError::into_inner) =
            (!piece.is_empty()).then(|| (piece.to_owned(), by.to_owned()));
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What a kernel is compiled from.
    fn source(&self, kernel: Kernel) -> Result<String, KernelError> {
        let source = kernel.source()?;
        let miscompiled = self.miscompiled.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(miscompiled.as_ref().map_or(source.clone(), |(piece, by)| source.replace(piece, by)))
    }

    /// Lets a fault happen after so many more submits of chunks.
    pub(crate) fn inject(&self, n_submits: u32, fault: InjectedFault) {
        let mut injection = self.injection.lock().unwrap_or_else(PoisonError::into_inner);
        *injection = Some(Injection { n_left: n_submits, fault });
    }

    /// Counts a submit towards the fault that a test has asked for, if one has.
    pub(crate) fn count_submit(&self) {
        let mut injection = self.injection.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Injection { n_left, fault }) = injection.as_mut() else { return };
        *n_left = n_left.saturating_sub(1);
        if *n_left > 0 {
            return;
        }
        match fault {
            InjectedFault::Lost => {
                self.fault.record(KernelError::DeviceLost { message: "as a test has asked for".to_owned() });
            }
            InjectedFault::Hang => self.hangs.store(true, Ordering::Relaxed),
            InjectedFault::OutOfMemory => {
                self.fault.record(KernelError::DeviceMemory { message: "as a test has asked for".to_owned() });
            }
        }
        *injection = None;
    }

    /// A buffer, or the error of making it.
    pub(crate) fn buffer(
        &self,
        label: &'static str,
        n_bytes: u64,
        usage: wgpu::BufferUsages,
        mapped: bool,
    ) -> Result<wgpu::Buffer, KernelError> {
        let most = self.facts.max_buffer_bytes;
        if n_bytes > most {
            return Err(KernelError::Limit { what: label, found: n_bytes, most });
        }
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: n_bytes.max(16).next_multiple_of(16),
            usage,
            mapped_at_creation: mapped,
        });
        self.check()?;
        Ok(buffer)
    }

    /// The pipeline of a kernel, compiled when it is first asked for.
    pub(crate) fn pipeline(&self, kernel: Kernel) -> Result<wgpu::ComputePipeline, KernelError> {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = pipelines.get(&kernel) {
            return Ok(pipeline.clone());
        }
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(kernel.entry_point()),
            source: wgpu::ShaderSource::Wgsl(Cow::Owned(self.source(kernel)?)),
        };
        let mut checks = wgpu::ShaderRuntimeChecks::checked();
        checks.force_loop_bounding = false;
        checks.bounds_checks = kernel.bounds_checked();
        // SAFETY: every loop of our shaders ends: each counts up, by a step that is at least 1, to a bound that is fixed
        // before it starts. Bounds are checked but where `bounds_checked` says why no index can be beyond them.
        let module = unsafe { self.device.create_shader_module_trusted(descriptor, checks) };
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.entry_point()),
            layout: Some(&self.pipeline_layout),
            module: &module,
            entry_point: Some(kernel.entry_point()),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Each kernel writes its workgroup's memory before it reads it.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        self.check()?;
        pipelines.insert(kernel, pipeline.clone());
        Ok(pipeline)
    }

    /// Waits for a submit to be done, which also runs the callbacks of its mappings; not for ever.
    ///
    /// A device that has failed is not polled again: wgpu frees the buffers of one that was lost when it is, and a reader may be
    /// at their mapped memory still.
    pub(crate) fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<(), KernelError> {
        self.check()?;
        let hangs = self.hangs.load(Ordering::Relaxed);
        let timeout = Some(if hangs { Duration::ZERO } else { self.patience });
        let polled = self.device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout });
        self.check()?;
        match polled {
            Ok(_) if !hangs => Ok(()),
            Ok(_) | Err(wgpu::PollError::Timeout) => {
                let error = KernelError::DeviceTimeout { seconds: self.patience.as_secs() };
                self.fault.record(error.clone());
                // wgpu waits for a queue before it drops it, and here that would be for ever.
                std::mem::forget((self.device.clone(), self.queue.clone()));
                Err(error)
            }
            Err(error) => {
                Err(KernelError::Device { what: "waiting for the device", message: one_line(&error.to_string()) })
            }
        }
    }
}

/// The bindings of every kernel; one that a kernel does not use gets a small buffer.
fn bind_group_layout(device: &wgpu::Device) -> wgpu::BindGroupLayout {
    let entry = |binding, ty, has_dynamic_offset| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
        count: None,
    };
    let read = wgpu::BufferBindingType::Storage { read_only: true };
    let write = wgpu::BufferBindingType::Storage { read_only: false };
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: Some("tvb"),
        entries: &[
            entry(0, wgpu::BufferBindingType::Uniform, true),
            entry(1, read, false),
            entry(2, read, false),
            entry(3, read, false),
            entry(4, read, false),
            entry(5, write, false),
            entry(6, read, false),
        ],
    })
}
