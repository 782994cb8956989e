//! A farm for tests, with the driver's contract checked at every step: the records named by `changes` are
//! all that changed.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use hearth_coordinator::farm::{
    Capabilities, Command, Deliver, Farm, FarmConfig, FarmTag, JobClip, JobId, JobSpec, Key, LimitPolicy,
    MadeBy, NodeAbout, Priority, Record, Render, Session, ShowPolicy, Step, Submission, Submitted, Task,
    Terms, Timestamp, invariants,
};
use hearth_workflows::{
    FrameSet, Workflow,
    delivery::DeliveryFormat,
    format::{ColourSpace, Encoding, PictureFormat},
    library::Library,
    parameters,
};

/// Commits that can be lost.
const UNDO: usize = 200;

pub(crate) fn config() -> FarmConfig {
    FarmConfig {
        lease: Duration::from_secs(30),
        target_chunk: Duration::from_secs(20),
        first_chunk_frames: 4,
        max_tries: 3,
        retry_delay: Duration::from_secs(2),
        shows: [
            ("double".to_owned(), ShowPolicy { weight: 2.0, ..ShowPolicy::default() }),
            ("narrow".to_owned(), ShowPolicy { max_nodes: 1, ..ShowPolicy::default() }),
            ("patient".to_owned(), ShowPolicy { preemptible: true, ..ShowPolicy::default() }),
        ]
        .into(),
        limits: [
            ("nuke".to_owned(), LimitPolicy { farm: 2, host: 0 }),
            ("seat".to_owned(), LimitPolicy { farm: 0, host: 1 }),
        ]
        .into(),
        ..FarmConfig::default()
    }
}

/// A farm with its store: records as the last commit left them.
#[derive(Clone)]
pub(crate) struct Kept {
    pub farm: Farm,
    pub records: BTreeMap<Key, Record>,
    /// What the latest commits have overwritten, newest last.
    undo: VecDeque<Vec<(Key, Option<Record>)>>,
    /// A coordinator that follows: it only ever sees what has changed.
    replica: Farm,
    /// Every so many commits the whole farm is compared with its records: dear, but nothing escapes it.
    compare_every: u64,
    commits: u64,
}

impl Kept {
    pub(crate) fn new(config: FarmConfig, compare_every: u64) -> Self {
        let farm = Farm::new(config, FarmTag("t".to_owned()));
        let records = snapshot(&farm);
        Self { replica: farm.clone(), farm, records, undo: VecDeque::new(), compare_every, commits: 0 }
    }

    /// Applies, commits, and checks every invariant.
    pub(crate) fn apply(&mut self, now: Timestamp, command: Command) -> Step {
        let step = self.farm.apply(now, command);
        self.commit(now, &step);
        step
    }

    pub(crate) fn commit(&mut self, now: Timestamp, step: &Step) {
        let changed: BTreeMap<&Key, Option<Record>> =
            step.changes.iter().map(|key| (key, self.farm.record(key))).collect();
        let changed = changed.iter().map(|(key, record)| (*key, record.as_ref()));
        self.replica.absorb(now, changed).expect("a follower understands every change");
        let mut overwritten = Vec::new();
        for key in &step.changes {
            let before = match self.farm.record(key) {
                Some(record) => self.records.insert(key.clone(), record),
                None => self.records.remove(key),
            };
            overwritten.push((key.clone(), before));
        }
        self.undo.push_back(overwritten);
        if self.undo.len() > UNDO {
            self.undo.pop_front();
        }
        if let Err(broken) = invariants::check(&self.farm) {
            panic!("invariant broken: {broken}");
        }
        self.commits += 1;
        if self.commits.is_multiple_of(self.compare_every) {
            self.compare();
        }
    }

    fn compare(&self) {
        let whole = snapshot(&self.farm);
        for (key, record) in &whole {
            assert_eq!(self.records.get(key), Some(record), "{key} has changed, but no change says so");
        }
        for key in self.records.keys() {
            assert!(whole.contains_key(key), "{key} has gone, but no change says so");
        }
        assert_eq!(snapshot(&self.replica), whole, "a follower has another farm than the leader");
        invariants::check(&self.replica).expect("a follower's farm is whole");
    }

    /// The store loses its latest `commits` and the coordinator dies: a new one knows that it cannot trust it.
    pub(crate) fn lose(&mut self, now: Timestamp, commits: usize) {
        for _ in 0..commits.min(self.undo.len()) {
            for (key, before) in self.undo.pop_back().into_iter().flatten().rev() {
                match before {
                    Some(record) => self.records.insert(key, record),
                    None => self.records.remove(&key),
                };
            }
        }
        let config = self.farm.config().clone();
        let farm = Farm::restore(now, config, &self.records).expect("readable").expect("there");
        (self.farm, self.replica) = (farm.clone(), farm);
        self.apply(now, Command::Disconnected);
        self.apply(now, Command::Distrust);
    }

