//! Clips in which every frame differs from every other.

use std::{collections::BTreeMap, fs, path::Path};

use hearth_pictures::{Effort, Metadata, Plane, Raster, Rate, Samples, TimeCode, Window, write};
use hearth_storage::marker::MARKER_FILE;
use hearth_workflows::format::PictureFormat;
use image::{ImageBuffer, Rgb, RgbImage};

/// Writes `plate.<frame>.png` for each frame.
pub fn make(folder: &Path, frames: std::ops::RangeInclusive<i64>, width: u32, height: u32) {
    fs::create_dir_all(folder).expect("clip folder");
    for frame in frames {
        draw(frame, width, height).save(folder.join(format!("plate.{frame:04}.png"))).expect("frame");
    }
}

/// The same with 16 bits a channel.
pub fn make16(folder: &Path, frames: std::ops::RangeInclusive<i64>, width: u32, height: u32) {
    fs::create_dir_all(folder).expect("clip folder");
    for frame in frames {
        let picture: ImageBuffer<Rgb<u16>, Vec<u16>> = ImageBuffer::from_fn(width, height, |x, y| {
            Rgb([(x * 257) as u16, (y * 257) as u16, (frame as u16).wrapping_mul(77)])
        });
        picture.save(folder.join(format!("plate.{frame:04}.png"))).expect("frame");
    }
}

/// Writes `plate.<frame>.exr`, half floats below 0 and above 1, with a time code that counts.
pub fn make_exr(folder: &Path, frames: std::ops::RangeInclusive<i64>, width: u32, height: u32) {
    fs::create_dir_all(folder).expect("clip folder");
    let window = Window::of_size(width, height);
    for frame in frames {
        let sample = |channel: u32, at: usize| {
            let mix =
                (at as u32 * 31 + channel * 17).wrapping_add((frame as u32).wrapping_mul(2_654_435_761));
            half::f16::from_f32((mix >> 8) as f32 / (1 << 22) as f32 - 0.5)
        };
        let planes = ["R", "G", "B"].iter().enumerate().map(|(channel, name)| Plane {
            name: (*name).to_owned(),
            samples: Samples::F16((0..window.pixels()).map(|at| sample(channel as u32, at)).collect()),
        });
        let picture = Raster {
            display: window,
            data: window,
            planes: planes.collect(),
            metadata: metadata((frame % 24) as u8),
        };
        write(&folder.join(format!("plate.{frame:04}.exr")), &picture, PictureFormat::ExrHalf, Effort::Small)
            .expect("frame");
    }
}

/// `plate.<frame>.exr` of one colour, with alpha, 24 frames a second, pixels twice as wide as high, and a time
/// code of an hour and the frame's number past the thousand.
pub fn make_flat_exr(
    folder: &Path,
    frames: std::ops::RangeInclusive<i64>,
    width: u32,
    height: u32,
    colour: [f32; 4],
) {
    fs::create_dir_all(folder).expect("clip folder");
    let window = Window::of_size(width, height);
    for frame in frames {
        let planes = ["R", "G", "B", "A"].iter().zip(colour).map(|(name, number)| Plane {
            name: (*name).to_owned(),
            samples: Samples::F16(vec![half::f16::from_f32(number); window.pixels()]),
        });
        let (planes, frame_of_second) = (planes.collect(), (frame % 1000) as u8);
        let picture = Raster { display: window, data: window, planes, metadata: metadata(frame_of_second) };
        write(&folder.join(format!("plate.{frame:04}.exr")), &picture, PictureFormat::ExrHalf, Effort::Small)
            .expect("frame");
    }
}

/// `plate.<frame>.exr` of something soft that moves before a green screen.
pub fn make_screen(folder: &Path, frames: std::ops::RangeInclusive<i64>, width: u32, height: u32) {
    fs::create_dir_all(folder).expect("clip folder");
    let window = Window::of_size(width, height);
    for frame in frames {
        let at = |place: usize| {
            let (x, y) = ((place as u32 % width) as f32, (place as u32 / width) as f32);
            let (middle, radius) = (width as f32 * (0.3 + 0.015 * (frame % 30) as f32), height as f32 * 0.3);
            let away = (x - middle).hypot(y - height as f32 / 2.0) - radius;
            let subject = (0.5 - away / 6.0).clamp(0.0, 1.0);
            let shade = 0.3 + 0.5 * (x / width as f32) + 0.1 * (y * 0.7).sin();
            let screen = [0.03 + 0.02 * y / height as f32, 0.35, 0.05];
            [shade, shade * 0.7, shade * 0.5].iter().zip(screen).map(|(s, g)| g + subject * (s - g)).collect()
        };
        let pixels: Vec<Vec<f32>> = (0..window.pixels()).map(at).collect();
        let planes = ["R", "G", "B"].iter().enumerate().map(|(channel, name)| Plane {
            name: (*name).to_owned(),
            samples: Samples::F16(pixels.iter().map(|pixel| half::f16::from_f32(pixel[channel])).collect()),
        });
        let metadata = metadata((frame % 24) as u8);
        let picture = Raster { display: window, data: window, planes: planes.collect(), metadata };
        write(&folder.join(format!("plate.{frame:04}.exr")), &picture, PictureFormat::ExrHalf, Effort::Small)
            .expect("frame");
    }
}

/// Every PNG and EXR below the folder, by its path in it.
pub fn files(folder: &Path) -> BTreeMap<String, std::path::PathBuf> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(inside) = open.pop() {
        for entry in fs::read_dir(&inside).expect("a folder").flatten() {
            let path = entry.path();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if path.is_dir() {
                open.push(path);
            } else if matches!(extension, "png" | "exr") {
                found.insert(path.strip_prefix(folder).expect("below").display().to_string(), path);
            }
        }
    }
    found
}

fn metadata(frame: u8) -> Metadata {
    Metadata {
        time_code: Some(TimeCode { hours: 1, minutes: 0, seconds: 0, frame, drop_frame: false }),
        frame_rate: Some(Rate { numerator: 24, denominator: 1 }),
        pixel_aspect: Some(2.0),
    }
}

pub fn draw(frame: i64, width: u32, height: u32) -> RgbImage {
    let seed = frame as u32;
    RgbImage::from_fn(width, height, |x, y| {
        let mix = (x * 31 + y * 17).wrapping_add(seed.wrapping_mul(2_654_435_761)).rotate_left(y % 13);
        Rgb([(mix >> 3) as u8, (x * 255 / width) as u8 ^ seed as u8, (y * 7 + seed * 13) as u8])
    })
}

/// Every picture of a finished sequence by file name.
pub fn read(folder: &Path) -> BTreeMap<String, image::DynamicImage> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "png"))
        .map(|path| {
            let name = path.file_name().expect("named").to_string_lossy().into_owned();
            (name, image::open(&path).expect("a whole picture"))
        })
        .collect()
}

/// What a job has left beside its result: nothing, when it ended well.
pub fn leftovers(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("folder");
    let names = entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned());
    // The marker of a storage root stays; so does the one that a coordinator was killed over.
    names.filter(|name| name.starts_with(".hearth-") && !name.starts_with(MARKER_FILE)).collect()
}
