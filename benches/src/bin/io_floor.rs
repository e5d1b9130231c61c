//! The I/O floor: the time to read files and write as many bytes as a job would, with nothing in between.
//!
//! `io_floor READS WRITE_BYTES OUTPUT FILE…` reads every file READS times in parallel (positioned reads of 1 MiB, one
//! thread for each core) and writes WRITE_BYTES to OUTPUT, synced to the disk, then prints one JSON object. It is the
//! yardstick the pipeline's speed is given against, measured in the same run on the same files.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const BLOCK_BYTES: u64 = 1 << 20;

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
    let started = Instant::now();
    for _ in 0..n_reads {
        for (file, len) in &files {
            in_blocks(*len, |offset, block| file.read_exact_at(block, offset))?;
        }
    }
    let read_s = started.elapsed().as_secs_f64();
    let out = File::create(&output)?;
    out.set_len(write_bytes)?;
    in_blocks(write_bytes, |offset, block| out.write_all_at(block, offset))?;
    let write_s = started.elapsed().as_secs_f64() - read_s;
    out.sync_all()?;
    let total_s = started.elapsed().as_secs_f64();
    let sync_s = total_s - read_s - write_s;
    println!(
        "{{\"read_s\": {read_s:.3}, \"write_s\": {write_s:.3}, \"sync_s\": {sync_s:.3}, \"total_s\": {total_s:.3}}}"
    );
    drop(out);
    std::fs::remove_file(output)
}

/// Calls `work` for every block of `len` bytes, from as many threads as there are cores.
fn in_blocks(len: u64, work: impl Fn(u64, &mut [u8]) -> std::io::Result<()> + Sync) -> std::io::Result<()> {
    let next = AtomicU64::new(0);
    let run = || -> std::io::Result<()> {
        let mut block = vec![0; BLOCK_BYTES as usize];
        loop {
            let offset = next.fetch_add(BLOCK_BYTES, Ordering::Relaxed);
            if offset >= len {
                return Ok(());
            }
            work(offset, &mut block[..BLOCK_BYTES.min(len - offset) as usize])?;
        }
    };
    let n_threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(std::io::Error::other("a thread panicked"))))
    })
}
