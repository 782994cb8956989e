//! Every variant of a picture file that the format libraries can hand us, one generated file each: it is read right, or
//! refused by name when it is looked at, which is when it is submitted. `docs/pictures.md` has the verdicts.
//!
//! All files show one picture that is known by a formula, so that a mistake of a writer here is not taken for one of the
//! reader; OpenImageIO reads the same from all of them that it reads.

#[path = "variants/dpx.rs"]
mod dpx;
#[path = "variants/exr.rs"]
mod exr;
#[path = "variants/jpeg.rs"]
mod jpeg;
#[path = "variants/png.rs"]
mod png;
#[path = "variants/scene.rs"]
mod scene;
#[path = "variants/tiff.rs"]
mod tiff;

use std::{
    env,
    fmt::Write as _,
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use hearth_pictures::{PictureError, Raster, Samples, inspect, read, verify};
use scene::{HEIGHT, Truth, Variant, WIDTH, Want, oiiotool};

const BEGIN: &str = "<!-- generated: variants -->\n";
const END: &str = "<!-- end -->";

/// Fewer than that would not be "every variant".
const FEWEST: usize = 120;

fn numbers(raster: &Raster, name: &str) -> Vec<f64> {
    let plane = raster.plane(name).unwrap_or_else(|| panic!("there is no channel {name}"));
    match &plane.samples {
        Samples::U8(samples) => samples.iter().map(|sample| f64::from(*sample) / 255.0).collect(),
        Samples::U16(samples) => samples.iter().map(|sample| f64::from(*sample) / 65535.0).collect(),
        Samples::F16(samples) => samples.iter().map(|sample| sample.to_f64()).collect(),
        Samples::F32(samples) => samples.iter().map(|sample| f64::from(*sample)).collect(),
    }
}

/// The first difference from the truth, if there is one.
fn off(raster: &Raster, truth: &Truth, channels: &str, tolerance: f64) -> Option<String> {
    if (raster.display.width as usize, raster.display.height as usize) != (WIDTH, HEIGHT) {
        return Some(format!("it is {}x{}", raster.display.width, raster.display.height));
    }
    for channel in channels.chars() {
        let found = numbers(raster, &channel.to_string());
        let data = raster.data;
        for (at, found) in found.into_iter().enumerate() {
            let x = (data.x + (at % data.width as usize) as i32) as usize;
            let y = (data.y + (at / data.width as usize) as i32) as usize;
            let expected = truth.at(channel, x, y);
            if (found - expected).abs() > tolerance {
                return Some(format!("{channel} at {x},{y} is {found:.5}, and should be {expected:.5}"));
            }
        }
    }
    None
}

fn file(variant: &Variant, folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("{number}.{}", variant.extension()))
}

/// The verdict for the table, or what is wrong with ours.
fn verdict(variant: &Variant, folder: &Path, number: usize) -> Result<String, String> {
    let file = file(variant, folder, number);
    (variant.make)(&file);
    match &variant.want {
        Want::Refused(word) => match inspect(&file) {
            Err(PictureError::Unsupported { reason, .. }) if reason.contains(word) => {
                Ok(format!("refused: {reason}"))
            }
            other => Err(format!("should be refused for {word:?}, is {other:?}")),
        },
        Want::Right(truth) => {
            let picture = inspect(&file).map_err(|error| format!("not looked at: {error}"))?;
            if usize::from(picture.channels) != truth.channels.len() {
                return Err(format!("{} channels instead of {}", picture.channels, truth.channels));
            }
            verify(&file).map_err(|error| format!("not verified: {error}"))?;
            let ours = read(&file).map_err(|error| format!("not read: {error}"))?;
            off(&ours, truth, truth.channels, truth.tolerance).map_or(Ok("right".to_owned()), Err)
        }
    }
}

/// Reads the variants with OpenImageIO; the differences from the truth, by variant.
fn held_against_openimageio(variants: &[Variant], folder: &Path) -> Vec<(usize, String)> {
    let mut all: Vec<String> = Vec::new();
    let mut asked: Vec<(usize, &Truth, String, PathBuf)> = Vec::new();
    for (number, variant) in variants.iter().enumerate() {
        let (Want::Right(truth), Some(arguments)) = (&variant.want, variant.theirs) else { continue };
        // Alpha would be multiplied into the colours when it is written.
        let colours: String = truth.channels.chars().filter(|channel| *channel != 'A').collect();
        let names = colours.chars().map(String::from).collect::<Vec<_>>().join(",");
        let back = folder.join(format!("{number}-theirs.tif"));
        let file = file(variant, folder, number).display().to_string();
        let indices = if colours.len() == 1 { "0" } else { "0,1,2" };
        all.extend(["--iconfig", "oiio:UnassociatedAlpha", "1", &file, "--reorient"].map(str::to_owned));
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        all.extend(["--ch", indices, "--chnames", &names, "-d", "float", "-o"].map(str::to_owned));
        all.extend([back.display().to_string(), "--pop".to_owned()]);
        asked.push((number, truth, colours, back));
    }
    // One process for all of them: to start it takes longer than to read a picture.
    oiiotool(&all.iter().map(String::as_str).collect::<Vec<_>>());
    asked
        .into_iter()
        .filter_map(|(number, truth, colours, back)| {
            let off = match read(&back) {
                // Its 12 bits become 16 by zeros behind them.
                Ok(theirs) => off(&theirs, truth, &colours, truth.tolerance.max(2.5e-4))?,
                Err(error) => error.to_string(),
            };
            Some((number, format!("OpenImageIO reads it otherwise: {off}")))
        })
        .collect()
}

