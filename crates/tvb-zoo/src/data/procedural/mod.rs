//! Images drawn from random numbers, one file per idea.
//!
//! `wild` says how far an image strays from its plainest form: 0 is a clean drawing in the middle, 1 is the task's
//! own look with its turns, clutter, low contrast and noise. The base sees little of it ([`SKETCH`]), a task all.

pub mod counts;
pub mod fields;
pub mod figures;
pub mod glyphs;
pub mod mazes;
pub mod shapes;
pub mod symmetry;

use crate::image::{Image, Pose};
use crate::random::Stream;

/// The wildness of a task's own images.
pub const TASK: f32 = 1.0;
/// The most wildness in the base's mixture.
pub const SKETCH: f32 = 0.3;

/// What is drawn; each has as many classes as its task lists in `tasks.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `shapes.rs`
    Shapes,
    /// `fields.rs`
    Stripes,
    /// `fields.rs`
    Textures,
    /// `fields.rs`
    Gradients,
    /// `glyphs.rs`
    Letters,
    /// `glyphs.rs`
    Stencils,
    /// `counts.rs`
    Blobs,
    /// `counts.rs`
    Dice,
    /// `counts.rs`
    Corners,
    /// `mazes.rs`
    Mazes,
    /// `symmetry.rs`
    Symmetry,
    /// `figures.rs`
    Arrows,
    /// `figures.rs`
    Faces,
    /// `figures.rs`
    Waves,
}

impl Family {
    /// Draws an image of the class with this index.
    pub fn draw(self, class: usize, wild: f32, random: &mut Stream) -> Image {
        let mut image = match self {
            Family::Shapes => shapes::shape(class, wild, random),
            Family::Stripes => fields::stripes(class, wild, random),
            Family::Textures => fields::texture(class, wild, random),
            Family::Gradients => fields::gradient(class, wild, random),
            Family::Letters => glyphs::letter(class, wild, random),
            Family::Stencils => glyphs::stencil(class, wild, random),
            Family::Blobs => counts::blobs(class, wild, random),
            Family::Dice => counts::dice(class, wild, random),
            Family::Corners => counts::corners(class, wild, random),
            Family::Mazes => mazes::maze(class, wild, random),
            Family::Symmetry => symmetry::pattern(class, wild, random),
            Family::Arrows => figures::arrow(class, wild, random),
            Family::Faces => figures::face(class, wild, random),
            Family::Waves => figures::wave(class, wild, random),
        };
        image.add_noise(0.03 + 0.05 * wild, random);
        image.quantise();
        image
    }
}

/// A pose that strays from upright: turns up to `turn` radians, moves up to `shift` pixels, shrinks by up to `shrink`.
fn stray(wild: f32, turn: f32, shift: f32, shrink: f32, random: &mut Stream) -> Pose {
    Pose {
        angle: wild * random.range(-turn, turn),
        scale: 1.0 - wild * random.range(0.0, shrink),
        slant: 0.0,
        shift: [wild * random.range(-shift, shift), wild * random.range(-shift, shift)],
    }
}

/// A full turn, in radians.
const TURN: f32 = core::f32::consts::TAU;
