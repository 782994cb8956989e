//! Recorded exchanges with a real ComfyUI, the oldest and the newest that is supported, replayed against the simulator: the same requests get
//! answers of the same shape, and the same events come in the same order.
//!
//! What differs by nature is left out of the comparison: ids, times, counters, host paths, and the order in
//! which independent nodes run.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use hearth_simulator::{Config, Fault, Simulator, Version};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

const PATIENCE: Duration = Duration::from_secs(20);

/// Events whose order is a promise.
const ORDERED: [&str; 7] = [
    "execution_start",
    "execution_cached",
    "executed",
    "execution_success",
    "execution_error",
    "execution_interrupted",
    "feature_flags",
];

/// Fields whose values are the server's own business; that they are there is compared.
const FREE: [&str; 17] = [
    "timestamp",
    "number",
    "priority",
    "sid",
    "create_time",
    "execution_start_time",
    "execution_end_time",
    "traceback",
    "current_inputs",
    "current_outputs",
    "executed",
    "nodes",
    "meta",
    "messages",
    "exception_message",
    "ram_total",
    "max_upload_size",
];

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Replay {
    simulator: Option<Simulator>,
    dir: tempfile::TempDir,
    config: Config,
    http: reqwest::Client,
    socket: Option<Socket>,
    client_id: String,
    /// Recorded prompt ids to ours.
    ids: BTreeMap<String, String>,
    /// What happened since the last ordered event.
    progress_seen: bool,
    previews: Vec<u32>,
    answer: Option<(u16, Value)>,
}

impl Replay {
    async fn start(config: Config) -> Self {
        // Another test may have chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().expect("tempdir");
        let config = Config { base: dir.path().to_owned(), ..config };
        let simulator = Simulator::start(([127, 0, 0, 1], 0).into(), config.clone()).await.expect("started");
        let picture = image::RgbImage::from_fn(96, 64, |x, y| image::Rgb([x as u8, y as u8, 7]));
        picture.save(dir.path().join("input/ref.png")).expect("written");
        Self {
            simulator: Some(simulator),
            dir,
            config,
            http: reqwest::Client::new(),
            socket: None,
            client_id: String::new(),
            ids: BTreeMap::new(),
            progress_seen: false,
            previews: Vec::new(),
            answer: None,
        }
    }

    async fn play(&mut self, name: &str) {
        let file = fixtures(self.config.version).join(name);
        let text = fs::read_to_string(&file).expect("fixture");
        for (number, line) in text.lines().enumerate() {
            let record: Value = serde_json::from_str(line).expect("json");
            let at = format!("{} {name}:{}", self.config.version, number + 1);
            self.step(&record, &at).await;
        }
    }

