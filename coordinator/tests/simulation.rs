//! Thousands of seeded farms with crashes, lost, late, doubled and reordered messages. After every step the
//! invariants are checked, and in the end, once the faults stop, every job must have ended right.
//!
//! `HEARTH_SEED=n` replays one farm and tells its story; `HEARTH_SEEDS=n` runs so many.

mod support;

use std::{
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
    env,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use hearth_coordinator::farm::invariants;
use hearth_coordinator::farm::{
    AssignedWork, Assignment, AttemptId, Command, Edit, Effect, FailureKind, FarmConfig, Found, Held,
    JobEvent, JobId, JobState, JobView, NodeName, Outcome, Priority, Segment, Session, Step, Submission,
    Terms, Timestamp,
};
use hearth_storage::manifest::ManifestDigest;
use hearth_workflows::{FrameRange, FrameSet, Workflow, delivery::DeliveryFormat};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use support::{Kept, about, capabilities, deliver, submission, workflow};

const DEFAULT_SEEDS: u64 = 2_000;

/// Until then faults happen; from then on the farm must come to rest.
const CALM_AT: u64 = 240_000;

/// By then every job must have ended.
const END_AT: u64 = 3_600_000;

/// How long an agent waits for storage, in milliseconds.
const STALL: u64 = 15_000;

#[test]
fn no_farm_loses_or_doubles_a_frame() {
    if let Ok(seed) = env::var("HEARTH_SEED") {
        let mut world = World::new(seed.parse().expect("HEARTH_SEED is a number"), true);
        world.run();
        return;
    }
    let seeds = env::var("HEARTH_SEEDS").map_or(DEFAULT_SEEDS, |n| n.parse().expect("a number"));
    let workers = thread::available_parallelism().map_or(2, usize::from) as u64;
    let reports: Vec<Report> = thread::scope(|scope| {
        let handles: Vec<_> = (0..workers)
            .map(|worker| {
                scope.spawn(move || {
                    let mut sum = Report::default();
                    for seed in (worker..seeds).step_by(workers as usize) {
                        let run = AssertUnwindSafe(|| World::new(seed, false).run());
                        match catch_unwind(run) {
                            Ok(report) => sum.add(&report),
                            Err(_) => panic!("seed {seed} failed; replay it with HEARTH_SEED={seed}"),
                        }
                    }
                    sum
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().expect("no seed fails")).collect()
    });
    let mut sum = Report::default();
    reports.iter().for_each(|report| sum.add(report));
    println!("{seeds} farms: {sum:?}");
    // A simulation in which nothing goes wrong proves nothing.
    assert!(sum.restarts > seeds / 4 && sum.lost > seeds && sum.late_used > 0 && sum.failed_jobs > 20);
    assert!(sum.losses > seeds / 5 && sum.found_again > 0 && sum.partial_jobs > 100);
    assert!(
        sum.homeless > seeds && sum.crowded > seeds && sum.hung > seeds / 2,
        "storage was hardly in trouble"
    );
    assert!(sum.lies > seeds, "only {} lies were told", sum.lies);
    assert!(sum.followed > seeds, "only {} chunks of clips that were still being made", sum.followed);
    assert!(sum.done_jobs > seeds && sum.cancelled_jobs > 0 && sum.failed_commits > 0);
}

/// What ails storage.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Trouble {
    /// Found out before anything is rendered: it is not there, or another one is in its place.
    Away,
    /// Found out when the result is written.
    Full,
    /// Found out when it has not answered for [`STALL`].
    Hangs,
}

/// When storage is in trouble, and for which node alone.
#[derive(Debug)]
struct Outage {
    span: Range<u64>,
    alone: Option<usize>,
    trouble: Trouble,
}

#[derive(Debug, Default)]
struct Report {
    steps: u64,
    restarts: u64,
    failed_commits: u64,
    lost: u64,
    /// Pieces of work that found no storage, none that answered, and no room on it.
    homeless: u64,
    hung: u64,
    crowded: u64,
    /// Results that a node has told of what it was never given.
    lies: u64,
    losses: u64,
    found_again: u64,
    /// Chunks of clips that were still being made.
    followed: u64,
    late_used: u64,
    done_jobs: u64,
    failed_jobs: u64,
    partial_jobs: u64,
    cancelled_jobs: u64,
}

impl Report {
    fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.restarts += other.restarts;
        self.failed_commits += other.failed_commits;
        self.lost += other.lost;
        self.homeless += other.homeless;
        self.hung += other.hung;
        self.crowded += other.crowded;
        self.lies += other.lies;
        self.losses += other.losses;
        self.found_again += other.found_again;
        self.followed += other.followed;
        self.late_used += other.late_used;
        self.done_jobs += other.done_jobs;
        self.failed_jobs += other.failed_jobs;
        self.partial_jobs += other.partial_jobs;
        self.cancelled_jobs += other.cancelled_jobs;
    }
}

/// Something that will happen. The heap gives the earliest first.
#[derive(Debug)]
struct Event {
    at: u64,
    order: u64,
    what: What,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Event {}
impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

#[derive(Debug)]
enum What {
    Tick,
    /// A message reaches the coordinator.
    ToFarm(Box<Command>),
    /// A message reaches the node, if that session of it still lives.
    ToNode(usize, Session, ToNode),
    /// The node's attempt comes to its end, in that life of the node.
    Finishes(usize, u64, AttemptId),
    Beat(usize),
    Connects(usize),
    NodeDies(usize),
    Disconnects(usize),
    /// The node's hours begin, or are over.
    Shift(usize, bool),
    CoordinatorDies,
    /// The coordinator dies, and the store has lost its latest commits.
    StoreLoses,
    /// Somebody has read the job's folders.
    Surveyed(JobId),
    /// Somebody does something to some job or node.
    Person,
    Submits(usize),
}

#[derive(Debug)]
enum ToNode {
    Assign(Box<Assignment>),
    Cancel(AttemptId),
    Acknowledge(AttemptId),
}

/// A node as the simulation knows it: what survives its death is only what it has published.
struct SimNode {
    name: NodeName,
    session: Option<Session>,
    /// Counts deaths, so that what an earlier life had begun does not finish.
    life: u64,
    off: bool,
    slots: usize,
    ms_per_frame: u64,
    held: BTreeMap<AttemptId, FrameSet>,
    /// Results on its disk that were not acknowledged.
    outbox: BTreeMap<AttemptId, (FrameSet, Outcome)>,
    /// Whether it is beating already.
    beating: bool,
}

struct World {
    rng: SmallRng,
    tell: bool,
    now: u64,
    order: u64,
    events: BinaryHeap<Event>,
    kept: Kept,
    nodes: Vec<SimNode>,
    last_session: u64,
    submissions: Vec<(String, u32, &'static str)>,
    /// Which of them are delivered, too.
    delivered: HashSet<usize>,
    workflows: HashMap<&'static str, Arc<Workflow>>,
    acknowledged: HashSet<JobId>,
    /// How often a chunk fails on this farm.
    failure_rate: f64,
    outages: Vec<Outage>,
    /// Attempts that wait for storage that does not answer.
    hanging: HashSet<AttemptId>,
    /// The frames that each attempt has ever published, and by whom.
    published: HashMap<AttemptId, (NodeName, FrameSet)>,
    /// Frames of a job whose files have gone bad since, and are to be made again.
    spoilt: HashMap<JobId, FrameSet>,
    /// Jobs whose sequence lies in its place.
    assembled: HashSet<JobId>,
    /// Jobs whose sequence, with or without gaps, or delivery a node has put into its place.
    placed: HashSet<JobId>,
    /// What surveys have found: nobody may be given these frames again.
    found: HashMap<JobId, FrameSet>,
    /// Every attempt ever handed out.
    given: HashSet<AttemptId>,
    report: Report,
}

impl World {
    fn new(seed: u64, tell: bool) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let config = FarmConfig {
            lease: Duration::from_secs(20),
            target_chunk: Duration::from_secs(10),
            max_tries: 4,
            keep_cancelled: Duration::from_secs(if rng.random_bool(0.5) { 60 } else { 0 }),
            ..support::config()
        };
        let failure_rate = [0.02, 0.06, 0.5][rng.random_range(0..3)];
        let nodes = (0..rng.random_range(1..=6))
            .map(|index| SimNode {
                name: format!("node{index}").into(),
                session: None,
                life: 0,
                off: false,
                slots: rng.random_range(1..=3),
                ms_per_frame: rng.random_range(50..=2_000),
                held: BTreeMap::new(),
                outbox: BTreeMap::new(),
                beating: false,
            })
            .collect::<Vec<_>>();
        let submissions = (0..rng.random_range(1..=5))
            .map(|_| {
                let last = rng.random_range(1..=120);
                let frames = match rng.random_range(0..4) {
                    0 => format!("1-{last}x3"),
                    1 => format!("-5-3,10-{}", last + 10),
                    _ => format!("1-{last}"),
                };
                let workflow = if rng.random_bool(0.4) { "temporal-smooth" } else { "resize-sharpen" };
                (frames, rng.random_range(0..=100), workflow)
            })
            .collect();
        let delivered = (0..5).filter(|_| rng.random_bool(0.3)).collect();
        let workflows = ["temporal-smooth", "resize-sharpen"].map(|name| (name, workflow(name))).into();
        let mut world = Self {
            rng,
            tell,
            now: 0,
            order: 0,
            events: BinaryHeap::new(),
            kept: Kept::new(config, 50),
            nodes,
            last_session: 0,
            submissions,
            delivered,
            workflows,
            acknowledged: HashSet::new(),
            failure_rate,
            outages: Vec::new(),
            hanging: HashSet::new(),
            published: HashMap::new(),
            spoilt: HashMap::new(),
            assembled: HashSet::new(),
            placed: HashSet::new(),
            found: HashMap::new(),
            given: HashSet::new(),
            report: Report::default(),
        };
        world.plan();
        world
    }

    /// The faults and wishes of this farm's life.
    fn plan(&mut self) {
        self.at(0, What::Tick);
        for node in 0..self.nodes.len() {
            let at = self.rng.random_range(0..20_000);
            self.at(at, What::Connects(node));
            for _ in 0..self.rng.random_range(0..4) {
                let at = self.rng.random_range(0..CALM_AT);
                let what =
                    if self.rng.random_bool(0.5) { What::NodeDies(node) } else { What::Disconnects(node) };
                self.at(at, what);
            }
        }
        for node in 0..self.nodes.len() {
            for _ in 0..self.rng.random_range(0..3) {
                let at = self.rng.random_range(0..CALM_AT / 2);
                self.at(at, What::Shift(node, false));
                let back = at + self.rng.random_range(100..CALM_AT / 2);
                self.at(back, What::Shift(node, true));
            }
        }
        for _ in 0..self.rng.random_range(0..3) {
            let from = self.rng.random_range(0..CALM_AT / 2);
            let until = from + self.rng.random_range(1_000..CALM_AT / 2);
            let node = self.rng.random_range(0..self.nodes.len());
            let alone = self.rng.random_bool(0.5).then_some(node);
            let trouble = [Trouble::Away, Trouble::Full, Trouble::Hangs][self.rng.random_range(0..3)];
            self.outages.push(Outage { span: from..until, alone, trouble });
        }
        for submission in 0..self.submissions.len() {
            let at = self.rng.random_range(0..60_000);
            self.at(at, What::Submits(submission));
        }
        for _ in 0..self.rng.random_range(0..3) {
            let at = self.rng.random_range(0..CALM_AT);
            self.at(at, What::CoordinatorDies);
        }
        if self.rng.random_bool(0.3) {
            let at = self.rng.random_range(0..CALM_AT);
            self.at(at, What::StoreLoses);
        }
        for _ in 0..self.rng.random_range(0..6) {
            let at = self.rng.random_range(0..CALM_AT);
            self.at(at, What::Person);
        }
        self.at(CALM_AT, What::Person);
    }

    fn at(&mut self, at: u64, what: What) {
        self.order += 1;
        self.events.push(Event { at: at.max(self.now), order: self.order, what });
    }

    fn calm(&self) -> bool {
        self.now >= CALM_AT
    }

    fn run(&mut self) -> Report {
        while let Some(event) = self.events.pop() {
            self.now = event.at;
            self.report.steps += 1;
            if self.tell && !matches!(event.what, What::Tick | What::Beat(_)) {
                println!("{:>8} ms  {:?}", self.now, event.what);
            }
            self.happen(event.what);
            if self.calm() && self.at_rest() {
                break;
            }
            assert!(self.now < END_AT, "jobs that never end: {:?}", self.open_jobs());
        }
        self.count_ends();
        std::mem::take(&mut self.report)
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Tick => {
                self.farm(Command::Tick);
                self.at(self.now + 1_000, What::Tick);
            }
            What::ToFarm(command) => self.farm(*command),
            What::ToNode(node, session, message) => {
                if self.nodes[node].session == Some(session) {
                    self.node(node, message);
                }
            }
            What::Finishes(node, life, attempt) => self.finishes(node, life, attempt),
            What::Beat(node) => self.beat(node),
            What::Connects(node) => self.connect(node),
            What::NodeDies(node) => {
                self.nodes[node].life += 1;
                self.nodes[node].held.clear();
                self.disconnect(node);
            }
            What::Disconnects(node) => self.disconnect(node),
            What::Shift(node, works) => self.shift(node, works),
            What::CoordinatorDies => self.restart(),
            What::StoreLoses => self.lose(),
            What::Surveyed(job) => self.survey(job),
            What::Person => self.person(),
            What::Submits(index) => self.submit(index),
        }
    }

    /// The driver: applies, commits, releases. A commit may fail, or the process die before or after it.
    fn farm(&mut self, command: Command) {
        let before = self.rng.random_bool(if self.calm() { 0.0 } else { 0.002 });
        if before {
            // Applied in memory only: what was not committed has not happened, and nobody was told.
            let mut doomed = self.kept.farm.clone();
            drop(doomed.apply(Timestamp(self.now), command));
            self.report.failed_commits += 1;
            return self.restart();
        }
        let late = match &command {
            Command::Result { attempt, .. } => !self.kept.farm.holds(*attempt),
            _ => false,
        };
        // Frames can come back late in these steps.
        let by_rank = !matches!(command, Command::Tick);
        let step = self.kept.apply(Timestamp(self.now), command);
        let now = Timestamp(self.now);
        if let Err(broken) = invariants::check_handed_out(&self.kept.farm, now, &step, by_rank) {
            panic!("invariant broken: {broken}");
        }
        self.check_assignments(&step);
        self.check_done(&step);
        if late && step.changes.len() > 1 {
            self.report.late_used += 1;
        }
        let after = self.rng.random_bool(if self.calm() { 0.0 } else { 0.002 });
        if after {
            return self.restart();
        }
        self.release(step);
    }

    /// Nothing is handed out for a job that wants nothing, to a node that cannot run it, or twice; what is
    /// assembled lies on storage, gap-free and each frame once.
    fn check_assignments(&mut self, step: &Step) {
        for effect in &step.effects {
            let Effect::Assign { assignment, .. } = effect else { continue };
            let view = self.kept.farm.job(assignment.attempt.job).expect("the job is known");
            assert!(self.given.insert(assignment.attempt), "id used twice");
            match &assignment.work {
                AssignedWork::Chunk(frames) => {
                    self.report.followed += u64::from(assignment.source.is_some());
                    assert!(view.state != JobState::Paused, "chunk of a paused job");
                    assert!(!frames.is_empty() && frames.is_subset(&view.spec.frames));
                    let found = self.found.get(&assignment.attempt.job);
                    let again = found.map(|found| found.intersection(frames)).unwrap_or_default();
                    assert!(again.is_empty(), "frames {again} were found whole, and are rendered again");
                }
                AssignedWork::Assembly(segments) => {
                    let mut frames = view.spec.frames.clone();
                    frames.remove_all(&view.failed);
                    self.check_segments(&frames, segments);
                }
                AssignedWork::Delivery => assert_eq!(view.state, JobState::Delivering),
                AssignedWork::CleanUp => assert_eq!(view.state, JobState::Cancelled),
            }
        }
    }

    /// Done is what a node has put into its place.
    fn check_done(&self, step: &Step) {
        for effect in &step.effects {
            let Effect::Job { job, event: JobEvent::Changed } = effect else { continue };
            let Some(view) = self.kept.farm.job(*job) else { continue };
            let is_done = matches!(view.state, JobState::Done | JobState::Partial);
            assert!(!is_done || self.placed.contains(job), "job {job} is done, and nothing is there");
        }
    }

    fn check_segments(&self, frames: &FrameSet, segments: &[Segment]) {
        let mut all = FrameSet::new();
        let mut sum = 0;
        for segment in segments {
            let (_, made) = self.published.get(&segment.attempt).expect("the attempt has published");
            assert_eq!(segment.published, Some(digest(segment.attempt)), "of {}", segment.attempt);
            assert!(segment.frames.is_subset(made), "assembled from what was never rendered");
            sum += segment.frames.len();
            all.insert_all(&segment.frames);
        }
        assert_eq!(&all, frames, "the sequence has a gap");
        assert_eq!(sum, frames.len(), "a frame comes from two chunks");
    }

    fn release(&mut self, step: Step) {
        for effect in step.effects {
            let (session, message) = match effect {
                Effect::Assign { session, assignment } => (session, ToNode::Assign(assignment)),
                Effect::Cancel { session, attempt, .. } => (session, ToNode::Cancel(attempt)),
                Effect::Acknowledge { session, attempt } => (session, ToNode::Acknowledge(attempt)),
                Effect::Job { .. } => continue,
            };
            let Some(node) = self.nodes.iter().position(|n| n.session == Some(session)) else { continue };
            if let Some(delay) = self.transit() {
                self.at(self.now + delay, What::ToNode(node, session, message));
            }
        }
    }

    /// How long a message is under way; `None`: for ever. Different delays reorder messages.
    fn transit(&mut self) -> Option<u64> {
        if self.calm() {
            return Some(5);
        }
        if self.rng.random_bool(0.02) {
            self.report.lost += 1;
            return None;
        }
        Some(if self.rng.random_bool(0.05) {
            self.rng.random_range(1_000..30_000)
        } else {
            self.rng.random_range(1..200)
        })
    }

    fn to_farm(&mut self, command: Command) {
        // Some messages come twice.
        if !self.calm() && self.rng.random_bool(0.02) {
            let delay = self.rng.random_range(1..10_000);
            self.at(self.now + delay, What::ToFarm(Box::new(command.clone())));
        }
        if let Some(delay) = self.transit() {
            self.at(self.now + delay, What::ToFarm(Box::new(command)));
        }
    }

    fn connect(&mut self, index: usize) {
        self.last_session += 1;
        let session = Session(self.last_session);
        let node = &mut self.nodes[index];
        node.session = Some(session);
        let held = node
            .held
            .iter()
            .chain(node.outbox.iter().map(|(id, (frames, _))| (id, frames)))
            .map(|(attempt, frames)| Held { attempt: *attempt, frames: frames.clone() })
            .collect();
        let mut capabilities = capabilities();
        // Every third node cannot sharpen; the first can do everything, so that every job can end.
        if index % 3 == 2 {
            Arc::make_mut(&mut capabilities.classes).remove("ImageSharpen");
        }
        // It can also have every job, wherever that wants to be.
        capabilities.pools.insert(["big", "small", "middle"][index % 3].to_owned());
        // Hello opens the stream, so it is neither lost nor overtaken.
        let hello = Command::Hello {
            session,
            about: about(node.name.as_str()),
            capabilities: Box::new(capabilities),
            slots: if node.off { 0 } else { node.slots },
            reason: String::new(),
            held,
        };
        let (beating, outbox) = (std::mem::replace(&mut node.beating, true), node.outbox.clone());
        let name = node.name.clone();
        self.farm(hello);
        for (attempt, (frames, outcome)) in outbox {
            self.to_farm(Command::Result { session, node: name.clone(), attempt, frames, outcome });
        }
        if !beating {
            self.at(self.now + 5_000, What::Beat(index));
        }
    }

    fn shift(&mut self, index: usize, works: bool) {
        let node = &mut self.nodes[index];
        node.off = !works;
        let Some(session) = node.session else { return };
        let readiness = Command::Readiness {
            session,
            node: node.name.clone(),
            slots: if works { node.slots } else { 0 },
            reason: if works { String::new() } else { "outside its hours".to_owned() },
            capabilities: None,
        };
        // Vital: it is neither lost nor overtaken.
        self.farm(readiness);
    }

    fn disconnect(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        if let Some(session) = node.session.take() {
            let gone = Command::Gone { session, node: node.name.clone() };
            let delay = self.rng.random_range(0..5_000);
            self.at(self.now + delay, What::ToFarm(Box::new(gone)));
        }
        let back = self.rng.random_range(100..60_000);
        self.at(self.now + back, What::Connects(index));
    }

    fn beat(&mut self, index: usize) {
        self.at(self.now + 5_000, What::Beat(index));
        let node = &self.nodes[index];
        let Some(session) = node.session else { return };
        let name = node.name.clone();
        let attempts = node.held.keys().chain(node.outbox.keys()).copied().collect();
        let outbox = node.outbox.clone();
        self.to_farm(Command::Heartbeat {
            session,
            node: name.clone(),
            attempts,
            clock: Some(Timestamp(self.now)),
        });
        if self.rng.random_bool(0.05) {
            self.lie(index, session);
        }
        for (attempt, (frames, outcome)) in outbox {
            self.to_farm(Command::Result { session, node: name.clone(), attempt, frames, outcome });
        }
    }

    /// The node says that it has done what another one is at, or what nobody is, and more than that.
    fn lie(&mut self, index: usize, session: Session) {
        let other = &self.nodes[(index + 1) % self.nodes.len()];
        let theirs = other.held.keys().copied().rfind(|_| other.name != self.nodes[index].name);
        let made_up = || {
            let (jobs, _) = self.kept.farm.jobs(&hearth_coordinator::farm::JobFilter::default());
            let attempt = AttemptId { job: jobs.first()?.id, number: 7 };
            // Of what was once its own it is believed.
            (!self.given.contains(&attempt)).then_some(attempt)
        };
        let Some(attempt) = theirs.or_else(made_up) else { return };
        if self.nodes[index].held.contains_key(&attempt) || self.published.contains_key(&attempt) {
            return;
        }
        self.report.lies += 1;
        let frames =
            if self.rng.random_bool(0.5) { FrameSet::new() } else { "1-40".parse().expect("frames") };
        let node = self.nodes[index].name.clone();
        let outcome = Outcome::Succeeded { seconds: 1.0, published: None };
        self.to_farm(Command::Result { session, node, attempt, frames, outcome });
    }

    fn node(&mut self, index: usize, message: ToNode) {
        let random = self.rng.random_range(80..=120);
        let node = &mut self.nodes[index];
        match message {
            ToNode::Assign(assignment) => {
                let frames = match &assignment.work {
                    AssignedWork::Chunk(frames) => frames.clone(),
                    AssignedWork::Assembly(_) | AssignedWork::Delivery | AssignedWork::CleanUp => {
                        FrameSet::new()
                    }
                };
                let busy: u64 = node.held.values().map(FrameSet::len).sum();
                let time = (busy + frames.len().max(1)) * node.ms_per_frame * random / 100;
                let (attempt, life) = (assignment.attempt, node.life);
                node.held.insert(attempt, frames);
                // What finds no storage gives up before it renders anything.
                let time = if self.trouble(index) == Some(Trouble::Away) { 100 } else { time };
                self.at(self.now + time, What::Finishes(index, life, attempt));
            }
            ToNode::Cancel(attempt) => {
                node.held.remove(&attempt);
            }
            ToNode::Acknowledge(attempt) => {
                node.outbox.remove(&attempt);
            }
        }
    }

    /// What ails the storage of a node.
    fn trouble(&self, node: usize) -> Option<Trouble> {
        let hits = |outage: &&Outage| {
            outage.span.contains(&self.now) && outage.alone.is_none_or(|alone| alone == node)
        };
        self.outages.iter().find(hits).map(|outage| outage.trouble)
    }

    fn finishes(&mut self, index: usize, life: u64, attempt: AttemptId) {
        if self.nodes[index].life != life {
            return;
        }
        if !self.nodes[index].held.contains_key(&attempt) {
            return;
        }
        let trouble = self.trouble(index);
        let has_hung = self.hanging.remove(&attempt);
        if trouble == Some(Trouble::Hangs) && !has_hung {
            // It is held, and its node goes on beating, until the agent gives it up.
            self.hanging.insert(attempt);
            return self.at(self.now + STALL, What::Finishes(index, life, attempt));
        }
        let Some(frames) = self.nodes[index].held.remove(&attempt) else { return };
        let failed = self.rng.random_bool(if self.calm() { 0.0 } else { self.failure_rate });
        let outcome = if has_hung || trouble.is_some() {
            match trouble {
                _ if has_hung => self.report.hung += 1,
                Some(Trouble::Full) => self.report.crowded += 1,
                _ => self.report.homeless += 1,
            }
            let message = "there is no storage".to_owned();
            Outcome::Failed { kind: FailureKind::Storage, message, frames: FrameSet::new() }
        } else if failed {
            let kinds = [
                FailureKind::Execution,
                FailureKind::OutOfMemory,
                FailureKind::ComfyDied,
                FailureKind::Storage,
                FailureKind::BadFrame,
                FailureKind::BadOutput,
            ];
            let kind = kinds[self.rng.random_range(0..kinds.len())];
            let named = match kind {
                FailureKind::BadFrame => frames.iter().take(1).collect(),
                FailureKind::BadOutput if frames.is_empty() => {
                    let done = self.kept.farm.job(attempt.job).map(|view| view.spec.frames.clone());
                    let bad: FrameSet =
                        done.into_iter().flat_map(|all| all.iter().take(2).collect::<Vec<_>>()).collect();
                    self.spoilt.entry(attempt.job).or_default().insert_all(&bad);
                    if let Some(found) = self.found.get_mut(&attempt.job) {
                        found.remove_all(&bad);
                    }
                    bad
                }
                _ => FrameSet::new(),
            };
            Outcome::Failed { kind, message: "so it was".to_owned(), frames: named }
        } else {
            let node = self.nodes[index].name.clone();
            if frames.is_empty() {
                self.placed.insert(attempt.job);
                let is_whole = |job: &JobView| job.state == JobState::Assembling && job.failed.is_empty();
                if self.kept.farm.job(attempt.job).as_ref().is_some_and(is_whole) {
                    self.assembled.insert(attempt.job);
                }
            } else {
                if let Some(spoilt) = self.spoilt.get_mut(&attempt.job) {
                    spoilt.remove_all(&frames);
                }
                self.published.insert(attempt, (node, frames.clone()));
            }
            let published = (!frames.is_empty()).then(|| digest(attempt));
            Outcome::Succeeded { seconds: frames.len() as f64 * 0.1, published }
        };
        let node = &mut self.nodes[index];
        node.outbox.insert(attempt, (frames.clone(), outcome.clone()));
        if let Some(session) = node.session {
            let node = node.name.clone();
            self.to_farm(Command::Result { session, node, attempt, frames, outcome });
        }
    }

    fn submit(&mut self, index: usize) {
        let (frames, priority, workflow) = self.submissions[index].clone();
        let name = format!("job{index}");
        let mut submission = submission(&name, &frames, priority, &self.workflows[workflow]);
        submission.jobs[0].spec.request_id = name;
        // Of each kind some, the same whenever it is submitted.
        let spec = &mut submission.jobs[0].spec;
        spec.show = ["show", "double", "narrow", "patient"][(index + priority as usize) % 4].to_owned();
        spec.urgent = priority % 5 == 0;
        spec.pool = ["", "", "big", "!small"][(priority / 3 % 4) as usize].to_owned();
        spec.terms = Terms {
            max_nodes: [0, 0, 1, 2][(priority / 4 % 4) as usize],
            min_nodes: usize::from(priority % 7 == 0),
            limits: (priority % 3 == 0).then(|| "nuke".to_owned()).into_iter().collect(),
            first: if priority % 2 == 0 {
                spec.frames.iter().skip(5).take(2).collect()
            } else {
                FrameSet::new()
            },
            deadline: (priority % 4 == 0).then_some(Timestamp(self.now + 60_000)),
        };
        if priority % 3 == 1 && index > 0 {
            self.follow(&mut submission, index - 1);
        }
        if self.delivered.contains(&index) {
            deliver(&mut submission, DeliveryFormat::H264);
        }
        let wanted = submission.jobs.len();
        // The client hears nothing when the coordinator dies, and sends the same again.
        let before = self.kept.farm.jobs(&hearth_coordinator::farm::JobFilter::default()).1;
        self.farm(Command::Submit(Box::new(submission)));
        let filter = hearth_coordinator::farm::JobFilter { limit: usize::MAX, ..Default::default() };
        let (jobs, now) = self.kept.farm.jobs(&filter);
        assert!(now == before || now == before + wanted, "a submission made {} jobs", now - before);
        self.acknowledged.extend(jobs.iter().map(|job| job.id));
        let known = jobs.iter().any(|job| job.spec.request_id == format!("job{index}"));
        if !known || self.rng.random_bool(0.1) {
            self.at(self.now + 2_000, What::Submits(index));
        }
    }

    /// The submission works on what an earlier one makes, if that can be.
    fn follow(&self, submission: &mut Submission, index: usize) {
        let maker = self.kept.farm.requested(&format!("job{index}")).and_then(|id| self.kept.farm.job(id));
        let Some(maker) = maker.filter(|maker| maker.state != JobState::Cancelled) else { return };
        let frames = &maker.spec.frames;
        // Handles in a gap would never be there.
        let whole = frames.run_count() == 1
            || submission.jobs[0]
                .spec
                .render()
                .is_some_and(|render| render.workflow == *self.workflows["resize-sharpen"].id());
        if let (Some(first), Some(last), true) = (frames.first(), frames.last(), whole) {
            submission.jobs[0].spec.frames = frames.clone();
            submission.jobs[0].spec.terms.first = FrameSet::new();
            support::render(submission).clip_range = FrameRange { first, last };
            support::follow(submission, maker.id);
        }
    }

    fn person(&mut self) {
        let filter = hearth_coordinator::farm::JobFilter { limit: usize::MAX, ..Default::default() };
        let jobs: Vec<JobId> = self.kept.farm.jobs(&filter).0.iter().map(|job| job.id).collect();
        if self.calm() {
            // In the end nothing is held back, and what failed is tried once more.
            for job in jobs {
                let view = self.kept.farm.job(job);
                view.iter().for_each(check_losses);
                let state = view.map(|view| view.state);
                self.report.failed_jobs += u64::from(state == Some(JobState::Failed));
                self.report.partial_jobs += u64::from(state == Some(JobState::Partial));
                self.farm(Command::Resume(job));
                self.farm(Command::Retry(job));
            }
            for node in 0..self.nodes.len() {
                self.farm(Command::Undrain(self.nodes[node].name.clone()));
            }
            return;
        }
        let Some(&job) = jobs.get(self.rng.random_range(0..=jobs.len())) else { return };
        let node = self.nodes[self.rng.random_range(0..self.nodes.len())].name.clone();
        let command = match self.rng.random_range(0..9) {
            0 => Command::Pause(job),
            1 => Command::Resume(job),
            2 if self.rng.random_bool(0.3) => Command::Remove(job),
            2 => Command::Cancel(job),
            3 => Command::Retry(job),
            4 => Command::SetPriority(job, Priority::new(self.rng.random_range(0..=100)).expect("valid")),
            5 => Command::Drain(node),
            6 | 7 => Command::Edit(job, Box::new(self.edit(job))),
            _ => Command::Undrain(node),
        };
        self.farm(command);
    }

    /// Somebody thinks again.
    fn edit(&mut self, job: JobId) -> Edit {
        let mut edit = Edit::default();
        match self.rng.random_range(0..4) {
            0 => edit.max_nodes = Some(self.rng.random_range(0..3)),
            1 => {
                let uses = self.rng.random_bool(0.5);
                edit.limits = Some(["nuke".to_owned()].into_iter().filter(|_| uses).collect());
            }
            2 => edit.deadline = Some(self.rng.random_bool(0.5).then_some(Timestamp(self.now + 60_000))),
            _ => {
                // Fewer frames, or more of those that the clip has.
                let range = self.kept.farm.job(job).and_then(|view| Some(view.spec.render()?.clip_range));
                edit.frames = range.map(|range| {
                    let first = self.rng.random_range(range.first.0..=range.last.0);
                    let last = self.rng.random_range(first..=range.last.0);
                    format!("{first}-{last}").parse().expect("frames")
                });
            }
        }
        edit
    }

    /// The coordinator dies; a new one starts from the store, and every connection is gone.
    fn restart(&mut self) {
        self.report.restarts += 1;
        // The store is not trusted before every survey is done, whoever leads by then.
        let suspect = !self.kept.farm.to_survey().is_empty();
        self.kept.restart(Timestamp(self.now));
        if suspect {
            self.kept.apply(Timestamp(self.now), Command::Distrust);
        }
        for job in &self.acknowledged {
            assert!(self.kept.farm.job(*job).is_some(), "job {job} was acknowledged and is gone");
        }
        self.surveys();
        self.cut_all();
    }

    /// As [`World::restart`], and what was committed last is gone.
    fn lose(&mut self) {
        self.report.losses += 1;
        let commits = self.rng.random_range(0..60);
        self.kept.lose(Timestamp(self.now), commits);
        let farm = &self.kept.farm;
        self.acknowledged.retain(|job| farm.job(*job).is_some());
        self.surveys();
        self.cut_all();
    }

    /// Every job that waits for its survey gets it, sooner or later.
    fn surveys(&mut self) {
        for to_survey in self.kept.farm.to_survey() {
            let delay = self.rng.random_range(1..20_000);
            self.at(self.now + delay, What::Surveyed(to_survey.job));
        }
    }

    fn survey(&mut self, job: JobId) {
        let Some(view) = self.kept.farm.job(job) else { return };
        if !self.kept.farm.to_survey().iter().any(|waiting| waiting.job == job) {
            return;
        }
        let spoilt = self.spoilt.get(&job).cloned().unwrap_or_default();
        let pieces = self.published.iter().filter(|(attempt, _)| attempt.job == job);
        let mut found: Vec<Found> = pieces
            .map(|(attempt, (node, frames))| {
                let mut frames = frames.clone();
                frames.remove_all(&spoilt);
                let published = digest(*attempt);
                Found { number: attempt.number, node: node.clone(), frames, published }
            })
            .collect();
        found.sort_by_key(|found| found.number);
        let all = self.found.entry(job).or_default();
        found.iter().for_each(|found| all.insert_all(&found.frames.intersection(&view.spec.frames)));
        let assembled = self.assembled.contains(&job);
        let running_or_done = view.waiting + view.running < view.spec.frames.len();
        self.farm(Command::Surveyed { job, found, assembled });
        if !running_or_done && self.kept.farm.job(job).is_some_and(|after| after.done > 0) {
            self.report.found_again += 1;
        }
    }

    fn cut_all(&mut self) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].session.take().is_some() {
                let back = self.rng.random_range(100..40_000);
                self.at(self.now + back, What::Connects(index));
            }
        }
    }

    fn at_rest(&self) -> bool {
        self.open_jobs().is_empty()
    }

    fn open_jobs(&self) -> Vec<(JobId, JobState, u64)> {
        let filter = hearth_coordinator::farm::JobFilter {
            active_only: true,
            limit: usize::MAX,
            ..Default::default()
        };
        let (jobs, _) = self.kept.farm.jobs(&filter);
        let is_open = |job: &&JobView| !self.waits_for_somebody(job);
        jobs.iter().filter(is_open).map(|job| (job.id, job.state, job.waiting)).collect()
    }

    /// What works on something that has failed for good waits for somebody to try that again.
    fn waits_for_somebody(&self, job: &JobView) -> bool {
        let awaited = job.spec.awaits().filter_map(|awaited| self.kept.farm.job(awaited));
        job.state == JobState::Waiting
            && awaited.into_iter().any(|awaited| {
                matches!(awaited.state, JobState::Failed | JobState::Partial)
                    || self.waits_for_somebody(&awaited)
            })
    }

    fn count_ends(&mut self) {
        let filter = hearth_coordinator::farm::JobFilter { limit: usize::MAX, ..Default::default() };
        for job in self.kept.farm.jobs(&filter).0 {
            check_losses(&job);
            match job.state {
                JobState::Done => self.report.done_jobs += 1,
                JobState::Partial => self.report.partial_jobs += 1,
                JobState::Failed => {}
                JobState::Waiting if self.waits_for_somebody(&job) => {}
                JobState::Cancelled => self.report.cancelled_jobs += 1,
                state => panic!("job {} has not ended: {state:?}", job.id),
            }
        }
    }
}

/// Of what the attempt has published: no two are alike.
fn digest(attempt: AttemptId) -> ManifestDigest {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&attempt.job.0.to_le_bytes());
    bytes[8..12].copy_from_slice(&attempt.number.to_le_bytes());
    ManifestDigest::from_bytes(&bytes).expect("32 of them")
}

/// Storage that is away costs no frame.
fn check_losses(job: &JobView) {
    let homeless = job.lost.iter().find(|lost| lost.kind == FailureKind::Storage);
    assert!(homeless.is_none(), "job {} lost frames to storage: {homeless:?}", job.id);
}
