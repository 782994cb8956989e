//! Pictures on their way to a node and back from it: in its format and colour space, and in the clip's again.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use hearth_pictures::{Converter, Effort, Metadata, PictureError, look, read, write};
use hearth_workflows::{Frame, Split, format::Encoding};

use super::{ChunkTask, Failure};

/// Writes `from` as `to` in another encoding.
pub(super) fn stage(
    converter: &Converter,
    from: &Path,
    to: &Path,
    encoding: Encoding,
) -> Result<(), PictureError> {
    write(to, &converter.convert(&read(from)?), encoding.format, Effort::Fast)
}

/// What has to be done to the pictures of a pass before they are published.
#[derive(Debug, Clone)]
pub(super) struct Finish {
    converter: Option<Arc<Converter>>,
    result: Encoding,
    extension: &'static str,
    clip: PathBuf,
    task: Arc<ChunkTask>,
    split: Split,
}

impl Finish {
    pub(super) fn new(
        task: &Arc<ChunkTask>,
        pass: &hearth_workflows::manifest::Pass,
        clip: PathBuf,
    ) -> Result<Self, Failure> {
        let manifest = task.workflow.manifest();
        let (saved, result) = (manifest.saved(pass, task.encoding), manifest.result(pass, task.encoding));
        Ok(Self {
            converter: Converter::new(saved, result).map(Arc::new),
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
        write(file, &picture, self.result.format, Effort::Small)?;
        // What is left of it goes with the attempt's unpublished folder anyway.
        let _ = fs::remove_file(saved);
        Ok(())
    }

    /// What the clip says of this frame, where the result can say it, too.
    fn metadata(&self, frame: Frame) -> Metadata {
        if !self.result.format.is_exr() {
            return Metadata::default();
        }
        let source = match self.split {
            Split::Interpolate { .. } => self.task.clip_range.first,
            _ => frame,
        };
        let file = hearth_storage::clip::file_of(&self.clip, &self.task.clip, source);
        // The frame was looked at when it was staged; without it the result only says less.
        let Ok((_, said)) = look(&file) else { return Metadata::default() };
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
