//! Pictures as screens and encoders take them.

use hearth_workflows::{
    delivery::Curve,
    format::{ColourSpace, Encoding, PictureFormat},
};
use image::{
    ImageBuffer, Rgb, RgbImage,
    codecs::jpeg::JpegEncoder,
    imageops::{self, FilterType},
};

use crate::{
    convert::Converter,
    raster::{Plane, Raster, Samples, Window},
};

/// Quality of thumbnails, of 100.
const JPEG_QUALITY: u8 = 82;

/// Rows of red, green, blue and, where it is there, alpha; 16 bits each. Alpha is not multiplied in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Display {
    pub width: u32,
    pub height: u32,
    pub alpha: bool,
    pub samples: Vec<u16>,
}

impl Display {
    /// As large as fits into `width` x `height` with its proportions kept, in the middle of it, on black. Without alpha.
    pub fn fitted(self, width: u32, height: u32) -> Self {
        if (self.width, self.height) == (width, height) || self.alpha {
            return self;
        }
        let scale =
            (f64::from(width) / f64::from(self.width)).min(f64::from(height) / f64::from(self.height));
        let scaled =
            |length: u32, most: u32| ((f64::from(length) * scale).round() as u32).clamp(1, most.max(1));
        let (wide, high) = (scaled(self.width, width), scaled(self.height, height));
        let picture = ImageBuffer::<Rgb<u16>, _>::from_raw(self.width, self.height, self.samples);
        let mut fitted = ImageBuffer::<Rgb<u16>, _>::new(width, height);
        if let Some(picture) = picture {
            let small = imageops::resize(&picture, wide, high, FilterType::CatmullRom);
            let (x, y) = ((width - wide.min(width)) / 2, (height - high.min(height)) / 2);
            imageops::replace(&mut fitted, &small, i64::from(x), i64::from(y));
        }
        Self { width, height, alpha: false, samples: fitted.into_raw() }
    }
}

/// Makes pictures of one encoding fit to be shown. Made once for a sequence: it keeps tables.
#[derive(Debug)]
pub struct Projector {
    converter: Option<Converter>,
    colour: ColourSpace,
}

impl Projector {
    /// `curve`: what colours get; `None`: light that of sRGB, and what has a curve of a display keeps it.
    pub fn new(from: Encoding, curve: Option<Curve>) -> Self {
        let colour = shown_as(from.colour, curve);
        let to = Encoding { format: PictureFormat::Png16, colour };
        Self { converter: Converter::new(from, to), colour }
    }

    /// What the numbers of the pictures mean that it makes.
    pub fn colour(&self) -> ColourSpace {
        self.colour
    }

    /// The display window of a picture, with its alpha where that is wanted and there. Without, what is
    /// multiplied by it stands on black.
    pub fn show(&self, picture: Raster, alpha: bool) -> Display {
        let shown: Vec<String> =
            picture.colour_planes().into_iter().map(|plane| plane.name.clone()).collect();
        // An alpha channel alone is what there is to see.
        let wanted = |name: &String| shown.contains(name) && (alpha || name != "A" || shown.len() == 1);
        let mut picture = picture;
        picture.planes.retain(|plane| wanted(&plane.name));
        if self.colour == ColourSpace::Data {
            spread_out(&mut picture);
        }
        interleave(match &self.converter {
            Some(converter) => converter.convert(&picture),
            None => picture,
        })
    }
}

/// A JPEG of a picture, in its display window, at most `most` pixels wide and high.
pub fn thumbnail(picture: &Raster, encoding: Encoding, most: u32) -> Option<Vec<u8>> {
    let format = if encoding.format.is_exr() { PictureFormat::ExrFloat } else { PictureFormat::TiffFloat };
    // Made small first: what follows costs memory by the pixel.
    let shown = Projector::new(Encoding { format, ..encoding }, None).show(shrunk(picture, most), false);
    let small = shown.samples.iter().map(|sample| (sample >> 8) as u8).collect();
    let small: RgbImage = ImageBuffer::from_raw(shown.width, shown.height, small)?;
    let mut bytes = Vec::new();
    small.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)).ok()?;
    Some(bytes)
}

