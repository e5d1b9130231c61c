//! Independent pieces of work, as many at once as there are cores, answers in order.

use crate::process::Result;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// `work` on every item; the first failure is the answer, and nothing more is begun after it.
pub(crate) fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let next = AtomicUsize::new(0);
    let answers: Mutex<Vec<(usize, Result<R>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { return };
                    let answer = work(item);
                    if answer.is_err() {
                        next.fetch_add(items.len(), Ordering::Relaxed);
                    }
                    answers.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((index, answer));
                }
            });
        }
    });
    let mut answers = answers.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    answers.sort_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_order_and_failures_come_out() {
        let items: Vec<usize> = (0..50).collect();
        assert_eq!(
            side_by_side(&items, |&item| Ok(item * 2)).unwrap(),
            items.iter().map(|i| i * 2).collect::<Vec<_>>()
        );
        let failed = side_by_side(&items, |&item| if item == 20 { Err("boom".into()) } else { Ok(()) });
        assert_eq!(failed, Err("boom".to_owned()));
        assert_eq!(side_by_side(&[] as &[usize], |_| Ok(())), Ok(Vec::new()));
    }
}
