//! A finished sequence becomes a movie, proxies or a contact sheet.
//!
//! Pictures are decoded, made fit to be shown and lettered here, and go to ffmpeg through a pipe, so that every
//! format and colour space that Hearth reads can be delivered and a frame that is missing or broken has a name.
//! What ffmpeg has written is counted before it appears in its place by one rename.

mod ffmpeg;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use hearth_pictures::{
    Corner, Display, Lettering, Metadata, Picture, PictureError, Projector, Raster, Rate, TimeCode, look,
    read, verify,
};
use hearth_proto::v1::{self, AttemptPhase, FailureKind};
use hearth_storage::{
    Held, Roots, RootsError, SequenceFolder,
    manifest::{SEQUENCE_FILE, SequenceManifest, flush, write_whole},
};
use hearth_telemetry::chain;
use hearth_workflows::{
    Frame, FrameSet, RootPath, SequencePath,
    delivery::{Curve, DeliveryFormat},
    format::Encoding,
};
use tokio::{io::AsyncWriteExt as _, process::ChildStdin};

pub use ffmpeg::Encoder;
use ffmpeg::{Ffmpeg, Input};

use crate::{
    chunk::{Failure, Tell, Told, Workbench},
    sequence,
};

/// Frames that are decoded or wait for ffmpeg.
const AHEAD: usize = 2;

/// Samples written at once.
const BLOCK: usize = 32 * 1024;

/// Frames on a contact sheet.
const SHEET_FRAMES: usize = 24;

/// ffmpeg takes a picture within this time, or it hangs.
const STALL: Duration = Duration::from_secs(300);

/// Between two reports of progress.
const REPORT: Duration = Duration::from_millis(250);

/// Frames a second where neither the submission nor the files say.
const USUAL_RATE: Rate = Rate { numerator: 24, denominator: 1 };

/// Letters, as parts of the picture's height.
const LETTERS: f32 = 1.0 / 34.0;
const SHEET_LETTERS: f32 = 1.0 / 12.0;

/// A delivery, understood.
struct Order {
    attempt: String,
    work_dir: RootPath,
    output: RootPath,
    folder: SequenceFolder,
    sequence: SequencePath,
    frames: Vec<Frame>,
    /// Of a contact sheet of several sequences: its pictures. `frames` are their places, from 1 on.
    tiles: Vec<Tile>,
    encoding: Encoding,
    format: DeliveryFormat,
    text: String,
    rate: Option<Rate>,
    overwrite: bool,
    curve: Option<Curve>,
    /// Of the first frame, and what all are like.
    first: (Picture, Metadata),
}

/// A picture of a contact sheet, of another job's sequence.
struct Tile {
    folder: SequenceFolder,
    frame: Frame,
    label: String,
}