    async fn step(&mut self, record: &Value, at: &str) {
        match (record["dir"].as_str(), record["kind"].as_str()) {
            (Some("ws"), Some("open" | "reopen")) => {
                let path = record["path"].as_str().expect("path");
                self.client_id = path.rsplit('=').next().expect("id").to_owned();
                let address = self.simulator.as_ref().expect("running").address;
                let (socket, _) = connect_async(format!("ws://{address}{path}")).await.expect("connected");
                self.socket = Some(socket);
            }
            (Some("ws"), Some("closed_by_client")) => self.socket = None,
            (Some("ws"), Some("sent")) => {
                let socket = self.socket.as_mut().expect("open");
                socket.send(Message::text(record["data"].to_string())).await.expect("sent");
            }
            (Some("ws"), Some("text")) => self.event(&record["data"], at).await,
            (Some("ws"), Some("binary")) => {
                let kind = record["event_type"].as_u64().expect("type") as u32;
                while !self.previews.contains(&kind) {
                    self.hear(at).await;
                }
            }
            (Some("http"), Some("request")) => {
                if self.progress_seen {
                    self.wait_for_progress(at).await;
                }
                self.request(record).await;
            }
            (Some("http"), Some("response")) => self.response(record, at).await,
            (Some("note"), _) => match record["event"].as_str() {
                Some("server killed with SIGKILL") => {
                    self.simulator.take().expect("running").stop().await;
                }
                Some("server restarted") => {
                    let config = self.config.clone();
                    let listen = ([127, 0, 0, 1], 0).into();
                    self.simulator = Some(Simulator::start(listen, config).await.expect("started"));
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// A recorded event: one whose order counts must come next among such.
    async fn event(&mut self, recorded: &Value, at: &str) {
        let kind = recorded["type"].as_str().expect("type");
        let is_end = kind == "executing" && recorded["data"]["node"].is_null();
        if kind == "progress" {
            self.progress_seen = true;
        }
        if !ORDERED.contains(&kind) && !is_end {
            return;
        }
        loop {
            let heard = self.hear(at).await;
            let heard_kind = heard["type"].as_str().unwrap_or("");
            let heard_end = heard_kind == "executing" && heard["data"]["node"].is_null();
            if ORDERED.contains(&heard_kind) || heard_end {
                self.same(recorded, &heard, at);
                self.progress_seen = false;
                return;
            }
        }
    }

    async fn wait_for_progress(&mut self, at: &str) {
        while self.hear(at).await["type"] != "progress" {}
        self.progress_seen = false;
    }

    /// The next text event; pictures are noted on the way.
    async fn hear(&mut self, at: &str) -> Value {
        let socket = self.socket.as_mut().unwrap_or_else(|| panic!("{at}: no socket"));
        let heard = tokio::time::timeout(PATIENCE, socket.next()).await;
        match heard.unwrap_or_else(|_| panic!("{at}: nothing is heard")) {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).expect("json"),
            Some(Ok(Message::Binary(bytes))) => {
                self.previews.push(u32::from_be_bytes(bytes[..4].try_into().expect("header")));
                Value::Null
            }
            other => panic!("{at}: {other:?}"),
        }
    }

    async fn request(&mut self, record: &Value) {
        let path = self.ours(record["path"].as_str().unwrap_or("/prompt"));
        // Nobody answers while the server is dead, there as here.
        let Some(simulator) = &self.simulator else { return };
        let url = format!("{}{path}", simulator.url());
        let request = match record["method"].as_str() {
            Some("POST") => match &record["body"] {
                Value::String(raw) => self.http.post(url).body(raw.clone()),
                Value::Null => self.http.post(url),
                body => {
                    let body = self.ours(&body.to_string());
                    self.http.post(url).body(body)
                }
            },
            _ => self.http.get(url),
        };
        let response = request.send().await.expect("answered");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        if let Some(id) = body["prompt_id"].as_str() {
            self.ids.insert("new".to_owned(), id.to_owned());
        }
        self.answer = Some((status, body));
    }

    async fn response(&mut self, record: &Value, at: &str) {
        if self.answer.is_none() {
            // Some were recorded without their request.
            let of_an_earlier_run =
                record["path"].as_str().is_some_and(|path| path.starts_with("/api/jobs/"));
            if record["note"].is_string() || of_an_earlier_run {
                return;
            }
            self.request(record).await;
        }
        if record["method"] == "GET" {
            self.ask_until_over(record).await;
        }
        let (status, body) = self.answer.take().expect("answered");
        assert_eq!(record["status"], json!(status), "{at}: {body}");
        if let (Some(recorded), Some(ours)) = (record["body"]["prompt_id"].as_str(), self.ids.remove("new")) {
            self.ids.insert(recorded.to_owned(), ours);
        }
        let lists_everything =
            ["/system_stats", "/models", "/object_info", "/history?", "/api/jobs", "/extensions"];
        let path = record["path"].as_str().unwrap_or("");
        if lists_everything.iter().any(|prefix| path.starts_with(prefix)) && !path.contains("/jobs/") {
            let kinds = |value: &Value| value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>());
            if !path.starts_with("/history") {
                assert_eq!(kinds(&record["body"]), kinds(&body), "{at}");
            }
            assert_eq!(record["body"].is_array(), body.is_array(), "{at}");
            return;
        }
        self.same(&record["body"], &body, at);
    }

    /// The recording waited before it asked how a prompt has ended: asks again until ours has, too.
    async fn ask_until_over(&mut self, record: &Value) {
        let path = record["path"].as_str().unwrap_or("");
        let is_job = path.starts_with("/api/jobs/");
        let expected = match (is_job, &record["body"]["status"]) {
            (true, Value::String(status)) => json!(status),
            (false, _) if path.starts_with("/history/") => json!(record["body"] != json!({})),
            _ => return,
        };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let Some((_, body)) = &mut self.answer else { return };
            if is_job {
                // What a job was made of is longer than what is known of it here.
                let known = body.as_object().cloned().unwrap_or_default();
                if known.get("status") == Some(&expected) {
                    *body = record["body"].clone();
                    return;
                }
            } else if json!(*body != json!({})) == expected {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{path}: {body}");
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.request(record).await;
        }
    }

    /// Text with the recorded prompt ids replaced by ours.
    fn ours(&self, text: &str) -> String {
        self.ids.iter().fold(text.to_owned(), |text, (recorded, ours)| text.replace(recorded, ours))
    }

    fn same(&self, recorded: &Value, ours: &Value, at: &str) {
        let (recorded, ours) = (self.plain("", recorded), self.plain("", ours));
        assert_eq!(recorded, ours, "{at}");
    }

    /// Without what differs by nature.
    fn plain(&self, name: &str, value: &Value) -> Value {
        if FREE.contains(&name) {
            return json!("…");
        }
        match value {
            Value::Object(map) => Value::Object(
                map.iter()
                    // Options of an input have more to them than the simulator declares.
                    .filter(|(key, _)| !["tooltip", "step", "essentials_category"].contains(&key.as_str()))
                    .map(|(key, value)| (self.ours(key), self.plain(key, value)))
                    .collect(),
            ),
            Value::Array(items) => Value::Array(items.iter().map(|item| self.plain("", item)).collect()),
            Value::String(text) => json!(without_counter(&self.ours(text))),
            // Positions in the queue.
            Value::Number(_) if name.is_empty() => json!("number"),
            other => other.clone(),
        }
    }
}

/// `f_00003_.png` as `f_#_.png`: how many stood there before is not the point.
fn without_counter(name: &str) -> String {
    let parts: Vec<&str> = name.split('_').collect();
    let is_counter = |part: &&str| part.len() == 5 && part.bytes().all(|b| b.is_ascii_digit());
    parts.iter().map(|part| if is_counter(part) { "#" } else { part }).collect::<Vec<_>>().join("_")
}

const VERSIONS: [Version; 2] = [Version::OLDEST, Version::NEWEST];

fn fixtures(version: Version) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(version.to_string())
}

/// Replays the exchanges of both versions, one after the other; what is there after the last one.
async fn replay(names: &[&str], config: Config) -> Vec<Replay> {
    let mut replays = Vec::new();
    for version in VERSIONS {
        let mut replay = Replay::start(Config { version, ..config.clone() }).await;
        for name in names {
            replay.play(name).await;
        }
        replays.push(replay);
    }
    replays
}

/// Replays exchanges that only one version has.
async fn replay_of(version: Version, name: &str, config: Config) {
    Replay::start(Config { version, ..config }).await.play(name).await;
}

fn sampling() -> Config {
    Config { seconds_per_frame: 0.03, previews: true, ..Config::default() }
}

#[tokio::test]
async fn a_prompt_runs_and_its_repetition_comes_from_the_cache() {
    for replay in replay(&["01_success.jsonl", "02_success_cached.jsonl"], Config::default()).await {
        let saved = fs::read_dir(replay.dir.path().join("output/hearth/t")).expect("folder").count();
        assert_eq!(saved, 1, "the cached saver writes nothing");
    }
}

#[tokio::test]
async fn what_is_refused_is_refused_in_the_same_words() {
    for (version, count) in VERSIONS.into_iter().zip([15, 16]) {
        let mut names: Vec<String> = fs::read_dir(fixtures(version))
            .expect("fixtures")
            .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("03"))
            .collect();
        names.sort();
        assert_eq!(names.len(), count);
        for name in names {
            replay_of(version, &name, Config::default()).await;
        }
    }
}

