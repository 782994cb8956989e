//! Pictures: assembling by link, cross-fades, and conversion against OpenImageIO in the same run.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use hearth_agent::sequence;
use hearth_client::v1;
use hearth_pictures::{Converter, Effort, Metadata, Plane, Raster, Samples, Window, read, write};
use hearth_storage::{
    Roots,
    manifest::{ChunkManifest, FileManifest},
};
use hearth_workflows::{
    Frame, FrameSet,
    format::{ColourSpace, Encoding, PictureFormat},
};
use tokio_util::sync::CancellationToken;

use crate::Figure;

/// Frames assembled by link, in chunks of so many.
const LINKED: i64 = 10_000;
const CHUNK: i64 = 25;

/// Frames blended, and converted.
const BLENDED: u32 = 40;
const CONVERTED: usize = 40;

const WIDTH: u32 = 2048;
const HEIGHT: u32 = 1080;

const CORES: usize = 2;

pub(crate) fn measure() -> Vec<Figure> {
    vec![
        linked(),
        blended(Effort::Fast, "as the agent writes what is blended"),
        blended(Effort::Small, "deflated by a node"),
        converted(),
    ]
}

/// A gradient with grain: neither flat nor noise.
fn picture(seed: u32) -> Raster {
    let window = Window::of_size(WIDTH, HEIGHT);
    let sample = |channel: u32, at: usize| {
        let (x, y) = (at as u32 % WIDTH, at as u32 / WIDTH);
        let mix = (at as u32 ^ seed.wrapping_mul(0x9e37_79b9)).wrapping_mul(2_654_435_761) >> 24;
        let light = (x * (channel + 1) + y) as f32 / (WIDTH * 3) as f32;
        half::f16::from_f32(light + mix as f32 / 8192.0)
    };
    let planes = ["R", "G", "B"].iter().enumerate().map(|(channel, name)| Plane {
        name: (*name).to_owned(),
        samples: Samples::F16((0..window.pixels()).map(|at| sample(channel as u32, at)).collect()),
    });
    Raster { display: window, data: window, planes: planes.collect(), metadata: Metadata::default() }
}

/// A root with a job's work folder in it, and what to do with its chunks.
struct Work {
    dir: tempfile::TempDir,
    assembly: v1::Assembly,
}

impl Work {
    fn new(extension: &str, format: PictureFormat) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir_all(dir.path().join("sh010/.hearth-t-1")).expect("folder");
        let pass = v1::PassFiles {
            name: "beauty".to_owned(),
            pattern: format!("plate.%04d.{extension}"),
            format: format.to_string(),
            colour_space: format.usual_colour().to_string(),
        };
        let assembly = v1::Assembly {
            work_dir: "comps/sh010/.hearth-t-1".to_owned(),
            output: "comps/sh010/out".to_owned(),
            passes: vec![pass],
            ..v1::Assembly::default()
        };
        Self { dir, assembly }
    }

    /// Publishes a chunk with these frames, all of them the file `from`; it answers for `own`.
    fn publish(
        &mut self,
        number: usize,
        own: &FrameSet,
        frames: std::ops::RangeInclusive<i64>,
        from: &[&Path],
    ) {
        let attempt = format!("t-1-{number}");
        let folder = self.dir.path().join("sh010/.hearth-t-1").join(&attempt);
        let pass = folder.join("beauty");
        fs::create_dir_all(&pass).expect("folder");
        let mut files = BTreeMap::new();
        for (index, frame) in frames.enumerate() {
            let from = from[index % from.len()];
            let extension = from.extension().expect("one").to_string_lossy();
            let name = format!("{frame}.{extension}");
            fs::hard_link(from, pass.join(&name)).expect("link");
            let bytes = fs::metadata(from).expect("there").len();
            files.insert(Frame(frame), FileManifest { name, bytes, blake3: String::new() });
        }
        let manifest = ChunkManifest {
            hearth_version: "0".to_owned(),
            attempt: attempt.clone(),
            node: "n".to_owned(),
            frames: own.clone(),
            passes: [("beauty".to_owned(), files)].into(),
        };
        let published = manifest.write(&folder).expect("written");
        let segment = v1::Segment {
            attempt_id: attempt,
            node: "n".to_owned(),
            frames: own.to_string(),
            manifest_blake3: published.as_bytes().to_vec(),
        };
        self.assembly.segments.push(segment);
    }

    fn assemble(&self) -> Duration {
        let mut roots = Roots::default();
        roots.insert("comps", self.dir.path().to_owned());
        let started = Instant::now();
        let (cancel, tell) = (CancellationToken::new(), |_| {});
        let watched = sequence::Watched::new(&cancel, &tell, std::sync::Arc::default());
        sequence::assemble(&roots, "t-1-9999", &self.assembly, watched).expect("assembled");
        started.elapsed()
    }
}

