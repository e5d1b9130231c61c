//! A grey 16×16 image, and the few ways to draw on it.
//!
//! Shapes are painted from a signed distance in pixels (negative inside), which gives soft edges at this small size.

use crate::random::Stream;

/// Pixels along one side.
pub const SIDE: usize = 16;
/// Pixels of one image.
pub const N_PIXELS: usize = SIDE * SIDE;
/// The middle of the image, in pixels.
pub const MIDDLE: f32 = SIDE as f32 / 2.0;

/// A line from the first point to the second.
pub type Segment = [f32; 4];

/// A grey image, values 0 (black) to 1 (white), row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// `SIDE` × `SIDE` values.
    pub pixels: [f32; N_PIXELS],
}

impl Image {
    /// An image of one grey.
    pub fn filled(level: f32) -> Self {
        Self { pixels: [level; N_PIXELS] }
    }

    /// An image from a function of the pixel centres (x, y), in pixels from the top left corner.
    pub fn from_fn(mut level: impl FnMut(f32, f32) -> f32) -> Self {
        let mut image = Self::filled(0.0);
        for (index, pixel) in image.pixels.iter_mut().enumerate() {
            *pixel = level((index % SIDE) as f32 + 0.5, (index / SIDE) as f32 + 0.5);
        }
        image
    }

    /// Paints `level` where `distance(x, y)` is below 0, with an edge one pixel wide.
    pub fn paint(&mut self, level: f32, mut distance: impl FnMut(f32, f32) -> f32) {
        for (index, pixel) in self.pixels.iter_mut().enumerate() {
            let cover = (0.5 - distance((index % SIDE) as f32 + 0.5, (index / SIDE) as f32 + 0.5)).clamp(0.0, 1.0);
            *pixel += cover * (level - *pixel);
        }
    }

    /// Paints round-ended lines of this width, in pixels.
    pub fn paint_lines(&mut self, level: f32, width: f32, segments: &[Segment]) {
        self.paint(level, |x, y| {
            segments.iter().map(|s| segment_distance(x, y, s)).fold(f32::INFINITY, f32::min) - width / 2.0
        });
    }

    /// Paints a disc.
    pub fn paint_disc(&mut self, level: f32, centre: [f32; 2], radius: f32) {
        self.paint(level, |x, y| length(x - centre[0], y - centre[1]) - radius);
    }

    /// The image seen through `pose`, bilinearly; outside is `outside`.
    pub fn posed(&self, pose: &Pose, outside: f32) -> Self {
        Self::from_fn(|x, y| {
            let [u, v] = pose.undo(x, y);
            self.sample(u * MIDDLE + MIDDLE - 0.5, v * MIDDLE + MIDDLE - 0.5, outside)
        })
    }

    /// Black becomes white.
    pub fn invert(&mut self) {
        self.map(|level| 1.0 - level);
    }

    /// Applies `f` to each pixel.
    pub fn map(&mut self, mut f: impl FnMut(f32) -> f32) {
        for pixel in &mut self.pixels {
            *pixel = f(*pixel);
        }
    }

    /// Adds nearly normal noise of this standard deviation.
    pub fn add_noise(&mut self, deviation: f32, random: &mut Stream) {
        self.map(|level| level + deviation * random.normal());
    }

    /// Clamps to 0..1 and rounds to 256 levels, as an image file would.
    pub fn quantise(&mut self) {
        self.map(|level| (level.clamp(0.0, 1.0) * 255.0).round() / 255.0);
    }

    /// Bilinear value at pixel coordinates whose integers are pixel centres.
    fn sample(&self, x: f32, y: f32, outside: f32) -> f32 {
        let at = |column: f32, row: f32| {
            let inside = (0.0..SIDE as f32).contains(&column) && (0.0..SIDE as f32).contains(&row);
            if inside { self.pixels[row as usize * SIDE + column as usize] } else { outside }
        };
        let (left, top) = (x.floor(), y.floor());
        let (right_share, bottom_share) = (x - left, y - top);
        let upper = at(left, top) * (1.0 - right_share) + at(left + 1.0, top) * right_share;
        let lower = at(left, top + 1.0) * (1.0 - right_share) + at(left + 1.0, top + 1.0) * right_share;
        upper * (1.0 - bottom_share) + lower * bottom_share
    }
}

/// Where a figure drawn in the unit square [-1, 1]² lands in the image.
#[derive(Clone, Copy, Debug)]
pub struct Pose {
    /// Clockwise on screen, in radians.
    pub angle: f32,
    /// 1 makes [-1, 1] span the whole image.
    pub scale: f32,
    /// Sideways lean: x grows by `slant`·y before the rotation.
    pub slant: f32,
    /// Move, in pixels.
    pub shift: [f32; 2],
}

impl Pose {
    /// Upright, filling the image.
    pub const PLAIN: Self = Self { angle: 0.0, scale: 1.0, slant: 0.0, shift: [0.0, 0.0] };

    /// From the unit square to pixels.
    pub fn apply(&self, u: f32, v: f32) -> [f32; 2] {
        let (sin, cos) = (libm::sinf(self.angle), libm::cosf(self.angle));
        let leaning = u + self.slant * v;
        let unit = self.scale * MIDDLE;
        [
            (cos * leaning - sin * v) * unit + MIDDLE + self.shift[0],
            (sin * leaning + cos * v) * unit + MIDDLE + self.shift[1],
        ]
    }

    /// From pixels to the unit square.
    pub fn undo(&self, x: f32, y: f32) -> [f32; 2] {
        let (sin, cos) = (libm::sinf(self.angle), libm::cosf(self.angle));
        let unit = self.scale * MIDDLE;
        let (dx, dy) = ((x - MIDDLE - self.shift[0]) / unit, (y - MIDDLE - self.shift[1]) / unit);
        let v = cos * dy - sin * dx;
        [cos * dx + sin * dy - self.slant * v, v]
    }

    /// Lines of the unit square, in pixels.
    pub fn lines(&self, segments: &[Segment]) -> Vec<Segment> {
        segments
            .iter()
            .map(|&[u0, v0, u1, v1]| {
                let ([x0, y0], [x1, y1]) = (self.apply(u0, v0), self.apply(u1, v1));
                [x0, y0, x1, y1]
            })
            .collect()
    }
}

/// Length of the vector (x, y).
pub fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// Distance of (x, y) from a segment.
pub fn segment_distance(x: f32, y: f32, &[x0, y0, x1, y1]: &Segment) -> f32 {
    let (dx, dy) = (x1 - x0, y1 - y0);
    let squared = dx * dx + dy * dy;
    let share = if squared > 0.0 { (((x - x0) * dx + (y - y0) * dy) / squared).clamp(0.0, 1.0) } else { 0.0 };
    length(x - x0 - share * dx, y - y0 - share * dy)
}
