//! Training follows from its seeds: twice the same steps give the same bytes.

use tvb_zoo::checkpoint;
use tvb_zoo::model::{Tensors, WORD_TABLE};
use tvb_zoo::tasks::TASKS;
use tvb_zoo::train::{Schedule, fine_tune, train_base};

const TINY: Schedule = Schedule { n_steps: 3, batch: 16, rate: 1e-3, decay: 0.01, n_rehearsed: 32 };

fn bytes_of(tensors: &Tensors) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    checkpoint::write(&path, tensors).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn two_runs_give_the_same_bytes() {
    let mut losses = Vec::new();
    let base = train_base(&TINY, &mut |step, loss| losses.push((step, loss))).unwrap();
    assert_eq!(losses.len(), 1);
    assert_eq!(losses[0].0, TINY.n_steps);
    assert!(losses[0].1.is_finite());
    assert_eq!(bytes_of(&base), bytes_of(&train_base(&TINY, &mut |_, _| {}).unwrap()));

    // A task of each source, handwritten digits and drawings, with rehearsal and without.
    for (task, n_rehearsed) in [(&TASKS[0], 32), (&TASKS[1], 0)] {
        let schedule = Schedule { n_rehearsed, ..TINY };
        let tuned = || bytes_of(&fine_tune(&base, task, &schedule, &mut |_, _| {}).unwrap());
        let first = tuned();
        assert_eq!(first, tuned(), "{}", task.name);
        assert_ne!(first, bytes_of(&base), "{}", task.name);
    }
    assert_eq!(base[WORD_TABLE].shape[0], tvb_zoo::tasks::words().len());
}

#[test]
fn training_leaves_its_start_alone() {
    let base = train_base(&TINY, &mut |_, _| {}).unwrap();
    let before = bytes_of(&base);
    fine_tune(&base, &TASKS[0], &TINY, &mut |_, _| {}).unwrap();
    assert_eq!(bytes_of(&base), before);
}
