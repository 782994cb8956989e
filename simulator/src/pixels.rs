//! Pictures as ComfyUI has them: float, 0 to 1, RGB; a batch is frames in order.

use std::{io::Cursor, path::Path, sync::Arc};

use image::{DynamicImage, ImageFormat, Rgb32FImage, imageops::FilterType};

/// Frames that are shared, not copied, when batches are joined and cut.
pub type Batch = Vec<Arc<Frame>>;

/// One picture, RGB interleaved.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    pub width: u32,
    pub height: u32,
    pub data: Vec<f32>,
}

impl Frame {
    pub fn filled(width: u32, height: u32, rgb: [f32; 3]) -> Self {
        let data = rgb.iter().copied().cycle().take(width as usize * height as usize * 3).collect();
        Self { width, height, data }
    }

    /// Reads a file as `LoadImage` does: to 8 bits, RGB.
    pub fn load(path: &Path) -> Result<Self, image::ImageError> {
        let picture = image::ImageReader::open(path)?.with_guessed_format()?.decode()?.into_rgb8();
        let (width, height) = picture.dimensions();
        let data = picture.into_raw().into_iter().map(|value| f32::from(value) / 255.0).collect();
        Ok(Self { width, height, data })
    }

    /// Reads a file with its values as they are: RGB, and alpha as a grey picture.
    pub fn load_float(path: &Path) -> Result<(Self, Self), image::ImageError> {
        let picture = image::ImageReader::open(path)?.with_guessed_format()?.decode()?.into_rgba32f();
        let (width, height) = picture.dimensions();
        let pixels = || picture.pixels().map(|pixel| pixel.0);
        let colour = pixels().flat_map(|[red, green, blue, _]| [red, green, blue]).collect();
        let alpha = pixels().flat_map(|[.., alpha]| [alpha; 3]).collect();
        Ok((Self { width, height, data: colour }, Self { width, height, data: alpha }))
    }

    /// Float EXR with alpha, values as they are.
    pub fn exr_with(&self, alpha: &Self) -> Option<Vec<u8>> {
        let pixels = self.data.chunks_exact(3).zip(alpha.data.chunks_exact(3));
        let data = pixels.flat_map(|(colour, alpha)| [colour[0], colour[1], colour[2], alpha[0]]).collect();
        let picture = image::Rgba32FImage::from_raw(self.width, self.height, data)?;
        encode(&DynamicImage::ImageRgba32F(picture), ImageFormat::OpenExr)
    }

    /// Float EXR, values as they are.
    pub fn exr(&self) -> Option<Vec<u8>> {
        let picture = Rgb32FImage::from_raw(self.width, self.height, self.data.clone())?;
        encode(&DynamicImage::ImageRgb32F(picture), ImageFormat::OpenExr)
    }

    /// 8 bits, cut off and not rounded, as `SaveImage` does.
    pub fn to_rgb8(&self) -> Vec<u8> {
        self.data.iter().map(|value| (value * 255.0).clamp(0.0, 255.0) as u8).collect()
    }

    /// 16 bits, rounded.
    pub fn to_rgb16(&self) -> Vec<u16> {
        self.data.iter().map(|value| (value * 65535.0).clamp(0.0, 65535.0).round() as u16).collect()
    }

    pub fn png8(&self) -> Option<Vec<u8>> {
        let picture = image::RgbImage::from_raw(self.width, self.height, self.to_rgb8())?;
        encode(&DynamicImage::ImageRgb8(picture), ImageFormat::Png)
    }

    pub fn png16(&self) -> Option<Vec<u8>> {
        let picture = image::ImageBuffer::from_raw(self.width, self.height, self.to_rgb16())?;
        encode(&DynamicImage::ImageRgb16(picture), ImageFormat::Png)
    }

    /// A JPEG no larger than `side` on its longer side.
    pub fn preview(&self, side: u32) -> Option<Vec<u8>> {
        let picture = image::RgbImage::from_raw(self.width, self.height, self.to_rgb8())?;
        encode(&DynamicImage::ImageRgb8(picture).thumbnail(side, side), ImageFormat::Jpeg)
    }

