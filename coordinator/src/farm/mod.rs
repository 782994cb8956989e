//! All rules of the farm, as a pure state machine: no clock, no randomness, no I/O, no `async`.
//!
//! ```text
//! farm.apply(now, command) -> Step { changes, effects, answer }
//! ```
//!
//! `changes` name the records that the command touched; the driver writes them as one group. `effects`
//! and `answer` may be released only after that write is durable (as in a Raft `Ready`).
//!
//! A command is applied in three steps: its *handler* changes the state and marks what it touches; *settle* moves the
//! touched jobs to the phase that their frames ask for; *dispatch* hands out work, once.
//!
//! Rooms, and who may use whom (`tests/arrows.rs` reads it from the sources):
//!
//! ```text
//! model <- state <- { handlers, scheduler, queries, records } <- this file
//! ```
//!
//! - `model`: jobs, nodes, attempts, commands, and their own algebra
//! - `state`: the farm's data with its indexes (queue, open nodes, leases), fair-share usage, limits, measured speeds
//! - `handlers`: what happens, one file for each family of commands
//! - `scheduler`: what runs next: which job (`choose`, `fit`), how many frames (`carve`), urgent work (`preempt`), late work (`help`)
//! - `queries`: what people ask; `explain`, `eta` and `forecast` foresee with the scheduler's own rules
//! - `records`: what is durable, and how a farm is made of it again
//!
//! Handlers and scheduler never use each other. Frames are the truth: a job keeps interval sets, chunks are only leases on
//! frames.

pub mod invariants;

mod handlers;
mod model;
mod queries;
mod records;
mod scheduler;
mod state;

use std::time::Duration;

pub use handlers::rescan::ToSurvey;
pub use model::{
    attempt::{Attempt, AttemptPhase, Estimate, Progress, Work},
    command::{
        Answer, AssignedWork, Assignment, Command, Edit, Effect, Found, Held, JobEvent, Outcome, Refusal,
        Segment, Source, Step, Submission, Submitted,
    },
    ids::{AttemptId, FarmTag, JobId, NodeName, Priority, Session, Timestamp},
    job::{Ended, Failure, FailureKind, Job, LostFrames, Phase},
    key::{Key, Record, RecordError},
    node::{Capabilities, Lack, Node, NodeAbout, NodeState},
    policy::{LimitPolicy, ShowPolicy},
    preset::{Owner, Preset, PresetChange, PresetId, PresetVersion, WrongName},
    spec::{Deliver, JobClip, JobSpec, MadeBy, PassFiles, Render, Task, Terms, Tile},
};
pub use queries::{
    eta::Eta,
    forecast::{Cost, Fit, Forecast},
    names::UnknownName,
    view::{AttemptView, JobFilter, JobState, JobView, NodeView},
};
pub use state::{Farm, FarmConfig};

/// How often jobs are held against their deadlines.
const JUDGE_DEADLINES: Duration = Duration::from_secs(10);

impl Farm {
    /// Applies one command at the time `now`: changes what it changes, moves jobs on, and hands out work.
    pub fn apply(&mut self, now: Timestamp, command: Command) -> Step {
        let mut step = Step::default();
        self.now = now;
        step.answer = self.handle(now, command, &mut step);
        self.settle_touched(now, &mut step);
        self.dispatch(now, &mut step);
        step
    }

    fn handle(&mut self, now: Timestamp, command: Command, step: &mut Step) -> Result<Answer, Refusal> {
        match command {
            Command::Submit(submission) => self.submit(now, *submission, step),
            Command::Pause(job) => self.pause(job, step),
            Command::Resume(job) => self.resume(job, step),
            Command::Cancel(job) => self.cancel(now, job, self.config.keep_cancelled, step),
            Command::Remove(job) => self.cancel(now, job, Duration::ZERO, step),
            Command::Retry(job) => self.retry_failed(now, job, step),
            Command::SetPriority(job, priority) => self.set_priority(job, priority, step),
            Command::Edit(job, edit) => self.edit(now, job, *edit, step),
            Command::Drain(node) => self.set_drained(&node, true, step),
            Command::Undrain(node) => self.set_drained(&node, false, step),
            Command::ChangePreset(id, change) => self.change_preset(now, id, change, step),
            Command::Hello { session, about, capabilities, slots, reason, held } => self
                .hello(now, session, *about, *capabilities, (slots, reason), held, step)
                .map(|()| Answer::Done),
            Command::Readiness { session, node, slots, reason, capabilities } => {
                self.readiness(now, session, &node, (slots, reason), capabilities, step);
                Ok(Answer::Done)
            }
            Command::Heartbeat { session, node, attempts, clock } => {
                self.heartbeat(now, session, &node, &attempts, clock);
                Ok(Answer::Done)
            }
            Command::TryMemory(node) => {
                self.try_memory(node.as_ref(), step);
                Ok(Answer::Done)
            }
            Command::Gone { session, node } => {
                self.gone(now, session, &node, step);
                Ok(Answer::Done)
            }
            Command::Progress { session, node, attempt, progress } => {
                self.progress(now, session, &node, attempt, progress, step);
                Ok(Answer::Done)
            }
            Command::Result { session, node, attempt, frames, outcome } => {
                self.result(now, session, &node, attempt, &frames, outcome, step);
                Ok(Answer::Done)
            }
            Command::Tick => {
                self.tick(now, step);
                Ok(Answer::Done)
            }
            Command::Disconnected => {
                self.disconnect(now, step);
                Ok(Answer::Done)
            }
            Command::Distrust => {
                self.distrust(step);
                Ok(Answer::Done)
            }
            Command::Surveyed { job, found, assembled } => {
                self.surveyed(now, job, found, assembled, step);
                Ok(Answer::Done)
            }
        }
    }

    /// Time has passed: leases run out, nodes may be given again what they failed, old jobs are forgotten.
    fn tick(&mut self, now: Timestamp, step: &mut Step) {
        self.expire_leases(now, step);
        self.end_quarantines(now, step);
        self.count_able();
        self.wake(now);
        // Much becomes possible by time alone, or by what happened to another node.
        self.touched.open_nodes();
        self.touched.urgent();
        self.touched.idle();
        self.touched.chores();
        self.end_keeping(now, step);
        self.forget(now, step);
        self.keep_shares(now, step);
        if now.since(self.deadlines_judged_at) >= JUDGE_DEADLINES {
            self.deadlines_judged_at = now;
            self.judge_deadlines(step);
        }
    }

    /// Jobs whose deadline will pass before they are done, or has passed; those that have just come to it or are not
    /// late any more have changed.
    fn judge_deadlines(&mut self, step: &mut Step) {
        let late: Vec<(JobId, bool)> =
            self.deadlines.iter().map(|(_, id)| (*id, self.is_late_for_people(*id))).collect();
        for (id, late) in late {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            if std::mem::replace(&mut job.late, late) != late {
                step.event(id, JobEvent::Changed);
            }
        }
    }
}
