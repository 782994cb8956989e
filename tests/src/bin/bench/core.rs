//! The pure farm: assign and complete, with a thousand busy nodes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Instant,
};

use hearth_coordinator::farm::{
    AssignedWork, Capabilities, Command, Effect, Farm, FarmConfig, FarmTag, JobClip, JobSpec, NodeAbout,
    NodeName, Outcome, Priority, Render, Session, Submission, Task, Terms, Timestamp,
};
use hearth_workflows::{
    FrameRange, Workflow,
    format::{ColourSpace, Encoding, PictureFormat},
    library::Library,
};

use crate::Figure;

const NODES: u64 = 1_000;

/// Cycles measured for each size. Fewer than the frames that wait, so that the queue stays long.
const CYCLES: usize = 100_000;

pub(crate) fn measure() -> Vec<Figure> {
    let rates: Vec<(u64, f64)> = [1_000, 10_000, 100_000, 1_000_000]
        .into_iter()
        .map(|frames| (frames, median(|| rate(frames))))
        .collect();
    let at = |frames: u64| rates.iter().find(|(size, _)| *size == frames).map_or(0.0, |(_, rate)| *rate);
    let mut figures: Vec<Figure> = rates
        .iter()
        .map(|(frames, rate)| {
            let what = format!("farm core, {NODES} nodes, {frames} waiting frames, chunks of 1");
            let against = if *frames == 100_000 { "at least 200,000" } else { "" };
            Figure::new(what, format!("{rate:.0} assign+complete cycles/s"), against)
        })
        .collect();
    let growth = at(1_000) / at(1_000_000);
    figures.push(Figure::new(
        "cost of a cycle, 1,000,000 waiting frames against 1,000",
        format!("{growth:.2} times"),
        "less than 2 times",
    ));
    figures
}

fn median(measure: impl Fn() -> f64) -> f64 {
    let mut rates: Vec<f64> = (0..5).map(|_| measure()).collect();
    rates.sort_by(f64::total_cmp);
    rates[2]
}

/// Cycles a second while `frames` wait: every finished frame is made to wait again by another job, so the
/// queue keeps its length.
fn rate(frames: u64) -> f64 {
    let library = Library::read::<&str>(&[]);
    let workflow = Arc::new(library.get("resize-sharpen").expect("shipped").clone());
    let mut farm = Farm::new(FarmConfig::default(), FarmTag("b".to_owned()));
    let now = Timestamp(1_000_000);
    let mut running = VecDeque::new();
    let mut jobs = 0;
    submit(&mut farm, now, &workflow, frames, &mut jobs, &mut running);
    for index in 0..NODES {
        let step = farm.apply(now, hello(index, &workflow));
        take(step.effects, &mut running);
    }
    let cycles = if frames < CYCLES as u64 { frames as usize * 20 } else { CYCLES };
    let mut done = 0;
    let started = Instant::now();
    while done < cycles {
        let Some((session, node, attempt, frames_done)) = running.pop_front() else {
            panic!("nothing runs");
        };
        let outcome = Outcome::Succeeded { seconds: 1.0, published: None };
        let step = farm.apply(now, Command::Result { session, node, attempt, frames: frames_done, outcome });
        take(step.effects, &mut running);
        done += 1;
        // Another job of the same length, before the last one runs dry.
        if (done as u64).is_multiple_of((frames / 2).max(1)) {
            submit(&mut farm, now, &workflow, frames / 2, &mut jobs, &mut running);
        }
    }
    done as f64 / started.elapsed().as_secs_f64()
}

type Running = VecDeque<(Session, NodeName, hearth_coordinator::farm::AttemptId, hearth_workflows::FrameSet)>;

/// Notes the chunks handed out. Nodes are named for their session.
fn take(effects: Vec<Effect>, running: &mut Running) {
    for effect in effects {
        if let Effect::Assign { session, assignment } = effect
            && let AssignedWork::Chunk(frames) = assignment.work
        {
            running.push_back((session, node_name(session.0), assignment.attempt, frames));
        }
    }
}

pub(crate) fn node_name(session: u64) -> NodeName {
    format!("node{session}").into()
}

pub(crate) fn hello(index: u64, workflow: &Workflow) -> Command {
    let capabilities = Capabilities {
        classes: Arc::new(workflow.needed_classes().into_iter().map(str::to_owned).collect()),
        roots: ["plates", "comps"].map(str::to_owned).into(),
        ..Capabilities::default()
    };
    let session = Session(index + 1);
    Command::Hello {
        session,
        about: Box::new(NodeAbout {
            name: node_name(session.0),
            host: "host".to_owned(),
            agent_version: "0".to_owned(),
            instance: String::new(),
        }),
        capabilities: Box::new(capabilities),
        slots: 2,
        reason: String::new(),
        held: Vec::new(),
    }
}

fn submit(
    farm: &mut Farm,
    now: Timestamp,
    workflow: &Arc<Workflow>,
    frames: u64,
    jobs: &mut u64,
    running: &mut Running,
) {
    *jobs += 1;
    let range = FrameRange::new(1, frames.max(1) as i64).expect("a range");
    let spec = spec(workflow, range, *jobs, 1);
    let submission = Submission::one(spec, Priority::DEFAULT, workflow.clone());
    take(farm.apply(now, Command::Submit(Box::new(submission))).effects, running);
}

/// A job whose chunks have `chunk` frames.
pub(crate) fn spec(workflow: &Workflow, range: FrameRange, number: u64, chunk: u64) -> JobSpec {
    JobSpec {
        name: format!("job{number}"),
        show: "show".to_owned(),
        user: "user".to_owned(),
        pool: String::new(),
        task: Task::Render(Render {
            workflow: workflow.id().clone(),
            workflow_name: workflow.name().to_owned(),
            parameters: std::collections::BTreeMap::new(),
            clip: Some(JobClip {
                path: "plates/plate.%04d.png".parse().expect("a path"),
                encoding: Encoding { format: PictureFormat::Png8, colour: ColourSpace::Srgb },
                pixels: 0,
                view: None,
                made_by: None,
            }),
            clip_range: range,
            chunk_frames: Some(chunk),
            pictures: Vec::new(),
        }),
        frames: range.into(),
        output: format!("comps/job{number}").parse().expect("a path"),
        urgent: false,
        overwrite: false,
        after: BTreeSet::default(),
        terms: Terms::default(),
        batch: None,
        storage: BTreeMap::new(),
        traceparent: String::new(),
        request_id: String::new(),
    }
}
