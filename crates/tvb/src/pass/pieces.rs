//! A chunk on its way to a GPU: read, digested and copied to mapped memory piece by piece.
//!
//! A chunk is larger than a core's caches: read whole, digested whole and then copied, its bytes pass through the machine's
//! memory once for each. A piece of it stays in the second-level cache from the read to the copy. Mapped memory is only
//! written: it may be very slow to read.

use super::block::Block;
use super::reader::{ChunkReader, Extent, Line, check_codes, room};
use super::reads::Reads;
use super::runtime::device_error;
use crate::columns::coded::block_bytes;
use crate::columns::plan::Plan;
use crate::digest::Digest;
use crate::error::{Error, Result};
use tvb_kernels::{ChunkLayout, StagingSlot, n_blocks};

/// Bytes of a piece, about: a quarter of a second-level cache of 1 MiB. One block of a column is never parted.
const PIECE_BYTES: usize = 256 << 10;

/// From where to where: blocks of every column of a plan, and a slot with what goes where in it.
pub(super) struct Way<'a> {
    pub(super) plan: &'a Plan,
    pub(super) blocks: &'a [Block],
    pub(super) slot: &'a mut StagingSlot,
    pub(super) staged: &'a ChunkLayout,
}

impl Way<'_> {
    fn n_digests(&self) -> usize {
        self.plan.n_columns() + self.plan.codes.len()
    }
}

impl ChunkReader {
    /// Fetches the blocks whose reads were planned into a slot. Nothing is taken from, or left with, what passes keep on the host.
    ///
    /// # Errors
    /// Failed: the system cannot read, with the column and the tensor; a slot that is too small. Rejected: codes that are none.
    pub(super) fn fill_slot(&mut self, reads: &Reads, mut way: Way<'_>) -> Result<()> {
        self.digests.clear();
        self.digests.resize(way.blocks.len() * way.n_digests(), Digest::default());
        let (extents, mut piece) = (std::mem::take(&mut self.extents), std::mem::take(&mut self.buffer));
        let passed_on = extents.iter().try_for_each(|extent| self.pass_on(extent, &mut piece, &mut way));
        (self.extents, self.buffer) = (extents, piece);
        passed_on?;
        self.pass_on_factors(&mut way)?;
        let Way { plan, blocks, .. } = way;
        self.count(plan, reads, blocks);
        for (index, block) in blocks.iter().enumerate() {
            for column in 0..plan.n_columns() {
                if let Some(digest) = ChunkReader::digest_of_formed(plan, *block, column) {
                    self.digests[index * way.n_digests() + column] = digest;
                }
            }
        }
        Ok(())
    }

    /// One extent, in pieces of whole blocks.
    fn pass_on(&mut self, extent: &Extent, piece: &mut Vec<Line>, way: &mut Way<'_>) -> Result<()> {
        let (mut index, mut start) = (extent.block, 0);
        while start < extent.n_bytes {
            let (first, mut n_bytes) = (index, 0);
            while index < way.blocks.len() && start + n_bytes < extent.n_bytes {
                let more = self.n_bytes(index, extent.column, way);
                if n_bytes > 0 && n_bytes + more > PIECE_BYTES {
                    break;
                }
                n_bytes += more;
                index += 1;
            }
            if n_bytes == 0 || start + n_bytes > extent.n_bytes {
                return Err(Error::failed("a read of whole blocks expected, another was planned"));
            }
            let bytes = &mut room(piece, n_bytes)[..n_bytes];
            extent.read(way.plan, way.blocks, start, bytes)?;
            let mut rest = &*bytes;
            for index in first..index {
                let (own, others) = rest.split_at(self.n_bytes(index, extent.column, way));
                rest = others;
                self.pass_on_block(index, extent.column, own, way)?;
            }
            start += n_bytes;
        }
        Ok(())
    }

    /// Bytes of one block of a column's rows, or of its codes.
    fn n_bytes(&self, index: usize, column: usize, way: &Way<'_>) -> usize {
        let n_rows = way.blocks[index].n_rows;
        match column.checked_sub(way.plan.n_columns()) {
            Some(coded) => n_blocks(n_rows) * block_bytes(way.plan.codes[coded].rate),
            None => n_rows * self.layout.slice(index, column).dtype.size(),
        }
    }

    fn pass_on_block(&mut self, index: usize, column: usize, bytes: &[u8], way: &mut Way<'_>) -> Result<()> {
        let Way { plan, blocks, staged, .. } = *way;
        let written = match column.checked_sub(plan.n_columns()) {
            Some(coded) => {
                check_codes(plan, coded, blocks[index], bytes)?;
                way.slot.write(staged.codes[index * plan.codes.len() + coded].words, bytes)
            }
            None => way.slot.write_rows(staged.slice(index, column), bytes, self.layout.slice(index, column).dtype),
        };
        written.map_err(device_error)?;
        self.digests[index * way.n_digests() + column] = Digest::of(bytes);
        Ok(())
    }

