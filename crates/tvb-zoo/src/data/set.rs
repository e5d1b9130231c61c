//! Images with their classes, as evaluation and training take them.

use crate::image::{Image, N_PIXELS};

/// Images and their classes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Set {
    /// `[n_images, 256]`, values 0 to 1.
    pub pixels: Vec<f32>,
    /// `[n_images]`, an index into the task's classes.
    pub labels: Vec<u32>,
}

impl Set {
    /// Number of images.
    pub fn n_images(&self) -> usize {
        self.labels.len()
    }

    /// The pixels of one image.
    pub fn image(&self, index: usize) -> &[f32] {
        &self.pixels[index * N_PIXELS..(index + 1) * N_PIXELS]
    }

    pub(super) fn push(&mut self, image: &Image, label: usize) {
        self.pixels.extend_from_slice(&image.pixels);
        self.labels.push(label as u32);
    }
}