    pub fn map(&self, change: impl Fn(f32) -> f32) -> Self {
        Self { data: self.data.iter().map(|value| change(*value)).collect(), ..*self }
    }

    pub fn zip(&self, other: &Self, join: impl Fn(f32, f32) -> f32) -> Self {
        let data = self.data.iter().zip(&other.data).map(|(a, b)| join(*a, *b)).collect();
        Self { data, ..*self }
    }

    /// Every pixel by itself.
    pub fn per_pixel(&self, change: impl Fn([f32; 3]) -> [f32; 3]) -> Self {
        let pixels = self.data.chunks_exact(3);
        Self { data: pixels.flat_map(|pixel| change([pixel[0], pixel[1], pixel[2]])).collect(), ..*self }
    }

    /// The mean of all pixels.
    pub fn mean(&self) -> [f32; 3] {
        let count = (self.data.len() / 3).max(1) as f32;
        [0, 1, 2].map(|at| self.data.iter().skip(at).step_by(3).sum::<f32>() / count)
    }

    /// Moved so many pixels; black comes in from behind.
    pub fn shifted(&self, right: i64, down: i64) -> Self {
        let (width, height) = (i64::from(self.width), i64::from(self.height));
        let from = |x: i64, y: i64| {
            let (x, y) = (x - right, y - down);
            ((0..width).contains(&x) && (0..height).contains(&y)).then_some(((y * width + x) * 3) as usize)
        };
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let data = places
            .flat_map(|(x, y)| {
                from(x, y).map_or([0.0; 3], |at| [self.data[at], self.data[at + 1], self.data[at + 2]])
            })
            .collect();
        Self { data, ..*self }
    }

    pub fn resized(&self, width: u32, height: u32, method: &str) -> Self {
        if (width, height) == (self.width, self.height) {
            return self.clone();
        }
        let filter = match method {
            "nearest-exact" => FilterType::Nearest,
            "bicubic" => FilterType::CatmullRom,
            "lanczos" => FilterType::Lanczos3,
            _ => FilterType::Triangle,
        };
        let Some(picture) = Rgb32FImage::from_raw(self.width, self.height, self.data.clone()) else {
            return self.clone();
        };
        let data = image::imageops::resize(&picture, width, height, filter).into_raw();
        Self { width, height, data }
    }

    /// Gaussian blur with mirrored borders, in two passes.
    pub fn blurred(&self, radius: u32, sigma: f32) -> Self {
        let reach = i64::from(radius);
        let mut kernel: Vec<f32> =
            (-reach..=reach).map(|at| (-((at * at) as f32) / (2.0 * sigma * sigma)).exp()).collect();
        let sum: f32 = kernel.iter().sum();
        kernel.iter_mut().for_each(|weight| *weight /= sum);
        self.convolved(&kernel, (1, 0)).convolved(&kernel, (0, 1))
    }

    fn convolved(&self, kernel: &[f32], (step_x, step_y): (i64, i64)) -> Self {
        let (width, height) = (i64::from(self.width), i64::from(self.height));
        let reach = (kernel.len() / 2) as i64;
        let mut data = vec![0.0; self.data.len()];
        for y in 0..height {
            for x in 0..width {
                let to = ((y * width + x) * 3) as usize;
                for (weight, at) in kernel.iter().zip(-reach..) {
                    let from_x = mirror(x + at * step_x, width);
                    let from_y = mirror(y + at * step_y, height);
                    let from = ((from_y * width + from_x) * 3) as usize;
                    for channel in 0..3 {
                        data[to + channel] += weight * self.data[from + channel];
                    }
                }
            }
        }
        Self { data, ..*self }
    }
}

fn mirror(at: i64, len: i64) -> i64 {
    if len == 1 {
        return 0;
    }
    let period = 2 * (len - 1);
    let at = at.rem_euclid(period);
    if at < len { at } else { period - at }
}

fn encode(picture: &DynamicImage, format: ImageFormat) -> Option<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).ok()?;
    Some(bytes.into_inner())
}
