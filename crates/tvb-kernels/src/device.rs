//! Listing the adapters and choosing one.

use crate::error::KernelError;
use std::fmt;

/// The graphics interface an adapter is reached through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Vulkan: Linux, Windows, Android.
    Vulkan,
    /// Metal: Apple's systems.
    Metal,
    /// DirectX 12: Windows.
    Dx12,
    /// OpenGL, where there is nothing else. Used only when asked for.
    Gl,
}

impl Backend {
    /// From its name on the command line: `vulkan`, `metal`, `dx12` or `gl`.
    pub fn from_name(name: &str) -> Option<Self> {
        [Backend::Vulkan, Backend::Metal, Backend::Dx12, Backend::Gl]
            .into_iter()
            .find(|backend| backend.name().eq_ignore_ascii_case(name))
    }

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Vulkan => "vulkan",
            Backend::Metal => "metal",
            Backend::Dx12 => "dx12",
            Backend::Gl => "gl",
        }
    }

    fn of(backend: wgpu::Backend) -> Option<Self> {
        match backend {
            wgpu::Backend::Vulkan => Some(Backend::Vulkan),
            wgpu::Backend::Metal => Some(Backend::Metal),
            wgpu::Backend::Dx12 => Some(Backend::Dx12),
            wgpu::Backend::Gl => Some(Backend::Gl),
            _ => None,
        }
    }

    fn set(backend: Option<Self>) -> wgpu::Backends {
        match backend {
            // GL would list the same hardware once more, with fewer features: only when it is asked for.
            None => wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12,
            Some(Backend::Vulkan) => wgpu::Backends::VULKAN,
            Some(Backend::Metal) => wgpu::Backends::METAL,
            Some(Backend::Dx12) => wgpu::Backends::DX12,
            Some(Backend::Gl) => wgpu::Backends::GL,
        }
    }
}

/// What an adapter is, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A card with memory of its own.
    Discrete,
    /// A GPU that shares the CPU's memory.
    Integrated,
    /// A GPU lent to a virtual machine.
    Virtual,
    /// The driver does not say.
    Other,
    /// No GPU: shaders run on the CPU. Used only when named.
    Software,
}

impl AdapterKind {
    /// One word for a list of devices.
    pub const fn name(self) -> &'static str {
        match self {
            AdapterKind::Discrete => "discrete",
            AdapterKind::Integrated => "integrated",
            AdapterKind::Virtual => "virtual",
            AdapterKind::Other => "other",
            AdapterKind::Software => "software",
        }
    }
}

/// What there is to know about an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterFacts {
    /// Place in the list, from 0: what `--device INDEX` means.
    pub index: usize,
    /// Name, as the driver gives it.
    pub name: String,
    /// Vendor's name where its PCI number is known, else that number.
    pub vendor: String,
    /// How it is reached.
    pub backend: Backend,
    /// What it is.
    pub kind: AdapterKind,
    /// Driver's name and version.
    pub driver: String,
    /// The maker's number for the model.
    pub device_id: u32,
    /// Its place on the PCI bus, such as `0000:41:00.0`; empty where the driver does not say.
    pub bus: String,
    /// Which it is of several that have the same name, kind and driver.
    pub twin: Option<Twin>,
    /// The largest heap of memory on the device's side, in bytes (the host's, where that is shared); `None` where the driver's
    /// interface does not say, which is all but Vulkan.
    pub memory_bytes: Option<u64>,
    /// The largest buffer, in bytes.
    pub max_buffer_bytes: u64,
    /// The largest part of a buffer that a shader sees at once, in bytes.
    pub max_binding_bytes: u64,
    /// Workgroups of one dimension of a dispatch.
    pub max_workgroups: u32,
    /// Storage buffers a shader can see.
    pub max_storage_buffers: u32,
    /// Memory of a workgroup, in bytes.
    pub max_workgroup_bytes: u32,
    /// Whether a buffer can be mapped and bound as storage at once (worth it where memory is shared).
    pub mappable_storage: bool,
}

/// One of several adapters that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Twin {
    /// From 1, in the order of the list.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

