//! Solid shapes, with short stray lines around them.

use crate::data::procedural::wild::stray;
use crate::image::{Image, MIDDLE, SIDE, length};
use crate::random::Stream;

/// disc, square, triangle, cross, ring, diamond.
pub(super) fn shape(class: usize, wild: f32, random: &mut Stream) -> Image {
    let mut image = Image::filled(0.1 + wild * random.range(0.0, 0.3));
    for _ in 0..(wild * 3.0) as usize {
        let (x, y) = (random.range(0.0, SIDE as f32), random.range(0.0, SIDE as f32));
        let (dx, dy) = (random.range(-3.0, 3.0), random.range(-3.0, 3.0));
        image.paint_lines(random.range(0.3, 0.7), 0.8, &[[x, y, x + dx, y + dy]]);
    }
    let pose = stray(wild, 0.25, 2.0, 0.3, random);
    let level = 0.95 - wild * random.range(0.0, 0.35);
    let pixels = pose.scale * MIDDLE;
    image.paint(level, |x, y| {
        let [u, v] = pose.undo(x, y);
        pixels * distance(class, u, v)
    });
    image
}

/// Signed distance in the unit square.
fn distance(class: usize, u: f32, v: f32) -> f32 {
    let (across, down) = (u.abs(), v.abs());
    let bar = |along: f32, beside: f32| (along - 0.72).max(beside - 0.22);
    match class {
        0 => length(u, v) - 0.62,
        1 => across.max(down) - 0.56,
        2 => (v - 0.5).max(0.894 * across - 0.447 * (v + 0.75)),
        3 => bar(across, down).min(bar(down, across)),
        4 => (length(u, v) - 0.5).abs() - 0.17,
        _ => (across + down) * 0.707 - 0.52,
    }
}