fn linked() -> Figure {
    let mut work = Work::new("png", PictureFormat::Png8);
    let one = work.dir.path().join("one.png");
    image::RgbImage::new(8, 8).save(&one).expect("frame");
    for (number, first) in (1..=LINKED).step_by(CHUNK as usize).enumerate() {
        let own: FrameSet = (first..first + CHUNK).map(Frame).collect();
        work.publish(number + 1, &own, first..=first + CHUNK - 1, &[&one]);
    }
    let took = work.assemble();
    Figure::new(
        format!("{LINKED} frames in chunks of {CHUNK} assembled by link, every one looked at"),
        format!("{:.2} s", took.as_secs_f64()),
        "under 2 s",
    )
}

/// `effort`: how the chunks' pictures were written.
fn blended(effort: Effort, whose: &str) -> Figure {
    let mut work = Work::new("exr", PictureFormat::ExrHalf);
    let files = [1, 2].map(|seed| {
        let path = work.dir.path().join(format!("{seed}.exr"));
        write(&path, &picture(seed), PictureFormat::ExrHalf, effort).expect("written");
        path
    });
    let (half, frames) = (i64::from(BLENDED / 2), i64::from(BLENDED));
    let range = |first: i64, last: i64| (first..=last).map(Frame).collect::<FrameSet>();
    work.assembly.cross_fade = Some(v1::CrossFade { frames: BLENDED, ramp: "raised-cosine".to_owned() });
    // All frames lie in the ramp of the one cut.
    work.publish(1, &range(1, half), 1..=frames, &[&files[0]]);
    work.publish(2, &range(half + 1, frames), 1..=frames, &[&files[1]]);
    let took = work.assemble();
    Figure::new(
        format!("cross-fade of two chunks, {BLENDED} frames of {WIDTH}x{HEIGHT} half-float EXR {whose}"),
        format!("{:.1} frames/s", f64::from(BLENDED) / took.as_secs_f64()),
        if effort == Effort::Fast { format!("at least 20 on {CORES} cores") } else { String::new() },
    )
}

fn converted() -> Figure {
    let dir = tempfile::tempdir().expect("tempdir");
    for index in 0..CONVERTED {
        let path = dir.path().join(format!("in.{index:04}.exr"));
        write(&path, &picture(index as u32), PictureFormat::ExrHalf, Effort::Small).expect("written");
    }
    let from = Encoding { format: PictureFormat::ExrHalf, colour: ColourSpace::Linear };
    let to = Encoding { format: PictureFormat::Png16, colour: ColourSpace::Srgb };
    let converter = Converter::new(from, to).expect("something to do");
    let (started, next) = (Instant::now(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..CORES {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= CONVERTED {
                        return;
                    }
                    let picture = read(&dir.path().join(format!("in.{index:04}.exr"))).expect("read");
                    let out = dir.path().join(format!("out.{index:04}.png"));
                    write(&out, &converter.convert(&picture), PictureFormat::Png16, Effort::Fast)
                        .expect("written");
                }
            });
        }
    });
    let ours = CONVERTED as f64 / started.elapsed().as_secs_f64();
    let theirs = oiiotool(dir.path());
    let (value, against) = match theirs {
        Some(theirs) => (
            format!("{ours:.1} frames/s, {:.1} times oiiotool", ours / theirs),
            format!("at least as fast; oiiotool {theirs:.1} frames/s, {CORES} processes"),
        ),
        None => (format!("{ours:.1} frames/s"), "needs oiiotool".to_owned()),
    };
    Figure::new(
        format!("linear half-float EXR to sRGB 16-bit PNG, {CONVERTED} frames of {WIDTH}x{HEIGHT}"),
        value,
        against,
    )
}

/// Frames a second of the same by OpenImageIO, the frames divided between as many processes as cores.
fn oiiotool(dir: &Path) -> Option<f64> {
    let started = Instant::now();
    let share = CONVERTED / CORES;
    let processes = (0..CORES).map(|core| {
        let frames = format!("{}-{}", core * share, (core + 1) * share - 1);
        Command::new("oiiotool")
            .current_dir(dir)
            .args(["--threads", "1", "--frames", &frames, "in.%04d.exr", "--colorconvert", "linear", "sRGB"])
            .args(["-d", "uint16", "-o", "theirs.%04d.png"])
            .spawn()
    });
    let processes = processes.collect::<Result<Vec<_>, _>>().ok()?;
    for mut process in processes {
        assert!(process.wait().expect("oiiotool").success());
    }
    Some((share * CORES) as f64 / started.elapsed().as_secs_f64())
}