impl AdapterFacts {
    /// Whether two adapters, of one machine at any time, are of one model and driver: one of them, or twins.
    fn is_like(&self, other: &AdapterFacts) -> bool {
        let model = |facts: &AdapterFacts| (facts.backend, facts.kind, facts.device_id);
        (&self.name, &self.driver, model(self)) == (&other.name, &other.driver, model(other))
    }

    /// Whether these are of one adapter, looked for at two times. Where the bus is not known, twins are told apart by their order.
    pub(crate) fn is_same(&self, other: &AdapterFacts) -> bool {
        let places_known = !self.bus.is_empty() && !other.bus.is_empty();
        self.is_like(other) && if places_known { self.bus == other.bus } else { self.twin == other.twin }
    }

    /// Takes over what a device is limited to.
    pub(crate) fn set_limits(&mut self, limits: &wgpu::Limits) {
        self.max_buffer_bytes = limits.max_buffer_size;
        self.max_binding_bytes = limits.max_storage_buffer_binding_size;
        self.max_workgroups = limits.max_compute_workgroups_per_dimension;
        self.max_storage_buffers = limits.max_storage_buffers_per_shader_stage;
        self.max_workgroup_bytes = limits.max_compute_workgroup_storage_size;
    }
}

impl fmt::Display for AdapterFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {}", self.name, self.backend.name(), self.kind.name())?;
        if let Some(Twin { number, of }) = self.twin {
            write!(f, ", {number} of {of} alike")?;
            if !self.bus.is_empty() {
                write!(f, ", at {}", self.bus)?;
            }
        }
        f.write_str(")")
    }
}

/// Which device to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// What does the job soonest. The kernels know no jobs: here it is the CPU engine, and who knows the job names an adapter.
    #[default]
    Auto,
    /// The CPU engine.
    Cpu,
    /// The best hardware adapter, else an error.
    Gpu,
    /// An adapter by its place in the list, software or not.
    Index(usize),
    /// The first adapter whose name, vendor, driver or place on the bus contains this, whatever the case; hardware before software.
    Name(String),
}

impl DeviceChoice {
    /// From the command line: `auto`, `cpu`, `gpu`, a number, or part of a name.
    pub fn from_name(name: &str) -> Self {
        match (name.to_ascii_lowercase().as_str(), name.parse()) {
            ("auto" | "", _) => DeviceChoice::Auto,
            ("cpu", _) => DeviceChoice::Cpu,
            ("gpu", _) => DeviceChoice::Gpu,
            (_, Ok(index)) => DeviceChoice::Index(index),
            _ => DeviceChoice::Name(name.to_owned()),
        }
    }
}

/// Every adapter, in the order that [`DeviceChoice::Index`] counts in. GL is listed only when it is asked for.
pub fn list_adapters(backend: Option<Backend>) -> Vec<AdapterFacts> {
    adapters(backend).into_iter().map(|(_, facts)| facts).collect()
}

/// Which of `adapters` a choice means; `None` is the CPU engine.
///
/// # Errors
/// [`KernelError::NoAdapter`] or [`KernelError::OnlySoftware`].
pub fn choose(choice: &DeviceChoice, adapters: &[AdapterFacts]) -> Result<Option<usize>, KernelError> {
    let none = |wanted: String| KernelError::NoAdapter {
        wanted,
        found: adapters.iter().map(|adapter| format!("{} {adapter}", adapter.index)).collect(),
    };
    // The first of the best kind: drivers list the card that is plugged into first.
    let best = adapters.iter().enumerate().min_by_key(|(at, adapter)| (adapter.kind, *at));
    let hardware = best.filter(|(_, adapter)| adapter.kind != AdapterKind::Software).map(|(at, _)| at);
    match choice {
        DeviceChoice::Cpu | DeviceChoice::Auto => Ok(None),
        DeviceChoice::Gpu => match (hardware, best) {
            (Some(at), _) => Ok(Some(at)),
            (None, Some((_, software))) => Err(KernelError::OnlySoftware { name: software.name.clone() }),
            (None, None) => Err(none("gpu".to_owned())),
        },
        DeviceChoice::Index(index) => match adapters.iter().position(|adapter| adapter.index == *index) {
            Some(at) => Ok(Some(at)),
            None => Err(none(index.to_string())),
        },
        DeviceChoice::Name(part) => {
            let part_lower = part.to_lowercase();
            let named = |adapter: &AdapterFacts| {
                [&adapter.name, &adapter.vendor, &adapter.driver, &adapter.bus]
                    .iter()
                    .any(|text| text.to_lowercase().contains(&part_lower))
            };
            let found = adapters.iter().enumerate().filter(|(_, adapter)| named(adapter));
            match found.min_by_key(|(at, adapter)| (adapter.kind, *at)) {
                Some((at, _)) => Ok(Some(at)),
                None => Err(none(part.clone())),
            }
        }
    }
}