impl Order {
    fn read(bench: &Workbench, attempt: &str, task: &v1::Deliver) -> Result<Self, Failure> {
        let unreadable = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(FailureKind::Internal, format!("the delivery's {what} cannot be read: {error}"))
        };
        let path =
            |what: &str, path: &str| path.parse::<RootPath>().map_err(|error| unreadable(what, &error));
        let sequence: SequencePath = task.sequence.parse().map_err(|error| unreadable("sequence", &error))?;
        let frames: FrameSet = task.frames.parse().map_err(|error| unreadable("frames", &error))?;
        let format: DeliveryFormat = task.format.parse().map_err(|error| unreadable("format", &error))?;
        let mut frames: Vec<Frame> = frames.iter().collect();
        if format == DeliveryFormat::ContactSheet && task.tiles.is_empty() {
            frames = spread(&frames, SHEET_FRAMES);
        }
        let rate = Some(task.frame_rate.as_str()).filter(|rate| !rate.is_empty());
        let curve = Some(task.curve.as_str()).filter(|curve| !curve.is_empty());
        let folder = SequenceFolder::open(&bench.roots, &sequence)?;
        let tiles = task.tiles.iter().map(|tile| {
            let of: SequencePath = tile.sequence.parse().map_err(|error| unreadable("tile", &error))?;
            let folder = SequenceFolder::open(&bench.roots, &of)?;
            Ok(Tile { folder, frame: Frame(tile.frame), label: tile.label.clone() })
        });
        let tiles = tiles.collect::<Result<Vec<_>, Failure>>()?;
        let first = *frames.first().ok_or_else(|| unreadable("frames", &"there are none"))?;
        let shown = tiles.first().map_or((&folder, first), |tile| (&tile.folder, tile.frame));
        let first = of_frame(shown, look).map_err(|error| bad_frame(tiles.first(), first, &told(&error)))?;
        Ok(Self {
            attempt: attempt.to_owned(),
            work_dir: path("work folder", &task.work_dir)?,
            output: path("output", &task.output)?,
            folder,
            sequence,
            frames,
            tiles,
            encoding: Encoding {
                format: first.0.format,
                colour: task.colour_space.parse().map_err(|error| unreadable("colour space", &error))?,
            },
            format,
            text: task.text.clone(),
            rate: rate.map(|rate| rate.parse().map_err(|error| unreadable("rate", &error))).transpose()?,
            overwrite: task.overwrite,
            curve: curve
                .map(|curve| curve.parse().map_err(|error| unreadable("curve", &error)))
                .transpose()?,
            first,
        })
    }

    /// All pixels of a frame, or of the tile in this place.
    fn picture(&self, frame: Frame) -> Result<Raster, Failure> {
        let place = self.tile(frame).map_or((&self.folder, frame), |tile| (&tile.folder, tile.frame));
        of_frame(place, read).map_err(|error| self.bad(frame, &told(&error)))
    }

    fn bad(&self, frame: Frame, why: &str) -> Failure {
        bad_frame(self.tile(frame), frame, why)
    }

    fn tile(&self, place: Frame) -> Option<&Tile> {
        self.tiles.get(usize::try_from(place.0.checked_sub(1)?).ok()?)
    }
}

/// An order with a place to work.
struct Room {
    order: Arc<Order>,
    /// The job's work folder.
    work: Held,
}

impl Room {
    /// Where it is written before it is whole.
    fn part(&self) -> PathBuf {
        self.work.path().join(&self.order.attempt)
    }

    /// The same for ffmpeg.
    fn part_for_ffmpeg(&self) -> PathBuf {
        self.work.path_for_children().join(&self.order.attempt)
    }
}

/// Looks at a frame's file where it is.
fn of_frame<T>(
    (folder, frame): (&SequenceFolder, Frame),
    look: impl Fn(&Path) -> Result<T, PictureError>,
) -> Result<T, PictureError> {
    let file = folder.frame(frame).map_err(|error| match error {
        RootsError::Open { path, source } => PictureError::Read { path, source },
        error => PictureError::Read { path: folder.shown(frame), source: io::Error::other(error) },
    })?;
    look(&file.path()).map_err(|error| error.of(file.shown()))
}

/// Encodes the sequence, and puts what comes of it in its place.
pub(crate) async fn deliver(
    bench: &Workbench,
    attempt: &str,
    task: &v1::Deliver,
    tell: Tell<'_>,
) -> Result<(), Failure> {
    tell(progress(0, 0));
    let order = blocking({
        let (bench, attempt, task) = (bench.clone(), attempt.to_owned(), task.clone());
        move || {
            let order = Arc::new(Order::read(&bench, &attempt, &task)?);
            prepare(&bench.roots, &order).map(|room| (order, room))
        }
    });
    let (order, room) = order.await?;
    let Some(room) = room else { return tidy(bench, &order).await };
    let room = Arc::new(room);
    let encoded = encode(bench, &room, tell).await;
    let placed = match encoded {
        Ok(()) => {
            let (room, roots) = (room.clone(), bench.roots.clone());
            blocking(move || place(&roots, &room)).await
        }
        Err(failure) => Err(failure),
    };
    if placed.is_err() {
        // It was of no use; the job's work folder goes with the job.
        let part = room.part();
        let _ = tokio::fs::remove_dir_all(&part).await;
        let _ = tokio::fs::remove_file(&part).await;
    }
    placed.map_err(|failure| failure.telling([&room.work]))?;
    tidy(bench, &order).await
}

