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

impl AdapterFacts {
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
        write!(f, "{} ({}, {})", self.name, self.backend.name(), self.kind.name())
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
    /// The first adapter whose name, vendor or driver contains this, whatever the case; hardware before software.
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
                [&adapter.name, &adapter.vendor, &adapter.driver]
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
    usable.enumerate().map(|(index, (adapter, backend))| facts(index, adapter, backend)).collect()
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
            max_buffer_bytes: 1 << 28,
            max_binding_bytes: 1 << 27,
            max_workgroups: 65_535,
            max_storage_buffers: 8,
            max_workgroup_bytes: 16_384,
            mappable_storage: false,
        }
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
