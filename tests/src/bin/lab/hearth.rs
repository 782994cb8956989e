//! The farm's own rules, as the coordinator runs them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use hearth_coordinator::farm::{
    AssignedWork, AttemptId, Capabilities, Command, Effect, FailureKind, Farm, FarmConfig, FarmTag, JobClip,
    JobId, JobSpec, NodeAbout, NodeName, Outcome, Priority, Render, Session, ShowPolicy, Step, Submission,
    Task, Terms, Timestamp,
};
use hearth_workflows::{
    FrameRange, FrameSet, Workflow,
    format::{ColourSpace, Encoding, PictureFormat},
    split::Shape,
};

use crate::{
    engine::{Chunk, Order, Scheduler},
    workload::Workload,
};

const GRAPH: &str = r#"{
"1": { "class_type": "LoadImage", "inputs": { "image": "x" } },
"2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": "x", "size": 1 } }
}"#;

/// Between two heartbeats of everything.
const BEAT: u64 = 10_000;

pub(crate) struct Hearth<'a> {
    workload: &'a Workload,
    farm: Farm,
    workflows: Vec<Arc<Workflow>>,
    /// Jobs of the workload by their number on the farm.
    jobs: HashMap<JobId, usize>,
    sessions: Vec<u64>,
    last_session: u64,
    held: HashMap<AttemptId, (usize, FrameSet)>,
    beaten: u64,
}

impl<'a> Hearth<'a> {
    pub(crate) fn new(workload: &'a Workload) -> Self {
        let workflows = workload.models.iter().enumerate().map(|(index, model)| {
            let split = match model.handles {
                0 => "kind = \"per-frame\"".to_owned(),
                handles => format!("kind = \"handles\"\nhead = {handles}\ntail = {handles}"),
            };
            let manifest = format!(
                r#"
                [workflow]
                title = "Model {index}"
                purpose = "Laboratory"
                [clip]
                node = "1"
                load = "image"
                [split]
                {split}
                [chunk]
                max_frames = 1000
                [needs]
                models = ["checkpoints/model{index}.safetensors"]
                [parameters.size]
                type = "float"
                default = 1.0
                sets = ["2.size"]
                [[pass]]
                name = "beauty"
                node = "2"
                "#
            );
            Arc::new(Workflow::parse(&format!("model{index}"), &manifest, GRAPH).expect("a workflow"))
        });
        let shows = workload.shows.iter().enumerate().map(|(show, weight)| {
            (format!("show{show}"), ShowPolicy { weight: *weight, ..ShowPolicy::default() })
        });
        let config =
            FarmConfig { lease: Duration::from_secs(30), shows: shows.collect(), ..FarmConfig::default() };
        Self {
            workload,
            farm: Farm::new(config, FarmTag("lab".to_owned())),
            workflows: workflows.collect(),
            jobs: HashMap::new(),
            sessions: vec![0; workload.gpus.len()],
            last_session: 0,
            held: HashMap::new(),
            beaten: 0,
        }
    }

    fn apply(&mut self, now: u64, command: Command) -> Vec<Order> {
        let mut orders = Vec::new();
        let step = self.farm.apply(time(now), command);
        self.take(now, step, &mut orders);
        orders
    }

    fn take(&mut self, now: u64, step: Step, orders: &mut Vec<Order>) {
        for effect in step.effects {
            match effect {
                Effect::Assign { session, assignment } => {
                    let id = assignment.attempt;
                    let node = self.sessions.iter().position(|known| *known == session.0).expect("a node");
                    let AssignedWork::Chunk(frames) = assignment.work else {
                        // Putting together costs no GPU.
                        let node_name = name(node);
                        let outcome = Outcome::Succeeded { seconds: 0.0, published: None };
                        let done = Command::Result {
                            session,
                            node: node_name,
                            attempt: id,
                            frames: FrameSet::new(),
                            outcome,
                        };
                        orders.extend(self.apply(now, done));
                        continue;
                    };
                    let job = self.jobs[&id.job];
                    let render = assignment.spec.render().expect("it renders");
                    let split = render.split(&self.workflows[self.workload.jobs[job].model]);
                    let plan = split.plan(&frames, render.clip_range, Shape::default());
                    self.held.insert(id, (node, frames.clone()));
                    let chunk = Chunk { id: number(id), job, frames, rendered: plan.loaded.len() as u64 };
                    orders.push(Order::Run { node, chunk });
                }
                Effect::Cancel { attempt, .. } => {
                    self.held.remove(&attempt);
                    orders.push(Order::Cancel { id: number(attempt) });
                }
                Effect::Acknowledge { .. } | Effect::Job { .. } => {}
            }
        }
    }
}

