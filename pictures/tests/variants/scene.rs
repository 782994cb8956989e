//! The picture that every file shows, and what is expected of a file.

use std::{panic::RefUnwindSafe, path::Path, process::Command};

/// Odd, so that padding shows, and more than a tile.
pub(crate) const WIDTH: usize = 33;
pub(crate) const HEIGHT: usize = 19;

/// Ramps in every channel, none of which is another; alpha is nowhere so small that dividing by it loses much.
pub(crate) fn scene(channel: char, x: usize, y: usize) -> f64 {
    match channel {
        'R' => x as f64 / (WIDTH - 1) as f64,
        'G' => y as f64 / (HEIGHT - 1) as f64,
        'B' => ((x * 7 + y * 5) % 32) as f64 / 31.0,
        'Y' => ((x * 3 + y * 11) % 64) as f64 / 63.0,
        'A' => 0.5 + ((x + 2 * y) % 17) as f64 / 32.0,
        other => panic!("channel {other}"),
    }
}

/// Where the pixel that is stored at `x`, `y` is seen, in a file whose orientation (TIFF tag 274) is `orientation`.
pub(crate) fn upright(orientation: u16, x: usize, y: usize) -> (usize, usize) {
    match orientation {
        1 => (x, y),
        2 => (WIDTH - 1 - x, y),
        3 => (WIDTH - 1 - x, HEIGHT - 1 - y),
        4 => (x, HEIGHT - 1 - y),
        5 => (y, x),
        6 => (WIDTH - 1 - y, x),
        7 => (WIDTH - 1 - y, HEIGHT - 1 - x),
        8 => (y, HEIGHT - 1 - x),
        other => panic!("orientation {other}"),
    }
}

/// Width and height as they are stored.
pub(crate) fn stored(orientation: u16) -> (usize, usize) {
    if orientation >= 5 { (HEIGHT, WIDTH) } else { (WIDTH, HEIGHT) }
}

/// `value` in steps of `1 / most`.
pub(crate) fn step(value: f64, most: u32) -> u32 {
    (value * f64::from(most)).round() as u32
}

/// The expected pixels.
pub(crate) struct Truth {
    /// A letter each.
    pub(crate) channels: &'static str,
    pub(crate) value: fn(char, usize, usize) -> f64,
    /// The steps from black to white; 0 for floats.
    pub(crate) most: u32,
    pub(crate) tolerance: f64,
}

impl Truth {
    pub(crate) fn of(channels: &'static str, most: u32) -> Self {
        Self { channels, value: scene, most, tolerance: 1.0 / 65535.0 }
    }

    pub(crate) fn within(self, tolerance: f64) -> Self {
        Self { tolerance, ..self }
    }

    pub(crate) fn at(&self, channel: char, x: usize, y: usize) -> f64 {
        let value = (self.value)(channel, x, y);
        if self.most == 0 { value } else { f64::from(step(value, self.most)) / f64::from(self.most) }
    }
}

pub(crate) enum Want {
    Right(Truth),
    /// At the first look, for a reason that has this word.
    Refused(&'static str),
}

pub(crate) struct Variant {
    pub(crate) format: &'static str,
    pub(crate) name: String,
    pub(crate) make: Box<dyn Fn(&Path) + Send + Sync + RefUnwindSafe>,
    pub(crate) want: Want,
    /// What OpenImageIO is told, so that it reads the file in the same way; `None` where it does not.
    pub(crate) theirs: Option<&'static [&'static str]>,
}

impl Variant {
    pub(crate) fn right(
        format: &'static str,
        name: impl Into<String>,
        truth: Truth,
        make: impl Fn(&Path) + Send + Sync + RefUnwindSafe + 'static,
    ) -> Self {
        Self { format, name: name.into(), make: Box::new(make), want: Want::Right(truth), theirs: Some(&[]) }
    }

    pub(crate) fn refused(
        format: &'static str,
        name: impl Into<String>,
        word: &'static str,
        make: impl Fn(&Path) + Send + Sync + RefUnwindSafe + 'static,
    ) -> Self {
        Self { format, name: name.into(), make: Box::new(make), want: Want::Refused(word), theirs: None }
    }

    pub(crate) fn theirs(self, theirs: Option<&'static [&'static str]>) -> Self {
        Self { theirs, ..self }
    }

    pub(crate) fn extension(&self) -> &'static str {
        match self.format {
            "PNG" => "png",
            "TIFF" => "tif",
            "JPEG" => "jpg",
            "DPX" => "dpx",
            _ => "exr",
        }
    }
}

pub(crate) fn oiiotool(arguments: &[&str]) {
    let done = Command::new("oiiotool").args(arguments).output();
    let done = done
        .unwrap_or_else(|error| panic!("oiiotool is needed for this test (tests/run installs it): {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "oiiotool {arguments:?}: {}{}", text(&done.stdout), text(&done.stderr));
}

/// Writes the scene as a float TIFF, for OpenImageIO to make something else of, and hands its path on.
pub(crate) fn with_float_tiff(channels: &'static str, beside: &Path, then: impl FnOnce(&str)) {
    let source = beside.with_extension("source.tif");
    super::tiff::Tiff { channels, bits: 32, kind: 3, ..super::tiff::Tiff::default() }.write(&source);
    then(&source.display().to_string());
}
