//! DPX files, written field by field.

use std::{fs, path::Path};

use super::scene::{HEIGHT, Truth, Variant, WIDTH, scene, step};

#[derive(Clone)]
struct Dpx {
    channels: &'static str,
    big_endian: bool,
    bits: u8,
    /// 0: packed, 1: method A, 2: method B.
    packing: u16,
    /// Mirrored (1), flipped (2) or both (3).
    orientation: u16,
    /// Bytes behind each row; `None`: rows do not even end at a word.
    padding: Option<u32>,
    /// Where the pixels begin.
    offset: usize,
    /// Fields that say something else: where, how many bytes, what.
    fields: Vec<(usize, usize, u32)>,
}

impl Default for Dpx {
    fn default() -> Self {
        Self {
            channels: "RGB",
            big_endian: true,
            bits: 10,
            packing: 1,
            orientation: 0,
            padding: Some(0),
            offset: 2048,
            fields: Vec::new(),
        }
    }
}

impl Dpx {
    fn put(&self, out: &mut [u8], at: usize, bytes: usize, value: u32) {
        let mut all = value.to_le_bytes()[..bytes].to_vec();
        if self.big_endian {
            all.reverse();
        }
        out[at..at + bytes].copy_from_slice(&all);
    }

    fn row(&self, y: usize) -> Vec<u8> {
        let most = (1 << self.bits) - 1;
        let samples: Vec<u32> = (0..WIDTH)
            .flat_map(|x| self.channels.chars().map(move |channel| (channel, x)))
            .map(|(channel, x)| {
                let x = if self.orientation & 1 == 1 { WIDTH - 1 - x } else { x };
                let y = if self.orientation & 2 == 2 { HEIGHT - 1 - y } else { y };
                step(scene(channel, x, y), most)
            })
            .collect();
        let mut row = Vec::new();
        let mut word = |value: u32, bytes: usize| {
            let at = row.len();
            row.resize(at + bytes, 0);
            self.put(&mut row, at, bytes, value);
        };
        match self.bits {
            8 => samples.iter().for_each(|sample| word(*sample, 1)),
            10 => samples.chunks(3).for_each(|three| {
                let shifts = if self.channels == "Y" { [0, 10, 20] } else { [20, 10, 0] };
                let all = three.iter().zip(shifts).fold(0, |all, (sample, shift)| all | sample << shift);
                word(if self.packing == 1 { all << 2 } else { all }, 4);
            }),
            12 => samples
                .iter()
                .for_each(|sample| word(if self.packing == 1 { sample << 4 } else { *sample }, 2)),
            _ => samples.iter().for_each(|sample| word(*sample, 2)),
        }
        if let Some(padding) = self.padding {
            row.resize(row.len().next_multiple_of(4) + padding as usize, 0);
        }
        row
    }

    fn write(&self, path: &Path) {
        let pixels: Vec<u8> = (0..HEIGHT).flat_map(|y| self.row(y)).collect();
        let mut out = vec![0xff; self.offset];
        let descriptor = match self.channels {
            "Y" => 6,
            "RGB" => 50,
            _ => 51,
        };
        let offset = self.offset as u32;
        let length = (self.offset + pixels.len()) as u32;
        for (at, bytes, value) in [
            (0, 4, 0x5344_5058),
            (4, 4, offset),
            (16, 4, length),
            (20, 4, 1),
            (24, 4, 1664),
            (28, 4, if offset < 2048 { 0 } else { 384 }),
            (32, 4, 0),
            (768, 2, u32::from(self.orientation)),
            (770, 2, 1),
            (772, 4, WIDTH as u32),
            (776, 4, HEIGHT as u32),
            (780, 4, 0),
            (800, 1, descriptor),
            (801, 1, 2),
            (802, 1, 2),
            (803, 1, u32::from(self.bits)),
            (804, 2, u32::from(self.packing)),
            (806, 2, 0),
            (808, 4, offset),
            (812, 4, self.padding.unwrap_or(0)),
            (816, 4, 0),
        ] {
            self.put(&mut out, at, bytes, value);
        }
        out[8..16].copy_from_slice(b"V2.0\0\0\0\0");
        for (at, bytes, value) in &self.fields {
            self.put(&mut out, *at, *bytes, *value);
        }
        out.extend(pixels);
        fs::write(path, out).expect("written");
    }
}

