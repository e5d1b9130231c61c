//! The committed checkpoints are what `accuracies.json` says they are.

use std::path::{Path, PathBuf};

use tvb_zoo::checkpoint;
use tvb_zoo::data::Split;
use tvb_zoo::eval::{Accuracy, Evaluator, mean};
use tvb_zoo::model::{LOGIT_SCALE, Model, POSITION_IDS, Tensors, WORD_TABLE, layout};
use tvb_zoo::survey::{Survey, edited};
use tvb_zoo::tasks::{TASKS, TaskSpec};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints")
}

fn load(name: &str) -> Tensors {
    checkpoint::read(&folder().join(format!("{name}.safetensors"))).unwrap()
}

fn recorded() -> Survey {
    serde_json::from_str(&std::fs::read_to_string(folder().join("accuracies.json")).unwrap()).unwrap()
}

/// Recorded accuracies are rounded to four places.
fn check(what: &str, found: f64, expected: f64) {
    assert!((found - expected).abs() <= 0.50001e-4, "{what}: found {found:.6}, recorded {expected:.4}");
}

fn ask(tensors: &Tensors, tasks: &[&'static TaskSpec]) -> Vec<Accuracy> {
    Evaluator::new(tasks, Split::Test).unwrap().accuracies(&Model::new(tensors).unwrap()).unwrap()
}

#[test]
fn the_base_is_as_recorded() {
    let all: Vec<&'static TaskSpec> = TASKS.iter().collect();
    let evaluator = Evaluator::new(&all, Split::Test).unwrap().with_control(Split::Test);
    for one in evaluator.accuracies(&Model::new(&load("base")).unwrap()).unwrap() {
        check(one.task, one.value, recorded().zero_shot[one.task]);
    }
}

#[test]
fn every_fine_tune_is_as_recorded_and_better_than_the_base() {
    let survey = recorded();
    for task in &TASKS {
        let found = mean(&ask(&load(task.name), &[task]));
        check(task.name, found, survey.fine_tuned[task.name]);
        assert!(found > survey.zero_shot[task.name] + 0.02, "{}", task.name);
    }
}

#[test]
fn addition_is_as_recorded_and_better_than_the_base() {
    let (survey, base) = (recorded(), load("base"));
    let addition = &survey.addition[0];
    let tasks: Vec<&'static TaskSpec> = TASKS[..addition.n_tasks].iter().collect();
    let tuned: Vec<Tensors> = tasks.iter().map(|task| load(task.name)).collect();
    let weighted: Vec<(&Tensors, f64)> = tuned.iter().map(|tensors| (tensors, addition.scale)).collect();
    let added = mean(&ask(&edited(&base, &weighted).unwrap(), &tasks));
    check("addition", added, addition.mean);
    assert!(added > mean(&ask(&base, &tasks)) + 0.1);
}

/// Images are drawn and models evaluated with the same bits on every processor, so these counts are exact.
#[test]
fn every_checkpoint_gets_the_known_images_right() {
    let all: Vec<&'static TaskSpec> = TASKS.iter().collect();
    let evaluators =
        [Split::Val, Split::Test].map(|split| (split.name(), Evaluator::new(&all, split).unwrap().with_control(split)));
    // One line per checkpoint and split: images in the right class, by task in their order, then the control's.
    let known = include_str!("right.txt");
    let mut found = String::new();
    for name in ["base"].into_iter().chain(TASKS.iter().map(|task| task.name)) {
        let model = Model::new(&load(name)).unwrap();
        for (split, evaluator) in &evaluators {
            found += &format!("{name} {split}");
            for one in evaluator.accuracies(&model).unwrap() {
                found += &format!(" {}", one.n_right);
            }
            found += "\n";
        }
    }
    assert_eq!(found, known, "where the zoo was retrained, put this in tests/right.txt");
}

#[test]
fn only_the_encoder_moves() {
    let base = load("base");
    for task in &TASKS {
        let tuned = load(task.name);
        for spec in layout() {
            let (before, after) = (&base[&spec.name], &tuned[&spec.name]);
            if spec.is_trained() {
                assert_ne!(before, after, "{}: {} did not move", task.name, spec.name);
            } else {
                assert_eq!(before, after, "{}: {} moved", task.name, spec.name);
            }
        }
        let frozen: Vec<String> =
            layout().into_iter().filter(|spec| !spec.is_trained()).map(|spec| spec.name).collect();
        assert_eq!(frozen, [POSITION_IDS, WORD_TABLE, LOGIT_SCALE]);
    }
}

#[test]
fn the_files_are_small_and_in_the_common_format() {
    let mut total_bytes = 0;
    for name in TASKS.iter().map(|task| task.name).chain(["base"]) {
        let bytes = std::fs::read(folder().join(format!("{name}.safetensors"))).unwrap();
        total_bytes += bytes.len();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
        assert_eq!(metadata.tensors().len(), layout().len());
    }
    assert!(total_bytes <= 6_000_000, "{total_bytes} bytes");
    let n_trained: usize =
        layout().iter().filter(|spec| spec.is_trained()).map(|spec| spec.shape.iter().product::<usize>()).sum();
    assert!(n_trained <= 60_000, "{n_trained} parameters in the encoder");
}
