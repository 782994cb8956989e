//! ComfyUI's REST side.

use std::{path::Path, time::Duration};

use reqwest::multipart::{Form, Part};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::{ComfyError, Obstacle, PromptId, python::parse};

/// For what ComfyUI answers from memory.
const QUICK: Duration = Duration::from_secs(10);

/// For prompts: validation runs on the event loop, and a slow folder stalls it.
const SLOW: Duration = Duration::from_secs(60);

/// Bytes of an answer. What thousands of models make of `/object_info` is a tenth of it.
const LONGEST_ANSWER: usize = 64 << 20;

/// Bytes of a saved picture: 16,384 by 16,384 pixels of four halves.
const LARGEST_PICTURE: u64 = 2 << 30;

/// How a prompt was received.
#[derive(Debug)]
pub enum Receipt {
    Queued,
    /// Refused, or accepted without some of its outputs: the reasons.
    Refused(Value),
}

/// Where a prompt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Pending,
    Running,
    /// In the history, however it ended.
    Ended,
    /// Unknown: never arrived, cleared, or lost with a restart.
    Unknown,
}

/// A prompt that ComfyUI's worker is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub id: PromptId,
    /// The attempt that it renders; `None` for a prompt of another program.
    pub attempt: Option<String>,
}

/// A picture that ComfyUI has saved.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ImageRef {
    pub filename: String,
    #[serde(default)]
    pub subfolder: String,
    #[serde(rename = "type", default)]
    pub kind: String,
}

/// One ComfyUI server.
#[derive(Debug, Clone)]
pub struct Client {
    url: String,
    http: reqwest::Client,
    /// How long it may take to say how it is.
    patience: Duration,
}

