//! The model that is evaluated and the one that is trained are the same: two ways to write one forward pass.

use std::path::Path;

use candle_core::Tensor;
use tvb_zoo::checkpoint;
use tvb_zoo::data::{Split, control_sets, eval_set};
use tvb_zoo::model::{Model, Tensors};
use tvb_zoo::survey::edited;
use tvb_zoo::tasks::{TASKS, TaskSpec};
use tvb_zoo::train::{Graph, pixels_tensor, variables};

/// Logits lie between -16 and 16; 64 times the spacing of f32 there.
const TOLERANCE: f32 = 64.0 * 16.0 * f32::EPSILON;

fn load(name: &str) -> Tensors {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints");
    checkpoint::read(&folder.join(format!("{name}.safetensors"))).unwrap()
}

fn class_of(scores: &[f32]) -> usize {
    (0..scores.len()).fold(0, |best, class| if scores[class] > scores[best] { class } else { best })
}

/// How far the best score is above the second best.
fn lead(scores: &[f32]) -> f32 {
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted[0] - sorted[1]
}

#[test]
fn both_forward_passes_give_the_same_logits_and_classes() {
    let base = load("base");
    let tuned: Vec<Tensors> = TASKS.iter().map(|task| load(task.name)).collect();
    let weighted: Vec<(&Tensors, f64)> = tuned.iter().map(|tensors| (tensors, 0.6)).collect();
    let mut models = vec![
        ("all added", edited(&base, &weighted).unwrap()),
        ("digits negated", edited(&base, &[(&tuned[0], -1.0)]).unwrap()),
        ("base", base),
    ];
    for name in ["digits", "mazes", "noisy", "dice", "occluded"] {
        models.push((name, load(name)));
    }
    let own: Vec<&'static TaskSpec> = TASKS.iter().collect();
    let mut sets: Vec<_> = own.into_iter().map(|task| (task, eval_set(task, Split::Test).unwrap())).collect();
    sets.extend(control_sets(Split::Val));

    let (mut largest, mut n_images, mut n_ties) = (0.0_f32, 0, 0);
    for (name, tensors) in &models {
        let (model, graph) = (Model::new(tensors).unwrap(), Graph::new(&variables(tensors).unwrap()).unwrap());
        for (task, set) in &sets {
            let rows = task.word_rows();
            let found = model.logits(&set.pixels, &rows).unwrap();
            let rows = Tensor::new(rows, &candle_core::Device::Cpu).unwrap();
            let expected = graph.logits(&pixels_tensor(&set.pixels).unwrap(), &rows).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(found.len(), expected.len());
            for (image, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(expected) {
                    let distance = (found - expected).abs();
                    assert!(distance <= TOLERANCE, "{name}, {}, image {image}: {found}, not {expected}", task.name);
                    largest = largest.max(distance);
                }
                if lead(expected) > 2.0 * TOLERANCE {
                    assert_eq!(class_of(found), class_of(expected), "{name}, {}, image {image}", task.name);
                } else {
                    n_ties += 1;
                }
                n_images += 1;
            }
        }
    }
    println!("{n_images} images: logits differ by at most {largest:e}; {n_ties} too close to call");
    assert!(n_ties * 100 < n_images);
}