    /// Factors that go into the chunk.
    fn pass_on_factors(&mut self, way: &mut Way<'_>) -> Result<()> {
        let Some(&(place, _)) = self.formed_from.first() else { return Ok(()) };
        let (Some(Some(read)), Some(Some(staged))) = (self.layout.factors.get(place), way.staged.factors.get(place))
        else {
            return Err(Error::failed("a place for factors expected, none found"));
        };
        // What is behind the rows moves as one.
        let (from, to) = (read.right, staged.right);
        for held in &self.factors {
            let left = held.factors.left(held.rows.clone());
            for (at, floats) in [(held.left, &left[..]), (held.right, held.factors.right())] {
                let bytes: Vec<u8> = floats.iter().flat_map(|value| value.to_le_bytes()).collect();
                let at = (at + to).checked_sub(from).ok_or_else(|| Error::failed("factors lie among the rows"))?;
                way.slot.write(at, &bytes).map_err(device_error)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::columns::plan::{Plan, Selection, Task};
    use crate::pass::{Pass, Runtime};
    use std::path::Path;
    use std::time::Instant;
    use tvb_kernels::{Backend, DeviceChoice, Engine, Project, staged_layout};

    /// A checkpoint of one tensor of f32.
    fn write(path: &Path, n_rows: usize, seed: u32) -> Checkpoint {
        let header = format!(r#"{{"w":{{"dtype":"F32","shape":[{n_rows}],"data_offsets":[0,{}]}}}}"#, 4 * n_rows);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend((0..n_rows as u32).flat_map(|row| (row.wrapping_mul(seed) as f32).to_le_bytes()));
        std::fs::write(path, bytes).expect("written");
        Checkpoint::open(path).expect("a checkpoint that was just written")
    }

    /// The host's side of a pass on a GPU alone: GB/s of input from the page cache into staging buffers, whole chunks against
    /// pieces. Needs llvmpipe, or what `TVB_TEST_DEVICE` names.
    #[test]
    #[ignore = "a measurement: cargo test -p tvb --lib pieces -- --ignored --nocapture"]
    fn how_fast_chunks_reach_their_slots() {
        let top = tempfile::tempdir().expect("a folder");
        let n_tasks = 7;
        let column = |index: usize| write(&top.path().join(format!("{index}.safetensors")), 8 << 20, 1 + index as u32);
        let tasks = (1..=n_tasks).map(|index| Task { name: index.to_string(), checkpoint: column(index) }).collect();
        let plan = Plan::new(column(0), tasks, &Selection::default()).expect("a plan");
        let name = std::env::var("TVB_TEST_DEVICE").unwrap_or_else(|_| "llvmpipe".to_owned());
        let opened = tvb_kernels::open(&DeviceChoice::Name(name), Some(Backend::Vulkan)).map(|opened| opened.engine);
        let Ok(Engine::Gpu(engine)) = opened else { return };
        let (runtime, reads) = (Runtime::on(Engine::Gpu(engine.clone())), Reads::new());
        let pass = Pass::over(&plan, &runtime, &reads);
        let work = Project { encode: vec![1.0; n_tasks], n_atoms: 1, dtype: tvb_kernels::Dtype::F32 };
        for n_threads in [1, 2] {
            for round in 0..3 {
                for in_pieces in [false, true] {
                    let mut stream = engine.stream(&work, pass.staging_bytes(), n_threads).expect("a stream");
                    let slots: Vec<StagingSlot> = (0..n_threads).map(|_| stream.acquire().expect("a slot")).collect();
                    let started = Instant::now();
                    std::thread::scope(|scope| {
                        for (at, mut slot) in slots.into_iter().enumerate() {
                            let (pass, plan, reads) = (&pass, &plan, &reads);
                            scope.spawn(move || {
                                let mut reader = ChunkReader::leaving_factors();
                                for chunk in (at..pass.grid.n_chunks()).step_by(n_threads) {
                                    let blocks = &pass.grid.blocks(chunk)[..];
                                    reader.plan_reads(plan, reads, blocks);
                                    let staged = &staged_layout(reader.layout()).expect("a sound chunk");
                                    if in_pieces {
                                        let way = Way { plan, blocks, slot: &mut slot, staged };
                                        reader.fill_slot(reads, way).expect("read");
                                    } else {
                                        reader.fill(plan, reads, blocks).expect("read");
                                        slot.pack(reader.chunk(), staged).expect("room");
                                    }
                                }
                            });
                        }
                    });
                    let rate = plan.n_bytes() as f64 / 1e9 / started.elapsed().as_secs_f64();
                    let way = if in_pieces { "in pieces" } else { "whole" };
                    // Not a macro that writes to the terminal: the invariants forbid those.
                    let line = format!("{n_threads} threads, round {round}, {way}: {rate:.2} GB/s\n");
                    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("written");
                }
            }
        }
    }
}