/// Removes what is left beside the delivery.
async fn tidy(bench: &Workbench, order: &Order) -> Result<(), Failure> {
    let (roots, work_dir) = (bench.roots.clone(), order.work_dir.to_string());
    blocking(move || sequence::clean_up(&roots, &work_dir)).await
}

/// Makes room for it; `None` when an earlier try has put it in its place already.
fn prepare(roots: &Roots, order: &Arc<Order>) -> Result<Option<Room>, Failure> {
    let failed = |error: io::Error| Failure::storage(format!("cannot make {}", order.work_dir), &error);
    let (work, output) = (roots.resolve(&order.work_dir)?, roots.resolve(&order.output)?);
    if output.symlink_metadata().is_ok() && !order.overwrite {
        if fs::read(work.join(PLACING)).is_ok_and(|told| told == identity(&output).into_bytes()) {
            return Ok(None);
        }
        let message = format!("{} exists already; move it away, then retry the job", order.output);
        return Err(Failure::new(FailureKind::OutputTaken, message));
    }
    let work = roots.make_folder(&work).map_err(failed)?;
    if order.format == DeliveryFormat::PngProxy {
        work.make_below(Path::new(&order.attempt)).map_err(failed)?;
    }
    Ok(Some(Room { order: order.clone(), work }))
}

/// Says which file is about to be renamed to its place, for a try that comes after a crash.
const PLACING: &str = "placing";

/// What a rename leaves as it is.
fn identity(path: &Path) -> String {
    let Ok(metadata) = path.metadata() else { return String::new() };
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    format!("{} {:?}", metadata.len(), modified.unwrap_or_default())
}

async fn encode(bench: &Workbench, room: &Arc<Room>, tell: Tell<'_>) -> Result<(), Failure> {
    let order = &room.order;
    let program = &bench.encoder.program;
    let studio = Arc::new(Studio::new(order.clone())?);
    let mut pictures = stream::iter(order.frames.clone())
        .map(|frame| {
            let studio = studio.clone();
            let done = bench.darkroom.run(move || studio.picture(frame));
            async move {
                done.await.unwrap_or_else(|| {
                    Err(Failure::new(FailureKind::Internal, format!("frame {frame} could not be decoded")))
                })
            }
        })
        .buffered(AHEAD);
    let arguments = ffmpeg::arguments(order.format, &studio.input, &room.part_for_ffmpeg());
    let mut ffmpeg = Ffmpeg::start(program, &arguments)?;
    let mut reported = Instant::now();
    let mut done = 0;
    loop {
        let Ok(picture) = tokio::time::timeout(STALL, pictures.next()).await else {
            let message =
                format!("no frame could be read for {} s; look whether storage answers", STALL.as_secs());
            return Err(Failure::new(FailureKind::Storage, message));
        };
        let Some(picture) = picture else { break };
        let picture = picture?;
        let Some(stdin) = &mut ffmpeg.child.stdin else { break };
        match tokio::time::timeout(STALL, pour(stdin, &picture)).await {
            Ok(Ok(())) => {}
            // It has ended: its own words say why.
            Ok(Err(_)) => break,
            Err(_) => {
                let message = format!("ffmpeg took no picture for {} s", STALL.as_secs());
                return Err(Failure::new(FailureKind::Hung, message));
            }
        }
        done += 1;
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            tell(progress(done, order.frames.len()));
        }
    }
    ffmpeg.end("encoded", STALL).await?;
    let written = count(program, room).await?;
    let due = if order.format == DeliveryFormat::ContactSheet { 1 } else { order.frames.len() };
    if written != due {
        let message = format!("ffmpeg wrote {written} pictures where {due} were due");
        return Err(Failure::new(FailureKind::BadOutput, message));
    }
    tell(progress(due, due));
    Ok(())
}

/// Writes a picture as its encoder takes it: little-endian.
async fn pour(stdin: &mut ChildStdin, picture: &Display) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(2 * BLOCK);
    for samples in picture.samples.chunks(BLOCK) {
        bytes.clear();
        bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        stdin.write_all(&bytes).await?;
    }
    Ok(())
}