/// Memory is made for what a header says: it has to be a size that pictures have.
#[test]
fn a_header_that_says_too_much_is_refused_before_memory_is_made_for_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let refused = |path: &Path| {
        for told in [inspect(path).map(drop), read(path).map(drop), verify(path).map(drop)] {
            let told = told.expect_err("refused").to_string();
            assert!(told.contains("damaged"), "{told}");
        }
    };
    let png = dir.path().join("a.png");
    for (width, height) in [(1_000_000, 4_000_000_000), (1 << 20 | 1, 1), (1 << 14, (1 << 14) + 1)] {
        png::bomb(&png, width, height);
        refused(&png);
    }
    // An EXR's windows, and a TIFF's size, overwritten in good files.
    let patched = |name: &str, patch: &dyn Fn(&mut Vec<u8>)| {
        let path = dir.path().join(name);
        oiiotool(&["--create", "16x16", "3", "-d", "half", "-o", &path.display().to_string()]);
        let mut bytes = std::fs::read(&path).expect("written");
        patch(&mut bytes);
        std::fs::write(&path, bytes).expect("written");
        refused(&path);
    };
    patched("a.exr", &|bytes| {
        for window in [&b"dataWindow\0box2i\0"[..], b"displayWindow\0box2i\0"] {
            let at = bytes.windows(window.len()).position(|found| found == window).expect("a window");
            // Behind the size of the attribute and the corner that is first: the width.
            let at = at + window.len() + 4 + 8;
            bytes[at..at + 4].copy_from_slice(&999_999_999_i32.to_le_bytes());
        }
    });
    patched("a.tif", &|bytes| {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let first = number(4) as usize;
        for entry in 0..usize::from(bytes[first]) {
            let at = first + 2 + entry * 12;
            // Width and height, as words of 32 bits.
            if matches!(u16::from_le_bytes([bytes[at], bytes[at + 1]]), 256 | 257) {
                bytes[at + 2..at + 4].copy_from_slice(&4_u16.to_le_bytes());
                bytes[at + 8..at + 12].copy_from_slice(&(1_u32 << 19).to_le_bytes());
            }
        }
    });
}

#[test]
fn every_variant_is_read_right_or_refused_by_name() {
    let folder = tempfile::tempdir().expect("tempdir");
    let variants: Vec<Variant> =
        [png::all(), tiff::all(), jpeg::all(), dpx::all(), exr::all()].into_iter().flatten().collect();
    assert!(variants.len() >= FEWEST, "only {} variants", variants.len());
    let next = AtomicUsize::new(0);
    let mut verdicts: Vec<(usize, Result<String, String>)> = thread::scope(|scope| {
        let work = || -> Vec<(usize, Result<String, String>)> {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(variant) = variants.get(number) else { return done };
                let verdict = catch_unwind(|| verdict(variant, folder.path(), number));
                done.push((number, verdict.unwrap_or_else(|_| Err("something panicked".to_owned()))));
            }
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no worker fails")).collect()
    });
    verdicts.sort_by_key(|(number, _)| *number);
    for (number, wrong) in held_against_openimageio(&variants, folder.path()) {
        verdicts[number].1 = verdicts[number].1.clone().and(Err(wrong));
    }
    let wrong: Vec<String> = verdicts
        .iter()
        .filter_map(|(number, verdict)| {
            let variant = &variants[*number];
            Some(format!("{} {}: {}", variant.format, variant.name, verdict.as_ref().err()?))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} variants:\n{}", wrong.len(), variants.len(), wrong.join("\n"));

    let right = variants.iter().filter(|variant| matches!(variant.want, Want::Right(_))).count();
    let mut table = format!(
        "{} variants: {right} are read right, {} are refused by name.\n\n| format | variant | verdict |\n| --- | --- | --- |\n",
        variants.len(),
        variants.len() - right
    );
    for (number, verdict) in &verdicts {
        let (variant, verdict) = (&variants[*number], verdict.as_deref().unwrap_or_default());
        writeln!(table, "| {} | {} | {verdict} |", variant.format, variant.name).expect("written");
    }
    hold(&table);
}

/// Holds the table in the documentation against `table`, or writes it.
fn hold(table: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures.md");
    let text = fs::read_to_string(&path).expect("docs/pictures.md");
    let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (_, after) = rest.split_once(END).expect("where it ends");
    let wanted = format!("{before}{BEGIN}{table}{END}{after}");
    if env::var_os("HEARTH_UPDATE").is_some() {
        fs::write(&path, &wanted).expect("written");
    } else {
        assert!(text == wanted, "docs/pictures.md is out of date; HEARTH_UPDATE=1 writes it anew");
    }
}
