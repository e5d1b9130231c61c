//! The runs of `code` and `decode`: a workgroup takes up to eight neighbouring blocks of one panel.

use crate::chunk::ChunkLayout;
use crate::panel::{PANEL, n_blocks};
use crate::params::Run;

/// Blocks of a workgroup.
const BLOCKS: usize = 8;

/// One panel of a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panel {
    pub(super) segment: usize,
    /// First row within the segment, and how many.
    pub(super) start: usize,
    pub(super) n_rows: usize,
    /// Blocks, the last one perhaps not full.
    pub(super) n_blocks: usize,
    /// Blocks of the chunk before it.
    pub(super) blocks_before: usize,
    /// Where its signs come from.
    pub(super) key: u32,
}

impl Panel {
    /// Its workgroups.
    pub(super) fn runs(self, place: usize, dtype: u32) -> impl Iterator<Item = Run> {
        (0..self.n_blocks).step_by(BLOCKS).map(move |first_block| Run {
            segment: self.segment as u32,
            start: self.start as u32,
            n_rows: self.n_rows as u32,
            place: place as u32,
            dtype,
            first_block: first_block as u32,
            key: self.key,
        })
    }
}

/// A chunk's panels, in order.
pub(super) fn panels(layout: &ChunkLayout, seed: u64) -> impl Iterator<Item = Panel> {
    let mut blocks_before = 0;
    layout.segments.iter().enumerate().flat_map(move |(at, segment)| {
        let first = blocks_before;
        blocks_before += n_blocks(segment.n_rows);
        (0..segment.n_rows).step_by(PANEL).map(move |start| {
            let n_rows = PANEL.min(segment.n_rows - start);
            Panel {
                segment: at,
                start,
                n_rows,
                n_blocks: n_blocks(n_rows),
                // Whole panels of the segment lie before it.
                blocks_before: first + n_blocks(start),
                key: segment.place.panel_key(seed, start),
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Segment;

    #[test]
    fn every_block_of_a_chunk_is_in_one_run() {
        let segments = [PANEL, 0, 2 * PANEL + 700, 1, 8 * 256 + 1].map(Segment::new).to_vec();
        let layout = ChunkLayout { segments, ..ChunkLayout::default() };
        let mut blocks = Vec::new();
        for panel in panels(&layout, 7) {
            for run in panel.runs(panel.blocks_before, 0) {
                let last = panel.n_blocks.min(run.first_block as usize + BLOCKS);
                blocks.extend((run.first_block as usize..last).map(|block| run.place as usize + block));
            }
        }
        let n_all: usize = layout.segments.iter().map(|segment| n_blocks(segment.n_rows)).sum();
        assert_eq!(blocks, (0..n_all).collect::<Vec<_>>());
    }
}
