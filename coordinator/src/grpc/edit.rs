//! Changing a job that was submitted: what of the change only the farm and storage can judge.

use hearth_pictures::Picture;
use hearth_proto::v1;
use hearth_storage::Clip;
use hearth_workflows::{FrameRange, FrameSet};
use tonic::Status;

use super::{
    clients::{FarmService, invalid, look, no_storage, priority_from, status},
    convert,
};
use crate::{
    farm::{Edit, JobId, JobView, Timestamp},
    submission::check_text,
};

/// Names of limits that a job can have.
const MOST_LIMITS: usize = 64;

impl FarmService {
    /// The change, as the farm takes it.
    pub(super) async fn edit(&self, id: JobId, told: v1::Edit) -> Result<Edit, Status> {
        let limits = told.limits.map(|limits| limits.names);
        if limits.as_ref().is_some_and(|limits| limits.len() > MOST_LIMITS) {
            return Err(Status::invalid_argument(format!(
                "a job has at most {MOST_LIMITS} limits; leave some out"
            )));
        }
        if !told.anyway {
            let (pool, limits) = (told.pool.clone().unwrap_or_default(), limits.clone().unwrap_or_default());
            let unknown = self.driver.read(move |farm| farm.unknown_name(&pool, &limits)).await;
            unknown.map_err(status)?.map_or(Ok(()), |unknown| Err(invalid(&unknown)))?;
        }
        let names = limits.iter().flatten().map(|limit| ("limit", limit));
        for (what, name) in names.chain(told.pool.iter().map(|pool| ("pool", pool))) {
            check_text(what, name).map_err(|error| invalid(&error))?;
        }
        let frames = told.frames.as_deref().map(convert::frames_from).transpose();
        let frames = frames.map_err(|error| invalid(&error))?;
        if let Some(frames) = &frames {
            let (_, view) = look(self, id).await?;
            self.has_frames(view, frames).await?;
        }
        let first = told.first_frames.as_deref().map(convert::frames_from).transpose();
        Ok(Edit {
            priority: told.priority.map(priority_from).transpose()?,
            pool: told.pool,
            deadline: told
                .deadline_unix_ms
                .map(|deadline| (deadline > 0).then_some(Timestamp(deadline.max(0) as u64))),
            min_nodes: told.min_nodes.map(|nodes| nodes as usize),
            max_nodes: told.max_nodes.map(|nodes| nodes as usize),
            limits: limits.map(|limits| limits.into_iter().collect()),
            first: first.map_err(|error| invalid(&error))?,
            frames,
        })
    }

    /// Makes sure that the clip has whatever frames need that the job was not to make before.
    async fn has_frames(&self, view: JobView, frames: &FrameSet) -> Result<(), Status> {
        let mut added = frames.clone();
        added.remove_all(&view.spec.frames);
        let Some((render, workflow)) = view.spec.render().zip(view.workflow) else { return Ok(()) };
        let clip = render.clip.as_ref();
        if let Some(maker) = clip.and_then(|clip| clip.made_by.as_ref()) {
            let (_, maker) = look(self, maker.job).await?;
            added.remove_all(&maker.spec.frames);
            if added.is_empty() {
                return Ok(());
            }
            let told = format!("job {} does not make frames {added}; name frames that it makes", maker.id);
            return Err(Status::invalid_argument(told));
        }
        // Outside the clip the farm refuses it.
        let Some(clip) = clip.filter(|_| !added.is_empty() && added.is_subset(&render.clip_range.into()))
        else {
            return Ok(());
        };
        let (split, shape) = (render.split(&workflow), workflow.manifest().shape());
        let loaded = |run: FrameRange| split.plan(&run.into(), render.clip_range, shape).loaded;
        let loaded: FrameSet = added.runs().flat_map(loaded).collect();
        let (encoding, pixels) = (clip.encoding, clip.pixels);
        let (roots, path) = (self.roots.clone(), clip.path.clone());
        let root = path.root().to_owned();
        let found =
            self.calls.run([root], move || Clip::find(&roots, &path).and_then(|clip| clip.check(&loaded)));
        let picture = found.await.map_err(|error| no_storage(&error))?.map_err(|error| invalid(&error))?;
        let is_like = |picture: &Picture| {
            picture.format == encoding.format
                && (pixels == 0 || u64::from(picture.width) * u64::from(picture.height) == pixels)
        };
        match picture.filter(|picture| !is_like(picture)) {
            None => Ok(()),
            Some(picture) => Err(Status::invalid_argument(format!(
                "the added frames are {picture}, unlike those that the job makes; submit them as a job of their own"
            ))),
        }
    }
}
