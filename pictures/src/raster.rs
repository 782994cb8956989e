//! Pixels as numbers, a plane for each channel.

use half::f16;
use hearth_workflows::format::PictureFormat;

use crate::metadata::Metadata;

/// A rectangle of pixels; `x` and `y` may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub x: i32,
    pub y: i32,
    pub width: u32,
    pub height: u32,
}

/// A picture in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Raster {
    /// What is shown.
    pub display: Window,
    /// Where there are pixels; elsewhere they are 0.
    pub data: Window,
    /// Each with all samples of the data window, row by row.
    pub planes: Vec<Plane>,
    pub metadata: Metadata,
}

/// One channel: `R`, `G`, `B`, `A`, `Y` (grey), or whatever an EXR calls it.
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    pub name: String,
    pub samples: Samples,
}

/// Integers stand for 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub enum Samples {
    U8(Vec<u8>),
    U16(Vec<u16>),
    F16(Vec<f16>),
    F32(Vec<f32>),
}

impl Window {
    pub fn of_size(width: u32, height: u32) -> Self {
        Self { x: 0, y: 0, width, height }
    }

    pub fn pixels(self) -> usize {
        self.width as usize * self.height as usize
    }
}

impl Samples {
    pub fn len(&self) -> usize {
        match self {
            Self::U8(samples) => samples.len(),
            Self::U16(samples) => samples.len(),
            Self::F16(samples) => samples.len(),
            Self::F32(samples) => samples.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes samples from `at` on into `row` as numbers.
    pub(crate) fn numbers(&self, at: usize, row: &mut [f32]) {
        use half::slice::HalfFloatSliceExt as _;
        let end = at + row.len();
        match self {
            Self::U8(samples) => {
                for (number, sample) in row.iter_mut().zip(&samples[at..end]) {
                    *number = f32::from(*sample) / 255.0;
                }
            }
            Self::U16(samples) => {
                for (number, sample) in row.iter_mut().zip(&samples[at..end]) {
                    *number = f32::from(*sample) / 65535.0;
                }
            }
            Self::F16(samples) => samples[at..end].convert_to_f32_slice(row),
            Self::F32(samples) => row.copy_from_slice(&samples[at..end]),
        }
    }

    /// Room for `len` samples of the kind that `format` has.
    pub(crate) fn for_format(format: PictureFormat, len: usize) -> Self {
        match format {
            PictureFormat::Png8 | PictureFormat::Tiff8 | PictureFormat::Jpeg => {
                Self::U8(Vec::with_capacity(len))
            }
            PictureFormat::Png16 | PictureFormat::Tiff16 | PictureFormat::Dpx => {
                Self::U16(Vec::with_capacity(len))
            }
            PictureFormat::ExrHalf => Self::F16(Vec::with_capacity(len)),
            PictureFormat::ExrFloat | PictureFormat::TiffFloat => Self::F32(Vec::with_capacity(len)),
        }
    }

    /// No samples, of the same kind.
    fn empty_alike(&self) -> Self {
        let len = self.len();
        match self {
            Self::U8(_) => Self::U8(Vec::with_capacity(len)),
            Self::U16(_) => Self::U16(Vec::with_capacity(len)),
            Self::F16(_) => Self::F16(Vec::with_capacity(len)),
            Self::F32(_) => Self::F32(Vec::with_capacity(len)),
        }
    }

    /// Appends numbers, rounded to the nearest sample. NaN becomes 0 in integers.
    pub(crate) fn append(&mut self, row: &[f32]) {
        use half::slice::HalfFloatSliceExt as _;
        match self {
            Self::U8(samples) => samples.extend(row.iter().map(|number| to_u8(*number))),
            Self::U16(samples) => samples.extend(row.iter().map(|number| to_u16(*number))),
            Self::F16(samples) => {
                let from = samples.len();
                samples.resize(from + row.len(), f16::ZERO);
                samples[from..].convert_from_f32_slice(row);
            }
            Self::F32(samples) => samples.extend_from_slice(row),
        }
    }
}

fn to_u8(number: f32) -> u8 {
    // A float becomes the nearest integer in range; NaN becomes 0.
    (number * 255.0).round() as u8
}

fn to_u16(number: f32) -> u16 {
    (number * 65535.0).round() as u16
}

impl Raster {
    /// The plane of that name.
    pub fn plane(&self, name: &str) -> Option<&Plane> {
        self.planes.iter().find(|plane| plane.name == name)
    }

    /// Grey as red, green and blue; colour as it is.
    #[must_use]
    pub fn in_colour(mut self) -> Self {
        let grey = self.planes.iter().position(|plane| plane.name == "Y");
        if let Some(at) = grey.filter(|_| self.plane("R").is_none()) {
            let Plane { samples, .. } = self.planes.remove(at);
            let colours =
                ["R", "G", "B"].map(|name| Plane { name: name.to_owned(), samples: samples.clone() });
            self.planes.splice(at..at, colours);
        }
        self
    }

    /// Makes colour that is multiplied by alpha straight. What was multiplied by nothing stays.
    pub(crate) fn divide_by_alpha(&mut self) {
        let Some(at) = self.planes.iter().position(|plane| plane.name == "A") else { return };
        let mut alpha = vec![0.0; self.planes[at].samples.len()];
        self.planes[at].samples.numbers(0, &mut alpha);
        for plane in self.planes.iter_mut().filter(|plane| plane.name != "A") {
            let mut colour = vec![0.0; alpha.len()];
            plane.samples.numbers(0, &mut colour);
            for (number, alpha) in colour.iter_mut().zip(&alpha).filter(|(_, alpha)| **alpha != 0.0) {
                *number /= alpha;
            }
            let mut samples = plane.samples.empty_alike();
            samples.append(&colour);
            plane.samples = samples;
        }
    }

    /// Windows and metadata alone.
    pub(crate) fn clone_without_planes(&self) -> Self {
        Self { planes: Vec::new(), ..*self }
    }

    /// The pixels that are shown as one colour: red, green, blue and alpha as far as there are some, or grey.
    pub(crate) fn colour_planes(&self) -> Vec<&Plane> {
        let named =
            |names: &[&str]| -> Option<Vec<&Plane>> { names.iter().map(|name| self.plane(name)).collect() };
        let mut planes = named(&["R", "G", "B"])
            .or_else(|| named(&["Y"]))
            .unwrap_or_else(|| self.planes.iter().take(1).collect());
        planes.extend(self.plane("A").filter(|alpha| planes.iter().all(|plane| plane.name != alpha.name)));
        planes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grey_becomes_colour_and_luminance_beside_colour_stays() {
        let raster = |names: &[&str]| Raster {
            display: Window::of_size(2, 1),
            data: Window::of_size(2, 1),
            planes: names
                .iter()
                .zip(1..)
                .map(|(name, at)| Plane { name: (*name).to_owned(), samples: Samples::U8(vec![at; 2]) })
                .collect(),
            metadata: Metadata::default(),
        };
        let names = |picture: Raster| -> Vec<String> {
            picture.planes.into_iter().map(|plane| format!("{}{:?}", plane.name, plane.samples)).collect()
        };
        assert_eq!(
            names(raster(&["Y", "A"]).in_colour()),
            ["RU8([1, 1])", "GU8([1, 1])", "BU8([1, 1])", "AU8([2, 2])"]
        );
        let both = ["R", "G", "B", "Y"];
        assert_eq!(names(raster(&both).in_colour()), names(raster(&both)));
    }
}
