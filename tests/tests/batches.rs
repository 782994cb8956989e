//! Clips of several workflows submitted as one: all or nothing, controlled as one, and whole although nodes die.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hearth_client::v1::{self, JobState, control_batch_request::Action, submit_job_request::Workflow};
use hearth_simulator::Config;
use hearth_tests::{
    clips,
    facility::{Facility, Plan},
    farm::{Farm, PATIENCE, Setup, finish, request},
};

/// Workflow, clip and preset of ten jobs.
const TEN: [(&str, &str, &str); 10] = [
    ("film-look", "exr", "vision3"),
    ("film-look", "png", "film-noir"),
    ("chroma-key", "exr", ""),
    ("rife-interpolation", "exr", "film-to-60"),
    ("3d-maps", "png", "quick-look"),
    ("flux-upscale", "png", "model-only"),
    ("face-restoration", "png", "subtle"),
    ("multi-format-export", "exr", "web-preview"),
    ("temporal-smooth", "png", ""),
    ("background-plate", "", ""),
];

fn ten(output: &str) -> Vec<v1::SubmitJobRequest> {
    let job = |(index, (workflow, clip, preset)): (usize, &(&str, &str, &str))| {
        let parameters = match *workflow {
            "3d-maps" => vec![("resolution", "64")],
            "multi-format-export" => vec![("preview_width", "24")],
            "background-plate" => vec![("width", "256"), ("height", "256"), ("steps", "2")],
            _ => Vec::new(),
        };
        let texts = parameters.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        v1::SubmitJobRequest {
            workflow: Some(Workflow::WorkflowName((*workflow).to_owned())),
            clip: if clip.is_empty() { String::new() } else { format!("plates/{clip}/plate.%04d.{clip}") },
            output: format!("comps/{output}/{index:02}-{workflow}"),
            preset: (*preset).to_owned(),
            parameters: texts.collect(),
            chunk_frames: 4,
            no_deliveries: true,
            show: "dune".to_owned(),
            ..v1::SubmitJobRequest::default()
        }
    };
    TEN.iter().enumerate().map(job).collect()
}

async fn farm(simulators: Vec<Config>) -> Farm {
    let farm = Farm::start(Setup { simulators, ..Setup::default() }).await;
    clips::make(&farm.path("plates/png"), 1001..=1012, 48, 32);
    clips::make_exr(&farm.path("plates/exr"), 1001..=1012, 48, 32);
    farm
}

fn batch(jobs: Vec<v1::SubmitJobRequest>) -> v1::SubmitBatchRequest {
    v1::SubmitBatchRequest { jobs, ..v1::SubmitBatchRequest::default() }
}

/// Every picture below the folder.
fn pictures(folder: &Path) -> Vec<(String, hearth_pictures::Raster)> {
    let read = |path: PathBuf| hearth_pictures::read(&path).expect("a picture");
    clips::files(folder).into_iter().map(|(name, path)| (name, read(path))).collect()
}

