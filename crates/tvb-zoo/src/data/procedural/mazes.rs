//! Mazes of 7×7 cells: passages one or two pixels wide between walls.

use crate::image::{Image, SIDE};
use crate::random::Stream;

/// Cells along one side; cell (c, r) is the pixel (2c + 1, 2r + 1).
const N_CELLS: usize = 7;

/// rows, columns, branches, halls, spiral.
pub(super) fn maze(class: usize, wild: f32, random: &mut Stream) -> Image {
    let mut open = [false; SIDE * SIDE];
    if class == 4 {
        spiral(&mut open, wild, random);
    } else {
        // Each cell opens east or south; how often east makes rows or columns.
        let east = match class {
            0 => 0.92 - 0.12 * wild,
            1 => 0.08 + 0.12 * wild,
            _ => 0.5,
        };
        for cell in 0..N_CELLS * N_CELLS {
            let (column, row) = (cell % N_CELLS, cell / N_CELLS);
            let (x, y) = (2 * column + 1, 2 * row + 1);
            open[y * SIDE + x] = true;
            let (can_east, can_south) = (column + 1 < N_CELLS, row + 1 < N_CELLS);
            let goes_east = random.chance(east);
            // Halls have most of their walls taken down.
            let is_hall = class == 3;
            if can_east && (goes_east || is_hall && random.chance(0.75)) {
                open[y * SIDE + x + 1] = true;
            }
            if can_south && (!goes_east || is_hall && random.chance(0.75)) {
                open[(y + 1) * SIDE + x] = true;
            }
        }
    }
    let (dark, light) = (wild * random.range(0.0, 0.35), 1.0 - wild * random.range(0.0, 0.35));
    let turned = wild > 0.5 && random.chance(0.5);
    let mut image = Image::from_fn(|x, y| {
        let (column, row) = (x as usize, y as usize);
        // Half of a task's mazes are shown upside down, which leaves rows rows and columns columns.
        let index = if turned { SIDE * SIDE - 1 - (row * SIDE + column) } else { row * SIDE + column };
        if open[index] { light } else { dark }
    });
    image.add_noise(0.1 * wild, random);
    image
}

/// A passage that winds inwards, started at a random ring, with a few walls broken through.
fn spiral(open: &mut [bool; SIDE * SIDE], wild: f32, random: &mut Stream) {
    let (mut left, mut top, mut right, mut bottom) = (1 + random.pick(2), 1 + random.pick(2), 13, 13);
    let mut level = |columns: std::ops::RangeInclusive<usize>, rows: std::ops::RangeInclusive<usize>| {
        for row in rows {
            for column in columns.clone() {
                open[row * SIDE + column] = true;
            }
        }
    };
    while left + 2 <= right && top + 2 <= bottom {
        level(left..=right, top..=top);
        level(right..=right, top..=bottom);
        level(left..=right, bottom..=bottom);
        level(left..=left, top + 2..=bottom);
        level(left..=left + 1, top + 2..=top + 2);
        (left, top, right, bottom) = (left + 2, top + 2, right - 2, bottom - 2);
    }
    for _ in 0..(wild * 5.0) as usize {
        let place = (1 + random.pick(14)) * SIDE + 1 + random.pick(14);
        open[place] = !open[place];
    }
}
