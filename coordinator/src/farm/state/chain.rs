//! Jobs that work on the frames of another one while that makes them, so that a chain of workflows flows through the
//! farm as one: a frame may be handed out once every frame that it is made of is done.
//!
//! Must never take a frame for done that may still change: of a job whose chunks are cross-faded none is until all are.

use std::borrow::Cow;

use hearth_workflows::{FrameRange, FrameSet, Split};

use crate::farm::{
    model::{
        command::{Segment, Source},
        ids::JobId,
        job::{Ended, Job, Phase},
        spec::{JobSpec, Render},
    },
    state::Farm,
};

impl JobSpec {
    /// The job whose frames it works on while they are made.
    pub(in crate::farm) fn follows(&self) -> Option<JobId> {
        Some(self.render()?.clip.as_ref()?.made_by.as_ref()?.job)
    }

    /// Every job that it waits for, in whole or frame by frame.
    pub fn awaits(&self) -> impl Iterator<Item = JobId> {
        self.after.iter().copied().chain(self.follows())
    }
}

impl Job {
    fn not_done(&self) -> FrameSet {
        let mut missing = self.spec.frames.clone();
        missing.remove_all(&self.done);
        missing
    }

    /// The waiting frames that may be handed out. Those beside frames that cannot be yet wait for them, as long as
    /// there are fewer than would be rendered around them and thrown away.
    pub(in crate::farm) fn open(&self) -> Cow<'_, FrameSet> {
        if self.blocked.is_empty() {
            return Cow::Borrowed(&self.waiting);
        }
        let mut open = self.waiting.clone();
        open.remove_all(&self.blocked);
        let grows = |run: &FrameRange| {
            let beside = FrameRange::new(run.first.0.saturating_sub(1), run.last.0.saturating_add(1));
            beside.is_some_and(|beside| !self.blocked.intersection(&beside.into()).is_empty())
        };
        let short: Vec<FrameRange> =
            open.runs().filter(|run| run.len() < self.shortest && grows(run)).collect();
        short.into_iter().for_each(|run| open.remove(run));
        Cow::Owned(open)
    }
}

impl Farm {
    /// Finds out anew which frames of the job cannot be made yet.
    pub(in crate::farm) fn follow(&mut self, id: JobId) {
        let blocked = self.jobs.get(&id).and_then(|job| self.blocked(&job.spec)).unwrap_or_default();
        if let Some(job) = self.jobs.get_mut(&id) {
            (job.blocked, job.shortest) = blocked;
        }
    }

    /// The frames, and how many of those beside them are worth a chunk before more can be made.
    fn blocked(&self, spec: &JobSpec) -> Option<(FrameSet, u64)> {
        let maker = self.jobs.get(&spec.follows()?)?;
        let (render, split, shape) = self.split_of(spec)?;
        let missing = match maker.phase {
            Phase::Ended(Ended::Done) => return None,
            _ if self.is_faded(&maker.spec) => maker.spec.frames.clone(),
            _ => maker.not_done(),
        };
        let (head, tail) = split.handles();
        // Nothing more comes of what has ended.
        let shortest = if maker.is_ended() { 0 } else { 2 * (u64::from(head) + u64::from(tail)) };
        Some((split.blocked(&missing, &spec.frames, render.clip_range, shape), shortest))
    }

    fn split_of<'a>(&self, spec: &'a JobSpec) -> Option<(&'a Render, Split, hearth_workflows::split::Shape)> {
        let render = spec.render()?;
        let workflow = &self.workflows.get(&render.workflow)?.workflow;
        Some((render, render.split(workflow), workflow.manifest().shape()))
    }

    /// Whether its frames are not final before they are put together.
    fn is_faded(&self, spec: &JobSpec) -> bool {
        self.split_of(spec).is_some_and(|(_, split, _)| matches!(split, Split::Overlap { .. }))
    }

    /// What the job has done has changed, perhaps: those that follow it may go on, or may not any more.
    pub(in crate::farm) fn lead(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let stands = (job.done.len(), job.is_ended());
        if std::mem::replace(&mut job.led, stands) == stands {
            return;
        }
        for follower in self.dependents_of(id) {
            if self.jobs.get(&follower).is_some_and(|job| job.spec.follows() == Some(id) && !job.is_ended()) {
                self.follow(follower);
                self.rank(follower);
            }
        }
    }

    /// Where the frames lie that the job's chunk of `own` is made of; `None` when its clip is whole.
    pub(in crate::farm) fn source(&self, spec: &JobSpec, own: &FrameSet) -> Option<Source> {
        let made_by = spec.render()?.clip.as_ref()?.made_by.as_ref()?;
        let maker = self.jobs.get(&made_by.job).filter(|job| job.phase != Phase::Ended(Ended::Done))?;
        let (render, split, shape) = self.split_of(spec)?;
        let wanted: FrameSet = split.plan(own, render.clip_range, shape).loaded.into_iter().collect();
        let pieces = maker.segments(made_by.job).filter_map(|piece| {
            let frames = piece.frames.intersection(&wanted);
            (!frames.is_empty()).then_some(Segment { frames, ..piece })
        });
        Some(Source {
            job: made_by.job,
            pass: made_by.pass.clone(),
            work_dir: maker.spec.work_dir(&self.tag.0, made_by.job.0),
            output: maker.spec.output.clone(),
            pieces: pieces.collect(),
        })
    }

    /// The frames that it waits for, of the job that makes them; none when all of them are done.
    pub(in crate::farm) fn awaited_frames(&self, job: &Job) -> Option<(JobId, &Job, FrameSet)> {
        let id = job.spec.follows()?;
        let maker = self.jobs.get(&id)?;
        Some((id, maker, maker.not_done()))
    }
}
