//! One decision of a large farm: a node is done with a chunk and gets the next one. Many shows, users, workflows,
//! priorities and kinds of GPU, so that there is something to decide.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use hearth_coordinator::farm::{
    AssignedWork, AttemptId, Command, Effect, Farm, FarmConfig, FarmTag, NodeName, Outcome, Priority,
    Session, Submission, Task, Timestamp,
};
use hearth_workflows::{FrameRange, FrameSet, Workflow, library::Library};

use crate::{
    Figure,
    core::{hello, node_name, spec},
};

const JOBS: u64 = 2_000;
const FRAMES: u64 = 1_000_000;
const SHOWS: u64 = 20;
const USERS: u64 = 10;
const WORKFLOWS: usize = 16;

/// Decisions measured for each size, after as many that warm up.
const DECISIONS: usize = 20_000;

pub(crate) fn measure() -> Vec<Figure> {
    let sizes: Vec<(u64, Vec<Duration>)> =
        [100, 1_000, 10_000].into_iter().map(|nodes| (nodes, decisions(nodes))).collect();
    let mut figures: Vec<Figure> = sizes
        .iter()
        .map(|(nodes, times)| {
            let what = format!("a decision, {nodes} nodes, {JOBS} jobs, {FRAMES} waiting frames");
            let against = if *nodes == 10_000 { "p99 under 50 µs" } else { "" };
            let value = format!("median {:.1} µs, p99 {:.1} µs", at(times, 0.5), at(times, 0.99));
            Figure::new(what, value, against)
        })
        .collect();
    let growth = at(&sizes[2].1, 0.5) / at(&sizes[0].1, 0.5);
    figures.push(Figure::new(
        "median cost of a decision, 10,000 nodes against 100",
        format!("{growth:.2} times"),
        "less than 2 times",
    ));
    figures
}

/// In microseconds.
fn at(sorted: &[Duration], part: f64) -> f64 {
    let place = ((sorted.len() - 1) as f64 * part) as usize;
    sorted[place].as_secs_f64() * 1e6
}

/// The same graph under many names, each with models of its own.
fn workflows() -> Vec<Arc<Workflow>> {
    let library = Library::read::<&str>(&[]);
    let shipped = library.get("resize-sharpen").expect("shipped");
    let named = |index: usize| {
        let manifest = shipped.manifest_text().replace("Resize and sharpen", &format!("Resize {index}"));
        Arc::new(Workflow::parse(&format!("w{index}"), &manifest, shipped.graph_text()).expect("a workflow"))
    };
    (0..WORKFLOWS).map(named).collect()
}

/// The nodes, each at one chunk after the other.
#[derive(Default)]
struct Nodes {
    /// When each is done with all that it holds, in milliseconds.
    free: HashMap<Session, u64>,
    /// What ends next.
    ends: BTreeMap<(u64, AttemptId), (Session, NodeName, FrameSet)>,
    /// When a chunk will end.
    end_of: HashMap<AttemptId, u64>,
}

impl Nodes {
    fn take(&mut self, now: u64, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Assign { session, assignment } => {
                    let AssignedWork::Chunk(frames) = assignment.work else { continue };
                    let free = self.free.entry(session).or_default();
                    // Ten seconds a frame, more or less.
                    let time = frames.len() * (9_000 + assignment.attempt.job.0 % 7 * 300);
                    *free = (*free).max(now) + time;
                    self.end_of.insert(assignment.attempt, *free);
                    let chunk = (session, node_name(session.0), frames);
                    self.ends.insert((*free, assignment.attempt), chunk);
                }
                Effect::Cancel { attempt, .. } => {
                    let end = self.end_of.remove(&attempt);
                    end.and_then(|end| self.ends.remove(&(end, attempt)));
                }
                Effect::Acknowledge { .. } | Effect::Job { .. } => {}
            }
        }
    }

    /// The next result, and when it comes.
    fn next(&mut self) -> (u64, Command) {
        let ((end, attempt), (session, node, frames)) = self.ends.pop_first().expect("something runs");
        self.end_of.remove(&attempt);
        let seconds = frames.len() as f64 * (9.0 + (attempt.job.0 % 7) as f64 * 0.3);
        let outcome = Outcome::Succeeded { seconds, published: None };
        (end, Command::Result { session, node, attempt, frames, outcome })
    }
}

fn decisions(nodes: u64) -> Vec<Duration> {
    let workflows = workflows();
    // Nobody beats here.
    let config = FarmConfig { lease: Duration::from_secs(24 * 3600), ..FarmConfig::default() };
    let mut farm = Farm::new(config, FarmTag("b".to_owned()));
    let mut now = 1_000_000;
    let mut busy = Nodes::default();
    for job in 0..JOBS {
        let workflow = &workflows[(job as usize * 7) % WORKFLOWS];
        // What is rendered before the end of the measurement comes on top.
        let more = DECISIONS as u64 * 2 * 4 / JOBS;
        let range = FrameRange::new(1, (FRAMES / JOBS + more) as i64).expect("a range");
        let mut spec = spec(workflow, range, job, 1);
        if let Task::Render(render) = &mut spec.task {
            render.chunk_frames = None;
        }
        spec.show = format!("show{}", job % SHOWS);
        spec.user = format!("user{}", job / SHOWS % USERS);
        let priority = Priority::new([30, 50, 50, 80][(job / 3 % 4) as usize]).expect("at most 100");
        let submission = Submission::one(spec, priority, workflow.clone());
        busy.take(now, farm.apply(Timestamp(now), Command::Submit(Box::new(submission))).effects);
    }
    for index in 0..nodes {
        let mut hello = hello(index, &workflows[0]);
        if let Command::Hello { capabilities, .. } = &mut hello {
            capabilities.device = format!("GPU {}", index % 8);
        }
        busy.take(now, farm.apply(Timestamp(now), hello).effects);
    }
    let mut times = Vec::with_capacity(DECISIONS);
    let mut ticked = now;
    for decision in 0..DECISIONS * 2 {
        let (end, result) = busy.next();
        now = now.max(end);
        if now >= ticked + 1_000 {
            ticked = now;
            busy.take(now, farm.apply(Timestamp(now), Command::Tick).effects);
        }
        let started = Instant::now();
        let step = farm.apply(Timestamp(now), result);
        if decision >= DECISIONS {
            times.push(started.elapsed());
        }
        busy.take(now, step.effects);
    }
    times.sort();
    times
}
