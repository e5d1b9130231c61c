//! Things to count: soft blobs, the pips of a die, bright corners.

use crate::data::procedural::wild::stray;
use crate::image::{Image, MIDDLE, length};
use crate::random::Stream;

/// class + 1 soft blobs that do not touch.
pub(super) fn blobs(class: usize, wild: f32, random: &mut Stream) -> Image {
    let n_blobs = class + 1;
    let mut centres: Vec<[f32; 2]> = Vec::new();
    // If the last blob finds no room after many tries, start over with all of them.
    let mut n_tries = 0;
    while centres.len() < n_blobs {
        let centre = [random.range(2.5, 13.5), random.range(2.5, 13.5)];
        if centres.iter().all(|other| length(centre[0] - other[0], centre[1] - other[1]) > 5.2) {
            centres.push(centre);
        }
        n_tries += 1;
        if n_tries % 200 == 0 {
            centres.clear();
        }
    }
    let mut image = Image::filled(wild * random.range(0.0, 0.25));
    for centre in centres {
        let radius = 1.5 + wild * random.range(-0.3, 0.5);
        let level = 1.0 - wild * random.range(0.0, 0.3);
        image.paint(level, |x, y| 0.7 * (length(x - centre[0], y - centre[1]) - radius));
    }
    image.add_noise(0.1 * wild, random);
    image
}

/// A die that shows class + 1.
pub(super) fn dice(class: usize, wild: f32, random: &mut Stream) -> Image {
    const FAR: f32 = 0.5;
    let pose = stray(wild, 0.5, 1.2, 0.2, random);
    let mut image = Image::filled(wild * random.range(0.0, 0.4));
    let plate = 0.9 - wild * random.range(0.0, 0.25);
    let pixels = pose.scale * MIDDLE;
    image.paint(plate, |x, y| {
        let [u, v] = pose.undo(x, y);
        pixels * (u.abs().max(v.abs()) - 0.85)
    });
    let pips: &[[f32; 2]] = match class {
        0 => &[[0.0, 0.0]],
        1 => &[[-FAR, -FAR], [FAR, FAR]],
        2 => &[[-FAR, -FAR], [0.0, 0.0], [FAR, FAR]],
        3 => &[[-FAR, -FAR], [FAR, -FAR], [-FAR, FAR], [FAR, FAR]],
        4 => &[[-FAR, -FAR], [FAR, -FAR], [0.0, 0.0], [-FAR, FAR], [FAR, FAR]],
        _ => &[[-FAR, -FAR], [FAR, -FAR], [-FAR, 0.0], [FAR, 0.0], [-FAR, FAR], [FAR, FAR]],
    };
    let ink = 0.05 + wild * random.range(0.0, 0.25);
    for &[u, v] in pips {
        image.paint_disc(ink, pose.apply(u, v), 1.4);
    }
    image.add_noise(0.08 * wild, random);
    image
}

/// Four corners, lit or not; class 0 has an even number lit, class 1 an odd number.
pub(super) fn corners(class: usize, wild: f32, random: &mut Stream) -> Image {
    let mut lit = [random.chance(0.5), random.chance(0.5), random.chance(0.5), false];
    lit[3] = (lit.iter().filter(|&&is_lit| is_lit).count() % 2) != class;
    let mut image = Image::filled(0.1 + wild * random.range(0.0, 0.3));
    for (corner, is_lit) in lit.into_iter().enumerate() {
        let centre = [3.0 + 10.0 * (corner % 2) as f32, 3.0 + 10.0 * (corner / 2) as f32];
        let centre = centre.map(|place| place + wild * random.range(-1.0, 1.0));
        let half_side = 1.8 + wild * random.range(-0.4, 0.6);
        if is_lit {
            let level = 1.0 - wild * random.range(0.0, 0.4);
            image.paint(level, |x, y| (x - centre[0]).abs().max((y - centre[1]).abs()) - half_side);
        }
    }
    image.add_noise(0.1 * wild, random);
    image
}
