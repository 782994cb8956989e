//! An operator's day at a farm of two coordinators, a Redis, agents and ComfyUIs, all of them real processes: what was
//! written is read at once, whichever coordinator is asked; a take-over costs nobody a command; and the meters tell the
//! truth all day.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use hearth_client::v1::{self, JobState, NodeState};
use hearth_tests::{
    clips,
    facility::{Facility, Plan},
    farm::{PATIENCE, finish, until},
};
use serde_json::Value;

/// Of the clips, but for the one with a gap.
const FRAMES: i64 = 24;

struct Day {
    facility: Facility,
}

impl Day {
    async fn begins() -> Self {
        // Another test may have chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut facility = Facility::start(Plan { seconds_per_frame: 0.25, ..Plan::default() }).await;
        for shot in ["sh010", "sh020", "sh030"] {
            clips::make(&facility.path(&format!("plates/dune/{shot}")), 1..=FRAMES, 32, 18);
        }
        fs::remove_file(facility.path("plates/dune/sh030/plate.0013.png")).expect("removed");
        // The farm gets a limit: one coordinator after the other is started anew.
        let folder = facility.path("hearth");
        fs::create_dir_all(&folder).expect("folder");
        fs::write(folder.join("coordinator.toml"), "[limits.nuke]\nfarm = 1\n").expect("written");
        for coordinator in 0..2 {
            facility.restart_coordinator(coordinator);
            hearth_tests::farm::wait_for_nodes(&facility.client, 6).await;
        }
        Self { facility }
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.facility.hearth(arguments)
    }

    /// What a command says that must succeed.
    fn hearth(&self, arguments: &[&str]) -> String {
        let done = self.output(arguments);
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            done.status.success(),
            "hearth {arguments:?}: {said}{}",
            String::from_utf8_lossy(&done.stderr)
        );
        said
    }

    /// What a command says that must be refused.
    fn refused(&self, arguments: &[&str]) -> String {
        let done = self.output(arguments);
        assert!(!done.status.success(), "hearth {arguments:?} is not refused");
        String::from_utf8_lossy(&done.stderr).into_owned()
    }

    /// Submits a shot; its number.
    fn submit(&self, shot: &str, output: &str, options: &[&str]) -> u64 {
        let clip = format!("plates/dune/{shot}/plate.%04d.png");
        let output = format!("comps/{output}");
        let submit = [
            "--json",
            "submit",
            &clip,
            "-w",
            "resize-sharpen",
            "-o",
            &output,
            "--show",
            "dune",
            "--chunk-frames",
            "2",
        ];
        let said = self.hearth(&[&submit, options].concat());
        let job: Value = serde_json::from_str(said.lines().next().expect("a line")).expect("json");
        job["job"].as_u64().expect("a number")
    }

    /// The job as each coordinator has it, asked by its own address alone.
    fn everywhere(&self, job: u64) -> Vec<Value> {
        let ask = |member: &hearth_tests::facility::Member| {
            let said = self.hearth(&["--coordinator", &member.link.url(), "--json", "job", &job.to_string()]);
            serde_json::from_str(&said).expect("json")
        };
        self.facility.coordinators.iter().map(ask).collect()
    }

    fn is_everywhere(&self, job: u64, field: &str, value: &Value) {
        for told in self.everywhere(job) {
            assert_eq!(&told[field], value, "{field} of job {job}: {told}");
        }
    }

    fn metrics_url(&self, coordinator: usize) -> String {
        let said = self.facility.coordinators[coordinator].process.said();
        let address = said.rsplit_once("metrics=").expect("it is up").1;
        format!("http://{}", address.split_whitespace().next().expect("an address"))
    }

    /// The meters of both coordinators say what the farm says, as soon as they are taken anew.
    async fn meters_tell_the_truth(&self, when: &str) {
        let started = Instant::now();
        loop {
            let wrong = self.wrong_meters().await;
            if wrong.is_empty() {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{when}: {wrong:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn wrong_meters(&self) -> Vec<String> {
        let client = &self.facility.client;
        let leader = self.facility.wait_for_leader().await;
        let nodes = client.nodes().await.expect("told");
        let jobs = client
            .jobs(v1::ListJobsRequest { active_only: true, ..Default::default() })
            .await
            .expect("told")
            .jobs;
        let mut wrong = Vec::new();
        let mut expect = |what: String, told: f64, truth: f64| {
            if (told - truth).abs() > 0.5 {
                wrong.push(format!("{what} is {told}, and in truth {truth}"));
            }
        };
        for coordinator in 0..2 {
            let url = self.metrics_url(coordinator);
            let text =
                reqwest::get(format!("{url}/metrics")).await.expect("answer").text().await.expect("text");
            let health = reqwest::get(format!("{url}/healthz")).await.expect("answer").status();
            assert!(health.is_success(), "coordinator {coordinator}: {health}");
            lint(&text);
            let meters = read(&text);
            let leads = coordinator == leader;
            let sum = |name: &str| -> f64 {
                meters
                    .iter()
                    .filter(|(key, _)| key.split('{').next() == Some(name))
                    .map(|(_, value)| value)
                    .sum()
            };
            let of = |name: String| format!("{name} of coordinator {coordinator}");
            expect(of("leading".to_owned()), sum("hearth_leading"), f64::from(u8::from(leads)));
            for (state, name) in [
                (NodeState::Idle, "idle"),
                (NodeState::Busy, "busy"),
                (NodeState::Drained, "drained"),
                (NodeState::Offline, "offline"),
            ] {
                let count = nodes.iter().filter(|node| node.state() == state).count();
                let told =
                    meters.get(&format!("hearth_nodes{{state=\"{name}\"}}")).copied().unwrap_or_default();
                expect(of(format!("nodes {name}")), told, if leads { count as f64 } else { 0.0 });
            }
            let waiting: u64 = jobs
                .iter()
                .filter(|job| job.state() != JobState::Paused)
                .map(|job| job.counts.unwrap_or_default().waiting)
                .sum();
            expect(
                of("waiting frames".to_owned()),
                sum("hearth_queue_frames"),
                if leads { waiting as f64 } else { 0.0 },
            );
        }
        wrong
    }
}

/// Prometheus's own opinion of it, where its tool is.
fn lint(text: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else { return };
    promtool.stdin.take().expect("piped").write_all(text.as_bytes()).expect("taken");
    let said = promtool.wait_with_output().expect("ended");
    let complaints =
        format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success() && complaints.trim().is_empty(), "promtool: {complaints}");
}

/// Every series with its value; each line must be one, or a comment.
fn read(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let series = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no series: {line}"));
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no value: {line}")))
    });
    series.collect()
}