fn time(now: u64) -> Timestamp {
    Timestamp(1_000_000 + now)
}

fn name(node: usize) -> NodeName {
    format!("n{node:05}").into()
}

fn number(attempt: AttemptId) -> u64 {
    attempt.job.0 << 32 | u64::from(attempt.number)
}

impl Scheduler for Hearth<'_> {
    fn up(&mut self, now: u64, node: usize) -> Vec<Order> {
        self.last_session += 1;
        self.sessions[node] = self.last_session;
        let workflow = &self.workflows[0];
        let models = (0..self.workflows.len()).map(|index| format!("checkpoints/model{index}.safetensors"));
        let capabilities = Capabilities {
            classes: Arc::new(workflow.needed_classes().into_iter().map(str::to_owned).collect()),
            models: Arc::new(models.collect()),
            roots: ["plates", "comps"].map(str::to_owned).into(),
            device: self.workload.gpus[node].kind.to_owned(),
            ..Capabilities::default()
        };
        let about = NodeAbout {
            name: name(node),
            host: String::new(),
            agent_version: String::new(),
            instance: String::new(),
        };
        self.apply(
            now,
            Command::Hello {
                session: Session(self.last_session),
                about: Box::new(about),
                capabilities: Box::new(capabilities),
                slots: 2,
                reason: String::new(),
                held: Vec::new(),
            },
        )
    }

    fn down(&mut self, now: u64, node: usize) -> Vec<Order> {
        self.held.retain(|_, (holder, _)| *holder != node);
        self.apply(now, Command::Gone { session: Session(self.sessions[node]), node: name(node) })
    }

    fn submit(&mut self, now: u64, job: usize) -> Vec<Order> {
        let work = &self.workload.jobs[job];
        let workflow = self.workflows[work.model].clone();
        let range = FrameRange::new(1, work.frames as i64).expect("frames");
        let spec = JobSpec {
            name: format!("job{job}"),
            show: format!("show{}", work.show),
            user: format!("user{}", job % 7),
            pool: String::new(),
            task: Task::Render(Render {
                workflow: workflow.id().clone(),
                workflow_name: workflow.name().to_owned(),
                parameters: [("size".to_owned(), work.factor.to_string())].into(),
                clip: Some(JobClip {
                    path: "plates/plate.%04d.png".parse().expect("a path"),
                    encoding: Encoding { format: PictureFormat::Png8, colour: ColourSpace::Srgb },
                    pixels: 0,
                    view: None,
                    made_by: None,
                }),
                clip_range: range,
                chunk_frames: None,
                pictures: Vec::new(),
            }),
            frames: range.into(),
            output: format!("comps/job{job}").parse().expect("a path"),
            urgent: work.urgent,
            overwrite: false,
            after: BTreeSet::default(),
            terms: Terms::default(),
            batch: None,
            storage: BTreeMap::new(),
            traceparent: String::new(),
            request_id: String::new(),
        };
        self.jobs.insert(JobId(self.jobs.len() as u64 + 1), job);
        let priority = work.priority;
        let priority = Priority::new(priority).expect("at most 100");
        let submission = Submission::one(spec, priority, workflow);
        self.apply(now, Command::Submit(Box::new(submission)))
    }

    fn ended(&mut self, now: u64, node: usize, chunk: &Chunk, seconds: Option<f64>) -> Vec<Order> {
        let attempt = AttemptId { job: JobId(chunk.id >> 32), number: chunk.id as u32 };
        self.held.remove(&attempt);
        let outcome = match seconds {
            Some(seconds) => Outcome::Succeeded { seconds, published: None },
            None => Outcome::Failed {
                kind: FailureKind::Execution,
                message: "so it was".to_owned(),
                frames: FrameSet::new(),
            },
        };
        let session = Session(self.sessions[node]);
        let frames = chunk.frames.clone();
        self.apply(now, Command::Result { session, node: name(node), attempt, frames, outcome })
    }

    fn tick(&mut self, now: u64) -> Vec<Order> {
        if now >= self.beaten + BEAT {
            self.beaten = now;
            let mut of_node: HashMap<usize, Vec<AttemptId>> = HashMap::new();
            for (attempt, (node, _)) in &self.held {
                of_node.entry(*node).or_default().push(*attempt);
            }
            for (node, attempts) in of_node {
                let session = Session(self.sessions[node]);
                self.farm.apply(
                    time(now),
                    Command::Heartbeat { session, node: name(node), attempts, clock: Some(time(now)) },
                );
            }
        }
        self.apply(now, Command::Tick)
    }
}