#[tokio::test]
async fn jobs_are_cancelled_by_id() {
    replay_of(Version::NEWEST, "10_jobs_cancel.jsonl", sampling()).await;
}

#[tokio::test]
async fn a_cached_prompt_without_a_client_keeps_its_outputs() {
    replay_of(Version::NEWEST, "12_cached_without_client.jsonl", Config::default()).await;
}

/// `LoadImage` of a newer ComfyUI loads what lies in its own folders, links followed, and nothing else.
#[tokio::test]
async fn pictures_are_loaded_from_the_input_folder_only() {
    for (version, name, status) in [
        (Version::OLDEST, "link.png", 200),
        (Version::OLDEST, "/", 200),
        (Version::NEWEST, "link.png", 400),
        (Version::NEWEST, "/", 400),
        (Version::NEWEST, "../outside.png", 400),
        (Version::NEWEST, "hard.png", 200),
        (Version::NEWEST, "./ref.png [input]", 200),
    ] {
        let mut replay = Replay::start(Config { version, ..Config::default() }).await;
        let (input, outside) = (replay.dir.path().join("input"), replay.dir.path().join("outside.png"));
        fs::copy(input.join("ref.png"), &outside).expect("copied");
        std::os::unix::fs::symlink(&outside, input.join("link.png")).expect("linked");
        fs::hard_link(&outside, input.join("hard.png")).expect("linked");
        let name = if name == "/" { outside.display().to_string() } else { name.to_owned() };
        let prompt = json!({
            "1": { "class_type": "LoadImage", "inputs": { "image": name } },
            "2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": "x" } },
        });
        let body = json!({ "prompt": prompt });
        replay.request(&json!({ "method": "POST", "path": "/prompt", "body": body })).await;
        assert_eq!(replay.answer.take().map(|answer| answer.0), Some(status), "{version}: {name}");
    }
}

