//! Floats that start on a cache line, reused from one block to the next.

/// Sixteen floats on a cache line of their own.
#[derive(Clone, Copy, Default, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// Floats that start on a cache line.
#[derive(Default)]
pub(super) struct Floats(Vec<Line>);

impl Floats {
    /// At least `n` floats, whatever they hold.
    #[inline(always)]
    pub(super) fn at_least(&mut self, n: usize) -> &mut [f32] {
        let n_lines = n.div_ceil(16);
        if self.0.len() < n_lines {
            self.0.resize(n_lines, Line::default());
        }
        &mut bytemuck::cast_slice_mut(&mut self.0[..n_lines])[..n]
    }
}