impl Client {
    /// For the server at `url` (`http://host:port`). A server that does not answer within `patience` how it is, and
    /// how a prompt is, counts as away.
    pub fn new(url: &str, http: reqwest::Client, patience: Duration) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), http, patience }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The WebSocket address for a connection of this client id.
    pub fn socket_url(&self, client_id: &str) -> String {
        let base = match self.url.strip_prefix("https://") {
            Some(rest) => format!("wss://{rest}"),
            None => format!("ws://{}", self.url.trim_start_matches("http://")),
        };
        format!("{base}/ws?clientId={client_id}")
    }

    /// Queues an attempt's prompt under the id that follows from the attempt. The answer to a time-out is not known:
    /// ask [`Client::status`] before trying again, since ComfyUI runs two prompts of the same id.
    pub async fn queue(&self, prompt: &Value, attempt: &str, client_id: &str) -> Result<Receipt, ComfyError> {
        let body = json!({
            "prompt": prompt,
            "prompt_id": PromptId::of_attempt(attempt).as_str(),
            "client_id": client_id,
            // Kept by ComfyUI beside the prompt: from it, the attempt behind an id can be read.
            "extra_data": { "hearth": { "attempt": attempt } },
        });
        let what = "POST /prompt";
        let request = self.http.post(self.at("/prompt")).timeout(SLOW).json(&body);
        let (status, bytes) = self.send(what, request).await?;
        match status {
            200 => {
                let answer = self.json(what, &bytes)?;
                let errors = &answer["node_errors"];
                let whole = errors.is_null() || errors.as_object().is_some_and(serde_json::Map::is_empty);
                Ok(if whole { Receipt::Queued } else { Receipt::Refused(answer) })
            }
            400 => {
                let answer = self.json(what, &bytes)?;
                match Obstacle::of_refusal(&answer) {
                    Some(obstacle) => Err(self.obstructed(what, obstacle)),
                    None => Ok(Receipt::Refused(answer)),
                }
            }
            status => Err(self.status_error(what, status, &bytes)),
        }
    }

    /// Where the prompt is. Queue before history: the other way round loses what ends in between.
    pub async fn status(&self, prompt: &PromptId) -> Result<Status, ComfyError> {
        let queue = self.ask("GET /queue", "/queue").await?;
        let has =
            |list: &str| queue[list].as_array().into_iter().flatten().any(|item| item[1] == prompt.as_str());
        if has("queue_running") {
            return Ok(Status::Running);
        }
        if has("queue_pending") {
            return Ok(Status::Pending);
        }
        Ok(if self.history(prompt).await?.is_some() { Status::Ended } else { Status::Unknown })
    }

    /// The running prompts.
    pub async fn running(&self) -> Result<Vec<Running>, ComfyError> {
        let queue = self.ask("GET /queue", "/queue").await?;
        let items = queue["queue_running"].as_array().into_iter().flatten();
        let running = items.filter_map(|item| {
            let attempt = item[3]["hearth"]["attempt"].as_str().map(str::to_owned);
            Some(Running { id: PromptId::reported(item[1].as_str()?), attempt })
        });
        Ok(running.collect())
    }

    /// The prompt's entry in the history.
    pub async fn history(&self, prompt: &PromptId) -> Result<Option<Value>, ComfyError> {
        let mut all = self.ask("GET /history", &format!("/history/{prompt}")).await?;
        Ok(all.get_mut(prompt.as_str()).map(Value::take))
    }

    /// Takes the prompt out of the queue, or interrupts it if it is the one that runs.
    ///
    /// Since 0.26.0 ComfyUI does both under one lock; before, a prompt can begin between the two requests, and the
    /// interrupt is lost.
    pub async fn stop(&self, prompt: &PromptId) -> Result<(), ComfyError> {
        let cancel = format!("/api/jobs/{prompt}/cancel");
        match self.post("POST /api/jobs/cancel", &cancel, &json!({})).await {
            Err(ComfyError::Obstructed { obstacle: Obstacle::NoEndpoint(_), .. }) => {}
            cancelled => return cancelled,
        }
        self.post("POST /queue", "/queue", &json!({ "delete": [prompt.as_str()] })).await?;
        // Never without the id: that would hit whatever runs.
        self.post("POST /interrupt", "/interrupt", &json!({ "prompt_id": prompt.as_str() })).await
    }

    /// Drops the prompt from the history, which is not needed once its result is published.
    pub async fn forget(&self, prompt: &PromptId) -> Result<(), ComfyError> {
        self.post("POST /history", "/history", &json!({ "delete": [prompt.as_str()] })).await
    }

    /// Answers at once while the server lives.
    pub async fn ping(&self) -> Result<(), ComfyError> {
        self.ask("GET /prompt", "/prompt").await.map(drop)
    }

    pub async fn system_stats(&self) -> Result<Value, ComfyError> {
        self.get("GET /system_stats", "/system_stats").await
    }

    pub async fn object_info(&self) -> Result<Value, ComfyError> {
        self.get("GET /object_info", "/object_info").await
    }

    /// Model files as `folder/file`. A server without this route has none to tell.
    pub async fn models(&self) -> Result<Vec<String>, ComfyError> {
        let folders = self.get("GET /models", "/models").await?;
        let mut models = Vec::new();
        for folder in folders.as_array().into_iter().flatten().filter_map(Value::as_str) {
            let files = self.get("GET /models", &format!("/models/{folder}")).await.unwrap_or_default();
            let files = files.as_array().into_iter().flatten().filter_map(Value::as_str);
            models.extend(files.map(|file| format!("{folder}/{file}")));
        }
        Ok(models)
    }

    /// Uploads a picture into the input folder; the name to load it by.
    pub async fn upload(&self, subfolder: &str, name: &str, bytes: Vec<u8>) -> Result<String, ComfyError> {
        let what = "POST /upload/image";
        let size = bytes.len();
        let form = Form::new()
            .part("image", Part::bytes(bytes).file_name(name.to_owned()))
            .text("type", "input")
            .text("subfolder", subfolder.to_owned())
            .text("overwrite", "true");
        let request = self.http.post(self.at("/upload/image")).timeout(SLOW).multipart(form);
        let (status, body) = match self.send(what, request).await {
            // A server may close the connection on a body that is too large, and its answer is lost.
            Err(ComfyError::Away { .. }) if self.upload_limit().await.is_some_and(|limit| size > limit) => {
                return Err(self.obstructed(what, Obstacle::TooLarge));
            }
            answer => answer?,
        };
        if status != 200 {
            return Err(self.status_error(what, status, &body));
        }
        // The server may have chosen another name.
        let answer = self.json(what, &body)?;
        let name = answer["name"].as_str().unwrap_or(name);
        let subfolder = answer["subfolder"].as_str().unwrap_or(subfolder);
        Ok(if subfolder.is_empty() { name.to_owned() } else { format!("{subfolder}/{name}") })
    }

    /// Largest request body, in bytes, where the server says so.
    async fn upload_limit(&self) -> Option<usize> {
        let features = self.get("GET /features", "/features").await.ok()?;
        usize::try_from(features["max_upload_size"].as_u64()?).ok()
    }

    /// Writes a saved picture to `file`, piece by piece.
    pub async fn save(&self, image: &ImageRef, file: &Path) -> Result<(), ComfyError> {
        let what = "GET /view";
        let url = self.place_of(image)?;
        let mut response = self.http.get(url).timeout(SLOW).send().await.map_err(self.away())?;
        let status = response.status().as_u16();
        if status != 200 {
            let body = self.body(what, response).await?;
            return Err(self.status_error(what, status, &body));
        }
        let failed = |source| ComfyError::Save { file: file.to_owned(), source };
        // What an earlier try has left, or somebody has put there, is not written into.
        match tokio::fs::remove_file(file).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let mut saved = tokio::fs::File::create_new(file).await.map_err(failed)?;
        let mut left = LARGEST_PICTURE;
        while let Some(piece) = response.chunk().await.map_err(self.away())? {
            left =
                left.checked_sub(piece.len() as u64).ok_or_else(|| self.too_long(what, LARGEST_PICTURE))?;
            saved.write_all(&piece).await.map_err(failed)?;
        }
        saved.flush().await.map_err(failed)
    }

    /// Whether a saved picture is there.
    pub async fn has(&self, image: &ImageRef) -> Result<bool, ComfyError> {
        let url = self.place_of(image)?;
        match self.send("HEAD /view", self.http.head(url).timeout(QUICK)).await? {
            (200, _) => Ok(true),
            (404, _) => Ok(false),
            (status, body) => Err(self.status_error("HEAD /view", status, &body)),
        }
    }

    fn place_of(&self, image: &ImageRef) -> Result<reqwest::Url, ComfyError> {
        let kind = if image.kind.is_empty() { "output" } else { &image.kind };
        let mut url = reqwest::Url::parse(&self.at("/view")).map_err(|_| ComfyError::Status {
            url: self.url.clone(),
            what: "GET /view",
            status: 0,
            body: "the address is not valid".to_owned(),
        })?;
        url.query_pairs_mut()
            .append_pair("filename", &image.filename)
            .append_pair("subfolder", &image.subfolder)
            .append_pair("type", kind);
        Ok(url)
    }

    /// Asks for what it answers from memory.
    async fn ask(&self, what: &'static str, path: &str) -> Result<Value, ComfyError> {
        self.get_within(what, path, self.patience).await
    }

    async fn get(&self, what: &'static str, path: &str) -> Result<Value, ComfyError> {
        self.get_within(what, path, SLOW).await
    }

    async fn get_within(
        &self,
        what: &'static str,
        path: &str,
        patience: Duration,
    ) -> Result<Value, ComfyError> {
        let (status, body) = self.send(what, self.http.get(self.at(path)).timeout(patience)).await?;
        if status == 200 { self.json(what, &body) } else { Err(self.status_error(what, status, &body)) }
    }

    async fn post(&self, what: &'static str, path: &str, body: &Value) -> Result<(), ComfyError> {
        let (status, body) = self.send(what, self.http.post(self.at(path)).timeout(QUICK).json(body)).await?;
        if status == 200 { Ok(()) } else { Err(self.status_error(what, status, &body)) }
    }

    async fn send(
        &self,
        what: &'static str,
        request: reqwest::RequestBuilder,
    ) -> Result<(u16, Vec<u8>), ComfyError> {
        let response = request.send().await.map_err(self.away())?;
        let status = response.status().as_u16();
        Ok((status, self.body(what, response).await?))
    }

    /// Whole, and no longer than ComfyUI has anything to say.
    async fn body(&self, what: &'static str, mut response: reqwest::Response) -> Result<Vec<u8>, ComfyError> {
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(self.away())? {
            if body.len() + piece.len() > LONGEST_ANSWER {
                return Err(self.too_long(what, LONGEST_ANSWER as u64));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    fn away(&self) -> impl Fn(reqwest::Error) -> ComfyError + '_ {
        |source| ComfyError::Away { url: self.url.clone(), source }
    }

    fn too_long(&self, what: &'static str, limit: u64) -> ComfyError {
        ComfyError::TooLong { url: self.url.clone(), what, limit }
    }

    fn json(&self, what: &'static str, body: &[u8]) -> Result<Value, ComfyError> {
        parse(body).map_err(|source| match Obstacle::of(200, body, true) {
            Some(obstacle) => self.obstructed(what, obstacle),
            None => ComfyError::NotJson { url: self.url.clone(), what, source },
        })
    }

    fn obstructed(&self, what: &'static str, obstacle: Obstacle) -> ComfyError {
        ComfyError::Obstructed { url: self.url.clone(), what, obstacle }
    }

    fn status_error(&self, what: &'static str, status: u16, body: &[u8]) -> ComfyError {
        // These answer 404 for what is not there.
        let is_core_endpoint = !matches!(what, "GET /view" | "HEAD /view" | "GET /models");
        if let Some(obstacle) = Obstacle::of(status, body, is_core_endpoint) {
            return self.obstructed(what, obstacle);
        }
        let body = String::from_utf8_lossy(body).chars().take(500).collect();
        ComfyError::Status { url: self.url.clone(), what, status, body }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

impl ImageRef {
    /// The file below ComfyUI's output folder; `None` when the name would lead out of it.
    pub fn below(&self, output: &Path) -> Option<std::path::PathBuf> {
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        let subfolders = self.subfolder.split('/').filter(|part| !part.is_empty());
        let inside = plain(&self.filename)
            && !self.filename.contains('/')
            && subfolders.clone().all(plain)
            && (self.kind.is_empty() || self.kind == "output");
        inside.then(|| subfolders.fold(output.to_owned(), |path, part| path.join(part)).join(&self.filename))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    /// Answers every request with `head`, and then with zeros until it is hung up on.
    async fn endless(head: &'static str) -> Client {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 4_096]).await;
                    let _ = stream.write_all(head.as_bytes()).await;
                    while stream.write_all(&[b'0'; 1 << 13]).await.is_ok() {}
                });
            }
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::new(&url, crate::server::http().expect("a client"), Duration::from_secs(60))
    }

    #[tokio::test]
    async fn an_answer_without_end_is_given_up() {
        let client = endless("HTTP/1.1 200 OK\r\n\r\n").await;
        let told = client.object_info().await.expect_err("too long");
        assert!(matches!(told, ComfyError::TooLong { .. }), "{told}");
        let told = client.ping().await.expect_err("too long");
        assert!(matches!(told, ComfyError::TooLong { .. }), "{told}");
        let dir = tempfile::tempdir().expect("a folder");
        let image =
            ImageRef { filename: "a.png".to_owned(), subfolder: String::new(), kind: "output".to_owned() };
        let told = client.save(&image, &dir.path().join("no/folder")).await.expect_err("not there");
        assert!(matches!(told, ComfyError::Save { .. }), "{told}");
    }

    #[tokio::test]
    async fn nobody_is_followed_elsewhere() {
        let client =
            endless("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n").await;
        let told = client.ping().await.expect_err("not followed");
        assert!(matches!(told, ComfyError::Obstructed { obstacle: Obstacle::Redirect(302), .. }), "{told}");
    }

    #[test]
    fn a_saved_picture_lies_below_the_output_folder_or_nowhere() {
        let image = |filename: &str, subfolder: &str| ImageRef {
            filename: filename.to_owned(),
            subfolder: subfolder.to_owned(),
            kind: "output".to_owned(),
        };
        let output = Path::new("/comfy/output");
        let good = image("a_00001_.png", "hearth/x-1-1").below(output);
        assert_eq!(good.as_deref(), Some(Path::new("/comfy/output/hearth/x-1-1/a_00001_.png")));
        for bad in
            [image("../x.png", ""), image("..", "a"), image("x.png", "../.."), image("/etc/passwd", "")]
        {
            assert_eq!(bad.below(output), None);
        }
    }
}
