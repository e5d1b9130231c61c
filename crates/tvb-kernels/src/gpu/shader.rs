//! The WGSL files and their variants: each is a file with some of its constants' values replaced (see shaders/README.md).

use super::variant::{Format, Shape};
use crate::error::KernelError;
use crate::limits::{EIGH_SIDES, OUTPUTS, THREADS, TILE_VALUES};

/// A shader and its variant: what a pipeline is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    /// gram.wgsl for tiles of `tile` tasks, one or `tiles_held` of them at a time, in blocks of `block` either way.
    Gram { format: Format, tile: u32, block: u32, tiles_held: u32 },
    /// gram_fold.wgsl.
    GramFold,
    /// project of combine.wgsl, `outputs` atoms at a time.
    Project { format: Format, outputs: u32, skip_zeros: bool },
    /// reconstruct of combine.wgsl, `outputs` outputs at a time.
    Reconstruct { format: Format, outputs: u32, skip_zeros: bool },
    /// code of code.wgsl: the tasks' columns.
    Code(Format),
    /// code_kept of code.wgsl: the shared columns.
    CodeKept(Format),
    /// measure of code.wgsl: what both decode to.
    Measure(Format),
    /// decode.wgsl.
    Decode(Format),
    /// eigh.wgsl for matrices of at most this order, an even one.
    Eigh { side: u32 },
    /// eigh_round.wgsl.
    EighRound,
}

/// Kernels that are tested together before the first of them is used, by the format of the chunks that they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Suite {
    /// gram, project and reconstruct.
    Sums(Format),
    /// code and what follows it.
    Code(Format),
    /// decode.
    Decode(Format),
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
}

/// Every variant of every shader, in a fixed order.
///
/// # Errors
/// [`KernelError::ShaderConstant`] where a shader's file lacks a constant: a fault of the library.
pub fn shader_variants() -> Result<Vec<ShaderVariant>, KernelError> {
    let variant = |kernel: Kernel| {
        let constants = kernel.constants().into_iter().map(|(name, value)| format!("-{name}{value}"));
        let name = std::iter::once(kernel.entry_point().to_owned()).chain(constants).collect();
        Ok(ShaderVariant { name, entry_point: kernel.entry_point(), source: kernel.source()? })
    };
    Kernel::all().into_iter().map(variant).collect()
}

impl Kernel {
    /// Every variant that an engine can ask for.
    pub(crate) fn all() -> Vec<Kernel> {
        let mut kernels = vec![Kernel::GramFold, Kernel::EighRound];
        kernels.extend(EIGH_SIDES.map(|side| Kernel::Eigh { side }));
        for format in Format::ALL {
            kernels.extend([Kernel::Code, Kernel::CodeKept, Kernel::Measure, Kernel::Decode].map(|of| of(format)));
            for shape in [Shape::SMALL, Shape::LARGE] {
                let block = shape.block;
                let tiles = shape.tiles();
                kernels.extend(tiles.iter().map(|&tile| Kernel::Gram { format, tile, block, tiles_held: 1 }));
                kernels.extend(tiles.last().map(|&tile| Kernel::Gram { format, tile, block, tiles_held: 2 }));
            }
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
            Kernel::Code(_) | Kernel::CodeKept(_) | Kernel::Measure(_) => tvb_shaders::CODE,
            Kernel::Decode(_) => tvb_shaders::DECODE,
            Kernel::Eigh { .. } => tvb_shaders::EIGH,
            Kernel::EighRound => tvb_shaders::EIGH_ROUND,
        }
    }

    /// What it is tested with, where it reads chunks.
    pub(crate) fn suite(self) -> Option<Suite> {
        match self {
            Kernel::Gram { format, .. } | Kernel::Project { format, .. } | Kernel::Reconstruct { format, .. } => {
                Some(Suite::Sums(format))
            }
            Kernel::Code(format) | Kernel::CodeKept(format) | Kernel::Measure(format) => Some(Suite::Code(format)),
            Kernel::Decode(format) => Some(Suite::Decode(format)),
            Kernel::GramFold | Kernel::Eigh { .. } | Kernel::EighRound => None,
        }
    }

    /// Name of the entry point.
    pub(crate) fn entry_point(self) -> &'static str {
        match self {
            Kernel::Gram { .. } => "gram",
            Kernel::GramFold => "gram_fold",
            Kernel::Project { .. } => "project",
            Kernel::Reconstruct { .. } => "reconstruct",
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
            Kernel::Gram { format, tile, block, tiles_held } => {
                let stage_rows = 1 << (TILE_VALUES / tile).ilog2();
                vec![
                    ("FORMAT", format.code()),
                    ("TILE", tile),
                    ("BLOCK", block),
                    ("TILES_HELD", tiles_held),
                    ("STAGE_ROWS", stage_rows),
                ]
            }
            Kernel::Project { format, outputs, skip_zeros } | Kernel::Reconstruct { format, outputs, skip_zeros } => {
                vec![("FORMAT", format.code()), ("OUTPUTS", outputs), ("SKIP_ZEROS", u32::from(skip_zeros))]
            }
            Kernel::Code(format) | Kernel::CodeKept(format) | Kernel::Measure(format) | Kernel::Decode(format) => {
                vec![("FORMAT", format.code())]
            }
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
