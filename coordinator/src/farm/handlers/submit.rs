//! Submitting jobs.

use std::collections::HashSet;

use crate::farm::{
    model::{
        command::{Answer, JobEvent, Refusal, Step, Submission, Submitted},
        ids::{JobId, Timestamp},
        job::{Ended, Phase},
        key::Key,
    },
    state::Farm,
};

impl Farm {
    pub(in crate::farm) fn submit(
        &mut self,
        now: Timestamp,
        submission: Submission,
        step: &mut Step,
    ) -> Result<Answer, Refusal> {
        let Submission { jobs } = submission;
        let known = jobs.iter().find_map(|submitted| self.requests.get(&submitted.spec.request_id));
        if let Some(&job) = known {
            return Ok(Answer::Submitted { job, already: true });
        }
        self.may_take(&jobs)?;
        let first = JobId(self.next_job);
        let together = jobs.len() > 1;
        for Submitted { mut spec, priority, workflow, after, preset } in jobs {
            let id = JobId(self.next_job);
            self.next_job += 1;
            // What comes in front of it was taken in just now.
            spec.after.extend(after.into_iter().map(|place| JobId(first.0 + place as u64)));
            spec.batch = together.then_some(first);
            if let Some(workflow) = spec.workflow().filter(|id| !self.workflows.contains_key(*id)) {
                step.changes.push(Key::Workflow(workflow.clone()));
            }
            if let Some(preset) = preset {
                self.preset_used(now, preset, &spec.user, step);
            }
            self.take_in(now, id, spec, priority, workflow);
            step.changes.extend([Key::Spec(id), Key::Job(id)]);
            step.event(id, JobEvent::Changed);
        }
        step.changes.push(Key::Meta);
        self.touched.open_nodes();
        self.touched.urgent();
        self.touched.chores();
        Ok(Answer::Submitted { job: first, already: false })
    }

    /// Refuses the whole of a submission that cannot be taken.
    pub fn may_take(&self, jobs: &[Submitted]) -> Result<(), Refusal> {
        let mut outputs = HashSet::new();
        for Submitted { spec, .. } in jobs {
            let output = spec.output.to_string();
            if let Some(&other) = self.outputs.get(&output) {
                return Err(Refusal::OutputTaken { other, output });
            }
            if !outputs.insert(spec.output.as_str()) {
                return Err(Refusal::OutputTwice { output });
            }
            for job in spec.awaits() {
                match self.jobs.get(&job).map(|awaited| awaited.phase) {
                    None => return Err(Refusal::NoSuchJob(job)),
                    Some(Phase::Ended(Ended::Cancelled { .. })) => {
                        return Err(Refusal::NothingOfIt { job });
                    }
                    Some(_) => {}
                }
            }
        }
        let limit = self.config.max_active;
        if self.jobs.len() - self.ended.len() + jobs.len() > limit {
            return Err(Refusal::TooManyJobs { limit });
        }
        Ok(())
    }
}
