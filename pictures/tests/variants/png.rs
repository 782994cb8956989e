//! PNG files, written chunk by chunk.

use std::{fs, path::Path};

use super::scene::{Truth, Variant, scene, step, stored, upright};

pub(crate) struct Png {
    pub(crate) channels: &'static str,
    pub(crate) palette: bool,
    pub(crate) bits: u8,
    pub(crate) interlaced: bool,
    pub(crate) orientation: u16,
    /// Between the header and the pixels.
    pub(crate) chunks: Vec<(&'static [u8; 4], Vec<u8>)>,
}

impl Default for Png {
    fn default() -> Self {
        let chunks = Vec::new();
        Self { channels: "RGB", palette: false, bits: 8, interlaced: false, orientation: 1, chunks }
    }
}

/// Entries of the palettes, each once in every so many pixels.
fn palette_colour(channel: char, index: usize) -> u8 {
    match channel {
        'R' => (index * 37 % 256) as u8,
        'G' => (index * 101 % 256) as u8,
        'B' => 255 - (index * 59 % 256) as u8,
        _ => 255 - (index % 3 * 100) as u8,
    }
}

fn palette_index(bits: u8, x: usize, y: usize) -> usize {
    (x * 5 + y * 3) % (1 << bits)
}

fn palette_value<const BITS: u8>(channel: char, x: usize, y: usize) -> f64 {
    f64::from(palette_colour(channel, palette_index(BITS, x, y))) / 255.0
}

fn crc(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0_u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

/// As zlib does it for level 0.
pub(crate) fn stored_zlib(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let blocks = bytes.chunks(0xffff).count().max(1);
    for (index, block) in bytes.chunks(0xffff).enumerate() {
        out.push(u8::from(index + 1 == blocks));
        out.extend((block.len() as u16).to_le_bytes());
        out.extend((!(block.len() as u16)).to_le_bytes());
        out.extend(block);
    }
    let (a, b) = bytes.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        ((a + u32::from(*byte)) % 65521, (a + u32::from(*byte) + b) % 65521)
    });
    out.extend((b << 16 | a).to_be_bytes());
    out
}

/// Appends `value` of `bits` to a row.
pub(crate) fn push_bits(row: &mut Vec<u8>, used: &mut usize, value: u32, bits: usize) {
    for bit in (0..bits).rev() {
        if used.is_multiple_of(8) {
            row.push(0);
        }
        let last = row.last_mut().expect("a byte");
        *last |= ((value >> bit & 1) as u8) << (7 - *used % 8);
        *used += 1;
    }
}

impl Png {
    fn samples(&self, x: usize, y: usize) -> Vec<u32> {
        let (x, y) = upright(self.orientation, x, y);
        if self.palette {
            return vec![palette_index(self.bits, x, y) as u32];
        }
        let most = (1 << self.bits) - 1;
        self.channels.chars().map(|channel| step(scene(channel, x, y), most)).collect()
    }

    fn rows(&self, (x0, y0): (usize, usize), (dx, dy): (usize, usize)) -> Vec<u8> {
        let (width, height) = stored(self.orientation);
        let mut out = Vec::new();
        for y in (y0..height).step_by(dy) {
            if x0 >= width {
                break;
            }
            out.push(0);
            let mut used = 0;
            let mut row = Vec::new();
            for x in (x0..width).step_by(dx) {
                for sample in self.samples(x, y) {
                    push_bits(&mut row, &mut used, sample, usize::from(self.bits));
                }
            }
            out.extend(row);
        }
        out
    }

    pub(crate) fn write(&self, path: &Path) {
        let (width, height) = stored(self.orientation);
        let colour = match self.channels {
            _ if self.palette => 3,
            "Y" => 0,
            "YA" => 4,
            "RGB" => 2,
            _ => 6,
        };
        let mut header = Vec::new();
        header.extend((width as u32).to_be_bytes());
        header.extend((height as u32).to_be_bytes());
        header.extend([self.bits, colour, 0, 0, u8::from(self.interlaced)]);
        let pixels = if self.interlaced {
            [
                ((0, 0), (8, 8)),
                ((4, 0), (8, 8)),
                ((0, 4), (4, 8)),
                ((2, 0), (4, 4)),
                ((0, 2), (2, 4)),
                ((1, 0), (2, 2)),
                ((0, 1), (1, 2)),
            ]
            .into_iter()
            .flat_map(|(from, by)| self.rows(from, by))
            .collect()
        } else {
            self.rows((0, 0), (1, 1))
        };
        let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
        let mut chunk = |kind: &[u8; 4], data: &[u8]| {
            out.extend((data.len() as u32).to_be_bytes());
            out.extend(kind);
            out.extend(data);
            out.extend(crc(kind.iter().chain(data).copied()).to_be_bytes());
        };
        chunk(b"IHDR", &header);
        if self.palette {
            let entries =
                (0..1 << self.bits).flat_map(|index| "RGB".chars().map(move |it| palette_colour(it, index)));
            chunk(b"PLTE", &entries.collect::<Vec<_>>());
        }
        for (kind, data) in &self.chunks {
            chunk(kind, data);
        }
        chunk(b"IDAT", &stored_zlib(&pixels));
        chunk(b"IEND", &[]);
        fs::write(path, out).expect("written");
    }
}

/// A few bytes that say they are a picture of this size.
pub(crate) fn bomb(path: &Path, width: u32, height: u32) {
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::new();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 1]);
    for (kind, data) in [(b"IHDR", header), (b"IDAT", stored_zlib(&[0])), (b"IEND", Vec::new())] {
        out.extend((data.len() as u32).to_be_bytes());
        out.extend(kind);
        out.extend(&data);
        out.extend(crc(kind.iter().chain(&data).copied()).to_be_bytes());
    }
    fs::write(path, out).expect("written");
}

