//! Text burnt into pictures: white on a darkened strip, readable on anything.

use ab_glyph::{Font as _, FontRef, InvalidFont, PxScale, ScaleFont as _};

use crate::display::Display;

/// What is left of the picture under a text.
const DARKENED: u32 = 35;

/// Space around a text, in heights of it.
const MARGIN: f32 = 0.35;

/// Where a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Corner {
    BottomLeft,
    BottomRight,
}

/// Writes texts with a font that comes with the program: no host has to have any.
#[derive(Debug)]
pub struct Lettering {
    font: FontRef<'static>,
}

impl Lettering {
    pub fn new() -> Result<Self, InvalidFont> {
        Ok(Self { font: FontRef::try_from_slice(epaint_default_fonts::HACK_REGULAR)? })
    }

    /// Burns `text` into a corner, in letters of `height` pixels; what does not fit is cut off.
    pub fn burn(&self, picture: &mut Display, text: &str, corner: Corner, height: f32) {
        let font = self.font.as_scaled(PxScale::from(height));
        let width: f32 = text.chars().map(|letter| font.h_advance(font.glyph_id(letter))).sum();
        let margin = height * MARGIN;
        let left = match corner {
            Corner::BottomLeft => 0.0,
            Corner::BottomRight => (picture.width as f32 - width - 2.0 * margin).max(0.0),
        };
        let top = (picture.height as f32 - height - 2.0 * margin).max(0.0);
        darken(picture, left as u32, top as u32, (width + 2.0 * margin) as u32);
        let mut pen = left + margin;
        for letter in text.chars() {
            let id = font.glyph_id(letter);
            let place = ab_glyph::point(pen, top + margin + font.ascent());
            if let Some(outline) =
                font.outline_glyph(id.with_scale_and_position(PxScale::from(height), place))
            {
                let bounds = outline.px_bounds();
                outline.draw(|x, y, part| {
                    let (x, y) = (bounds.min.x + x as f32, bounds.min.y + y as f32);
                    if x >= 0.0 && y >= 0.0 {
                        blend(picture, x as u32, y as u32, part);
                    }
                });
            }
            pen += font.h_advance(id);
        }
    }
}

fn pixel(picture: &mut Display, x: u32, y: u32) -> Option<&mut [u16]> {
    if x >= picture.width || y >= picture.height {
        return None;
    }
    let channels = picture.channels();
    let at = (y as usize * picture.width as usize + x as usize) * channels;
    picture.samples.get_mut(at..at + channels)
}

/// Darkens everything below `top`, from `left` on.
fn darken(picture: &mut Display, left: u32, top: u32, width: u32) {
    for y in top..picture.height {
        for x in left..left.saturating_add(width).min(picture.width) {
            let Some(pixel) = pixel(picture, x, y) else { continue };
            pixel[..3].iter_mut().for_each(|sample| *sample = (u32::from(*sample) * DARKENED / 100) as u16);
            pixel[3..].fill(u16::MAX);
        }
    }
}

fn blend(picture: &mut Display, x: u32, y: u32, part: f32) {
    let Some(pixel) = pixel(picture, x, y) else { return };
    for sample in &mut pixel[..3] {
        let from = f32::from(*sample);
        *sample = (from + (f32::from(u16::MAX) - from) * part.clamp(0.0, 1.0)) as u16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stands_in_its_corner_and_nowhere_else() {
        let grey = Display { width: 400, height: 200, alpha: false, samples: vec![20_000; 400 * 200 * 3] };
        let mut picture = grey.clone();
        let lettering = Lettering::new().expect("a font");
        lettering.burn(&mut picture, "01:00:00:00", Corner::BottomRight, 20.0);
        let row = |y: usize| &picture.samples[y * 1_200..(y + 1) * 1_200];
        assert_eq!(row(100), &grey.samples[..1_200], "above the text");
        let (left, right) = row(185).split_at(600);
        assert_eq!(left, &grey.samples[..600], "beside the text");
        assert!(right.iter().any(|sample| *sample > 60_000), "no letter is white");
        assert!(right.contains(&7_000), "nothing is darkened");
        // Larger than the picture: what fits is there, and nothing panics.
        lettering.burn(
            &mut picture,
            "a text that is much longer than its picture is wide",
            Corner::BottomLeft,
            190.0,
        );
    }
}