/// Every pixel the mean of a square of the picture's, as floats.
fn shrunk(picture: &Raster, most: u32) -> Raster {
    let Window { x, y, width, height } = picture.display;
    let side = width.max(height).div_ceil(most.max(1)).max(1);
    let window = Window::of_size(width.div_ceil(side), height.div_ceil(side));
    let data = picture.data;
    let shrink = |plane: &Plane| {
        let mut means = vec![0.0_f32; window.pixels()];
        let mut row = vec![0.0; data.width as usize];
        for line in 0..data.height {
            let shown_line = i64::from(data.y) + i64::from(line) - i64::from(y);
            if !(0..i64::from(height)).contains(&shown_line) {
                continue;
            }
            plane.samples.numbers(line as usize * data.width as usize, &mut row);
            let means = &mut means[shown_line as usize / side as usize * window.width as usize..];
            for (column, number) in row.iter().enumerate() {
                let shown_column = i64::from(data.x) + column as i64 - i64::from(x);
                if (0..i64::from(width)).contains(&shown_column) {
                    means[shown_column as usize / side as usize] += number;
                }
            }
        }
        // The last row and column of squares may be cut off by the picture's edge.
        let length = |at: usize, all: u32| (all - at as u32 * side).min(side) as f32;
        for (place, mean) in means.iter_mut().enumerate() {
            let (row, column) = (place / window.width as usize, place % window.width as usize);
            *mean /= length(row, height) * length(column, width);
        }
        Plane { name: plane.name.clone(), samples: Samples::F32(means) }
    };
    let planes = picture.colour_planes().into_iter().map(shrink).collect();
    Raster { display: window, data: window, planes, metadata: picture.metadata }
}

/// Data is shown as it is.
fn shown_as(colour: ColourSpace, curve: Option<Curve>) -> ColourSpace {
    match (colour, curve) {
        (ColourSpace::Data, _) => ColourSpace::Data,
        (_, Some(curve)) => curve.into(),
        (ColourSpace::Rec709, None) => ColourSpace::Rec709,
        (ColourSpace::Linear | ColourSpace::Acescg | ColourSpace::Acescct | ColourSpace::Srgb, None) => {
            ColourSpace::Srgb
        }
    }
}

/// Depth is in metres and normals below zero: floats that are no colours are shown between their least and
/// their greatest.
fn spread_out(picture: &mut Raster) {
    let finite = |samples: &[f32]| {
        samples
            .iter()
            .copied()
            .filter(|number| number.is_finite())
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(least, greatest), number| {
                (least.min(number), greatest.max(number))
            })
    };
    let mut numbers: Vec<Vec<f32>> = Vec::new();
    for plane in &picture.planes {
        if !matches!(plane.samples, Samples::F16(_) | Samples::F32(_)) {
            return;
        }
        let mut row = vec![0.0; plane.samples.len()];
        plane.samples.numbers(0, &mut row);
        numbers.push(row);
    }
    let ends: Vec<_> = numbers.iter().map(|row| finite(row)).collect();
    let least = ends.iter().map(|end| end.0).fold(f32::INFINITY, f32::min);
    let greatest = ends.iter().map(|end| end.1).fold(f32::NEG_INFINITY, f32::max);
    if least >= 0.0 && greatest <= 1.0 || least >= greatest {
        return;
    }
    let scale = 1.0 / (greatest - least);
    for (plane, mut row) in picture.planes.iter_mut().zip(numbers) {
        row.iter_mut().for_each(|number| *number = (*number - least) * scale);
        let format = if matches!(plane.samples, Samples::F16(_)) {
            PictureFormat::ExrHalf
        } else {
            PictureFormat::ExrFloat
        };
        let mut samples = Samples::for_format(format, row.len());
        samples.append(&row);
        plane.samples = samples;
    }
}

fn interleave(picture: Raster) -> Display {
    let place = |name: &str| picture.planes.iter().position(|plane| plane.name == name);
    let colours = match (place("R"), place("G"), place("B")) {
        (Some(red), Some(green), Some(blue)) => [red, green, blue],
        _ => [place("Y").unwrap_or(0); 3],
    };
    let alpha = place("A").filter(|alpha| !colours.contains(alpha));
    let channels: Vec<&Plane> =
        colours.iter().chain(&alpha).filter_map(|plane| picture.planes.get(*plane)).collect();
    let pixels = picture.data.pixels();
    let mut samples = vec![0; pixels * channels.len()];
    for (channel, plane) in channels.iter().enumerate() {
        let places = samples.iter_mut().skip(channel).step_by(channels.len());
        match &plane.samples {
            Samples::U16(numbers) => places.zip(numbers).for_each(|(place, number)| *place = *number),
            // 255 becomes 65535.
            Samples::U8(numbers) => {
                places.zip(numbers).for_each(|(place, number)| *place = u16::from(*number) * 257);
            }
            Samples::F16(_) | Samples::F32(_) => {
                let mut row = vec![0.0; pixels];
                plane.samples.numbers(0, &mut row);
                places.zip(row).for_each(|(place, number)| *place = (number * 65535.0).round() as u16);
            }
        }
    }
    Display { width: picture.data.width, height: picture.data.height, alpha: alpha.is_some(), samples }
}

