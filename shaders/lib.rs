//! The WGSL files of tvb, as text.
//!
//! Each file is valid by itself, so that editors, naga and Tint read it as it stands. Where a kernel has variants, its file
//! declares them as constants with a default (`const TILE: u32 = 8u;`); whoever compiles it puts the variant's value in
//! that declaration's place. (`override` cannot size register arrays.) What a file computes, its bindings, its dispatch
//! and its numerics are stated at its head.
//!
//! `cargo test -p tvb-shaders` parses and validates every file.

/// gram.wgsl: the inner products of runs of rows. Entry point `gram`; constants `FORMAT`, `TILE`, `BLOCK`, `STAGE_ROWS`
/// and `TILES_HELD`.
pub const GRAM: &str = include_str!("gram.wgsl");

/// gram_fold.wgsl: adds up neighbouring runs' products before they are read back. Entry point `gram_fold`.
pub const GRAM_FOLD: &str = include_str!("gram_fold.wgsl");

/// combine.wgsl: weighted sums of columns. Entry points `project` and `reconstruct`; constants `FORMAT`, `OUTPUTS` and
/// `SKIP_ZEROS`.
pub const COMBINE: &str = include_str!("combine.wgsl");

/// merge.wgsl: one value from those of all tasks. Entry point `merge`; constant `FORMAT`.
pub const MERGE: &str = include_str!("merge.wgsl");

/// code.wgsl: task vectors into a few bits an element. Entry points `code`, `code_kept` and `measure`; constant `FORMAT`.
pub const CODE: &str = include_str!("code.wgsl");

/// decode.wgsl: edits straight from codes. Entry point `decode`; constant `FORMAT`.
pub const DECODE: &str = include_str!("decode.wgsl");

/// eigh.wgsl: parallel Jacobi on a batch of small symmetric matrices. Entry point `eigh`; constants `SIDE` and `HELD`.
pub const EIGH: &str = include_str!("eigh.wgsl");

/// eigh_round.wgsl: one round of it on a batch of larger ones. Entry point `eigh_round`.
pub const EIGH_ROUND: &str = include_str!("eigh_round.wgsl");

/// Every file's name and text.
pub const FILES: [(&str, &str); 8] = [
    ("gram.wgsl", GRAM),
    ("gram_fold.wgsl", GRAM_FOLD),
    ("combine.wgsl", COMBINE),
    ("merge.wgsl", MERGE),
    ("code.wgsl", CODE),
    ("decode.wgsl", DECODE),
    ("eigh.wgsl", EIGH),
    ("eigh_round.wgsl", EIGH_ROUND),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_file_is_listed_and_valid_as_it_stands() {
        let folder = std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).expect("this crate's folder");
        let names = folder.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"));
        let there: BTreeSet<String> = names.filter(|name| name.ends_with(".wgsl")).collect();
        let listed: BTreeSet<String> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(listed, there);
        for (name, text) in FILES {
            let module = naga::front::wgsl::parse_str(text)
                .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(text)));
            let (flags, capabilities) = (naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty());
            naga::valid::Validator::new(flags, capabilities)
                .validate(&module)
                .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(text)));
            assert!(!module.entry_points.is_empty(), "{name}: no entry point");
        }
    }

    /// WGSL has no include: what files share stands in each of them.
    #[test]
    fn the_lines_that_files_share_are_the_same() {
        let groups: [(&str, &[&'static str], &str); 4] = [
            ("The chunk", &[GRAM, COMBINE, MERGE, CODE, DECODE], "fn load_pair("),
            ("Rounding", &[COMBINE, MERGE, DECODE], "fn to_f16("),
            ("Blocks and codes", &[CODE, DECODE], "fn transform("),
            ("Rotations", &[EIGH, EIGH_ROUND], "fn rotation_of("),
        ];
        for (name, texts, some_line) in groups {
            let shared = |text: &'static str| {
                let (_, from) = text.split_once(&format!("// ---- {name}: ")).expect("where the shared lines start");
                let end = format!("// ---- End of {}", name.to_lowercase());
                let (lines, _) = from.split_once(&end).expect("where they end");
                lines
            };
            let lines = shared(texts[0]);
            assert!(lines.contains(some_line), "{name}: {lines}");
            for &text in texts {
                assert_eq!(shared(text), lines, "{name}");
            }
            let n_files = FILES.iter().filter(|(_, text)| text.contains(&format!("// ---- {name}: "))).count();
            assert_eq!(n_files, texts.len(), "{name}: in how many files");
        }
    }
}