/// The adapters with their handles.
pub(crate) fn adapters(backend: Option<Backend>) -> Vec<(wgpu::Adapter, AdapterFacts)> {
    let backends = Backend::set(backend) & wgpu::Instance::enabled_backend_features();
    if backends.is_empty() {
        return Vec::new();
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let found = pollster::block_on(instance.enumerate_adapters(backends));
    let usable = found.into_iter().filter_map(|adapter| {
        let backend = Backend::of(adapter.get_info().backend)?;
        let compute = wgpu::DownlevelFlags::COMPUTE_SHADERS;
        adapter.get_downlevel_capabilities().flags.contains(compute).then_some((adapter, backend))
    });
    let mut all: Vec<(wgpu::Adapter, AdapterFacts)> =
        usable.enumerate().map(|(index, (adapter, backend))| facts(index, adapter, backend)).collect();
    number_twins(&mut all.iter_mut().map(|(_, facts)| facts).collect::<Vec<_>>());
    all
}

/// Numbers those that are alike.
fn number_twins(all: &mut [&mut AdapterFacts]) {
    for at in 0..all.len() {
        let like = |other: &&mut AdapterFacts| other.is_like(all[at]);
        let (of, number) =
            (all.iter().filter(|other| like(other)).count(), all[..=at].iter().filter(|other| like(other)).count());
        all[at].twin = (of > 1).then_some(Twin { number, of });
    }
}

/// The largest heap of memory on the device's side, as Vulkan tells it. wgpu itself has no word for it.
#[cfg(not(any(target_vendor = "apple", target_arch = "wasm32")))]
fn memory_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    /// VK_MEMORY_HEAP_DEVICE_LOCAL_BIT
    const ON_DEVICE: u32 = 1;
    // SAFETY: nothing is made or destroyed through the handles below, which are wgpu's and are dropped before the adapter is.
    let heaps = unsafe {
        let adapter = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let instance = adapter.shared_instance().raw_instance();
        instance.get_physical_device_memory_properties(adapter.raw_physical_device())
    };
    let n_heaps = heaps.memory_heap_count as usize;
    let on_device = heaps.memory_heaps.iter().take(n_heaps).filter(|heap| heap.flags.as_raw() & ON_DEVICE != 0);
    on_device.map(|heap| heap.size).max()
}

/// There is no Vulkan.
#[cfg(any(target_vendor = "apple", target_arch = "wasm32"))]
fn memory_bytes(_: &wgpu::Adapter) -> Option<u64> {
    None
}

fn facts(index: usize, adapter: wgpu::Adapter, backend: Backend) -> (wgpu::Adapter, AdapterFacts) {
    let info = adapter.get_info();
    let mut facts = AdapterFacts {
        index,
        vendor: vendor_name(info.vendor),
        backend,
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
            wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
            wgpu::DeviceType::Cpu => AdapterKind::Software,
            wgpu::DeviceType::Other => AdapterKind::Other,
        },
        driver: [info.driver, info.driver_info].join(" ").trim().to_owned(),
        device_id: info.device,
        bus: info.device_pci_bus_id,
        twin: None,
        memory_bytes: memory_bytes(&adapter),
        name: info.name,
        max_buffer_bytes: 0,
        max_binding_bytes: 0,
        max_workgroups: 0,
        max_storage_buffers: 0,
        max_workgroup_bytes: 0,
        mappable_storage: adapter.features().contains(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS),
    };
    facts.set_limits(&adapter.limits());
    (adapter, facts)
}

