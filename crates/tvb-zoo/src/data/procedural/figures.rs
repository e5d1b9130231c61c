//! Figures of several strokes: arrows, faces, plotted waves.

use crate::data::procedural::wild::{TURN, stray};
use crate::image::{Image, MIDDLE, Pose, SIDE, Segment, length};
use crate::random::Stream;

/// An arrow towards class × 45 degrees, clockwise from east.
pub(super) fn arrow(class: usize, wild: f32, random: &mut Stream) -> Image {
    let pose = stray(wild, 0.2, 2.0, 0.3, random);
    let pose = Pose { angle: pose.angle + class as f32 * (TURN / 8.0), ..pose };
    let strokes: [Segment; 3] = [[-0.75, 0.0, 0.7, 0.0], [0.7, 0.0, 0.2, -0.45], [0.7, 0.0, 0.2, 0.45]];
    let mut image = Image::filled(wild * random.range(0.0, 0.3));
    for _ in 0..(wild * 3.0) as usize {
        let centre = [random.range(0.0, SIDE as f32), random.range(0.0, SIDE as f32)];
        image.paint_disc(random.range(0.2, 0.8), centre, random.range(0.6, 1.5));
    }
    let width = 1.8 + wild * random.range(-0.7, 0.4);
    image.paint_lines(1.0 - wild * random.range(0.0, 0.3), width, &pose.lines(&strokes));
    image.add_noise(0.08 * wild, random);
    image
}

/// happy, sad, surprised, calm, winking.
pub(super) fn face(class: usize, wild: f32, random: &mut Stream) -> Image {
    let pose = stray(wild, 0.25, 1.0, 0.12, random);
    let mut image = Image::filled(wild * random.range(0.0, 0.3));
    let skin = 0.85 - wild * random.range(0.0, 0.2);
    let ink = 0.05 + wild * random.range(0.0, 0.2);
    let pixels = pose.scale * MIDDLE;
    let wide = 1.0 - wild * random.range(0.0, 0.15);
    image.paint(skin, |x, y| {
        let [u, v] = pose.undo(x, y);
        pixels * (length(u / wide, v) - 0.95)
    });
    let eye_height = -0.25 + wild * random.range(-0.08, 0.08);
    image.paint_disc(ink, pose.apply(-0.35, eye_height), 1.2);
    if class == 4 {
        image.paint_lines(ink, 1.1, &pose.lines(&[[0.15, eye_height, 0.55, eye_height]]));
    } else {
        image.paint_disc(ink, pose.apply(0.35, eye_height), 1.2);
    }
    // How far the corners of the mouth are above its middle.
    let smile = 0.22 + wild * random.range(-0.08, 0.08);
    let bent =
        |rise: f32| -> [Segment; 2] { [[-0.4, 0.4 - rise, 0.0, 0.4 + rise], [0.0, 0.4 + rise, 0.4, 0.4 - rise]] };
    match class {
        0 | 4 => image.paint_lines(ink, 1.2, &pose.lines(&bent(smile))),
        1 => image.paint_lines(ink, 1.2, &pose.lines(&bent(-smile))),
        2 => image.paint_disc(ink, pose.apply(0.0, 0.42), 2.0),
        _ => image.paint_lines(ink, 1.2, &pose.lines(&[[-0.4, 0.42, 0.4, 0.42]])),
    }
    image.add_noise(0.08 * wild, random);
    image
}

/// sine, square, zigzag, sawtooth: plotted from left to right.
pub(super) fn wave(class: usize, wild: f32, random: &mut Stream) -> Image {
    let period = 10.0 + wild * random.range(-2.0, 4.0);
    let phase = random.unit();
    let height = 4.6 - wild * random.range(0.0, 1.2);
    let middle = MIDDLE + wild * random.range(-1.5, 1.5);
    let form = |x: f32| {
        let cycles = x / period + phase;
        let place = cycles - cycles.floor();
        match class {
            0 => libm::sinf(place * TURN),
            1 => {
                if place < 0.5 {
                    1.0
                } else {
                    -1.0
                }
            }
            2 => 1.0 - 4.0 * (place - 0.5).abs(),
            _ => 2.0 * place - 1.0,
        }
    };
    // Short steps, so that the jumps of square and sawtooth are drawn too.
    const STEPS_PER_PIXEL: usize = 3;
    let mut strokes: Vec<Segment> = Vec::with_capacity(SIDE * STEPS_PER_PIXEL);
    for step in 0..SIDE * STEPS_PER_PIXEL {
        let (x0, x1) = (step as f32 / STEPS_PER_PIXEL as f32, (step + 1) as f32 / STEPS_PER_PIXEL as f32);
        strokes.push([x0, middle - height * form(x0), x1, middle - height * form(x1)]);
    }
    let mut image = Image::filled(wild * random.range(0.0, 0.3));
    image.paint_lines(1.0 - wild * random.range(0.0, 0.3), 1.5 + wild * random.range(-0.3, 0.5), &strokes);
    image.add_noise(0.12 * wild, random);
    image
}
