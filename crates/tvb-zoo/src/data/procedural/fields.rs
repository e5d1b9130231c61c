//! Images that are a function of the place alone: stripes, surfaces, gradients.

use crate::data::procedural::wild::TURN;
use crate::image::{Image, MIDDLE, length};
use crate::random::Stream;

/// Stripes at class × 30 degrees, of random width, phase and sharpness.
pub(super) fn stripes(class: usize, wild: f32, random: &mut Stream) -> Image {
    let angle = class as f32 * (TURN / 12.0) + wild * random.range(-0.16, 0.16);
    let (across, down) = (libm::sinf(angle), libm::cosf(angle));
    let period = random.range(3.5, 6.5);
    let phase = random.range(0.0, TURN);
    let contrast = 0.5 - wild * random.range(0.2, 0.4);
    let mut image = Image::from_fn(|x, y| 0.5 + contrast * libm::sinf((across * x + down * y) * TURN / period + phase));
    image.add_noise(0.12 * wild, random);
    image
}

/// checks, spots, bricks, grain, ripples, hatching.
pub(super) fn texture(class: usize, wild: f32, random: &mut Stream) -> Image {
    let period = 5.0 + (0.4 + wild) * random.range(-1.0, 1.6);
    let (left, top) = (random.range(0.0, period), random.range(0.0, period));
    let angle = wild * random.range(-0.4, 0.4);
    let (sin, cos) = (libm::sinf(angle), libm::cosf(angle));
    let centre = [MIDDLE + wild * random.range(-5.0, 5.0), MIDDLE + wild * random.range(-5.0, 5.0)];
    let mut image = Image::from_fn(|x, y| {
        // Place within the pattern, in periods.
        let (u, v) = ((cos * x - sin * y + left) / period, (sin * x + cos * y + top) / period);
        let (du, dv) = (u - u.floor() - 0.5, v - v.floor() - 0.5);
        let ridge = |offset: f32| soft(1.0 - offset.abs() * period);
        match class {
            0 => soft(if (du < 0.0) == (dv < 0.0) { du.abs().min(dv.abs()) } else { -du.abs().min(dv.abs()) } * period),
            1 => soft(0.3 * period - length(du, dv) * period),
            2 => {
                let row = (v.floor() as i64).rem_euclid(2) as f32;
                let shifted = u * 0.6 + row / 2.0;
                1.0 - ridge(dv).max(ridge((shifted - shifted.floor() - 0.5) / 0.6))
            }
            3 => random.unit(),
            4 => 0.5 + 0.5 * libm::sinf(length(x - centre[0], y - centre[1]) * TURN / period + left),
            _ => {
                let (rising, falling) = (du + dv, du - dv);
                ridge((rising - rising.round()) * 0.7).max(ridge((falling - falling.round()) * 0.7))
            }
        }
    });
    let (low, high) = (wild * random.range(0.0, 0.45), 1.0 - wild * random.range(0.0, 0.35));
    image.map(|level| low + (high - low) * level);
    image.add_noise(0.08 * wild, random);
    image
}

/// Light from class × 45 degrees, under blotches and noise.
pub(super) fn gradient(class: usize, wild: f32, random: &mut Stream) -> Image {
    let angle = class as f32 * (TURN / 8.0) + wild * random.range(-0.25, 0.25);
    let (across, down) = (libm::cosf(angle), libm::sinf(angle));
    let slope = 0.055 * (1.0 - wild * random.range(0.4, 0.75));
    let middle = 0.5 + wild * random.range(-0.15, 0.15);
    let mut image = Image::from_fn(|x, y| middle + slope * (across * (x - MIDDLE) + down * (y - MIDDLE)));
    for _ in 0..(wild * 5.0) as usize {
        let centre = [random.range(0.0, 16.0), random.range(0.0, 16.0)];
        let level = random.range(0.0, 1.0);
        image.paint_disc(level, centre, random.range(0.8, 2.2));
    }
    image.add_noise(0.12 * wild, random);
    image
}

/// A distance in pixels to a soft edge: 0 outside, 1 inside.
fn soft(distance: f32) -> f32 {
    (0.5 + distance).clamp(0.0, 1.0)
}