/// The place of a ComfyUI that still lives and is at work on the batch, of which some is done.
async fn at_work(facility: &Facility, dead: &[usize], batch: u64) -> usize {
    let started = Instant::now();
    loop {
        let jobs = facility.client.batch(batch).await.expect("there");
        let done: u64 = jobs.iter().filter_map(|job| job.counts).map(|counts| counts.done).sum();
        let busy = jobs.iter().flat_map(|job| &job.attempts).find_map(|attempt| {
            let port = attempt.node.rsplit(':').next();
            let place = facility.to_comfyui.iter().position(|link| link.url().rsplit(':').next() == port)?;
            Some(place).filter(|place| !dead.contains(place))
        });
        if let Some(place) = busy.filter(|_| done > 10) {
            return place;
        }
        assert!(started.elapsed() < PATIENCE, "nobody is ever at work: {jobs:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The ten as a file of a batch.
fn file(jobs: &[v1::SubmitJobRequest]) -> String {
    let job = |job: &v1::SubmitJobRequest| {
        let Some(Workflow::WorkflowName(workflow)) = &job.workflow else { panic!("a shipped workflow") };
        serde_json::json!({
            "clip": job.clip, "workflow": workflow, "output": job.output, "preset": job.preset,
            "parameters": job.parameters, "chunk_frames": job.chunk_frames,
        })
    };
    let jobs: Vec<_> = jobs.iter().map(job).collect();
    serde_json::json!({ "defaults": { "show": "dune", "deliver": [] }, "job": jobs }).to_string()
}

/// Real processes throughout: the batch comes from a file, and who dies is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_clips_of_many_workflows_are_done_although_two_nodes_die() {
    let mut facility = Facility::start(Plan { seconds_per_frame: 0.01, ..Plan::default() }).await;
    clips::make(&facility.path("plates/png"), 1001..=1012, 48, 32);
    clips::make_exr(&facility.path("plates/exr"), 1001..=1012, 48, 32);
    let mut made = Vec::new();
    for (output, killed) in [("calm", 0), ("storm", 2)] {
        let tonight = facility.path("tonight.json");
        std::fs::write(&tonight, file(&ten(output))).expect("written");
        let submitted = facility.hearth(&["--json", "batch", "submit", &tonight.display().to_string()]);
        assert!(submitted.status.success(), "{}", String::from_utf8_lossy(&submitted.stderr));
        let jobs: serde_json::Value = serde_json::from_slice(&submitted.stdout).expect("JSON");
        let batch = jobs[0]["job"].as_u64().expect("a number");
        let mut dead = Vec::new();
        while dead.len() < killed {
            let victim = at_work(&facility, &dead, batch).await;
            facility.simulators[victim].kill();
            dead.push(victim);
        }
        for job in facility.client.batch(batch).await.expect("there") {
            let (job, failures) = finish(&facility.client, job.job_id).await;
            assert_eq!(job.state(), JobState::Done, "{}: {failures:?}", job.name);
            let counts = job.counts.expect("counts");
            assert_eq!((counts.done, counts.failed), (counts.total, 0), "{}", job.name);
        }
        let watched = facility.hearth(&["batch", "watch", &batch.to_string()]);
        let said = String::from_utf8_lossy(&watched.stdout).into_owned();
        assert!(watched.status.success() && said.contains("10 jobs: 10 done"), "{said}");
        let outputs = facility.path(&format!("comps/{output}"));
        made.push(tokio::task::spawn_blocking(move || pictures(&outputs)).await.expect("read"));
    }
    assert!(made[0].len() > 120 && made[0] == made[1], "the storm shows");
    assert_eq!(clips::leftovers(&facility.path("comps")), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_taken_whole_or_not_at_all_and_controlled_as_one() {
    let farm = farm(vec![Config { seconds_per_frame: 0.5, ..Config::default() }; 2]).await;
    let mut jobs = ten("wrong");
    jobs[1].clip = "plates/nowhere/plate.%04d.png".to_owned();
    jobs[4].preset = "nonsense".to_owned();
    let refused = farm.client.submit_batch(batch(jobs)).await.expect_err("two are wrong").to_string();
    for told in ["of 10 jobs", "job 2 (plates/nowhere/plate.%04d.png)", "job 5 (", "no preset 'nonsense'"] {
        assert!(refused.contains(told), "{told}: {refused}");
    }
    // Of very many, as many are told as an answer holds.
    let many =
        (0..1_000).map(|number| request(&format!("nowhere{number}"), "film-look", &format!("x{number}")));
    let refused_many = farm.client.submit_batch(batch(many.collect())).await.expect_err("all are wrong");
    let told = refused_many.to_string();
    assert!(told.contains("of 1000 jobs 1000 are wrong") && told.lines().count() > 10, "{told}");
    assert!(
        told.lines().last().is_some_and(|line| line.starts_with("and ") && line.ends_with(" more")),
        "{told}"
    );

    // A dry run is refused in the same words, and one that would be taken tells of every job.
    let mut jobs = ten("wrong");
    jobs[1].clip = "plates/nowhere/plate.%04d.png".to_owned();
    jobs[4].preset = "nonsense".to_owned();
    assert_eq!(farm.client.check_batch(jobs).await.expect_err("two are wrong").to_string(), refused);
    let told = farm.client.check_batch(ten("right")).await.expect("nothing is wrong");
    let able = told.iter().filter(|job| job.nodes.iter().all(|fit| fit.lacks.is_empty())).count();
    assert_eq!((told.len(), able), (10, 10), "{told:?}");
    assert!(told[3].jobs[0].output.ends_with("right/03-rife-interpolation"), "{:?}", told[3]);
    assert!(farm.client.jobs(v1::ListJobsRequest::default()).await.expect("listed").jobs.is_empty());
    let empty = farm.client.submit_batch(batch(Vec::new())).await.expect_err("nothing in it").to_string();
    assert!(empty.contains("0 jobs in one batch"), "{empty}");
    let mut same = ten("same");
    same[1].output = same[0].output.clone();
    assert!(farm.client.check_batch(same.clone()).await.is_err(), "two jobs would write to one place");
    assert!(farm.client.submit_batch(batch(same)).await.is_err(), "two jobs write to one place");

    // Versions are counted up within the batch.
    let numbered = |_| request("png", "resize-sharpen", "numbered/v###");
    let mut slow: Vec<_> = (0..3).map(numbered).collect();
    slow[2].deliveries = vec![v1::Delivery { format: "png-proxy".to_owned(), ..v1::Delivery::default() }];
    let answer = farm.client.submit_batch(batch(slow)).await.expect("accepted");
    let outputs: Vec<&str> = answer.jobs.iter().map(|job| job.output.as_str()).collect();
    assert_eq!(
        outputs,
        ["comps/numbered/v001", "comps/numbered/v002", "comps/numbered/v003", "comps/numbered/v003_proxy"]
    );
    assert_eq!(answer.jobs[3].after_job_ids, [answer.jobs[2].job_id]);

    // Any of its numbers will do.
    let (first, last) = (answer.jobs[0].job_id, answer.jobs[3].job_id);
    let paused = farm.client.control_batch(last, Action::Pause(v1::Pause {})).await.expect("paused");
    assert!(paused.iter().all(|job| job.state() == JobState::Paused), "{paused:?}");
    let raised = Action::SetPriority(v1::SetPriority { priority: 90 });
    let raised = farm.client.control_batch(first, raised).await.expect("raised");
    assert!(raised.iter().all(|job| job.priority == 90));
    // What has ended already is left as it is.
    farm.client
        .control(answer.jobs[1].job_id, v1::control_job_request::Action::Cancel(v1::Cancel::default()))
        .await
        .expect("cancelled");
    let cancelled =
        farm.client.control_batch(first, Action::Cancel(v1::Cancel::default())).await.expect("cancelled");
    assert!(cancelled.iter().all(|job| job.state() == JobState::Cancelled), "{cancelled:?}");
    let again =
        farm.client.control_batch(first, Action::Pause(v1::Pause {})).await.expect_err("all have ended");
    assert!(again.to_string().contains("already been cancelled"), "{again}");
    farm.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_clips_is_a_batch_and_links_are_no_clips_of_their_own() {
    let facility = Facility::start(Plan { agents: 1, coordinators: 1, ..Plan::default() }).await;
    let show = facility.path("plates/dune");
    clips::make(&show.join("sh010/v001"), 1..=3, 24, 16);
    clips::make(&show.join("sh020"), 1..=3, 24, 16);
    std::os::unix::fs::symlink("v001", show.join("sh010/current")).expect("linked");
    std::os::unix::fs::symlink("..", show.join("sh020/up")).expect("linked");
    let folder = ["batch", "submit", "plates/dune", "-w", "resize-sharpen", "-o", "comps/{folder}"];
    let planned = facility.hearth(&[&folder[..], &["--dry-run"]].concat());
    let warned = String::from_utf8_lossy(&planned.stderr).into_owned();
    assert!(
        warned.contains("2 clips in plates/dune; folders that are links are left out: plates/dune/sh"),
        "{warned}"
    );
    let planned = String::from_utf8_lossy(&planned.stdout).into_owned();
    assert!(planned.contains("2 jobs in all") && planned.ends_with("nothing was submitted\n"), "{planned}");
    let watched = facility.hearth(&[&folder[..], &["--watch"]].concat());
    let said = String::from_utf8_lossy(&watched.stdout).into_owned();
    assert!(watched.status.success() && said.contains("2 jobs: 2 done; 6 of 6 frames"), "{said}");

    // A workflow's folder is read beside the file that names it.
    let workflow = facility.path("tonight/sharper");
    std::fs::create_dir_all(&workflow).expect("folder");
    let library = hearth_workflows::library::Library::read::<&str>(&[]);
    let sharpen = library.get("resize-sharpen").expect("shipped");
    std::fs::write(workflow.join("hearth.toml"), sharpen.manifest_text()).expect("written");
    std::fs::write(workflow.join("graph.json"), sharpen.graph_text()).expect("written");
    let file = facility.path("tonight/batch.toml");
    let text = "[[job]]\nclip = \"plates/dune/sh020/plate.%04d.png\"\nworkflow = \"./sharper\"\noutput = \"comps/own\"\n";
    std::fs::write(&file, text).expect("written");
    // That the file lies beside a workflow names none.
    let beside = workflow.join("none.toml");
    std::fs::write(&beside, text.replace("workflow = \"./sharper\"\n", "")).expect("written");
    let unnamed = facility.hearth(&["batch", "submit", &beside.display().to_string()]);
    let refused = String::from_utf8_lossy(&unnamed.stderr).into_owned();
    assert!(!unnamed.status.success() && refused.contains("job 1 of the batch has no workflow"), "{refused}");
    let own = facility.hearth(&["batch", "submit", &file.display().to_string(), "--watch"]);
    assert!(own.status.success(), "{}", String::from_utf8_lossy(&own.stderr));
    assert!(
        facility.path("comps/own/sequence.json").exists()
            || clips::files(&facility.path("comps/own")).len() >= 3
    );
}
