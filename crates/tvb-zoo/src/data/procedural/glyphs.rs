//! Letters and digits drawn with a pen: each is a few straight strokes in the unit square.

use crate::data::procedural::wild::stray;
use crate::image::{Image, MIDDLE, Pose, Segment};
use crate::random::Stream;

/// One of the ten letters, leaning and turned.
pub(super) fn letter(class: usize, wild: f32, random: &mut Stream) -> Image {
    let (pose, width) = (letter_pose(wild, random), 1.9 + wild * random.range(-0.8, 0.8));
    let mut image = Image::filled(wild * random.range(0.0, 0.25));
    image.paint_lines(1.0 - wild * random.range(0.0, 0.35), width, &pose.lines(letter_strokes(class)));
    image.add_noise(0.1 * wild, random);
    image
}

/// One of the ten letters, dark in a bright plate with a dark rim.
pub(super) fn stencil(class: usize, wild: f32, random: &mut Stream) -> Image {
    let pose = letter_pose(wild, random);
    let mut image = Image::filled(0.15);
    let half_side = 7.6 - wild * random.range(0.0, 0.8);
    let plate = 0.95 - wild * random.range(0.0, 0.25);
    image.paint(plate, |x, y| (x - MIDDLE).abs().max((y - MIDDLE).abs()) - half_side);
    image.paint_lines(0.05 + wild * random.range(0.0, 0.3), 1.8, &pose.lines(letter_strokes(class)));
    image.add_noise(0.1 * wild, random);
    image
}

/// A digit as a display or a typewriter would show it.
pub(in crate::data) fn printed_digit(digit: usize, wild: f32, random: &mut Stream) -> Image {
    let pose = Pose { slant: wild * random.range(-0.3, 0.3), ..stray(wild, 0.3, 1.0, 0.2, random) };
    let mut image = Image::filled(0.0);
    image.paint_lines(1.0, random.range(2.0, 2.8), &pose.lines(digit_strokes(digit)));
    image.add_noise(0.03, random);
    image
}

fn letter_pose(wild: f32, random: &mut Stream) -> Pose {
    Pose { slant: wild * random.range(-0.4, 0.4), ..stray(wild, 0.3, 1.4, 0.28, random) }
}

fn letter_strokes(class: usize) -> &'static [Segment] {
    match class {
        0 => &[[-0.6, 0.7, 0.0, -0.7], [0.0, -0.7, 0.6, 0.7], [-0.35, 0.2, 0.35, 0.2]],
        1 => &[
            [0.5, -0.5, 0.1, -0.7],
            [0.1, -0.7, -0.4, -0.4],
            [-0.4, -0.4, -0.4, 0.4],
            [-0.4, 0.4, 0.1, 0.7],
            [0.1, 0.7, 0.5, 0.5],
        ],
        2 => &[[-0.4, -0.7, -0.4, 0.7], [-0.4, -0.7, 0.5, -0.7], [-0.4, 0.0, 0.35, 0.0], [-0.4, 0.7, 0.5, 0.7]],
        3 => &[[-0.5, -0.7, -0.5, 0.7], [0.5, -0.7, 0.5, 0.7], [-0.5, 0.0, 0.5, 0.0]],
        4 => &[[-0.4, -0.7, -0.4, 0.7], [-0.4, 0.1, 0.5, -0.7], [-0.1, -0.1, 0.5, 0.7]],
        5 => &[[-0.4, -0.7, -0.4, 0.7], [-0.4, 0.7, 0.5, 0.7]],
        6 => &[
            [0.5, -0.6, -0.2, -0.7],
            [-0.2, -0.7, -0.4, -0.3],
            [-0.4, -0.3, 0.4, 0.25],
            [0.4, 0.25, 0.2, 0.7],
            [0.2, 0.7, -0.5, 0.6],
        ],
        7 => &[[-0.6, -0.7, 0.6, -0.7], [0.0, -0.7, 0.0, 0.7]],
        8 => &[[-0.55, -0.7, 0.0, 0.7], [0.0, 0.7, 0.55, -0.7]],
        _ => &[[-0.5, -0.7, 0.5, 0.7], [0.5, -0.7, -0.5, 0.7]],
    }
}

fn digit_strokes(digit: usize) -> &'static [Segment] {
    match digit {
        0 => &[
            [0.0, -0.75, 0.4, -0.4],
            [0.4, -0.4, 0.4, 0.4],
            [0.4, 0.4, 0.0, 0.75],
            [0.0, 0.75, -0.4, 0.4],
            [-0.4, 0.4, -0.4, -0.4],
            [-0.4, -0.4, 0.0, -0.75],
        ],
        1 => &[[-0.25, -0.4, 0.1, -0.75], [0.1, -0.75, 0.1, 0.75]],
        2 => {
            &[[-0.35, -0.5, 0.0, -0.75], [0.0, -0.75, 0.35, -0.4], [0.35, -0.4, -0.35, 0.75], [-0.35, 0.75, 0.45, 0.75]]
        }
        3 => &[
            [-0.35, -0.7, 0.3, -0.7],
            [0.3, -0.7, 0.0, -0.1],
            [0.0, -0.1, 0.4, 0.3],
            [0.4, 0.3, 0.0, 0.75],
            [0.0, 0.75, -0.4, 0.6],
        ],
        4 => &[[0.2, 0.75, 0.2, -0.75], [0.2, -0.75, -0.45, 0.25], [-0.45, 0.25, 0.5, 0.25]],
        5 => &[
            [0.4, -0.75, -0.3, -0.75],
            [-0.3, -0.75, -0.35, -0.1],
            [-0.35, -0.1, 0.2, -0.1],
            [0.2, -0.1, 0.35, 0.4],
            [0.35, 0.4, 0.0, 0.75],
            [0.0, 0.75, -0.35, 0.65],
        ],
        6 => &[
            [0.2, -0.75, -0.35, 0.2],
            [-0.35, 0.2, -0.2, 0.7],
            [-0.2, 0.7, 0.2, 0.7],
            [0.2, 0.7, 0.35, 0.3],
            [0.35, 0.3, 0.0, 0.05],
            [0.0, 0.05, -0.35, 0.25],
        ],
        7 => &[[-0.4, -0.7, 0.4, -0.7], [0.4, -0.7, -0.1, 0.75], [-0.2, 0.0, 0.35, 0.0]],
        8 => &[
            [0.0, -0.05, 0.35, -0.4],
            [0.35, -0.4, 0.0, -0.75],
            [0.0, -0.75, -0.35, -0.4],
            [-0.35, -0.4, 0.0, -0.05],
            [0.0, -0.05, 0.35, 0.4],
            [0.35, 0.4, 0.0, 0.75],
            [0.0, 0.75, -0.35, 0.4],
            [-0.35, 0.4, 0.0, -0.05],
        ],
        _ => &[
            [0.35, -0.3, 0.0, 0.0],
            [0.0, 0.0, -0.35, -0.3],
            [-0.35, -0.3, 0.0, -0.75],
            [0.0, -0.75, 0.35, -0.3],
            [0.35, -0.3, 0.1, 0.75],
        ],
    }
}