fn pictures(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    clips::files(folder)
        .into_iter()
        .filter(|(name, _)| name.contains(".png"))
        .map(|(name, path)| (name, fs::read(path).expect("read")))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_at_the_farm() {
    let mut day = Day::begins().await;
    let text = |text: &str| Value::from(text);
    day.meters_tell_the_truth("in the morning").await;

    // What is written is read at once, by either address.
    let first = day.submit("sh010", "first", &["--max-nodes", "1"]);
    for _ in 0..5 {
        day.hearth(&["pause", &first.to_string()]);
        day.is_everywhere(first, "state", &text("paused"));
        day.hearth(&["resume", &first.to_string()]);
        assert!(day.everywhere(first).iter().all(|job| job["state"] != "paused"));
    }
    day.meters_tell_the_truth("after pauses").await;

    // Limits, and what keeps a job from more nodes.
    let limited = day.submit("sh020", "limited", &["--limit", "nuke"]);
    until(&day.facility.client, limited, |job| job.counts.unwrap_or_default().running > 0).await;
    let other = day.submit("sh020", "other", &["--limit", "nuke", "--priority", "40"]);
    let why = day.hearth(&["why", &other.to_string()]);
    assert!(why.contains("all 1 of nuke are in use"), "{why}");
    assert!(
        day.refused(&[
            "submit",
            "plates/dune/sh010/plate.%04d.png",
            "-w",
            "resize-sharpen",
            "-o",
            "comps/x",
            "--limit",
            "nkue"
        ])
        .contains("is 'nuke' meant?")
    );
    // Thought again: without the limit, with fewer frames, sooner.
    let changed = other.to_string();
    day.hearth(&[
        "edit",
        &changed,
        "--limit",
        "none",
        "--frames",
        "1-12",
        "--priority",
        "90",
        "--deadline",
        "+2h",
    ]);
    day.is_everywhere(other, "priority", &90.into());
    let (edited, failures) = finish(&day.facility.client, other).await;
    assert_eq!(edited.state(), JobState::Done, "{failures:?}");
    assert_eq!(pictures(&day.facility.path("comps/other")).len(), 12);
    assert!(day.refused(&["edit", &changed, "--priority", "1"]).contains("already finished"));

    // A clip with a gap sinks no folder.
    let batch = [
        "batch",
        "submit",
        "plates/dune",
        "-w",
        "temporal-smooth",
        "-o",
        "comps/folder/{folder}",
        "--show",
        "dune",
    ];
    let refused = day.refused(&batch);
    assert!(refused.contains("sh030") && refused.contains("13"), "{refused}");
    let done = day.output(&[&batch[..], &["--leave-out-wrong", "--watch"]].concat());
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    // Scripts are told by its code that something was left out.
    assert!(done.status.code() == Some(1) && said.contains("left out") && said.contains("sh030"), "{said}");
    assert_eq!(pictures(&day.facility.path("comps/folder/sh010")).len(), FRAMES as usize);
    assert!(!day.facility.path("comps/folder/sh030").exists());
    day.meters_tell_the_truth("after the folder").await;

    // Some frames anew; the others stay as they are.
    finish(&day.facility.client, first).await;
    let before = pictures(&day.facility.path("comps/first"));
    day.hearth(&["redo", &first.to_string(), "-f", "10-12", "-p", "sharpen=5", "--watch"]);
    let after = pictures(&day.facility.path("comps/first"));
    assert_eq!(before.len(), FRAMES as usize);
    for (name, picture) in &before {
        let redone = (10..=12).any(|frame| name.contains(&format!(".{frame:04}.")));
        assert_eq!(after[name] != *picture, redone, "{name}");
    }

    // The leader dies under a loop of commands: none of them fails, and each reads what it wrote.
    let mut submitted = Vec::new();
    for round in 0..8 {
        if round == 3 {
            let leader = day.facility.wait_for_leader().await;
            day.facility.coordinators[leader].process.kill();
        }
        let job = day.submit("sh010", &format!("loop{round}"), &["--max-nodes", "1"]);
        let urls = day.facility.urls();
        let told = day.hearth(&["--coordinator", &urls, "--json", "job", &job.to_string()]);
        assert!(told.contains(&format!("comps/loop{round}")), "{told}");
        day.hearth(&["pause", &job.to_string()]);
        let told: Value =
            serde_json::from_str(&day.hearth(&["--json", "job", &job.to_string()])).expect("json");
        assert_eq!(told["state"], "paused", "{told}");
        submitted.push(job);
    }
    let dead = 1 - day.facility.wait_for_leader().await;
    day.facility.restart_coordinator(dead);
    hearth_tests::farm::wait_for_nodes(&day.facility.client, 6).await;
    day.meters_tell_the_truth("after a take-over").await;

    // Cancelled by mistake: what was finished is kept, and the rest is rendered when it goes on.
    let job = submitted[0];
    day.hearth(&["resume", &job.to_string()]);
    until(&day.facility.client, job, |job| job.counts.unwrap_or_default().done > 2).await;
    let told = day.hearth(&["cancel", &job.to_string(), "--yes"]);
    assert!(told.contains("finished frames are kept"), "{told}");
    day.is_everywhere(job, "state", &text("cancelled"));
    day.hearth(&["retry", &job.to_string()]);
    let (job, failures) = finish(&day.facility.client, job).await;
    assert_eq!(job.state(), JobState::Done, "{failures:?}");
    assert_eq!(pictures(&day.facility.path("comps/loop0")).len(), FRAMES as usize);

    // The evening: whatever is paused is let go, a node is drained, and nothing is left over.
    day.hearth(&["cancel", "--state", "paused", "--yes"]);
    let node = day.facility.client.nodes().await.expect("told")[0].name.clone();
    day.hearth(&["drain", &node]);
    day.meters_tell_the_truth("in the evening").await;
    let left = day.hearth(&["--json", "jobs"]);
    assert_eq!(serde_json::from_str::<Value>(&left).expect("json"), Value::Array(Vec::new()), "{left}");
}
