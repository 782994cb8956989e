//! Clips in which every frame differs from every other.

use std::{collections::BTreeMap, fs, path::Path};

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
    names.filter(|name| name.starts_with(".hearth-")).collect()
}
