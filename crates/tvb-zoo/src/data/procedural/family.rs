//! The kinds of drawing, and which file draws each.

use crate::data::procedural::{counts, fields, figures, glyphs, mazes, shapes, symmetry};
use crate::image::Image;
use crate::random::Stream;

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
