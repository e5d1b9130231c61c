//! The WGSL files and their variants: each is a file with some of its constants' values replaced (see shaders/README.md).

use super::variant::{Format, Shape, Tile};
use crate::error::KernelError;
use crate::limits::{EIGH_SIDES, OUTPUTS, THREADS};

/// A shader and its variant: what a pipeline is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    /// gram.wgsl.
    Gram { format: Format, tile: Tile },
    /// gram_fold.wgsl.
    GramFold,
    /// project of combine.wgsl, `outputs` atoms at a time.
    Project { format: Format, outputs: u32, skip_zeros: bool },
    /// reconstruct of combine.wgsl, `outputs` outputs at a time.
    Reconstruct { format: Format, outputs: u32, skip_zeros: bool },
    /// merge.wgsl.
    Merge(Format),
    /// code of code.wgsl: the tasks' columns.
    Code(Format),
    /// code_kept of code.wgsl: the shared columns.
    CodeKept(Format),
    /// measure of code.wgsl: what both decode to, where there are shared columns.
    Measure(Format),
    /// decode.wgsl.
    Decode(Format),
    /// eigh.wgsl for matrices of at most this order, an even one.
    Eigh { side: u32 },
    /// eigh_round.wgsl.
    EighRound,
}

/// The text of one shader variant, as every engine gets it: for tools that hand it to other compilers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShaderVariant {
    /// What it is, in file-name characters: the entry point, then the variant's constants, such as `gram-FORMAT0-TILE8`.
    pub name: String,
    /// The entry point.
    pub entry_point: &'static str,
    /// WGSL.
    pub source: String,
    /// Whether engines have the compiler put bounds checks in.
    pub bounds_checked: bool,
}

/// Every variant of every shader, in a fixed order.
///
/// # Errors
/// [`KernelError::ShaderConstant`] where a shader's file lacks a constant: a fault of the library.
pub fn shader_variants() -> Result<Vec<ShaderVariant>, KernelError> {
    let variant = |kernel: Kernel| {
        let constants = kernel.constants().into_iter().map(|(name, value)| format!("-{name}{value}"));
        let name = std::iter::once(kernel.entry_point().to_owned()).chain(constants).collect();
        let (entry_point, bounds_checked) = (kernel.entry_point(), kernel.bounds_checked());
        Ok(ShaderVariant { name, entry_point, source: kernel.source()?, bounds_checked })
    };
    Kernel::all().into_iter().map(variant).collect()
}

impl Kernel {
    /// Every variant that an engine can ask for.
    pub(crate) fn all() -> Vec<Kernel> {
        let mut kernels = vec![Kernel::GramFold, Kernel::EighRound];
        kernels.extend(EIGH_SIDES.map(|side| Kernel::Eigh { side }));
        for format in Format::ALL {
            kernels.push(Kernel::Merge(format));
            kernels.extend([Kernel::Code, Kernel::CodeKept, Kernel::Measure, Kernel::Decode].map(|of| of(format)));
            let tiles = Shape::LARGE.tiles().iter();
            let others = Shape::SMALL.tiles().iter().filter(|tile| !Shape::LARGE.tiles().contains(tile));
            kernels.extend(tiles.chain(others).map(|&tile| Kernel::Gram { format, tile }));
            for outputs in OUTPUTS {
                for skip_zeros in [false, true] {
                    kernels.push(Kernel::Project { format, outputs, skip_zeros });
                    kernels.push(Kernel::Reconstruct { format, outputs, skip_zeros });
                }
            }
        }
        kernels
    }

