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
    described!(
        Slice,
        Run,
        Fold,
        GramParams,
        FoldParams,
        CombineParams,
        MergeParams,
        CodeParams,
        DecodeParams,
        EighParams
    )
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

/// The constants of a module by their names, where they are whole numbers.
fn constants(module: &naga::Module) -> std::collections::HashMap<&str, u32> {
    let value = |constant: &naga::Constant| match module.global_expressions[constant.init] {
        naga::Expression::Literal(naga::Literal::U32(value)) => Some(value),
        _ => None,
    };
    module.constants.iter().filter_map(|(_, found)| Some((found.name.as_deref()?, value(found)?))).collect()
}

/// Every index into workgroup memory that a thread of gram.wgsl can form, in each variant: engines leave the checks of bounds out.
#[test]
fn gram_stays_within_its_workgroups_memory() {
    let mut n_seen = 0;
    for (kernel, source) in every_variant() {
        let Kernel::Gram { tile: cut, .. } = kernel else { continue };
        n_seen += 1;
        let module = naga::front::wgsl::parse_str(&source).expect("a shader that parses");
        let constants = constants(&module);
        let of = |name: &str| *constants.get(name).unwrap_or_else(|| panic!("{kernel:?}: no constant {name}"));
        let (tile, held, threads, blocks) = (of("TILE"), of("TILES_HELD"), of("THREADS"), of("BLOCKS"));
        let (stride, quads, memory) = (of("STRIDE"), of("QUADS"), of("MEMORY_VECTORS"));
        let (width, groups, loads, load_quads) = (of("WIDTH"), of("GROUPS"), of("LOADS"), of("LOAD_QUADS"));
        let array = |name: &str| {
            let found = module.global_variables.iter().find(|(_, found)| found.name.as_deref() == Some(name));
            match module.types[found.unwrap_or_else(|| panic!("{kernel:?}: no {name}")).1.ty].inner {
                naga::TypeInner::Array { size: naga::ArraySize::Constant(size), .. } => size.get(),
                _ => panic!("{kernel:?}: {name} is no array of a fixed size"),
            }
        };
        assert_eq!(array("memory"), memory, "{kernel:?}");

        // stage and put: each vector of each task is written, and nothing else.
        assert!(threads.is_multiple_of(width) && loads.is_multiple_of(width), "{kernel:?}: {width} loads together");
        assert!(of("STEPS") <= 8 && of("STEPS") * groups >= tile, "{kernel:?}: a thread fetches eight tasks at most");
        let mut written = vec![false; memory as usize];
        for held in 0..held {
            for thread in 0..threads {
                for at in (thread % width..loads).step_by(width as usize) {
                    for step in 0..of("STEPS") {
                        let task = thread / width + step * groups;
                        for quad in 0..load_quads {
                            if task < tile {
                                let to = held * of("TILE_VECTORS") + at * load_quads + task * stride + quad;
                                let first = !std::mem::replace(&mut written[to as usize], true);
                                assert!(first, "{kernel:?}: vector {to} is written twice");
                            }
                        }
                    }
                }
            }
        }
        // places: one for each task that is held.
        assert_eq!(array("places"), 1 + held * tile, "{kernel:?}");

        // Products: only what has been written is read.
        for diagonal in [true, false] {
            if !diagonal && held == 1 {
                continue;
            }
            let n_positions = if diagonal { blocks * (blocks + 1) / 2 } else { blocks * blocks };
            let n_lanes = (threads / n_positions).min(of("MOST_LANES"));
            assert!(n_lanes >= 1 && n_lanes >= cut.lanes(), "{kernel:?}: {n_positions} blocks");
            for block in 0..blocks {
                for entry in 0..of("BLOCK") {
                    for quad in 0..quads {
                        let left = (block + entry * blocks) * stride + quad;
                        let right = if diagonal { left } else { of("TILE_VECTORS") * (held - 1) + left };
                        assert!(written[left as usize] && written[right as usize], "{kernel:?}: {left}, {right}");
                    }
                }
            }
            // finish: a vector for each thread and column.
            let last = 3 * threads + (n_positions - 1) * n_lanes + n_lanes - 1;
            assert!(last < 4 * threads && 4 * threads <= memory, "{kernel:?}: {last}");
        }
    }
    assert_eq!(n_seen, 4 * 13);
}
