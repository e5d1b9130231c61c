//! Compiles shader variants as engines do, one after another, and runs none: `cargo xtask isa` runs this on Mesa's RADV without a
//! card, which then prints what became of each on stderr, behind the line with its name.
//!
//! ```text
//! RADV_FORCE_FAMILY=navi21 RADV_DEBUG=shaderstats,nocache cargo run -p tvb-kernels --example isa -- gram-FORMAT0
//! ```
//!
//! Through wgpu's lower layer: wgpu itself puts a buffer on each device that it opens, and a driver without a card has no memory
//! for one.

/// Compiles the variants whose names begin with one of `wanted`; all where none is given.
#[cfg(target_os = "linux")]
fn compile(wanted: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    use wgpu::hal::{self, Adapter as _, Device as _, api::Vulkan};
    use wgpu::naga::{front, valid};

    let backends = wgpu::Backends::VULKAN;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = pollster::block_on(instance.enumerate_adapters(backends));
    let adapter = adapters.first().ok_or("no Vulkan adapter")?;
    eprintln!("adapter {}, {}", adapter.get_info().name, adapter.get_info().driver_info);
    let (limits, hints) = (adapter.limits(), wgpu::MemoryHints::MemoryUsage);
    // SAFETY: the handle is used while `adapter` lives, and nothing of it is destroyed by hand.
    let opened = unsafe {
        let adapter = adapter.as_hal::<Vulkan>().ok_or("not a Vulkan adapter")?;
        adapter.open(wgpu::Features::empty(), &limits, &hints)?
    };
    // Left to the end of the process, with all that is made of it.
    let device = std::mem::ManuallyDrop::new(opened.device);
    let binding = |binding, ty, has_dynamic_offset| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
        count: None,
    };
    let storage = |at, read_only| binding(at, wgpu::BufferBindingType::Storage { read_only }, false);
    let entries = [
        binding(0, wgpu::BufferBindingType::Uniform, true),
        storage(1, true),
        storage(2, true),
        storage(3, true),
        storage(4, true),
        storage(5, false),
        storage(6, true),
    ];
    // SAFETY: what is passed was made by this device, is what the shaders declare, and is not used again; it is left to the
    // end of the process.
    let layout = unsafe {
        let flags = hal::BindGroupLayoutFlags::empty();
        let group = device.create_bind_group_layout(&hal::BindGroupLayoutDescriptor {
            label: None,
            flags,
            entries: &entries,
        })?;
        device.create_pipeline_layout(&hal::PipelineLayoutDescriptor {
            label: None,
            flags: hal::PipelineLayoutFlags::empty(),
            bind_group_layouts: &[Some(&group)],
            immediate_size: 0,
        })?
    };
    for variant in tvb_kernels::shader_variants()? {
        if !wanted.is_empty() && !wanted.iter().any(|part| variant.name.starts_with(part.as_str())) {
            continue;
        }
        let module = front::wgsl::parse_str(&variant.source)?;
        let info =
            valid::Validator::new(valid::ValidationFlags::all(), valid::Capabilities::empty()).validate(&module)?;
        let shader = hal::NagaShader { module: std::borrow::Cow::Owned(module), info, debug_source: None };
        let mut checks = wgpu::ShaderRuntimeChecks::checked();
        checks.force_loop_bounding = false;
        checks.bounds_checks = variant.bounds_checked;
        eprintln!("variant {}", variant.name);
        // SAFETY: as above; nothing is run.
        unsafe {
            let descriptor = hal::ShaderModuleDescriptor { label: None, runtime_checks: checks };
            let module = device.create_shader_module(&descriptor, hal::ShaderInput::Naga(shader))?;
            let made = device.create_compute_pipeline(&hal::ComputePipelineDescriptor {
                label: None,
                layout: &layout,
                stage: hal::ProgrammableStage {
                    module: &module,
                    entry_point: variant.entry_point,
                    constants: &Default::default(),
                    zero_initialize_workgroup_memory: false,
                },
                cache: None,
            });
            made.map_err(|error| format!("{}: {error}", variant.name))?;
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn compile(_: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    Err("RADV is a driver of Linux".into())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    compile(&std::env::args().skip(1).collect::<Vec<_>>())
}
