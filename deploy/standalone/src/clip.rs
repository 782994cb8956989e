//! A test clip in which every frame differs from every other, so that a wrong, doubled or missing frame is
//! seen: a drifting gradient, a ball that moves, and the frame's number as a row of bits.

use std::path::Path;

use image::{Rgb, RgbImage};

pub(crate) const WIDTH: u32 = 480;
pub(crate) const HEIGHT: u32 = 270;

/// Writes `plate.1001.png` and so on; the number of the last frame.
pub(crate) fn make(folder: &Path, frames: u32) -> Result<u32, image::ImageError> {
    std::fs::create_dir_all(folder)?;
    let last = 1000 + frames;
    for number in 1001..=last {
        draw(number).save(folder.join(format!("plate.{number:04}.png")))?;
    }
    Ok(last)
}

fn draw(number: u32) -> RgbImage {
    let time = f64::from(number) / 24.0;
    let (ball_x, ball_y) = (240.0 + 180.0 * (time * 1.3).sin(), 135.0 + 90.0 * (time * 1.7).cos());
    RgbImage::from_fn(WIDTH, HEIGHT, |x, y| {
        // The number, as 16 blocks along the lower edge.
        if y >= HEIGHT - 12 {
            let bit = 15 - (x * 16 / WIDTH);
            return if number >> bit & 1 == 1 { Rgb([255, 255, 255]) } else { Rgb([0, 0, 0]) };
        }
        let (fx, fy) = (f64::from(x), f64::from(y));
        if (fx - ball_x).hypot(fy - ball_y) < 28.0 {
            return Rgb([250, 190, 40]);
        }
        let wave = |phase: f64| (127.5 + 127.5 * (fx / 70.0 + fy / 50.0 + time + phase).sin()) as u8;
        Rgb([wave(0.0), wave(2.1), wave(4.2)])
    })
}
