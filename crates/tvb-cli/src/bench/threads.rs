//! The same work on each of several parts, by a few threads that take the next part when they are done with one.

use std::sync::Mutex;
use std::sync::PoisonError;

/// Calls `work` with the number of each part and the part, from `n_threads` threads; waits for all.
pub(super) fn for_each<T: Send>(n_threads: usize, parts: Vec<T>, work: impl Fn(usize, T) + Sync) {
    let n_threads = n_threads.min(parts.len()).max(1);
    let parts = Mutex::new(parts.into_iter().enumerate());
    let run = || {
        loop {
            // The lock is not held while the work is done.
            let next = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((at, part)) = next else { return };
            work(at, part);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..n_threads {
            scope.spawn(run);
        }
        run();
    });
}
