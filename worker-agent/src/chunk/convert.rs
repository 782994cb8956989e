//! Pictures on their way to a node and back from it: in its format and colour space, and in the clip's again.

use std::{fs, io, path::Path, sync::Arc};

use hearth_pictures::{
    Alpha, Converter, Effort, Metadata, OnTheWay, PictureError, ViewStep, look, read, thumbnail, write,
};
use hearth_storage::{
    Held, SequenceFolder,
    manifest::{THUMBNAIL_FOLDER, write_whole},
};
use hearth_workflows::{Frame, FrameRange, FrameSet, Split, format::Encoding};
use tracing::debug;

use super::{ChunkTask, Failure};

/// Width and height of a thumbnail, at most.
const THUMBNAIL_SIZE: u32 = 320;

/// Writes `from` as `to` in another encoding, grey as colour: a node stacks its frames, and a colour clip may have
/// grey ones. What is not converted is read by nodes that make colour of everything (`LoadImage` and its like).
pub(super) fn stage(
    converter: &Converter,
    from: &Path,
    to: &Path,
    encoding: Encoding,
) -> Result<(), PictureError> {
    write(to, &converter.convert(&read(from)?).in_colour(), encoding.format, Effort::Fast)
}

/// What has to be done to the pictures of a pass before they are published.
#[derive(Debug, Clone)]
pub(super) struct Finish {
    converter: Option<Arc<Converter>>,
    result: Encoding,
    extension: &'static str,
    /// Folder of the clip, where there is one.
    clip: Option<SequenceFolder>,
    task: Arc<ChunkTask>,
    split: Split,
}

impl Finish {
    pub(super) fn new(
        task: &Arc<ChunkTask>,
        pass: &hearth_workflows::manifest::Pass,
        clip: Option<SequenceFolder>,
    ) -> Result<Self, Failure> {
        let manifest = task.workflow.manifest();
        let encoding = task.clip.as_ref().map(|clip| clip.encoding);
        let (saved, result) = (manifest.saved(pass, encoding), manifest.result(pass, encoding));
        // A result of whole numbers is a picture to look at: it stays as it was shown.
        let view = task.clip.as_ref().and_then(|clip| clip.view).filter(|_| result.format.is_float());
        let on_the_way = OnTheWay {
            view: view.map(ViewStep::From),
            alpha: if manifest.is_multiplied(pass, &task.parameters) {
                Alpha::Multiplied
            } else {
                Alpha::Usual
            },
            ..OnTheWay::default()
        };
        Ok(Self {
            converter: Converter::with(saved, result, on_the_way).map(Arc::new),
            result,
            extension: result.format.extension(),
            clip,
            split: task.split()?,
            task: task.clone(),
        })
    }

    /// The name under which a frame is published.
    pub(super) fn file(&self, frame: Frame) -> String {
        format!("{frame}.{}", self.extension)
    }

    /// Makes `saved`, as the node wrote it, the frame's result at `file`.
    pub(super) fn finish(&self, saved: &Path, file: &Path, frame: Frame) -> Result<(), PictureError> {
        let metadata = self.metadata(frame);
        let in_place = self.converter.is_none() && metadata == Metadata::default();
        if in_place || self.converter.is_none() && look(saved)?.1 == metadata {
            let read = |source| PictureError::Read { path: saved.to_owned(), source };
            return fs::rename(saved, file).map_err(read);
        }
        let mut picture = read(saved)?;
        if let Some(converter) = &self.converter {
            picture = converter.convert(&picture);
        }
        picture.metadata = metadata;
        write(file, &picture, self.result.format, self.effort(frame))?;
        // What is left of it goes with the attempt's unpublished folder anyway.
        let _ = fs::remove_file(saved);
        Ok(())
    }

    /// What is blended when the sequence is assembled is read twice within minutes, and then thrown away.
    fn effort(&self, frame: Frame) -> Effort {
        let (head, tail) = self.split.handles();
        let reach = i64::from(head) + i64::from(tail);
        let around = FrameRange::new(frame.0.saturating_sub(reach), frame.0.saturating_add(reach));
        let inside = around.is_some_and(|around| FrameSet::from(around).is_subset(&self.task.frames));
        if matches!(self.split, Split::Overlap { .. }) && !inside { Effort::Fast } else { Effort::Small }
    }

    /// Keeps a small picture of the result at `file` in the chunk's folder. Nothing depends on it.
    pub(super) fn keep_thumbnail(&self, file: &Path, chunk: &Held, pass: &str, frame: Frame) {
        let kept = || -> io::Result<()> {
            let picture = read(file).map_err(io::Error::other)?;
            let Some(jpeg) = thumbnail(&picture, self.result, THUMBNAIL_SIZE) else { return Ok(()) };
            let folder = chunk.make_below(Path::new(THUMBNAIL_FOLDER))?;
            write_whole(&folder.path().join(format!("{pass}.{frame}.jpg")), &jpeg)
        };
        if let Err(error) = kept() {
            debug!(pass, %frame, %error, "has no thumbnail");
        }
    }

    /// What the clip says of this frame, where the result can say it, too.
    fn metadata(&self, frame: Frame) -> Metadata {
        let clip = self.clip.as_ref().filter(|_| self.result.format.is_exr());
        let Some(folder) = clip else { return Metadata::default() };
        let source = match self.split {
            // The frame of the clip at it or before it: one that the chunk has loaded.
            Split::Interpolate { multiplier, step } => {
                let first = self.task.clip_range.first.0;
                let pictures = i128::from(frame.0 - first) * i128::from(step);
                Frame(first + (pictures / i128::from(multiplier.max(1))) as i64)
            }
            _ => frame,
        };
        // The frame was looked at when it was staged; without it the result only says less.
        let Ok(file) = folder.frame(source) else { return Metadata::default() };
        let Ok((_, said)) = look(&file.path()) else { return Metadata::default() };
        match self.split {
            Split::Interpolate { multiplier, step } => Metadata {
                // It counts frames of the old rate.
                time_code: None,
                frame_rate: said.frame_rate.and_then(|rate| rate.times(multiplier, step)),
                ..said
            },
            _ => said,
        }
    }
}
