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
            pub(crate) fn fields() -> Vec<(&'static str, usize)> {
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
        /// [`F32`], [`F16`], [`BF16`], [`DELTA`] or [`LOW_RANK`].
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
        /// Where the first row's result goes in each output, in words; for `code`, blocks before the panel.
        place,
        /// Format of the result.
        dtype,
        /// First of its blocks within the panel whose rows these are, for `code` and `decode`.
        first_block,
        /// Where that panel's signs come from.
        key,
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
    /// Of combine.wgsl.
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
    /// Of merge.wgsl.
    MergeParams {
        /// T.
        n_tasks,
        /// Run of the first workgroup.
        first_run,
        /// Word of the output where the marks begin.
        marks,
        /// What a mark is.
        stamp,
        /// Which rule.
        rule,
        /// How many tasks must need an element, or the task that the result is for.
        number,
        /// A float: λ of the comparison of what is needed, or the floor of a divisor.
        bound,
        /// A float: the base's weight.
        base,
        /// A float: λ.
        lambda,
        /// 1 where elements stay by their variance.
        has_variance,
        /// Bits of the least variance.
        variance,
        /// First place of its equals that stay.
        variance_from,
        /// The place behind their last one.
        variance_to,
    }
}

shared_struct! {
    /// Of code.wgsl.
    CodeParams {
        /// T.
        n_tasks,
        /// K.
        n_kept,
        /// Run of the first workgroup.
        first_run,
        /// Runs of the chunk.
        n_runs,
        /// The tasks' rate, by its number.
        rate,
        /// The shared columns' rate.
        kept_rate,
        /// Words of a task's column.
        words,
        /// Words of a shared column.
        kept_words,
        /// Scales of a column.
        n_scales,
        /// Word of the output where the shared columns begin.
        kept_at,
        /// Word of the output where the scales begin.
        scales_at,
        /// Word of the output where the sums begin.
        sums_at,
        /// Word of the output where the marks begin.
        marks,
        /// What a mark is.
        stamp,
        /// Word of the book where the kept expressions are.
        kept,
        /// First task of this dispatch.
        first_task,
        /// Behind its last one.
        end_task,
        /// Word of the output where what is lacking waits for the next dispatch.
        lacking_at,
    }
}

shared_struct! {
    /// Of decode.wgsl.
    DecodeParams {
        /// Coded columns.
        n_columns,
        /// K.
        n_outputs,
        /// Run of the first workgroup.
        first_run,
        /// Runs of the chunk.
        n_runs,
        /// Words of one output.
        words_per_output,
        /// Word of the output where the marks begin.
        marks,
        /// What a mark is.
        stamp,
        /// 1 where the base is added to the outputs.
        add_base,
        /// Word of the book where the columns' rates are.
        rates,
        /// Word of the book where the weights are.
        weights,
        /// First column of this dispatch.
        first_column,
        /// Behind its last one.
        end_column,
        /// Word of the output where sums wait for the next dispatch.
        sums_at,
    }
}

shared_struct! {
    /// Of eigh.wgsl and eigh_round.wgsl.
    EighParams {
        /// Order of the matrices.
        n,
        /// n rounded up to even.
        n_players,
        /// First matrix of this dispatch.
        first_matrix,
        /// Word of the output where the marks begin.
        marks,
        /// 1 where A and A' have changed places.
        is_odd,
        /// Which round of the sweep.
        round,
        /// Which sweep, counted from 1.
        sweep,
        /// Word of the output where it says which pairs are unsettled.
        unsettled,
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
/// `Slice::dtype` of f32 that is a difference already.
pub(crate) const DELTA: u32 = 4;
/// `Slice::dtype` of rows that are formed from factors; its offset is the entry of the table that says where they are.
pub(crate) const LOW_RANK: u32 = 5;
/// The shaders' FORMAT where slices differ.
pub(crate) const MIXED: u32 = 3;