#[tokio::test]
async fn an_execution_error_is_told_in_the_same_order() {
    replay(&["04_execution_error_empty_checkpoint.jsonl"], Config::default()).await;
}

#[tokio::test]
async fn interrupts_previews_and_reconnects_are_the_same() {
    replay(&["05_interrupt_by_prompt_id.jsonl"], sampling()).await;
    replay(&["05b_interrupt_global.jsonl"], sampling()).await;
    replay(&["07_previews_plain.jsonl"], sampling()).await;
    replay(&["07b_previews_with_metadata_flag.jsonl"], sampling()).await;
    replay(&["08_ws_dropped_and_reconnected.jsonl"], sampling()).await;
}

#[tokio::test]
async fn the_queue_is_seen_and_edited_the_same_way() {
    replay(&["05d_queue_pending_and_delete.jsonl"], sampling()).await;
}

#[tokio::test]
async fn a_killed_server_comes_back_empty() {
    replay(&["06_sigkill_mid_prompt.jsonl"], sampling()).await;
}

#[tokio::test]
async fn the_other_endpoints_answer_alike() {
    replay(&["09_endpoints.jsonl"], Config::default()).await;
}

/// The recording is of a custom node's exception, which the simulator has not: its own fault must tell the
/// same fields.
#[tokio::test]
async fn an_exception_has_the_recorded_fields() {
    let config = Config { faults: vec![Fault::Error], ..Config::default() };
    let mut ours = Replay::start(config).await;
    let file = fixtures(Version::NEWEST).join("04b_execution_error_python_exception.jsonl");
    let text = fs::read_to_string(file).expect("fixture");
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("json"));
    let recorded =
        records.map(|record| record["data"].clone()).find(|data| data["type"] == "execution_error");
    let recorded = recorded.expect("an error");
    ours.step(&json!({ "dir": "ws", "kind": "open", "path": "/ws?clientId=c" }), "open").await;
    let prompt = json!({
        "1": { "class_type": "EmptyImage", "inputs": { "width": 8, "height": 8, "batch_size": 1, "color": 0 } },
        "2": { "class_type": "SaveImage", "inputs": { "images": ["1", 0], "filename_prefix": "x" } },
    });
    let body = json!({ "prompt": prompt, "client_id": "c" });
    ours.request(&json!({ "method": "POST", "path": "/prompt", "body": body })).await;
    let heard = loop {
        let heard = ours.hear("error").await;
        if heard["type"] == "execution_error" {
            break heard;
        }
    };
    let fields = |event: &Value| event["data"].as_object().expect("data").keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&recorded), fields(&heard));
}
