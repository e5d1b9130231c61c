//! Structs shared with WGSL, field by field; a test compares each with naga's reflection of the shaders.

use bytemuck::{Pod, Zeroable};

/// Declares a struct of u32 fields and, for the test, their names.
macro_rules! shared_struct {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
        pub(crate) struct $name {
            $($(#[$field_doc])* pub(crate) $field: u32,)*
        }

        #[cfg(test)]
        impl $name {
            /// Name and byte offset of every field.
            fn fields() -> Vec<(&'static str, usize)> {
                vec![$((stringify!($field), std::mem::offset_of!($name, $field))),*]
            }
        }
    };
}

shared_struct! {
    /// Where one column's rows of one segment lie.
    Slice {
        /// Bytes from the chunk's start.
        offset_bytes,
        /// [`F32`], [`F16`] or [`BF16`].
        dtype,
    }
}

shared_struct! {
    /// One workgroup's rows.
    Run {
        /// Which segment.
        segment,
        /// First row within the segment; even.
        start,
        /// Number of rows.
        n_rows,
        /// Where the first row's result goes in each output, in words.
        place,
        /// Format of the result.
        dtype,
    }
}

shared_struct! {
    /// Runs whose partial Grams are added up on the device.
    Fold {
        /// First of them.
        first_run,
        /// How many.
        n_runs,
    }
}

shared_struct! {
    /// Of gram.wgsl.
    GramParams {
        /// T.
        n_tasks,
        /// T(T+1)/2.
        n_values,
        /// Run of the first workgroup.
        first_run,
        /// Workgroups a run has.
        n_tile_pairs,
        /// Word of the output where the marks begin.
        marks,
        /// What a mark is.
        stamp,
    }
}

shared_struct! {
    /// Of gram_fold.wgsl.
    FoldParams {
        /// T(T+1)/2.
        n_values,
        /// Fold of the first row of workgroups.
        first_fold,
        /// Run of the output's first partial.
        first_run,
        /// Word of the output where the folded triangles begin.
        folded,
        /// Word of the output where the marks begin.
        marks,
        /// What a mark is.
        stamp,
    }
}

shared_struct! {
    /// Of project.wgsl and reconstruct.wgsl.
    CombineParams {
        /// Columns beside the base.
        n_columns,
        /// M or K.
        n_outputs,
        /// Run of the first workgroup.
        first_run,
        /// Words of one output.
        words_per_output,
        /// Word of the output where the marks begin.
        marks,
        /// What a mark is.
        stamp,
        /// 1 where the base is taken off the columns.
        subtract_base,
        /// 1 where the base is added to the outputs.
        add_base,
    }
}

shared_struct! {
    /// Of eigh.wgsl.
    EighParams {
        /// Order of the matrices.
        n,
        /// n rounded up to even.
        n_players,
        /// First round of this dispatch.
        first_round,
        /// Rounds of this dispatch.
        n_rounds,
        /// Matrices of the batch.
        n_matrices,
        /// What a mark is (stored as a float).
        stamp,
    }
}

/// `Slice::dtype` and `Run::dtype` of f32.
pub(crate) const F32: u32 = 0;
/// `Slice::dtype` and `Run::dtype` of f16.
pub(crate) const F16: u32 = 1;
/// `Slice::dtype` and `Run::dtype` of bf16.
pub(crate) const BF16: u32 = 2;
/// The shaders' FORMAT where slices differ.
pub(crate) const MIXED: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::shader::{Kernel, every_variant};

    /// Every struct in this file, wherever a shader declares one of its name.
    fn ours() -> Vec<(&'static str, usize, Vec<(&'static str, usize)>)> {
        macro_rules! described {
            ($($name:ident),*) => { vec![$((stringify!($name), size_of::<$name>(), $name::fields())),*] };
        }
        described!(Slice, Run, Fold, GramParams, FoldParams, CombineParams, EighParams)
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
                let Some((name, ours)) = constants.iter().find(|(name, _)| constant.name.as_deref() == Some(name))
                else {
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
            let [entry] = &module.entry_points[..] else { panic!("{kernel:?}: not one entry point") };
            assert_eq!(entry.name, kernel.entry_point());
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
        assert!(every_variant().iter().any(|(kernel, _)| matches!(kernel, Kernel::Eigh)));
    }
}
