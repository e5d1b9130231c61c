//! Random patches with a mirror, or without one.

use crate::image::Image;
use crate::random::Stream;

/// Patches along one side, 4 pixels each.
const N_PATCHES: usize = 4;

/// left mirrors right, top mirrors bottom, turned by half, none.
pub(super) fn pattern(class: usize, wild: f32, random: &mut Stream) -> Image {
    let mut patches = [[0.0_f32; N_PATCHES]; N_PATCHES];
    let share = 0.45;
    let (dark, light) = (wild * random.range(0.0, 0.25), 1.0 - wild * random.range(0.0, 0.25));
    for patch in patches.as_flattened_mut() {
        *patch = if random.chance(share) { light } else { dark };
    }
    let drawn = patches;
    for (row, line) in patches.iter_mut().enumerate() {
        for (column, patch) in line.iter_mut().enumerate() {
            let (far_column, far_row) = (N_PATCHES - 1 - column, N_PATCHES - 1 - row);
            let first = |is_first: bool, mirrored: f32| if is_first { drawn[row][column] } else { mirrored };
            *patch = match class {
                0 => first(column < far_column, drawn[row][far_column]),
                1 => first(row < far_row, drawn[far_row][column]),
                2 => first(row < far_row, drawn[far_row][far_column]),
                _ => drawn[row][column],
            };
        }
    }
    let mut image = Image::from_fn(|x, y| patches[y as usize / 4][x as usize / 4]);
    image.add_noise(0.08 * wild, random);
    image
}
