//! Moving bytes with nothing in between: the copy that every other speed is given a share of, and the way to a device.

use super::threads::for_each;
use super::timing::{Budget, Timed, measure, measure_repeated};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use tvb::error::{Error, Result};
use tvb::pass::device_error;
use tvb_kernels::{ChunkLayout, Dtype, GpuEngine, Gram, Segment, Slice, StagingSlot, Triangles};

/// Bytes of a buffer of the ring: as the stream has them.
const SLOT_BYTES: usize = 16 << 20;

/// Buffers of the ring: as the stream has them.
const N_SLOTS: usize = 4;

/// Rows at the end of each uploaded buffer that the device computes on, so that the upload can be checked.
const SEEN_ROWS: usize = 64;

/// Bytes that one thread copies at a time.
const COPY_BYTES: usize = 4 << 20;

/// A copy of `n_bytes` in memory by `n_threads` threads, whether it was right, and its time.
///
/// # Errors
/// None today.
pub(super) fn copy_on_cpu(
    n_bytes: usize,
    n_threads: usize,
    budget: Budget,
) -> Result<(std::result::Result<(), String>, Timed)> {
    let from: Vec<u8> = (0..n_bytes).map(|at| (at * 7 + (at >> 8)) as u8).collect();
    let mut to = vec![0u8; n_bytes];
    let mut copy = || {
        let parts = from.chunks(COPY_BYTES).zip(to.chunks_mut(COPY_BYTES)).collect();
        for_each(n_threads, parts, |_, (from, to): (&[u8], &mut [u8])| to.copy_from_slice(from));
        Ok(())
    };
    copy()?;
    let timed = measure(budget, copy)?;
    Ok((if from == to { Ok(()) } else { Err("the copy differs".into()) }, timed))
}

/// The same between two buffers of a device.
///
/// # Errors
/// Failed: the device.
pub(super) fn copy_on_gpu(
    engine: &GpuEngine,
    n_bytes: u64,
    budget: Budget,
) -> Result<(std::result::Result<(), String>, Timed)> {
    let copy = engine.device_copy(n_bytes).map_err(device_error)?;
    let timed = measure_repeated(budget, 16, |n_times| copy.run(n_times).map_err(device_error))?;
    let is_right = copy.copied().map_err(device_error)?.iter().all(|byte| *byte == 0x5a);
    Ok((if is_right { Ok(()) } else { Err("the copy differs".into()) }, timed))
}

/// Host memory → the device, through the ring of staging buffers that the stream uses: `n_threads` threads fill them.
#[derive(Debug)]
pub(super) struct Upload {
    /// Bytes of one buffer of the ring.
    slot_bytes: usize,
    layout: ChunkLayout,
    n_slots: usize,
    source: Vec<u8>,
    n_uploads: usize,
}

impl Upload {
    /// Of about `n_bytes`, in buffers of at most `most_slot_bytes`.
    pub(super) fn new(n_bytes: u64, most_slot_bytes: u64) -> Upload {
        let n_bytes = usize::try_from(n_bytes).unwrap_or(usize::MAX);
        let most = usize::try_from(most_slot_bytes).unwrap_or(usize::MAX);
        let slot_bytes = SLOT_BYTES.min(n_bytes / 2).min(most).max(4096) / 64 * 64;
        let start = slot_bytes - 2 * SEEN_ROWS * 4;
        let slice = |column: usize| Slice::new(start + column * SEEN_ROWS * 4, Dtype::F32);
        let layout = ChunkLayout {
            n_columns: 2,
            segments: vec![Segment::new(SEEN_ROWS)],
            slices: vec![slice(0), slice(1)],
            n_bytes: slot_bytes,
            ..ChunkLayout::default()
        };
        // The base is 1, 1, …; the other column 2, 3, …: differences 1, 2, …, whose squares add up exactly.
        let mut source = vec![0x3c; slot_bytes];
        for row in 0..SEEN_ROWS {
            let put = |source: &mut Vec<u8>, column: usize, value: f32| {
                source[start + (column * SEEN_ROWS + row) * 4..][..4].copy_from_slice(&value.to_le_bytes());
            };
            put(&mut source, 0, 1.0);
            put(&mut source, 1, (row + 2) as f32);
        }
        Upload { slot_bytes, layout, n_slots: N_SLOTS, source, n_uploads: (n_bytes / slot_bytes).max(1) }
    }

    /// Bytes of all uploads.
    pub(super) fn n_bytes(&self) -> u64 {
        (self.slot_bytes * self.n_uploads) as u64
    }

    /// Uploads all of it, checks that each buffer's last rows arrived, and times that.
    ///
    /// # Errors
    /// Failed: the device.
    pub(super) fn run(
        &self,
        engine: &GpuEngine,
        n_threads: usize,
        budget: Budget,
    ) -> Result<(std::result::Result<(), String>, Timed)> {
        let mut stream = engine.stream(&Gram::ALL, self.slot_bytes, self.n_slots).map_err(device_error)?;
        let (to_writers, jobs) = channel::<StagingSlot>();
        let (done, filled) = channel::<Result<StagingSlot>>();
        let jobs = Mutex::new(jobs);
        std::thread::scope(|scope| {
            // The channel closes when this closure returns, which ends the writers.
            let to_writers = to_writers;
            for _ in 0..n_threads.min(self.n_slots) {
                let (jobs, done, source) = (&jobs, done.clone(), &self.source);
                scope.spawn(move || {
                    loop {
                        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(mut slot) = job else { return };
                        let written = slot.write(0, source).map(|()| slot).map_err(device_error);
                        if done.send(written).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(done);
            let mut is_right = true;
            let expected: f64 = (1..=SEEN_ROWS).map(|row| (row * row) as f64).sum();
            let mut seen = |output: Option<Triangles>| {
                is_right &= output.is_some_and(|output| output.values == [expected]);
            };
            let mut upload_all = || -> Result<()> {
                let stopped = || Error::failed("the writer threads have stopped");
                let (mut n_given, mut n_done, mut n_filling) = (0, 0, 0);
                while n_done < self.n_uploads {
                    while n_given < self.n_uploads && n_filling + stream.in_flight() < self.n_slots {
                        to_writers.send(stream.acquire().map_err(device_error)?).map_err(|_| stopped())?;
                        (n_given, n_filling) = (n_given + 1, n_filling + 1);
                    }
                    let ready = match stream.in_flight() {
                        0 => filled.recv().ok(),
                        _ => filled.try_recv().ok(),
                    };
                    if let Some(slot) = ready {
                        n_filling -= 1;
                        stream.submit(slot?, &self.layout).map_err(device_error)?;
                    } else {
                        seen(stream.next().map_err(device_error)?);
                        n_done += 1;
                    }
                }
                Ok(())
            };
            upload_all()?;
            let timed = measure(budget, upload_all)?;
            Ok((if is_right { Ok(()) } else { Err("what was uploaded is not what arrived".into()) }, timed))
        })
    }
}