    /// The file's text.
    fn text(self) -> &'static str {
        match self {
            Kernel::Gram { .. } => tvb_shaders::GRAM,
            Kernel::GramFold => tvb_shaders::GRAM_FOLD,
            Kernel::Project { .. } | Kernel::Reconstruct { .. } => tvb_shaders::COMBINE,
            Kernel::Merge(_) => tvb_shaders::MERGE,
            Kernel::Code(_) | Kernel::CodeKept(_) | Kernel::Measure(_) => tvb_shaders::CODE,
            Kernel::Decode(_) => tvb_shaders::DECODE,
            Kernel::Eigh { .. } => tvb_shaders::EIGH,
            Kernel::EighRound => tvb_shaders::EIGH_ROUND,
        }
    }

    /// Whether the compiler is to put bounds checks in. Not for `gram` on slices of one format, where the clamped
    /// indices are a tenth of its instructions and none can be out of bounds:
    ///
    /// - `slices` and `runs`: segment, run and column are below the numbers that the tables were made from; the column is clamped
    ///   to `n_tasks`, which the layout has.
    /// - `loads`: a run's rows lie within its segment, and rows beyond its end are clamped to its last 16 bytes. The segment's
    ///   slices lie within the chunk (`check::check_slices`, before any plan is made) and start on 16 bytes
    ///   ([`Format::of`]); buffers are whole multiples of 16 bytes (`Context::buffer`) and no smaller than the chunk
    ///   (`check_sizes` of a stream).
    /// - `output`: run and pair of tiles are the workgroup's numbers, of which as many are dispatched as the plan has words for; the
    ///   place in a triangle is of two tasks below `n_tasks`.
    /// - workgroup memory: every index is a sum of terms that constants bound; a test goes through all of them.
    pub(crate) fn bounds_checked(self) -> bool {
        !matches!(self, Kernel::Gram { format: Format::F32 | Format::F16 | Format::Bf16, .. })
    }

    /// Name of the entry point.
    pub(crate) fn entry_point(self) -> &'static str {
        match self {
            Kernel::Gram { .. } => "gram",
            Kernel::GramFold => "gram_fold",
            Kernel::Project { .. } => "project",
            Kernel::Reconstruct { .. } => "reconstruct",
            Kernel::Merge(_) => "merge",
            Kernel::Code(_) => "code",
            Kernel::CodeKept(_) => "code_kept",
            Kernel::Measure(_) => "measure",
            Kernel::Decode(_) => "decode",
            Kernel::Eigh { .. } => "eigh",
            Kernel::EighRound => "eigh_round",
        }
    }

    /// The variant's constants and their values.
    fn constants(self) -> Vec<(&'static str, u32)> {
        match self {
            Kernel::Gram { format, tile } => vec![
                ("FORMAT", format.code()),
                ("TILE", tile.tasks),
                ("BLOCK", tile.block),
                ("TILES_HELD", tile.held),
                ("QUADS", tile.quads()),
            ],
            Kernel::Project { format, outputs, skip_zeros } | Kernel::Reconstruct { format, outputs, skip_zeros } => {
                vec![("FORMAT", format.code()), ("OUTPUTS", outputs), ("SKIP_ZEROS", u32::from(skip_zeros))]
            }
            Kernel::Merge(format)
            | Kernel::Code(format)
            | Kernel::CodeKept(format)
            | Kernel::Measure(format)
            | Kernel::Decode(format) => vec![("FORMAT", format.code())],
            Kernel::Eigh { side } => vec![("SIDE", side), ("HELD", u32::from(side < THREADS))],
            Kernel::GramFold | Kernel::EighRound => Vec::new(),
        }
    }

    /// The whole WGSL source.
    ///
    /// # Errors
    /// [`KernelError::ShaderConstant`] where the file does not declare each of the variant's constants once.
    pub(crate) fn source(self) -> Result<String, KernelError> {
        let mut source = self.text().to_owned();
        for (name, value) in self.constants() {
            let found = replace_constant(&mut source, name, value);
            if found != 1 {
                return Err(KernelError::ShaderConstant { kernel: self.entry_point(), name, found });
            }
        }
        Ok(source)
    }
}

/// Gives `const NAME: u32 = …;` another value, and says how many declarations of it there are; where there is not exactly
/// one, nothing is changed.
fn replace_constant(source: &mut String, name: &str, value: u32) -> usize {
    let declaration = format!("const {name}: u32 = ");
    let starts = source.match_indices(&declaration).map(|(at, _)| at);
    let starts: Vec<usize> = starts.filter(|&at| at == 0 || source[..at].ends_with('\n')).collect();
    if let [start] = starts[..] {
        let start = start + declaration.len();
        let end = source[start..].find(';').map_or(source.len(), |length| start + length);
        source.replace_range(start..end, &format!("{value}u"));
    }
    starts.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_is_replaced_where_it_is_declared_once() {
        let cases = [
            (
                "const TILE: u32 = 8u;\nconst TILES: u32 = TILE;\n",
                1,
                "const TILE: u32 = 64u;\nconst TILES: u32 = TILE;\n",
            ),
            ("// const TILE: u32 = 8u;\n", 0, "// const TILE: u32 = 8u;\n"),
            ("const TILE: u32 = 1u;\nconst TILE: u32 = 2u;\n", 2, "const TILE: u32 = 1u;\nconst TILE: u32 = 2u;\n"),
        ];
        for (text, expected, replaced) in cases {
            let mut source = text.to_owned();
            assert_eq!(replace_constant(&mut source, "TILE", 64), expected, "{text}");
            assert_eq!(source, replaced);
        }
    }
}
