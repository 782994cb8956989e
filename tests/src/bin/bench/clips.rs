//! Whole clips through a farm of real processes: how near it comes to the best that its GPUs could do.

use std::time::Instant;

use hearth_client::v1::{JobState, submit_job_request::Workflow, watch_job_response::Update};
use hearth_tests::{
    clips,
    farm::{finish, request},
    processes::Processes,
};

use crate::Figure;

const WORKFLOWS: [&str; 2] = ["resize-sharpen", "temporal-smooth"];

/// How many times faster than the slowest node each is.
const SPEEDS: [f64; 8] = [1.0, 1.0, 1.5, 1.5, 2.0, 2.0, 3.0, 4.0];

const CLIPS: usize = 10;
const FRAMES: i64 = 1280;

/// Seconds a frame that the slowest node is told to take for each heavy graph node.
const SLOWEST: f64 = 0.1;

/// Ten clips with two in parallel against one after the other: what was asked of Hearth at first.
const SEED: f64 = 5.8;

pub(crate) async fn measure() -> Vec<Figure> {
    let mut costs: Vec<[f64; 2]> = Vec::new();
    for (node, speed) in SPEEDS.iter().enumerate() {
        let alike = SPEEDS[..node].iter().position(|other| other.total_cmp(speed).is_eq());
        costs.push(match alike {
            Some(alike) => costs[alike],
            None => [cost(WORKFLOWS[0], *speed).await, cost(WORKFLOWS[1], *speed).await],
        });
    }
    let frames = [CLIPS.div_ceil(2), CLIPS / 2].map(|clips| clips as f64 * FRAMES as f64);
    let work = frames[0] * costs[0][0] + frames[1] * costs[0][1];
    let bound = lower_bound(&costs, frames);
    let took = makespan(&SPEEDS, CLIPS).await;
    let (one, two) = (makespan(&[4.0], 1).await, makespan(&[4.0, 4.0], 1).await);
    vec![
        Figure::new(
            format!(
                "{CLIPS} clips of {FRAMES} frames, 2 workflows, 8 nodes of speed 1 to 4, against the lower bound"
            ),
            format!("{:.3} ({took:.1} s, bound {bound:.1} s)", bound / took),
            "at least 0.95",
        ),
        Figure::new(
            "the same against the slowest node alone",
            format!("{:.1} times as fast", work / took),
            format!(
                "{SEED} times, asked at first of two in parallel; at most {:.1}",
                SPEEDS.iter().sum::<f64>()
            ),
        ),
        Figure::new(
            format!("a clip of {FRAMES} frames, two equal nodes against one"),
            format!("{:.2} times as fast ({one:.1} s, {two:.1} s)", one / two),
            "at least 1.95 times",
        ),
    ]
}

async fn farm(speeds: &[f64]) -> Processes {
    let paces: Vec<String> = speeds.iter().map(|speed| (SLOWEST / speed).to_string()).collect();
    let options: Vec<Vec<&str>> = paces.iter().map(|pace| vec!["--seconds-per-frame", pace]).collect();
    Processes::start_with(&options, &[("HEARTH_TARGET_CHUNK_SECONDS", "4")]).await
}

/// The least seconds in which nodes with these costs of a frame of either workflow render so many of both: without
/// handles, gaps and assemblies, and with frames that can be cut.
fn lower_bound(costs: &[[f64; 2]], frames: [f64; 2]) -> f64 {
    // Whoever is better at the first workflow than at the second begins with that.
    let mut nodes = costs.to_vec();
    nodes.sort_by(|a, b| (a[0] / a[1]).total_cmp(&(b[0] / b[1])));
    let is_enough = |seconds: f64| {
        let [mut first, mut second] = frames;
        for [cost, other] in &nodes {
            let spent = (first * cost).min(seconds);
            first -= spent / cost;
            second -= (seconds - spent) / other;
        }
        first <= 1e-9 && second <= 1e-9
    };
    let (mut least, mut most) = (0.0, 1e6);
    while most - least > 1e-6 {
        let middle = f64::midpoint(least, most);
        if is_enough(middle) { most = middle } else { least = middle }
    }
    most
}

/// GPU seconds of a frame on a node so many times as fast as the slowest, as ComfyUI itself tells them for one prompt.
/// Reading and writing pictures takes a simulator of any speed as long.
async fn cost(workflow: &str, speed: f64) -> f64 {
    const TOLD: u32 = 80;
    let farm = farm(&[speed]).await;
    clips::make(&farm.path("plates/clip"), 1..=i64::from(TOLD), 32, 20);
    let mut request = request("clip", workflow, "clip");
    request.chunk_frames = TOLD;
    let job = farm.client.submit(request).await.expect("accepted").job.expect("a job").job_id;
    let mut watch = farm.client.watch(job, false);
    let mut seconds = 0.0;
    while let Some(update) = watch.next().await.expect("a watch") {
        if let Update::ChunkFinished(chunk) = update {
            seconds += chunk.seconds;
        }
    }
    seconds / f64::from(TOLD)
}

/// Seconds from the first submission to the last finished sequence.
async fn makespan(speeds: &[f64], clips: usize) -> f64 {
    let farm = farm(speeds).await;
    clips::make(&farm.path("plates/clip"), 1..=FRAMES, 32, 20);
    let started = Instant::now();
    let mut jobs = Vec::new();
    for clip in 0..clips {
        let mut request = request("clip", "", &format!("clip{clip}"));
        request.workflow = Some(Workflow::WorkflowName(WORKFLOWS[clip % 2].to_owned()));
        jobs.push(farm.client.submit(request).await.expect("accepted").job.expect("a job").job_id);
    }
    for job in jobs {
        let (job, failures) = finish(&farm.client, job).await;
        assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", job.message);
    }
    started.elapsed().as_secs_f64()
}
