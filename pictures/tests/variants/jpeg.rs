//! JPEG files, as OpenImageIO writes them, and what is told apart by their markers.

use std::{fs, path::Path};

use super::{
    png::exif,
    scene::{Truth, Variant, WIDTH, oiiotool},
    tiff::Tiff,
};

/// Takes out what OpenImageIO has written of that itself.
fn forget_exif(bytes: &mut Vec<u8>) {
    let mut at = 2;
    while matches!(bytes[at + 1], 0xe0..=0xef) {
        let end = at + 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        if bytes[at + 1] == 0xe1 {
            bytes.drain(at..end);
        } else {
            at = end;
        }
    }
}

/// Where the frame's marker, such as `ff c0`, is.
fn frame(bytes: &[u8]) -> usize {
    let mut at = 2;
    while !matches!(bytes[at + 1], 0xc0..=0xc2) {
        at += 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
    }
    at
}

/// The scene as a JPEG; `patch` then changes its bytes.
fn make(
    path: &Path,
    channels: &'static str,
    orientation: u16,
    arguments: &[&str],
    patch: impl FnOnce(&mut Vec<u8>),
) {
    let source = path.with_extension("source.tif");
    Tiff { channels, orientation, ..Tiff::default() }.write(&source);
    let mut bytes = fs::read(&source).expect("written");
    forget_orientation(&mut bytes);
    fs::write(&source, bytes).expect("written");
    let mut all = vec![source.to_str().expect("UTF-8")];
    all.extend(arguments);
    let target = path.display().to_string();
    all.extend(["-d", "uint8", "--quality", "100", "-o", &target]);
    oiiotool(&all);
    let mut bytes = fs::read(path).expect("written");
    patch(&mut bytes);
    fs::write(path, bytes).expect("written");
}

/// Has the tag say 1: only the pixels are to be turned.
fn forget_orientation(tiff: &mut [u8]) {
    let tag = 274_u16.to_le_bytes();
    let at = tiff.windows(4).rposition(|four| four[..2] == tag && four[2..] == [3, 0]).expect("the tag");
    tiff[at + 8] = 1;
}

pub(crate) fn all() -> Vec<Variant> {
    let mut all = Vec::new();
    let right = |name: &str, channels, arguments: &'static [&'static str], tolerance| {
        let truth = Truth::of(channels, 255).within(tolerance);
        Variant::right("JPEG", name, truth, move |path| make(path, channels, 1, arguments, |_| ()))
    };
    // What is left of ramps when their colour has half the resolution is what everybody sees of them; blue is made of
    // steps, so that it is held against what was written only where no colour is left out.
    let full = &["--attrib", "jpeg:subsampling", "4:4:4"];
    all.push(right("RGB, 4:4:4", "RGB", full, 0.04));
    all.push(right(
        "RGB, 4:4:4, progressive",
        "RGB",
        &["--attrib", "jpeg:subsampling", "4:4:4", "--attrib:type=int", "jpeg:progressive", "1"],
        0.04,
    ));
    all.push(right("grey", "Y", &[], 0.02));
    for (name, arguments) in [
        ("RGB, 4:2:2", &["--attrib", "jpeg:subsampling", "4:2:2"] as &'static [&'static str]),
        ("RGB, 4:2:0", &["--attrib", "jpeg:subsampling", "4:2:0"]),
        ("RGB, 4:1:1", &["--attrib", "jpeg:subsampling", "4:1:1"]),
    ] {
        let truth = Truth { value: smooth, ..Truth::of("RGB", 0) }.within(0.05);
        all.push(Variant::right("JPEG", name, truth, move |path| {
            let source = path.with_extension("source.exr");
            let (red, size) = ("fill:left=0.2,0.2,0.2:right=0.8,0.8,0.8", "33x19");
            let text = source.display().to_string();
            oiiotool(&["--pattern", red, size, "3", "-d", "float", "-o", &text]);
            let mut all = vec![text.as_str()];
            all.extend(arguments);
            let target = path.display().to_string();
            all.extend(["-d", "uint8", "--quality", "100", "-o", &target]);
            oiiotool(&all);
        }));
    }
    for orientation in 2..=8 {
        let name = format!("turned or mirrored (EXIF orientation {orientation})");
        let truth = Truth::of("RGB", 255).within(0.04);
        let variant = Variant::right("JPEG", name, truth, move |path| {
            make(path, "RGB", orientation, full, |bytes| {
                forget_exif(bytes);
                let data = [&b"Exif\0\0"[..], &exif(orientation)].concat();
                let length = (data.len() as u16 + 2).to_be_bytes();
                let segment = [&[0xff, 0xe1][..], &length, &data].concat();
                bytes.splice(2..2, segment);
            });
        });
        // It takes the two that are turned and mirrored for one another.
        all.push(if matches!(orientation, 5 | 7) { variant.theirs(None) } else { variant });
    }
    for (name, marker, word) in [
        ("lossless", 0xc3, "lossless"),
        ("hierarchical", 0xc5, "hierarchical"),
        ("hierarchical, progressive", 0xc6, "hierarchical"),
        ("hierarchical, lossless", 0xc7, "hierarchical"),
        ("arithmetic coding", 0xc9, "arithmetic"),
        ("arithmetic coding, progressive", 0xca, "arithmetic"),
    ] {
        all.push(Variant::refused("JPEG", name, word, move |path| {
            make(path, "RGB", 1, full, |bytes| {
                let at = frame(bytes);
                bytes[at + 1] = marker;
            });
        }));
    }
    all.push(Variant::refused("JPEG", "12 bits", "12 bits", |path| {
        make(path, "RGB", 1, full, |bytes| {
            let at = frame(bytes);
            bytes[at + 4] = 12;
        });
    }));
    for (name, transform, word) in [("CMYK", 0, "CMYK"), ("YCCK", 2, "YCCK")] {
        all.push(Variant::refused("JPEG", name, word, move |path| four_channels(path, transform)));
    }
    all
}

/// Four of the channels, each as large as the next, and whether they are turned into another colour space.
fn four_channels(path: &Path, transform: u8) {
    make(path, "RGB", 1, &[], |bytes| {
        let mut head = vec![0xff, 0xd8, 0xff, 0xee, 0, 14];
        head.extend(b"Adobe\0\x64\0\0\0\0");
        head.push(transform);
        head.extend([0xff, 0xc0, 0, 20, 8, 0, 19, 0, 33, 4]);
        (1..=4).for_each(|channel| head.extend([channel, 0x11, 0]));
        // Tables and the rest are those of the other picture.
        let at = frame(bytes);
        let after = at + 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        bytes.splice(..after, head);
    });
}

/// A grey ramp, of which no colour can be lost.
fn smooth(_: char, x: usize, _: usize) -> f64 {
    0.2 + 0.6 * (x as f64 + 0.5) / WIDTH as f64
}
