//! The routes. Every core route also stands under `/api`.

use std::{
    io,
    net::SocketAddr,
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Multipart, Path as UrlPath, Query, State, WebSocketUpgrade,
        ws::{self, WebSocket},
    },
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, sync::watch};
use tracing::warn;

use crate::{
    config::Config,
    engine::{Engine, Queued, is_canonical},
    faults::Fault,
    nodes,
    sockets::Message,
};

/// How long a slow reply takes.
const SLOW_REPLY: Duration = Duration::from_secs(3);

/// A running simulator.
#[derive(Debug)]
pub struct Simulator {
    pub address: SocketAddr,
    engine: Arc<Engine>,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
}

impl Simulator {
    /// Starts serving on `listen`. A fault that kills it ends the server and its sockets, not the process.
    pub async fn start(listen: SocketAddr, config: Config) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let dying = stop.clone();
        let engine = Engine::start(config, move || {
            dying.send_replace(true);
        })?;
        Self::serve(listen, engine, stop, stopped).await
    }

    /// The same for a process of its own, which a fault kills outright.
    pub async fn start_process(listen: SocketAddr, config: Config) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let engine = Engine::start(config, || std::process::abort())?;
        Self::serve(listen, engine, stop, stopped).await
    }

    async fn serve(
        listen: SocketAddr,
        engine: Arc<Engine>,
        stop: watch::Sender<bool>,
        mut stopped: watch::Receiver<bool>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let app = router(engine.clone());
        let served = tokio::spawn(async move {
            let serving = axum::serve(listener, app).into_future();
            tokio::select! {
                served = serving => {
                    if let Err(error) = served {
                        warn!(%error, "the simulator's server has ended");
                    }
                }
                // Open connections are cut, as by a kill.
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        });
        Ok(Self { address, engine, stop, served })
    }

    /// `http://host:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn add_fault(&self, fault: Fault) {
        self.engine.add_fault(fault);
    }

    /// How long its GPU would have been idle between two prompts, for the latest of them.
    pub fn idle_gaps(&self) -> Vec<Duration> {
        self.engine.gaps()
    }

    /// Ends at once, as by a kill.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.engine.sockets.drop_all();
        self.engine.stop();
        // It has ended by itself when this fails.
        let _ = self.served.await;
    }

    /// Until the server ends.
    pub async fn wait(self) {
        let _ = self.served.await;
    }
}

type Shared = State<Arc<Engine>>;

fn router(engine: Arc<Engine>) -> Router {
    let core = Router::new()
        .route("/prompt", get(get_prompt).post(post_prompt))
        .route("/queue", get(|State(engine): Shared| async move { Json(engine.queue()) }).post(post_queue))
        .route("/history", get(get_history).post(post_history))
        .route("/history/{id}", get(get_history_of))
        .route("/interrupt", post(post_interrupt))
        .route("/free", post(|| async { StatusCode::OK }))
        .route("/ws", get(socket))
        .route("/system_stats", get(system_stats))
        .route("/object_info", get(object_info))
        .route("/object_info/{class}", get(object_info_of))
        .route("/models", get(models))
        .route("/models/{folder}", get(models_of))
        .route("/embeddings", get(|| async { Json(json!([])) }))
        .route("/extensions", get(|| async { Json(json!([])) }))
        .route("/features", get(|State(engine): Shared| async move { Json(features(&engine)) }))
        .route("/upload/image", post(upload))
        .route("/view", get(view));
    Router::new()
        .merge(core.clone())
        .nest("/api", core)
        .route("/api/jobs", get(jobs))
        .route("/api/jobs/{id}", get(job))
        .route("/api/jobs/{id}/cancel", post(cancel_job))
        .route("/api/jobs/cancel", post(cancel_jobs))
        .route("/simulator/faults", post(add_fault))
        .layer(DefaultBodyLimit::max(engine.config.max_upload_bytes))
        .with_state(engine)
}

