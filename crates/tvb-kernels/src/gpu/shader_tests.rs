//! What the shaders must keep to in every variant: structs and constants as Rust has them, validity, the least limits.

use super::shader::Kernel;
use crate::params::*;

/// Every variant an engine can ask for, with its source.
fn every_variant() -> Vec<(Kernel, String)> {
    let source = |kernel: Kernel| kernel.source().unwrap_or_else(|error| panic!("{kernel:?}: {error}"));
    Kernel::all().into_iter().map(|kernel| (kernel, source(kernel))).collect()
}

/// Every struct of params.rs.
fn ours() -> Vec<(&'static str, usize, Vec<(&'static str, usize)>)> {
    macro_rules! described {
        ($($name:ident),*) => { vec![$((stringify!($name), size_of::<$name>(), $name::fields())),*] };
    }
    described!(Slice, Run, Fold, GramParams, FoldParams, CombineParams, CodeParams, DecodeParams, EighParams)
}

#[test]
fn structs_match_the_shaders() {
    let mut seen = std::collections::BTreeSet::new();
    for (kernel, source) in every_variant() {
        let module = naga::front::wgsl::parse_str(&source).expect("a shader that parses");
        for (_, ty) in module.types.iter() {
            let (Some(name), naga::TypeInner::Struct { members, span }) = (&ty.name, &ty.inner) else { continue };
            let Some((name, size, fields)) = ours().into_iter().find(|(ours, ..)| ours == name) else { continue };
            let theirs: Vec<(&str, usize)> =
                members.iter().map(|m| (m.name.as_deref().unwrap_or(""), m.offset as usize)).collect();
            assert_eq!(theirs, fields, "{kernel:?}: {name}");
            assert_eq!(*span as usize, size, "{kernel:?}: size of {name}");
            seen.insert(name);
        }
        let constants = [("F32", F32), ("F16", F16), ("BF16", BF16), ("MIXED", MIXED)];
        for (_, constant) in module.constants.iter() {
            let Some((name, ours)) = constants.iter().find(|(name, _)| constant.name.as_deref() == Some(name)) else {
                continue;
            };
            let theirs = &module.global_expressions[constant.init];
            assert!(
                matches!(theirs, naga::Expression::Literal(naga::Literal::U32(value)) if value == ours),
                "{kernel:?}: {name}"
            );
            seen.insert(name);
        }
    }
    assert_eq!(seen.len(), ours().len() + 4, "a struct or constant that no shader uses: {seen:?}");
}

#[test]
fn shaders_are_valid_and_within_the_least_limits() {
    for (kernel, source) in every_variant() {
        let module = naga::front::wgsl::parse_str(&source)
            .unwrap_or_else(|error| panic!("{kernel:?}: {}", error.emit_to_string(&source)));
        let flags = naga::valid::ValidationFlags::all();
        let capabilities = naga::valid::Capabilities::empty();
        naga::valid::Validator::new(flags, capabilities)
            .validate(&module)
            .unwrap_or_else(|error| panic!("{kernel:?}: {}", error.emit_to_string(&source)));
        let entry = module.entry_points.iter().find(|entry| entry.name == kernel.entry_point());
        let entry = entry.unwrap_or_else(|| panic!("{kernel:?}: no entry point of its name"));
        let size: u32 = entry.workgroup_size.iter().product();
        assert_eq!(size, crate::limits::THREADS, "{kernel:?}: workgroup size");
        let layouts = {
            let mut layouter = naga::proc::Layouter::default();
            layouter.update(module.to_ctx()).expect("sized types");
            layouter
        };
        let workgroup_bytes: u32 = module
            .global_variables
            .iter()
            .filter(|(_, variable)| variable.space == naga::AddressSpace::WorkGroup)
            .map(|(_, variable)| layouts[variable.ty].size)
            .sum();
        assert!(workgroup_bytes <= 16384, "{kernel:?}: {workgroup_bytes} bytes of workgroup memory");
        let n_storage = module
            .global_variables
            .iter()
            .filter(|(_, variable)| matches!(variable.space, naga::AddressSpace::Storage { .. }))
            .count();
        assert!(n_storage <= 8, "{kernel:?}: {n_storage} storage buffers");
    }
    assert!(every_variant().iter().any(|(kernel, _)| matches!(kernel, Kernel::Eigh { .. })));
}
