//! A contact sheet: a few images of every task in one SVG that holds its pixels itself.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::data::{Split, eval_set};
use crate::image::SIDE;
use crate::tasks::TASKS;
use crate::{Error, Result};

/// Images shown of each task.
const N_SHOWN: usize = 6;
/// Tasks side by side.
const N_COLUMNS: usize = 2;
/// Pixels of the sheet per pixel of an image.
const SCALE: usize = 3;
/// White between images, in their pixels.
const GAP: usize = 1;
/// A task's images side by side, in their pixels.
const STRIP_WIDTH: usize = N_SHOWN * (SIDE + GAP) - GAP;
/// From one task to the next below it.
const STEP: usize = SCALE * (SIDE + 2 * GAP);
const LABEL_WIDTH: usize = 86;
const COLUMN_WIDTH: usize = LABEL_WIDTH + SCALE * STRIP_WIDTH + 16;

/// The sheet as SVG text: per task its name and images of its first classes.
///
/// # Errors
/// Failed, from the data.
pub fn svg() -> Result<String> {
    let n_rows = TASKS.len().div_ceil(N_COLUMNS);
    let (width, height) = (N_COLUMNS * COLUMN_WIDTH, n_rows * STEP + 4);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\n\
         <title>Images of the zoo's twenty tasks</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (index, task) in TASKS.iter().enumerate() {
        let (left, top) = (index / n_rows * COLUMN_WIDTH, index % n_rows * STEP + 4);
        let set = eval_set(task, Split::Val)?;
        let mut strip = vec![255_u8; STRIP_WIDTH * SIDE];
        for (place, shown) in one_per_class(&set.labels).into_iter().enumerate() {
            for (pixel, level) in set.image(shown).iter().enumerate() {
                let (column, row) = (place * (SIDE + GAP) + pixel % SIDE, pixel / SIDE);
                strip[row * STRIP_WIDTH + column] = (level * 255.0).round() as u8;
            }
        }
        let baseline = top + SCALE * SIDE / 2 + 5;
        let _ = writeln!(
            text,
            "<text x=\"{}\" y=\"{baseline}\" font-family=\"sans-serif\" font-size=\"14\" fill=\"#222\">{}</text>",
            left + 8,
            task.name
        );
        let png = base64(&png(&strip, STRIP_WIDTH, SIDE)?);
        // One strip per task: fewer, larger images than one per example.
        let _ = writeln!(
            text,
            "<image x=\"{}\" y=\"{top}\" width=\"{}\" height=\"{}\" preserveAspectRatio=\"none\" \
             style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{png}\"/>",
            left + LABEL_WIDTH,
            STRIP_WIDTH * SCALE,
            SIDE * SCALE
        );
    }
    text.push_str("</svg>\n");
    Ok(text)
}

/// Indices of images of different classes first, then of any.
fn one_per_class(labels: &[u32]) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    for (index, label) in labels.iter().enumerate() {
        if chosen.iter().all(|&other| labels[other] != *label) {
            chosen.push(index);
        }
    }
    let others: Vec<usize> = (0..labels.len()).filter(|index| !chosen.contains(index)).collect();
    chosen.extend(others);
    chosen.truncate(N_SHOWN);
    chosen.sort_by_key(|&index| labels[index]);
    chosen
}

/// An 8-bit grey PNG.
fn png(pixels: &[u8], width: usize, height: usize) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| Error::failed(format!("packing an image failed: {error}"));
    let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    for row in pixels.chunks(width) {
        // Filter type 0: none.
        packer.write_all(&[0]).and_then(|()| packer.write_all(row)).map_err(failed)?;
    }
    let packed = packer.finish().map_err(failed)?;
    let mut header = Vec::new();
    header.extend((width as u32).to_be_bytes());
    header.extend((height as u32).to_be_bytes());
    header.extend([8, 0, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [(b"IHDR", header), (b"IDAT", packed), (b"IEND", Vec::new())] {
        let mut check = flate2::Crc::new();
        check.update(kind);
        check.update(&data);
        png.extend((data.len() as u32).to_be_bytes());
        png.extend(kind);
        png.extend(data);
        png.extend(check.sum().to_be_bytes());
    }
    Ok(png)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let joined = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let is_padding = digit > chunk.len();
            text.push(if is_padding { '=' } else { DIGITS[(joined >> (18 - 6 * digit)) as usize & 63].into() });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_pads() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
