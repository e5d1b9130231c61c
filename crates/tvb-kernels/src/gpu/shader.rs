//! The WGSL files, put together: `#import` and `#constant` lines resolved (see shaders/README.md).

use super::variant::Format;
use crate::limits::TILE_VALUES;
use std::fmt::Write;

/// A shader and its variant: what a pipeline is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    /// gram.wgsl for tiles of `tile` tasks, one or `tiles_held` of them at a time, in blocks of `block` either way.
    Gram { format: Format, tile: u32, block: u32, tiles_held: u32 },
    /// gram_fold.wgsl.
    GramFold,
    /// project.wgsl, `outputs` atoms at a time.
    Project { format: Format, outputs: u32, skip_zeros: bool },
    /// reconstruct.wgsl, `outputs` outputs at a time.
    Reconstruct { format: Format, outputs: u32, skip_zeros: bool },
    /// eigh.wgsl.
    Eigh,
}

/// The files, by the names that `#import` uses.
const FILES: [(&str, &str); 8] = [
    ("gram.wgsl", include_str!("../../../../shaders/gram.wgsl")),
    ("gram_fold.wgsl", include_str!("../../../../shaders/gram_fold.wgsl")),
    ("project.wgsl", include_str!("../../../../shaders/project.wgsl")),
    ("reconstruct.wgsl", include_str!("../../../../shaders/reconstruct.wgsl")),
    ("eigh.wgsl", include_str!("../../../../shaders/eigh.wgsl")),
    ("shared/dtype.wgsl", include_str!("../../../../shaders/shared/dtype.wgsl")),
    ("shared/run.wgsl", include_str!("../../../../shaders/shared/run.wgsl")),
    ("shared/combine.wgsl", include_str!("../../../../shaders/shared/combine.wgsl")),
];

impl Kernel {
    /// Name of the entry point; the file's name is this with `.wgsl`.
    pub(crate) fn entry_point(self) -> &'static str {
        match self {
            Kernel::Gram { .. } => "gram",
            Kernel::GramFold => "gram_fold",
            Kernel::Project { .. } => "project",
            Kernel::Reconstruct { .. } => "reconstruct",
            Kernel::Eigh => "eigh",
        }
    }

    /// The variant's values of `#constant` lines.
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
            Kernel::GramFold | Kernel::Eigh => Vec::new(),
        }
    }

    /// The whole WGSL source.
    pub(crate) fn source(self) -> String {
        let mut source = String::new();
        let mut imported = Vec::new();
        let file = format!("{}.wgsl", self.entry_point());
        append(&mut source, &file, &self.constants(), &mut imported);
        source
    }
}

/// Appends one file. A name or constant that is not there leaves its line as it is, which no WGSL parser accepts.
fn append(source: &mut String, name: &str, constants: &[(&str, u32)], imported: &mut Vec<String>) {
    if imported.iter().any(|seen| seen == name) {
        return;
    }
    imported.push(name.to_owned());
    let Some((_, text)) = FILES.iter().find(|(file, _)| *file == name) else {
        let _ = writeln!(source, "#import {name}");
        return;
    };
    for line in text.lines() {
        if let Some(import) = line.strip_prefix("#import ") {
            append(source, import.trim(), constants, imported);
            continue;
        }
        let constant = line
            .strip_prefix("#constant ")
            .and_then(|wanted| constants.iter().find(|(constant, _)| *constant == wanted.trim()));
        let _ = match constant {
            Some((constant, value)) => writeln!(source, "const {constant}: u32 = {value}u;"),
            None => writeln!(source, "{line}"),
        };
    }
}

/// Every variant an engine can ask for, with its source.
#[cfg(test)]
pub(crate) fn every_variant() -> Vec<(Kernel, String)> {
    use super::variant::Shape;
    let mut kernels = vec![Kernel::GramFold, Kernel::Eigh];
    for format in Format::ALL {
        for shape in [Shape::SMALL, Shape::LARGE] {
            let block = shape.block;
            let tiles = shape.tiles();
            kernels.extend(tiles.iter().map(|&tile| Kernel::Gram { format, tile, block, tiles_held: 1 }));
            kernels.extend(tiles.last().map(|&tile| Kernel::Gram { format, tile, block, tiles_held: 2 }));
        }
        for outputs in super::combine::OUTPUTS {
            for skip_zeros in [false, true] {
                kernels.push(Kernel::Project { format, outputs, skip_zeros });
                kernels.push(Kernel::Reconstruct { format, outputs, skip_zeros });
            }
        }
    }
    kernels.into_iter().map(|kernel| (kernel, kernel.source())).collect()
}