fn broken() -> Response {
    let text = "500 Internal Server Error\n\nServer got itself in trouble";
    (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
}

/// ComfyUI ignores the content type of JSON bodies.
fn json_of(body: &Bytes) -> Option<Value> {
    serde_json::from_slice(body).ok()
}

async fn get_prompt(State(engine): Shared) -> Json<Value> {
    Json(json!({ "exec_info": { "queue_remaining": engine.remaining() } }))
}

async fn post_prompt(State(engine): Shared, body: Bytes) -> Response {
    let Some(body) = json_of(&body) else { return broken() };
    match engine.submit(&body) {
        Queued::Accepted { body, slow } => {
            if slow {
                tokio::time::sleep(SLOW_REPLY).await;
            }
            Json(body).into_response()
        }
        Queued::Refused(body) => (StatusCode::BAD_REQUEST, Json(body)).into_response(),
        Queued::Broken => broken(),
    }
}

async fn post_queue(State(engine): Shared, body: Bytes) -> Response {
    let Some(body) = json_of(&body) else { return broken() };
    engine.edit_queue(&body);
    StatusCode::OK.into_response()
}

#[derive(Deserialize)]
struct HistoryQuery {
    max_items: Option<usize>,
}

async fn get_history(State(engine): Shared, Query(query): Query<HistoryQuery>) -> Json<Value> {
    Json(engine.history(None, query.max_items))
}

async fn get_history_of(State(engine): Shared, UrlPath(id): UrlPath<String>) -> Json<Value> {
    Json(engine.history(Some(&id), None))
}

async fn post_history(State(engine): Shared, body: Bytes) -> Response {
    let Some(body) = json_of(&body) else { return broken() };
    engine.edit_history(&body);
    StatusCode::OK.into_response()
}

/// Without a usable `prompt_id` the interrupt is global.
async fn post_interrupt(State(engine): Shared, body: Bytes) -> Response {
    let body = json_of(&body);
    if body == Some(Value::Null) {
        return broken();
    }
    let id = body.as_ref().and_then(|body| body.get("prompt_id")?.as_str()).filter(|id| !id.is_empty());
    engine.interrupt(id);
    StatusCode::OK.into_response()
}

fn features(engine: &Engine) -> Value {
    let mut features = json!({
        "supports_preview_metadata": true,
        "max_upload_size": engine.config.max_upload_bytes,
        "extension": { "manager": { "supports_v4": true } },
        "node_replacements": true,
        "assets": false,
    });
    if engine.config.version.keeps_cached_outputs() {
        features["supports_model_type_tags"] = true.into();
    }
    features
}

async fn system_stats(State(engine): Shared) -> Json<Value> {
    let ram = 64_u64 << 30;
    let vram = engine.config.vram_bytes;
    let beside = engine.config.base.join("main.py");
    let (os, program) =
        if engine.config.hides_folders { ("win32", "main.py".into()) } else { ("linux", beside) };
    let mut stats = json!({
        "system": {
            "os": os, "ram_total": ram, "ram_free": ram, "comfyui_version": engine.config.version.to_string(),
            "required_frontend_version": "1.42.11", "installed_templates_version": "0.9.57",
            "required_templates_version": "0.9.57", "python_version": "3.11.7", "pytorch_version": "2.15.0",
            "embedded_python": false, "argv": [program, "--simulated"],
        },
        "devices": [{
            "name": "cuda:0 Simulated GPU : native", "type": "cuda", "index": 0, "vram_total": vram,
            "vram_free": vram, "torch_vram_total": vram, "torch_vram_free": vram,
        }],
    });
    if engine.config.version.wants_uuids() {
        stats["system"]["comfy_package_versions"] = json!([]);
        stats["system"]["deploy_environment"] = "simulated".into();
    }
    Json(stats)
}

async fn object_info(State(engine): Shared) -> Json<Value> {
    Json(nodes::all_object_info(&engine.config))
}

async fn object_info_of(State(engine): Shared, UrlPath(name): UrlPath<String>) -> Json<Value> {
    let class = nodes::find(&engine.config, &name);
    let entry = class.map(|class| json!({ class.name: nodes::object_info(&engine.config, class) }));
    Json(entry.unwrap_or_else(|| json!({})))
}

async fn models(State(engine): Shared) -> Json<Value> {
    Json(json!(engine.config.models.keys().collect::<Vec<_>>()))
}

async fn models_of(State(engine): Shared, UrlPath(folder): UrlPath<String>) -> Response {
    match engine.config.models.get(&folder) {
        Some(files) => Json(json!(files)).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn add_fault(State(engine): Shared, Json(body): Json<Value>) -> StatusCode {
    match body.get("fault").cloned().map(serde_json::from_value::<Fault>) {
        Some(Ok(fault)) => {
            engine.add_fault(fault);
            StatusCode::OK
        }
        _ => StatusCode::BAD_REQUEST,
    }
}

async fn cancel_job(State(engine): Shared, UrlPath(id): UrlPath<String>) -> Response {
    if !engine.config.version.cancels_jobs() {
        return (StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed").into_response();
    }
    Json(json!({ "cancelled": engine.cancel(&id) })).into_response()
}

/// None of them, if one cannot be an id.
async fn cancel_jobs(State(engine): Shared, body: Bytes) -> Response {
    if !engine.config.version.cancels_jobs() {
        return (StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed").into_response();
    }
    let refused = |body: Value| (StatusCode::BAD_REQUEST, Json(body)).into_response();
    let Some(body) = json_of(&body) else {
        return refused(json!({ "error": "Request body must be valid JSON" }));
    };
    let Some(ids) = body["job_ids"].as_array() else {
        return refused(json!({ "error": "job_ids must be a list" }));
    };
    let text = |id: &Value| id.as_str().map_or_else(|| id.to_string(), str::to_owned);
    let ids: Vec<String> = ids.iter().map(text).collect();
    let invalid: Vec<&String> = ids.iter().filter(|id| !is_canonical(id)).collect();
    if !invalid.is_empty() {
        return refused(json!({ "error": "job_ids contains invalid id(s)", "invalid_ids": invalid }));
    }
    // Every one of them, whatever became of those before.
    let cancelled = ids.iter().filter(|id| engine.cancel(id)).count() > 0;
    Json(json!({ "cancelled": cancelled })).into_response()
}

async fn jobs(State(engine): Shared) -> Json<Value> {
    let queue = engine.queue();
    let mut all: Vec<Value> = Vec::new();
    for (list, status) in [("queue_running", "in_progress"), ("queue_pending", "pending")] {
        for item in queue[list].as_array().into_iter().flatten() {
            all.push(waiting(&engine.config, item, status));
        }
    }
    for (id, entry) in engine.history(None, None).as_object().into_iter().flatten() {
        all.push(finished(&engine.config, id, entry));
    }
    let total = all.len();
    let pagination = json!({ "offset": 0, "limit": null, "total": total, "has_more": false });
    Json(json!({ "jobs": all, "pagination": pagination }))
}

async fn job(State(engine): Shared, UrlPath(id): UrlPath<String>) -> Response {
    // Queue first, then history: the other way round loses what finishes in between.
    let queue = engine.queue();
    for (list, status) in [("queue_running", "in_progress"), ("queue_pending", "pending")] {
        let mut items = queue[list].as_array().into_iter().flatten();
        if let Some(item) = items.find(|item| item[1] == id.as_str()) {
            return Json(waiting(&engine.config, item, status)).into_response();
        }
    }
    match engine.history(Some(&id), None).get(&id) {
        Some(entry) => {
            let mut job = finished(&engine.config, &id, entry);
            job["outputs"] = entry["outputs"].clone();
            job["execution_status"] = entry["status"].clone();
            Json(job).into_response()
        }
        None => (StatusCode::NOT_FOUND, Json(json!({ "error": "Job not found" }))).into_response(),
    }
}

fn waiting(config: &Config, item: &Value, status: &str) -> Value {
    let create_time = &item[3]["create_time"];
    let mut job = json!({ "id": item[1], "status": status, "priority": item[0], "create_time": create_time, "outputs_count": 0 });
    if config.version.counts_previewable() {
        job["previewable_outputs_count"] = 0.into();
    }
    job
}

fn finished(config: &Config, id: &str, entry: &Value) -> Value {
    let messages = entry["status"]["messages"].as_array().cloned().unwrap_or_default();
    let interrupted = messages.iter().any(|message| message[0] == "execution_interrupted");
    let status = match entry["status"]["completed"].as_bool() {
        Some(true) => "completed",
        _ if interrupted => "cancelled",
        _ => "failed",
    };
    let outputs = entry["outputs"].as_object().map_or(0, Map::len);
    let mut job =
        json!({ "id": id, "status": status, "priority": entry["prompt"][0], "outputs_count": outputs });
    if config.version.counts_previewable() {
        job["previewable_outputs_count"] = outputs.into();
    }
    job
}

#[derive(Deserialize)]
struct SocketQuery {
    #[serde(rename = "clientId")]
    client_id: Option<String>,
}

async fn socket(
    State(engine): Shared,
    Query(query): Query<SocketQuery>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let client = query.client_id.filter(|id| !id.is_empty());
    let client = client.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
    upgrade.on_upgrade(move |socket| talk(engine, client, socket))
}

async fn talk(engine: Arc<Engine>, client: String, socket: WebSocket) {
    let mut messages = engine.sockets.open(&client);
    let (mut to_client, mut from_client) = socket.split();
    let hello = json!({
        "status": { "exec_info": { "queue_remaining": engine.remaining() } }, "sid": client,
    });
    engine.sockets.tell(&client, "status", &hello);
    if let Some(node) = engine.at_node(&client) {
        engine.sockets.tell(&client, "executing", &json!({ "node": node }));
    }
    let mut first = true;
    loop {
        tokio::select! {
            message = messages.recv() => {
                let sent = match message {
                    Some(Message::Text(text)) => to_client.send(ws::Message::Text(text.into())).await,
                    Some(Message::Binary(bytes)) => to_client.send(ws::Message::Binary(bytes.into())).await,
                    // Cut without a farewell, as by a broken connection.
                    Some(Message::Close) | None => break,
                };
                if sent.is_err() {
                    break;
                }
            }
            heard = from_client.next() => match heard {
                Some(Ok(ws::Message::Text(text))) => {
                    if std::mem::take(&mut first) {
                        handshake(&engine, &client, &text);
                    }
                }
                Some(Ok(ws::Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            }
        }
    }
    engine.sockets.closed(&client);
}

/// The first message may say what the client can do.
fn handshake(engine: &Engine, client: &str, text: &str) {
    let Ok(message) = serde_json::from_str::<Value>(text) else { return };
    if message["type"] != "feature_flags" {
        return;
    }
    if message["data"]["supports_preview_metadata"] == true {
        engine.sockets.wants_metadata(client);
    }
    engine.sockets.tell(client, "feature_flags", &features(engine));
}

async fn upload(State(engine): Shared, mut form: Multipart) -> Response {
    let (mut file, mut kind, mut subfolder, mut overwrite) = (None, "input".to_owned(), String::new(), false);
    while let Ok(Some(field)) = form.next_field().await {
        match field.name().unwrap_or_default() {
            "image" => {
                let name = field.file_name().map(str::to_owned);
                let Ok(bytes) = field.bytes().await else { return broken() };
                file = name.filter(|name| !name.is_empty()).map(|name| (name, bytes));
            }
            "type" => kind = field.text().await.unwrap_or_default(),
            "subfolder" => subfolder = field.text().await.unwrap_or_default(),
            "overwrite" => overwrite = matches!(field.text().await.as_deref(), Ok("true" | "1")),
            _ => {}
        }
    }
    let Some((name, bytes)) = file else { return StatusCode::BAD_REQUEST.into_response() };
    let Some(base) = folder(&engine, &kind) else { return broken() };
    if !stays_inside(&subfolder) || !stays_inside(&name) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let target = base.join(&subfolder);
    if std::fs::create_dir_all(&target).is_err() {
        return broken();
    }
    let name = free_name(&target, &name, &bytes, overwrite);
    if std::fs::write(target.join(&name), &bytes).is_err() {
        return broken();
    }
    Json(json!({ "name": name, "subfolder": subfolder, "type": kind })).into_response()
}

/// The same content keeps its name; other content gets `stem (1).ext` and so on.
fn free_name(folder: &Path, name: &str, bytes: &[u8], overwrite: bool) -> String {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let mut candidate = name.to_owned();
    let mut number = 1;
    while !overwrite && folder.join(&candidate).exists() {
        if std::fs::read(folder.join(&candidate)).is_ok_and(|old| old == bytes) {
            break;
        }
        candidate = format!("{stem} ({number}).{extension}");
        number += 1;
    }
    candidate
}

#[derive(Deserialize)]
struct ViewQuery {
    filename: Option<String>,
    #[serde(default)]
    subfolder: String,
    #[serde(rename = "type")]
    kind: Option<String>,
}

async fn view(State(engine): Shared, Query(query): Query<ViewQuery>) -> Response {
    let Some(filename) = query.filename else { return StatusCode::NOT_FOUND.into_response() };
    if filename.is_empty() || filename.starts_with('/') || filename.contains("..") {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let Some(base) = folder(&engine, query.kind.as_deref().unwrap_or("output")) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if !stays_inside(&query.subfolder) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let name = filename.rsplit_once('/').map_or(filename.as_str(), |(_, name)| name);
    match tokio::fs::read(base.join(&query.subfolder).join(name)).await {
        Ok(bytes) => ([(CONTENT_TYPE, "image/png")], bytes).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

fn folder(engine: &Engine, kind: &str) -> Option<PathBuf> {
    match kind {
        "input" => Some(engine.config.input()),
        "output" => Some(engine.config.output()),
        "temp" => Some(engine.config.temp()),
        _ => None,
    }
}

fn stays_inside(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}
