//! How far a drawing strays from its plainest form.

use crate::image::Pose;
use crate::random::Stream;

/// The wildness of a task's own images.
pub const TASK: f32 = 1.0;
/// The most wildness in the base's mixture.
pub const SKETCH: f32 = 0.3;

/// A full turn, in radians.
pub(super) const TURN: f32 = core::f32::consts::TAU;

/// A pose that strays from upright: turns up to `turn` radians, moves up to `shift` pixels, shrinks by up to `shrink`.
pub(super) fn stray(wild: f32, turn: f32, shift: f32, shrink: f32, random: &mut Stream) -> Pose {
    Pose {
        angle: wild * random.range(-turn, turn),
        scale: 1.0 - wild * random.range(0.0, shrink),
        slant: 0.0,
        shift: [wild * random.range(-shift, shift), wild * random.range(-shift, shift)],
    }
}
