//! The evaluated images are the same bytes everywhere: accuracies mean nothing otherwise.

use tvb_zoo::data::{Split, eval_set, mixture_batch, train_batch};
use tvb_zoo::image::N_PIXELS;
use tvb_zoo::random::Stream;
use tvb_zoo::tasks::{SCENARIOS, TASKS, find, scenario, words};

/// FNV-1a over the images as 8-bit grey and their labels.
fn fingerprint(name: &str, split: Split) -> u64 {
    let set = eval_set(find(name).unwrap(), split).unwrap();
    assert_eq!(set.pixels.len(), set.n_images() * N_PIXELS);
    let greys = set.pixels.iter().map(|level| (level * 255.0).round() as u8);
    let labels = set.labels.iter().map(|label| *label as u8);
    greys
        .chain(labels)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[test]
fn evaluated_images_are_the_known_ones() {
    let known = include_str!("fingerprints.txt");
    let mut found = String::new();
    for task in &TASKS {
        let (val, test) = (fingerprint(task.name, Split::Val), fingerprint(task.name, Split::Test));
        assert_ne!(val, test, "{}", task.name);
        found += &format!("{} {val:016x} {test:016x}\n", task.name);
    }
    assert_eq!(found, known, "the images have changed: retrain the zoo and put this in tests/fingerprints.txt");
}

#[test]
fn batches_follow_from_their_stream() {
    for task in &TASKS {
        let draw = |word: &str| train_batch(task, 8, &mut Stream::named(1, &[word])).unwrap();
        assert_eq!(draw("a"), draw("a"), "{}", task.name);
        assert_ne!(draw("a").pixels, draw("b").pixels, "{}", task.name);
        assert!(draw("a").labels.iter().all(|&label| (label as usize) < task.classes.len()), "{}", task.name);
    }
    let draw = || mixture_batch(64, &mut Stream::named(1, &["mixture"]));
    assert_eq!(draw(), draw());
}

#[test]
fn names_and_words_are_plain_and_distinct() {
    for (index, task) in TASKS.iter().enumerate() {
        assert!(task.name.bytes().all(|byte| byte.is_ascii_lowercase()), "{}", task.name);
        assert!(TASKS[..index].iter().all(|other| other.name != task.name), "{}", task.name);
        let rows = task.word_rows();
        assert_eq!(rows.len(), task.classes.len(), "{}", task.name);
        for (row, class) in rows.iter().zip(task.classes) {
            assert_eq!(words()[*row as usize], *class);
        }
    }
    assert!(find("nothing").unwrap_err().to_string().contains("digits"));
    for n_tasks in SCENARIOS {
        assert_eq!(scenario(n_tasks).unwrap().len(), n_tasks);
    }
    assert!(scenario(9).is_err());
}