/// The pictures in what ffmpeg has written.
async fn count(program: &str, room: &Arc<Room>) -> Result<usize, Failure> {
    let order = &room.order;
    if ffmpeg::is_movie(order.format) {
        let file = format!("file:{}", room.part_for_ffmpeg().display());
        let arguments = [
            "-nostdin",
            "-v",
            "error",
            "-i",
            &file,
            "-map",
            "0:v:0",
            "-c",
            "copy",
            "-progress",
            "pipe:1",
            "-f",
            "null",
            "-",
        ];
        let said = Ffmpeg::start(program, &arguments.map(str::to_owned))?.end("counted", STALL).await?;
        let mut frames = said.lines().filter_map(|line| line.strip_prefix("frame=")?.trim().parse().ok());
        return Ok(frames.next_back().unwrap_or(0));
    }
    let (room, order) = (room.clone(), order.clone());
    blocking(move || {
        let part = room.part();
        let files: Vec<PathBuf> = match order.format {
            DeliveryFormat::PngProxy => (0..order.frames.len()).map(|n| ffmpeg::numbered(&part, n)).collect(),
            _ => vec![part],
        };
        let wrong = |error| Failure::new(FailureKind::BadOutput, hearth_telemetry::chain(&error));
        files.iter().try_fold(0, |count, file| verify(file).map(|_| count + 1).map_err(wrong))
    })
    .await
}

/// Puts it in its place by one rename.
fn place(roots: &Roots, room: &Room) -> Result<(), Failure> {
    let (order, part) = (&room.order, room.part());
    let failed =
        |error: io::Error| Failure::storage(format!("cannot put the delivery at {}", order.output), &error);
    if order.format == DeliveryFormat::PngProxy {
        name_proxies(order, &part).map_err(failed)?;
    }
    flush(&part).map_err(failed)?;
    let parent = sequence::make_parent(roots, &order.output).map_err(failed)?;
    let output = parent.path().join(order.output.file_name());
    write_whole(&room.work.path().join(PLACING), identity(&part).as_bytes()).map_err(failed)?;
    if order.overwrite {
        sequence::set_aside(&output, &room.work)?;
    }
    fs::rename(&part, &output).map_err(failed)?;
    flush(&parent.path()).map_err(failed)
}

/// Gives proxies the numbers of their frames, and says what they are.
fn name_proxies(order: &Order, part: &Path) -> io::Result<()> {
    let name = DeliveryFormat::proxy_name(order.sequence.name());
    for (index, frame) in order.frames.iter().enumerate() {
        let file = part.join(name.file(*frame));
        fs::rename(ffmpeg::numbered(part, index), &file)?;
        flush(&file)?;
    }
    let manifest = SequenceManifest {
        hearth_version: env!("CARGO_PKG_VERSION").to_owned(),
        job: order.work_dir.to_string(),
        workflow: order.format.to_string(),
        parameters: std::collections::BTreeMap::new(),
        clip: order.sequence.to_string(),
        passes: [("proxy".to_owned(), name.to_string())].into(),
        submission: None,
        times: None,
        missing: FrameSet::new(),
        kept: Vec::new(),
        chunks: Vec::new(),
        assembly: order.attempt.clone(),
        files: std::collections::BTreeMap::new(),
    };
    write_whole(&part.join(SEQUENCE_FILE), &serde_json::to_vec_pretty(&manifest)?)
}

/// Makes the pictures that ffmpeg gets.
struct Studio {
    order: Arc<Order>,
    projector: Projector,
    lettering: Lettering,
    input: Input,
}