pub(crate) fn all() -> Vec<Variant> {
    let mut all = Vec::new();
    let mut add = |name: String, theirs: Option<&'static [&'static str]>, dpx: Dpx| {
        let truth = Truth::of(dpx.channels, (1 << dpx.bits) - 1);
        let variant = Variant::right("DPX", name, truth, move |path| dpx.write(path));
        all.push(variant.theirs(theirs));
    };
    for (channels, name) in [("RGB", "RGB"), ("RGBA", "RGBA"), ("Y", "grey")] {
        for big_endian in [true, false] {
            let order = if big_endian { "big-endian" } else { "little-endian" };
            for (bits, packing, method) in [
                (8, 0, ""),
                (10, 1, ", method A"),
                (10, 2, ", method B"),
                (12, 1, ", method A"),
                (12, 2, ", method B"),
                (16, 0, ""),
            ] {
                let dpx = Dpx { channels, big_endian, bits, packing, ..Dpx::default() };
                // Of OpenImageIO's, only rows of 10 bits end at a word.
                let row = channels.len() * super::scene::WIDTH * if bits == 8 { 1 } else { 2 };
                let alike = bits == 10 || row.is_multiple_of(4);
                let name = format!("{name}, {bits} bits{method}, {order}");
                if !alike {
                    let unpadded = Dpx { padding: None, ..dpx.clone() };
                    add(format!("{name}, rows that end between words"), Some(&[]), unpadded);
                }
                add(name, alike.then_some(&[]), dpx);
            }
        }
    }
    for (orientation, name) in [(1, "mirrored"), (2, "upside down"), (3, "mirrored and upside down")] {
        add(name.to_owned(), None, Dpx { orientation, ..Dpx::default() });
    }
    add("padding behind each row".to_owned(), None, Dpx { padding: Some(12), ..Dpx::default() });
    add(
        "pixels where others have film and television headers".to_owned(),
        Some(&[]),
        Dpx { offset: 1664, ..Dpx::default() },
    );
    add("pixels at 8192".to_owned(), Some(&[]), Dpx { offset: 8192, ..Dpx::default() });
    for (name, word, dpx) in [
        ("stored in columns", "columns", Dpx { fields: vec![(768, 2, 4)], ..Dpx::default() }),
        ("run-length encoded", "run-length", Dpx { fields: vec![(806, 2, 1)], ..Dpx::default() }),
        ("10 bits packed across words", "packed", Dpx { packing: 0, ..Dpx::default() }),
        ("12 bits packed across words", "packed", Dpx { bits: 12, packing: 0, ..Dpx::default() }),
        ("two elements", "several elements", Dpx { fields: vec![(770, 2, 2)], ..Dpx::default() }),
        ("numbers with a sign", "sign", Dpx { fields: vec![(780, 4, 1)], ..Dpx::default() }),
        ("1 bit", "bits", Dpx { bits: 8, packing: 0, fields: vec![(803, 1, 1)], ..Dpx::default() }),
        ("32-bit floats", "bits", Dpx { bits: 16, packing: 0, fields: vec![(803, 1, 32)], ..Dpx::default() }),
        ("64-bit floats", "bits", Dpx { bits: 16, packing: 0, fields: vec![(803, 1, 64)], ..Dpx::default() }),
        ("red alone", "kind 1", Dpx { fields: vec![(800, 1, 1)], ..Dpx::default() }),
        ("alpha alone", "kind 4", Dpx { fields: vec![(800, 1, 4)], ..Dpx::default() }),
        ("depth", "kind 8", Dpx { fields: vec![(800, 1, 8)], ..Dpx::default() }),
        ("ABGR", "kind 52", Dpx { channels: "RGBA", fields: vec![(800, 1, 52)], ..Dpx::default() }),
        ("CbYCrY", "kind 100", Dpx { fields: vec![(800, 1, 100)], ..Dpx::default() }),
        ("CbYCr", "kind 102", Dpx { fields: vec![(800, 1, 102)], ..Dpx::default() }),
    ] {
        all.push(Variant::refused("DPX", name, word, move |path| dpx.write(path)));
    }
    all
}
