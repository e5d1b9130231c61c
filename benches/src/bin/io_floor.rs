//! The I/O floor: the time to read files and write as many bytes as a job would, with nothing in between.
//!
//! `io_floor READS WRITE_BYTES OUTPUT FILE…` reads every file READS times in parallel (positioned reads of 1 MiB, one
//! thread for each core) and, spread over the last of these reads, writes WRITE_BYTES to OUTPUT, reserved before and synced
//! to the disk after; then it prints one JSON object. OUTPUT is left: dropping a gigabyte of cached pages takes seconds of
//! its own. It is the yardstick the pipeline's speed is given against, measured in the same run on the same files.

use rustix::fs::{FallocateFlags, fallocate};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const BLOCK_BYTES: u64 = 1 << 20;
/// Blocks written after which the disk is set to work, as `tvb` does.
const BLOCKS_SENT: usize = 32;

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let mut number = || args.next().and_then(|text| text.parse::<u64>().ok());
    let (Some(n_reads), Some(write_bytes)) = (number(), number()) else {
        eprintln!("usage: io_floor READS WRITE_BYTES OUTPUT FILE…");
        std::process::exit(2);
    };
    let output = args.next().unwrap_or_default();
    let files: Vec<(File, u64)> = args
        .map(|path| {
            let file = File::open(path)?;
            let len = file.metadata()?.len();
            Ok((file, len))
        })
        .collect::<std::io::Result<_>>()?;
    let reads: Vec<Block> = files.iter().enumerate().flat_map(|(file, (_, len))| blocks(file, *len)).collect();
    let writes: Vec<Block> = blocks(0, write_bytes).collect();
    let started = Instant::now();
    for _ in 1..n_reads {
        let next = AtomicUsize::new(0);
        side_by_side(|block| read_all(&files, &reads, &next, block, |_, _| Ok(())))?;
    }
    let out = File::create(&output)?;
    // Reserved at once, as the jobs do; where the file system cannot, the length alone is set.
    if fallocate(&out, FallocateFlags::empty(), 0, write_bytes.max(1)).is_err() {
        out.set_len(write_bytes)?;
    }
    // The writes are spread over the last read, so that the disk is busy from the start.
    let (next_read, next_write) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let write_up_to = |due: usize, block: &mut [u8]| -> std::io::Result<()> {
        let claim = |next: usize| (next < due).then_some(next + 1);
        while let Ok(at) = next_write.fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim) {
            out.write_all_at(&block[..writes[at].len], writes[at].offset)?;
            if at % BLOCKS_SENT == BLOCKS_SENT - 1 {
                send_ahead(&out);
            }
        }
        Ok(())
    };
    side_by_side(|block| {
        if n_reads > 0 {
            let n = reads.len().max(1);
            read_all(&files, &reads, &next_read, block, |n_done, block| write_up_to(writes.len() * n_done / n, block))?;
        }
        write_up_to(writes.len(), block)
    })?;
    let moved_s = started.elapsed().as_secs_f64();
    out.sync_all()?;
    let total_s = started.elapsed().as_secs_f64();
    println!("{{\"moved_s\": {moved_s:.3}, \"sync_s\": {:.3}, \"total_s\": {total_s:.3}}}", total_s - moved_s);
    Ok(())
}

/// Has the system begin to send what was written to the disk.
fn send_ahead(file: &File) {
    #[cfg(target_os = "linux")]
    // SAFETY: the descriptor is open, and no memory is handed over.
    unsafe {
        use std::os::fd::AsRawFd;
        libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// A piece of a file.
#[derive(Clone, Copy, Debug)]
struct Block {
    file: usize,
    offset: u64,
    len: usize,
}

fn blocks(file: usize, len: u64) -> impl Iterator<Item = Block> {
    let block = move |offset| Block { file, offset, len: BLOCK_BYTES.min(len - offset) as usize };
    (0..len).step_by(BLOCK_BYTES as usize).map(block)
}

/// Reads whatever block is next until there is none; `after` each it is told how many were begun.
fn read_all(
    files: &[(File, u64)],
    reads: &[Block],
    next: &AtomicUsize,
    block: &mut [u8],
    after: impl Fn(usize, &mut [u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        let Some(read) = reads.get(at) else { return Ok(()) };
        files[read.file].0.read_exact_at(&mut block[..read.len], read.offset)?;
        after(at + 1, block)?;
    }
}

/// Runs `work` on as many threads as there are cores, each with a buffer of one block.
fn side_by_side(work: impl Fn(&mut [u8]) -> std::io::Result<()> + Sync) -> std::io::Result<()> {
    let run = || work(&mut vec![0; BLOCK_BYTES as usize]);
    let n_threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked"))))
    })
}