impl Display {
    /// Samples of a pixel.
    pub fn channels(&self) -> usize {
        if self.alpha { 4 } else { 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Metadata;

    fn raster(names: &[&str], numbers: &[f32]) -> Raster {
        let window = Window::of_size((numbers.len() / names.len()) as u32, 1);
        let planes = names.iter().enumerate().map(|(channel, name)| Plane {
            name: (*name).to_owned(),
            samples: Samples::F32(numbers.iter().skip(channel).step_by(names.len()).copied().collect()),
        });
        Raster { display: window, data: window, planes: planes.collect(), metadata: Metadata::default() }
    }

    fn shown(colour: ColourSpace, names: &[&str], alpha: bool, numbers: &[f32]) -> Vec<u16> {
        let projector = Projector::new(Encoding { format: PictureFormat::ExrFloat, colour }, None);
        projector.show(raster(names, numbers), alpha).samples
    }

    #[test]
    fn light_gets_a_curve_and_alpha_is_taken_out_or_left_on_black() {
        let half = 48_192; // 0.5 in light, as sRGB.
        assert_eq!(shown(ColourSpace::Linear, &["R", "G", "B"], true, &[0.5, 0.0, 2.0]), [half, 0, 65_535]);
        let pixel = [0.25, 0.0, 0.25, 0.5];
        let names = ["R", "G", "B", "A"];
        assert_eq!(shown(ColourSpace::Linear, &names, true, &pixel), [half, 0, half, 32_768]);
        assert_eq!(shown(ColourSpace::Linear, &names, false, &pixel), [35_199, 0, 35_199]);
        assert_eq!(shown(ColourSpace::Linear, &["Y"], true, &[0.5]), [half; 3]);
    }

    #[test]
    fn a_curve_that_is_asked_for_is_had_from_light_and_from_the_other_curve() {
        let shown = |colour, numbers: &[f32]| {
            let encoding = Encoding { format: PictureFormat::ExrFloat, colour };
            Projector::new(encoding, Some(Curve::Rec709))
                .show(raster(&["R", "G", "B"], numbers), true)
                .samples
        };
        // 1.099 * 0.5^0.45 - 0.099 of 65535, after the standard's formula.
        let half = 46_231;
        assert_eq!(shown(ColourSpace::Linear, &[0.5, 0.0, 2.0]), [half, 0, 65_535]);
        // 0.7354 is 0.5 of light in sRGB.
        assert!(shown(ColourSpace::Srgb, &[0.735_357; 3])[0].abs_diff(half) < 3);
        assert_eq!(shown(ColourSpace::Rec709, &[0.5; 3]), [32_768; 3]);
        assert_eq!(shown(ColourSpace::Data, &[0.5; 3]), [32_768; 3]);
    }

    #[test]
    fn depth_is_shown_between_its_ends() {
        assert_eq!(shown(ColourSpace::Data, &["Y"], true, &[10.0, 20.0]), [0, 0, 0, 65_535, 65_535, 65_535]);
        assert_eq!(shown(ColourSpace::Data, &["Y"], true, &[0.0, 0.5]), [0, 0, 0, 32_768, 32_768, 32_768]);
    }

    #[test]
    fn a_thumbnail_is_a_small_jpeg() {
        let window = Window::of_size(800, 401);
        let plane = |name: &str| Plane {
            name: name.to_owned(),
            samples: Samples::F16(vec![half::f16::from_f32(0.25); window.pixels()]),
        };
        let planes = ["R", "G", "B", "A"].map(plane).into();
        let picture = Raster { display: window, data: window, planes, metadata: Metadata::default() };
        let encoding = Encoding { format: PictureFormat::ExrHalf, colour: ColourSpace::Linear };
        let jpeg = thumbnail(&picture, encoding, 320).expect("a JPEG");
        let small = image::load_from_memory(&jpeg).expect("readable").into_rgb8();
        assert_eq!(small.dimensions(), (267, 134));
        let near = |pixel: &image::Rgb<u8>| pixel.0.iter().all(|sample| sample.abs_diff(137) < 3);
        assert!(small.pixels().all(near), "another colour");
    }
}