    /// What a coordinator finds that starts after this one has died.
    pub(crate) fn restart(&mut self, now: Timestamp) {
        self.compare();
        let config = self.farm.config().clone();
        self.farm = Farm::restore(now, config, &self.records)
            .expect("records are readable")
            .expect("the farm is there");
        assert_eq!(snapshot(&self.farm), self.records, "records make another farm");
        self.apply(now, Command::Disconnected);
        invariants::check(&self.farm).expect("invariants hold after a restart");
    }
}

pub(crate) fn snapshot(farm: &Farm) -> BTreeMap<Key, Record> {
    farm.keys().into_iter().filter_map(|key| Some((key.clone(), farm.record(&key)?))).collect()
}

/// A shipped workflow: `resize-sharpen` is per-frame, `temporal-smooth` has handles 1,1.
pub(crate) fn workflow(name: &str) -> Arc<Workflow> {
    let library = Library::read::<&str>(&[]);
    Arc::new(library.get(name).expect("shipped").clone())
}

pub(crate) fn submission(name: &str, frames: &str, priority: u32, workflow: &Arc<Workflow>) -> Submission {
    let frames: FrameSet = frames.parse().expect("frames");
    let declared = &workflow.manifest().parameters;
    let parameters = parameters::resolve(workflow.name(), declared, &BTreeMap::new())
        .expect("defaults fit")
        .into_iter()
        .map(|(name, value)| (name, value.to_string()))
        .collect();
    let spec = JobSpec {
        name: name.to_owned(),
        show: "show".to_owned(),
        user: "user".to_owned(),
        pool: String::new(),
        task: Task::Render(Render {
            workflow: workflow.id().clone(),
            workflow_name: workflow.name().to_owned(),
            parameters,
            clip: Some(JobClip {
                path: "plates/plate.%04d.png".parse().expect("path"),
                encoding: Encoding { format: PictureFormat::Png8, colour: ColourSpace::Srgb },
                pixels: 0,
                view: None,
                made_by: None,
            }),
            clip_range: hearth_workflows::FrameRange {
                first: frames.first().expect("frames"),
                last: frames.last().expect("frames"),
            },
            chunk_frames: None,
            pictures: Vec::new(),
        }),
        frames,
        output: format!("comps/{name}").parse().expect("path"),
        urgent: false,
        overwrite: false,
        after: BTreeSet::new(),
        terms: Terms::default(),
        batch: None,
        storage: BTreeMap::new(),
        traceparent: String::new(),
        request_id: String::new(),
    };
    Submission::one(spec, Priority::new(priority).expect("at most 100"), workflow.clone())
}

/// The first job's, which renders.
pub(crate) fn render(submission: &mut Submission) -> &mut Render {
    match &mut submission.jobs[0].spec.task {
        Task::Render(render) => render,
        Task::Deliver(_) => panic!("the first job of a submission renders"),
    }
}

/// The first job works on what `maker` makes, frame by frame.
pub(crate) fn follow(submission: &mut Submission, maker: JobId) {
    let made_by = MadeBy { job: maker, pass: "beauty".to_owned() };
    if let Some(clip) = &mut render(submission).clip {
        clip.made_by = Some(made_by);
    }
}

/// Adds a delivery of the first job's sequence.
pub(crate) fn deliver(submission: &mut Submission, format: DeliveryFormat) {
    let spec = &submission.jobs[0].spec;
    let deliver = Deliver {
        sequence: format!("{}/plate.%04d.png", spec.output).parse().expect("path"),
        colour: ColourSpace::Srgb,
        format,
        text: String::new(),
        rate: String::new(),
        tiles: Vec::new(),
        curve: None,
    };
    let spec = JobSpec {
        name: format!("{}.{format}", spec.name),
        task: Task::Deliver(deliver),
        output: format.beside(&spec.output).expect("path"),
        request_id: String::new(),
        ..spec.clone()
    };
    let priority = submission.jobs[0].priority;
    submission.jobs.push(Submitted { spec, priority, workflow: None, after: vec![0], preset: None });
}

pub(crate) fn about(name: &str) -> Box<NodeAbout> {
    Box::new(NodeAbout {
        name: name.into(),
        host: "host".to_owned(),
        agent_version: "0".to_owned(),
        instance: String::new(),
    })
}

/// A node that can run the shipped workflows.
pub(crate) fn capabilities() -> Capabilities {
    let classes = ["resize-sharpen", "temporal-smooth"]
        .iter()
        .flat_map(|name| {
            let workflow = workflow(name);
            workflow.needed_classes().into_iter().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect::<HashSet<_>>()
        .into();
    Capabilities {
        classes,
        roots: ["plates", "comps"].map(str::to_owned).into(),
        vram_bytes: 24 << 30,
        ffmpeg: true,
        saves_to_paths: true,
        ..Capabilities::default()
    }
}

pub(crate) fn hello(session: u64, name: &str, slots: usize) -> Command {
    Command::Hello {
        session: Session(session),
        about: about(name),
        capabilities: Box::new(capabilities()),
        slots,
        reason: String::new(),
        held: Vec::new(),
    }
}