fn vendor_name(pci_id: u32) -> String {
    let name = match pci_id {
        0x1002 | 0x1022 => "AMD",
        0x106b => "Apple",
        0x10de => "NVIDIA",
        0x13b5 => "Arm",
        0x1414 => "Microsoft",
        0x5143 => "Qualcomm",
        0x8086 => "Intel",
        0x10005 => "Mesa",
        _ => return format!("vendor {pci_id:#06x}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(index: usize, name: &str, kind: AdapterKind) -> AdapterFacts {
        AdapterFacts {
            index,
            name: name.to_owned(),
            vendor: "Mesa".to_owned(),
            backend: Backend::Vulkan,
            kind,
            driver: "driver 1.0".to_owned(),
            device_id: 7,
            bus: String::new(),
            twin: None,
            memory_bytes: None,
            max_buffer_bytes: 1 << 28,
            max_binding_bytes: 1 << 27,
            max_workgroups: 65_535,
            max_storage_buffers: 8,
            max_workgroup_bytes: 16_384,
            mappable_storage: false,
        }
    }

    #[test]
    fn twins_are_told_apart() {
        use AdapterKind::{Discrete, Software};
        let card = |index, bus: &str| AdapterFacts { bus: bus.to_owned(), ..adapter(index, "RTX A", Discrete) };
        let mut all = [
            card(0, "0000:01:00.0"),
            adapter(1, "llvmpipe", Software),
            card(2, "0000:41:00.0"),
            AdapterFacts { device_id: 8, ..card(3, "0000:42:00.0") },
        ];
        number_twins(&mut all.iter_mut().collect::<Vec<_>>());
        let shown = all.each_ref().map(ToString::to_string);
        let expected = [
            "RTX A (vulkan, discrete, 1 of 2 alike, at 0000:01:00.0)",
            "llvmpipe (vulkan, software)",
            "RTX A (vulkan, discrete, 2 of 2 alike, at 0000:41:00.0)",
            "RTX A (vulkan, discrete)",
        ];
        assert_eq!(shown, expected);
        // By name the first of them, by its place any.
        for (name, at) in [("rtx", 0), ("41:00", 2), ("42:00.0", 3), ("0000:01", 0)] {
            assert_eq!(choose(&DeviceChoice::from_name(name), &all), Ok(Some(at)), "{name}");
        }
        // Looked for again, wherever it is in the list by then; without a bus, by the order.
        let same = |facts: &AdapterFacts| all.iter().position(|other| other.is_same(facts));
        assert_eq!(same(&AdapterFacts { index: 9, twin: None, ..all[2].clone() }), Some(2));
        assert_eq!(same(&AdapterFacts { bus: String::new(), ..all[2].clone() }), Some(2));
        assert_eq!(same(&AdapterFacts { driver: "driver 1.1".to_owned(), ..all[1].clone() }), None);
    }

    #[test]
    fn choices_mean_the_adapter_they_should() {
        use AdapterKind::{Discrete, Integrated, Software};
        let all = [
            adapter(0, "llvmpipe (LLVM 15)", Software),
            adapter(1, "Iris Xe", Integrated),
            adapter(2, "RTX A", Discrete),
            adapter(3, "RTX B", Discrete),
        ];
        let cases: [(&str, &[AdapterFacts], Result<Option<usize>, &str>); 12] = [
            ("auto", &all, Ok(None)),
            ("auto", &[], Ok(None)),
            ("CPU", &all, Ok(None)),
            ("gpu", &all, Ok(Some(2))),
            ("gpu", &all[..2], Ok(Some(1))),
            ("gpu", &all[..1], Err("only a software one: llvmpipe")),
            ("gpu", &[], Err("no adapter found for device \"gpu\"")),
            ("3", &all, Ok(Some(3))),
            ("4", &all, Err("no adapter found for device \"4\"")),
            ("LLVM", &all, Ok(Some(0))),
            ("mesa", &all, Ok(Some(2))),
            ("radeon", &all, Err("no adapter found for device \"radeon\"")),
        ];
        for (name, adapters, expected) in cases {
            match (choose(&DeviceChoice::from_name(name), adapters), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{name}"),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{name}: {error}");
                    assert!(error.hint().is_some(), "{name}: no hint");
                }
                (found, expected) => panic!("{name}: {found:?}, expected {expected:?}"),
            }
        }
    }
}
