//! The UCI handwritten digits (see `data/README.md` for the credit), enlarged to 16×16 and put in guises.

use std::io::Read;
use std::sync::OnceLock;

use crate::data::Split;
use crate::data::procedural::{SKETCH, glyphs};
use crate::image::{Image, MIDDLE, Pose};
use crate::random::Stream;
use crate::{Error, Result};

/// Pixels along one side of an original image.
const SMALL: usize = 8;
/// Images in the file.
const N_IMAGES: usize = 1797;
static PACKED: &[u8] = include_bytes!("../../data/digits.csv.gz");

/// One handwritten digit.
#[derive(Clone, Debug)]
pub struct Handwritten {
    /// The image, white on black.
    pub image: Image,
    /// 0 to 9.
    pub digit: usize,
}

/// How a task shows the digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guise {
    /// As they are.
    Plain,
    /// Turned by 30 to 60 degrees, either way.
    Tilted,
    /// Dark on light.
    Negative,
    /// Under strong noise.
    Noisy,
    /// With a grey bar across.
    Occluded,
}

impl Guise {
    /// A handwritten digit in this guise.
    pub fn apply(self, drawn: &Handwritten, random: &mut Stream) -> Image {
        self.dress(&drawn.image, 1.0, random)
    }

    /// A printed digit with a hint of this guise: what the base is trained on.
    pub fn sketch(self, digit: usize, random: &mut Stream) -> Image {
        let wild = random.range(0.0, SKETCH);
        let printed = glyphs::printed_digit(digit, wild, random);
        self.dress(&printed, wild, random)
    }

    /// `wild` from 0 (unchanged) to 1 (as in the task); a negative is a negative at any.
    fn dress(self, plain: &Image, wild: f32, random: &mut Stream) -> Image {
        let mut image = plain.clone();
        match self {
            Guise::Plain => {}
            Guise::Tilted => {
                let side = if random.chance(0.5) { 1.0 } else { -1.0 };
                let angle = side * wild * random.range(0.52, 1.05);
                image = image.posed(&Pose { angle, scale: 0.92, ..Pose::PLAIN }, 0.0);
            }
            Guise::Negative => image.invert(),
            Guise::Noisy => image.add_noise(0.45 * wild, random),
            Guise::Occluded => {
                let angle = random.range(0.0, core::f32::consts::PI);
                let (along, across) = (libm::cosf(angle), libm::sinf(angle));
                let offset = random.range(-3.0, 3.0);
                let half_width = 1.6 * wild;
                image.paint(0.5, |x, y| ((x - MIDDLE) * across - (y - MIDDLE) * along - offset).abs() - half_width);
            }
        }
        image.quantise();
        image
    }
}

/// The images of one part: of every fifteen, two are for validation, two for the test, eleven for training.
///
/// # Errors
/// Failed, where the packed file is damaged.
pub fn part(split: Split) -> Result<&'static [Handwritten]> {
    static PARTS: OnceLock<Result<[Vec<Handwritten>; 3]>> = OnceLock::new();
    let parts = PARTS.get_or_init(|| {
        let mut parts: [Vec<Handwritten>; 3] = Default::default();
        for (index, drawn) in unpack(PACKED)?.into_iter().enumerate() {
            let part = match index % 15 {
                0 | 1 => Split::Val,
                2 | 3 => Split::Test,
                _ => Split::Train,
            };
            parts[part as usize].push(drawn);
        }
        Ok(parts)
    });
    match parts {
        Ok(parts) => Ok(&parts[split as usize]),
        Err(error) => Err(error.clone()),
    }
}

/// Reads the packed lines "64 pixels of 0..=16, digit".
fn unpack(packed: &[u8]) -> Result<Vec<Handwritten>> {
    let damaged = |line: usize| Error::failed(format!("data/digits.csv.gz: line {line} is not 64 pixels and a digit"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_string(&mut text)
        .map_err(|error| Error::failed(format!("data/digits.csv.gz: unpacking failed: {error}")))?;
    let mut images = Vec::with_capacity(N_IMAGES);
    for (index, line) in text.lines().enumerate() {
        let values: Vec<u8> =
            line.split(',').map(|field| field.trim().parse().map_err(|_| damaged(index + 1))).collect::<Result<_>>()?;
        match values.split_last() {
            Some((&digit, pixels)) if digit < 10 && pixels.len() == SMALL * SMALL => {
                images.push(Handwritten { image: enlarge(pixels), digit: digit.into() });
            }
            _ => return Err(damaged(index + 1)),
        }
    }
    if images.len() == N_IMAGES { Ok(images) } else { Err(damaged(images.len() + 1)) }
}

/// 8×8 values of 0..=16 to 16×16 values of 0..1, bilinearly.
fn enlarge(pixels: &[u8]) -> Image {
    let at = |column: usize, row: usize| f32::from(pixels[row * SMALL + column]) / 16.0;
    let edge = (SMALL - 1) as f32;
    let mut image = Image::from_fn(|x, y| {
        let (u, v) = ((x / 2.0 - 0.5).clamp(0.0, edge), (y / 2.0 - 0.5).clamp(0.0, edge));
        let (left, top) = (u as usize, v as usize);
        let (right, bottom) = ((left + 1).min(SMALL - 1), (top + 1).min(SMALL - 1));
        let (right_share, bottom_share) = (u - left as f32, v - top as f32);
        let upper = at(left, top) * (1.0 - right_share) + at(right, top) * right_share;
        let lower = at(left, bottom) * (1.0 - right_share) + at(right, bottom) * right_share;
        upper * (1.0 - bottom_share) + lower * bottom_share
    });
    image.quantise();
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_disjoint_and_complete() {
        let n_images: Vec<usize> =
            [Split::Train, Split::Val, Split::Test].map(|split| part(split).unwrap().len()).to_vec();
        assert_eq!(n_images, [1317, 240, 240]);
        for drawn in part(Split::Test).unwrap() {
            assert!(drawn.image.pixels.iter().all(|level| (0.0..=1.0).contains(level)));
        }
    }

    #[test]
    fn damaged_files_are_named() {
        let error = unpack(&PACKED[..1000]).unwrap_err();
        assert!(error.to_string().starts_with("data/digits.csv.gz: unpacking failed"), "{error}");
    }
}
