//! What people may change of a job that is not over.

use hearth_workflows::{FrameSet, Split};

use crate::farm::{
    model::{
        command::{Answer, Edit, Refusal, Step},
        ids::{AttemptId, JobId, Timestamp},
        job::Phase,
        key::Key,
        spec::JobSpec,
    },
    state::Farm,
};

impl Farm {
    pub(in crate::farm) fn edit(
        &mut self,
        now: Timestamp,
        id: JobId,
        edit: Edit,
        step: &mut Step,
    ) -> Result<Answer, Refusal> {
        let job = self.active(id)?;
        let mut spec = JobSpec::clone(&job.spec);
        if let Some(frames) = &edit.frames
            && *frames != spec.frames
        {
            self.may_have_frames(id, &spec, frames)?;
        }
        let needed = spec.workflow().and_then(|workflow| self.workflows.get(workflow));
        let needed = needed.map(|known| known.workflow.manifest().needs.limits.clone()).unwrap_or_default();
        let terms = &mut spec.terms;
        if let Some(limits) = edit.limits {
            terms.limits = limits.into_iter().chain(needed).collect();
        }
        terms.deadline = edit.deadline.unwrap_or(terms.deadline);
        terms.min_nodes = edit.min_nodes.unwrap_or(terms.min_nodes);
        terms.max_nodes = edit.max_nodes.unwrap_or(terms.max_nodes);
        let is_first_given = edit.first.is_some();
        terms.first = edit.first.unwrap_or_else(|| std::mem::take(&mut terms.first));
        let (min, max) = (terms.min_nodes, terms.max_nodes);
        if max > 0 && min > max {
            return Err(Refusal::Nodes { min, max });
        }
        spec.pool = edit.pool.unwrap_or(spec.pool);
        let before = spec.frames.clone();
        let frames = edit.frames.unwrap_or_else(|| before.clone());
        spec.frames = frames.clone();
        let mut first = spec.terms.first.clone();
        first.remove_all(&frames);
        if is_first_given && !first.is_empty() {
            return Err(Refusal::FirstNotMade { first });
        }
        spec.terms.first = spec.terms.first.intersection(&frames);

        self.unrank(id);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.priority = edit.priority.unwrap_or(job.priority);
            // It is judged anew, if it has a deadline.
            job.late &= spec.terms.deadline.is_some();
        }
        self.replace_spec(id, spec);
        step.changes.push(Key::Spec(id));
        if frames != before {
            self.change_frames(now, id, &before, &frames, step);
        }
        self.follow(id);
        self.changed(id, step);
        self.touched.job(id);
        self.touched.chores();
        self.touched.open_nodes();
        self.touched.urgent();
        Ok(Answer::Done)
    }

    /// Only where frames are made one by one, or from some neighbours, other ones can be made: what looks at all of a clip
    /// would have to begin again.
    fn may_have_frames(&self, id: JobId, spec: &JobSpec, frames: &FrameSet) -> Result<(), Refusal> {
        let refused = |why| Err(Refusal::FramesFixed { job: id, why });
        let known = spec.workflow().and_then(|workflow| self.workflows.get(workflow));
        let Some((render, known)) = spec.render().zip(known) else {
            return refused("a delivery is of a whole sequence");
        };
        match render.split(&known.workflow) {
            Split::PerFrame | Split::Handles { .. } | Split::Overlap { .. } => {}
            Split::Interpolate { .. } | Split::Whole | Split::Generate { .. } => {
                return refused("its workflow looks at all of its frames");
            }
        }
        if frames.is_empty() {
            return refused("there would be none left; cancel it instead");
        }
        if !frames.is_subset(&render.clip_range.into()) {
            return refused("its clip had no others when it was submitted");
        }
        if let Some(maker) = spec.follows().and_then(|maker| self.jobs.get(&maker)) {
            let (split, shape) = (render.split(&known.workflow), known.workflow.manifest().shape());
            let loaded =
                frames.runs().flat_map(|run| split.plan(&run.into(), render.clip_range, shape).loaded);
            if !loaded.collect::<FrameSet>().is_subset(&maker.spec.frames) {
                return refused("the job that makes its clip does not make all that they need");
            }
        }
        if !self.dependents_of(id).is_empty() {
            return refused("other jobs work on its frames");
        }
        Ok(())
    }

    /// The job's frames were `before`, and are `after` from now on.
    fn change_frames(
        &mut self,
        now: Timestamp,
        id: JobId,
        before: &FrameSet,
        after: &FrameSet,
        step: &mut Step,
    ) {
        let (mut removed, mut added) = (before.clone(), after.clone());
        removed.remove_all(after);
        added.remove_all(before);
        if self.jobs.get(&id).is_some_and(|job| job.phase == Phase::Assembling) {
            self.stop_assembly(now, id, "its frames were changed", step);
        }
        let Some(job) = self.jobs.get_mut(&id) else { return };
        for set in [&mut job.waiting, &mut job.failed, &mut job.done] {
            set.remove_all(&removed);
        }
        job.waiting.insert_all(&added);
        job.forgive(&removed);
        job.suspects.clear();
        for (number, piece) in &mut job.pieces {
            if !piece.frames.intersection(&removed).is_empty() {
                piece.frames.remove_all(&removed);
                step.changes.push(Key::Piece(AttemptId { job: id, number: *number }));
            }
        }
        job.pieces.retain(|_, piece| !piece.frames.is_empty());
        job.phase = Phase::Rendering;
        job.phase = job.open_phase();
        self.shrink_others(now, id, &removed, "its frames are not wanted any more", step);
    }
}