/// EXIF data that says nothing but the orientation.
pub(crate) fn exif(orientation: u16) -> Vec<u8> {
    let mut exif = b"MM\0\x2a\0\0\0\x08\0\x01".to_vec();
    exif.extend([0x01, 0x12, 0, 3, 0, 0, 0, 1]);
    exif.extend(orientation.to_be_bytes());
    exif.extend([0, 0, 0, 0, 0, 0]);
    exif
}

/// One colour is wholly transparent: that of the pixel at 2, 3.
fn keyed(channel: char, x: usize, y: usize, colours: &str, most: u32) -> f64 {
    let at = |x, y| colours.chars().map(move |channel| step(scene(channel, x, y), most)).collect::<Vec<_>>();
    match channel {
        'A' => f64::from(u8::from(at(x, y) != at(2, 3))),
        _ => scene(channel, x, y),
    }
}

pub(crate) fn all() -> Vec<Variant> {
    let mut all = Vec::new();
    for interlaced in [false, true] {
        let how = if interlaced { ", interlaced" } else { "" };
        for (channels, name, depths) in [
            ("Y", "grey", &[1, 2, 4, 8, 16][..]),
            ("YA", "grey and alpha", &[8, 16]),
            ("RGB", "RGB", &[8, 16]),
            ("RGBA", "RGBA", &[8, 16]),
        ] {
            for bits in depths.iter().copied() {
                let truth = Truth::of(channels, (1 << bits) - 1);
                all.push(Variant::right("PNG", format!("{name}, {bits} bits{how}"), truth, move |path| {
                    Png { channels, bits, interlaced, ..Png::default() }.write(path);
                }));
            }
        }
        for (bits, value) in [
            (1, palette_value::<1> as fn(char, usize, usize) -> f64),
            (2, palette_value::<2>),
            (4, palette_value::<4>),
            (8, palette_value::<8>),
        ] {
            let truth = Truth { value, ..Truth::of("RGB", 255) };
            all.push(Variant::right(
                "PNG",
                format!("palette of {} colours{how}", 1 << bits),
                truth,
                move |path| {
                    Png { palette: true, bits, interlaced, ..Png::default() }.write(path);
                },
            ));
        }
    }
    let truth = Truth { value: palette_value::<4>, ..Truth::of("RGBA", 255) };
    all.push(Variant::right("PNG", "palette with transparent colours (tRNS)", truth, |path| {
        let alpha = (0..16).map(|index| palette_colour('A', index)).collect();
        Png { palette: true, bits: 4, chunks: vec![(b"tRNS", alpha)], ..Png::default() }.write(path);
    }));
    for (channels, with_alpha, bits, value) in [
        ("Y", "YA", 4, (|it, x, y| keyed(it, x, y, "Y", 15)) as fn(char, usize, usize) -> f64),
        ("Y", "YA", 8, |it, x, y| keyed(it, x, y, "Y", 255)),
        ("Y", "YA", 16, |it, x, y| keyed(it, x, y, "Y", 65535)),
        ("RGB", "RGBA", 8, |it, x, y| keyed(it, x, y, "RGB", 255)),
        ("RGB", "RGBA", 16, |it, x, y| keyed(it, x, y, "RGB", 65535)),
    ] {
        let most = (1_u32 << bits) - 1;
        let truth = Truth { value, ..Truth::of(with_alpha, most) };
        let name = format!("{channels} of {bits} bits with a transparent colour (tRNS)");
        all.push(Variant::right("PNG", name, truth, move |path| {
            let key =
                channels.chars().flat_map(|it| (step(scene(it, 2, 3), most) as u16).to_be_bytes()).collect();
            Png { channels, bits, chunks: vec![(b"tRNS", key)], ..Png::default() }.write(path);
        }));
    }
    for orientation in 2..=8 {
        let name = format!("turned or mirrored (eXIf orientation {orientation})");
        let variant = Variant::right("PNG", name, Truth::of("RGB", 255), move |path| {
            Png { orientation, chunks: vec![(b"eXIf", exif(orientation))], ..Png::default() }.write(path);
        });
        // It does not read that chunk in every version.
        all.push(variant.theirs(None));
    }
    for (name, kind, data) in [
        ("with gAMA 1/2.2, which says nothing", b"gAMA", 45_455_u32.to_be_bytes().to_vec()),
        ("with sRGB", b"sRGB", vec![0]),
        ("with sBIT", b"sBIT", vec![8, 8, 8]),
        ("with pHYs", b"pHYs", vec![0, 0, 11, 19, 0, 0, 11, 19, 1]),
        ("with a text chunk of 100 kB", b"tEXt", [&b"Comment\0"[..], &vec![b'x'; 100_000]].concat()),
        ("with cICP of sRGB", b"cICP", vec![1, 13, 0, 1]),
        ("with cICP of Rec. 709", b"cICP", vec![1, 1, 0, 1]),
    ] {
        all.push(Variant::right("PNG", name, Truth::of("RGB", 255), move |path| {
            Png { chunks: vec![(kind, data.clone())], ..Png::default() }.write(path);
        }));
    }
    for (name, data) in [
        ("with cICP of Rec. 2100 PQ", vec![9, 16, 0, 1]),
        ("with cICP of Rec. 2100 HLG", vec![9, 18, 0, 1]),
        ("with cICP of Display P3", vec![12, 13, 0, 1]),
        ("with cICP of a narrow range", vec![1, 1, 0, 0]),
    ] {
        all.push(Variant::refused("PNG", name, "cICP", move |path| {
            Png { chunks: vec![(b"cICP", data.clone())], ..Png::default() }.write(path);
        }));
    }
    all
}