impl Studio {
    fn new(order: Arc<Order>) -> Result<Self, Failure> {
        let lettering = Lettering::new().map_err(|error| {
            Failure::new(FailureKind::Internal, format!("the font cannot be read: {error}"))
        })?;
        let (picture, metadata) = order.first;
        let projector = Projector::new(order.encoding, order.curve);
        let with_alpha = matches!(order.format, DeliveryFormat::ProRes4444 | DeliveryFormat::PngProxy);
        let mut input = Input {
            width: picture.width,
            height: picture.height,
            alpha: false,
            frames: order.frames.len(),
            rate: order.rate.or(metadata.frame_rate).unwrap_or(USUAL_RATE),
            time_code: TimeCode::default(),
            pixel_aspect: metadata.pixel_aspect.unwrap_or(1.0),
            colour: projector.colour(),
        };
        if with_alpha && let Some(frame) = order.frames.first() {
            input.alpha = projector.show(order.picture(*frame)?, true).alpha;
        }
        let mut studio = Self { order, projector, lettering, input };
        studio.input.time_code = studio.time_code(studio.order.frames[0], metadata);
        Ok(studio)
    }

    /// What the file says, or what the frame's number is at this rate.
    fn time_code(&self, frame: Frame, metadata: Metadata) -> TimeCode {
        metadata.time_code.unwrap_or_else(|| TimeCode::of_frame(frame.0, self.input.rate))
    }

    /// One frame as ffmpeg gets it.
    fn picture(&self, frame: Frame) -> Result<Display, Failure> {
        let picture = self.order.picture(frame)?;
        let metadata = picture.metadata;
        let mut shown = self.projector.show(picture, self.input.alpha);
        let Input { width, height, alpha, .. } = self.input;
        if self.order.tile(frame).is_some() {
            // Takes may differ in size, if that is what is tried.
            shown = shown.fitted(width, height);
        }
        if (shown.width, shown.height, shown.alpha) != (width, height, alpha) {
            let (width, height, channels) = (shown.width, shown.height, shown.channels());
            let why =
                format!("it is {width}x{height} with {channels} channels, unlike the first; render it again");
            return Err(self.order.bad(frame, &why));
        }
        self.letter(&mut shown, frame, metadata);
        Ok(shown)
    }

    fn letter(&self, shown: &mut Display, frame: Frame, metadata: Metadata) {
        let height = self.input.height as f32;
        match self.order.format {
            DeliveryFormat::H264 => {
                let letters = (height * LETTERS).max(10.0);
                let time = format!("{}  {frame}", self.time_code(frame, metadata));
                self.lettering.burn(shown, &self.order.text, Corner::BottomLeft, letters);
                self.lettering.burn(shown, &time, Corner::BottomRight, letters);
            }
            DeliveryFormat::ContactSheet => {
                let letters = height * SHEET_LETTERS;
                let number = frame.to_string();
                let label = self.order.tile(frame).map_or(number.as_str(), |tile| &tile.label);
                self.lettering.burn(shown, label, Corner::BottomLeft, letters);
            }
            DeliveryFormat::ProRes4444 | DeliveryFormat::ProRes422Hq | DeliveryFormat::PngProxy => {}
        }
    }
}

/// The error with its causes, and advice.
fn told(error: &PictureError) -> String {
    format!("{}; {}", chain(error), error.advice())
}

/// That a picture cannot be used.
fn bad_frame(tile: Option<&Tile>, frame: Frame, why: &str) -> Failure {
    let (frames, place) = match tile {
        // Of another job: its number there is none of the delivery's frames.
        Some(Tile { folder, frame, label }) => {
            (FrameSet::new(), format!("take {label}, {}", folder.shown(*frame).display()))
        }
        None => ([frame].into_iter().collect(), format!("frame {frame}")),
    };
    Failure { frames, ..Failure::new(FailureKind::BadFrame, format!("{place}: {why}")) }
}

/// At most `count` of them, from the first to the last.
fn spread(frames: &[Frame], count: usize) -> Vec<Frame> {
    if frames.len() <= count || count < 2 {
        return frames.iter().take(count).copied().collect();
    }
    (0..count).map(|n| frames[n * (frames.len() - 1) / (count - 1)]).collect()
}

fn progress(done: usize, all: usize) -> Told {
    Told::Progress(v1::AttemptProgress {
        phase: AttemptPhase::Encoding.into(),
        step: done as f64,
        steps: all as f64,
        fraction: if all > 0 { done as f64 / all as f64 } else { 0.0 },
        ..v1::AttemptProgress::default()
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let ended = || Failure::new(FailureKind::Internal, "the delivery ended without a result");
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(ended()))
}
