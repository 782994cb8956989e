//! ComfyUI's REST side.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use reqwest::multipart::{Form, Part};
use serde::Deserialize;
use serde_json::{Value, json};

/// For what ComfyUI answers from memory.
const QUICK: Duration = Duration::from_secs(10);

/// For prompts: validation runs on the event loop, and a slow folder stalls it.
const SLOW: Duration = Duration::from_secs(60);

/// Why ComfyUI did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum ComfyError {
    #[error("ComfyUI at {url} does not answer")]
    Away { url: String, source: reqwest::Error },
    #[error("ComfyUI at {url} answered {status} to {what}: {body}")]
    Status { url: String, what: &'static str, status: u16, body: String },
    #[error("ComfyUI at {url} answered {what} with something that is no JSON")]
    NotJson { url: String, what: &'static str, source: serde_json::Error },
}

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
}

impl Client {
    /// For the server at `url` (`http://host:port`).
    pub fn new(url: &str, http: reqwest::Client) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), http }
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

    /// Queues a prompt under an id of our own. The answer to a time-out is not known: ask [`Client::status`]
    /// before trying again, since ComfyUI runs two prompts of the same id.
    pub async fn queue(
        &self,
        prompt: &Value,
        prompt_id: &str,
        client_id: &str,
    ) -> Result<Receipt, ComfyError> {
        let body = json!({
            "prompt": prompt,
            "prompt_id": prompt_id,
            "client_id": client_id,
            "extra_data": { "hearth": { "attempt": prompt_id } },
        });
        let what = "POST /prompt";
        let request = self.http.post(self.at("/prompt")).timeout(SLOW).json(&body);
        let (status, bytes) = self.send(request).await?;
        match status {
            200 => {
                let answer = self.json(what, &bytes)?;
                let errors = &answer["node_errors"];
                let whole = errors.is_null() || errors.as_object().is_some_and(serde_json::Map::is_empty);
                Ok(if whole { Receipt::Queued } else { Receipt::Refused(answer) })
            }
            400 => Ok(Receipt::Refused(self.json(what, &bytes)?)),
            status => Err(self.status_error(what, status, &bytes)),
        }
    }

    /// Where the prompt is. Queue before history: the other way round loses what ends in between.
    pub async fn status(&self, prompt_id: &str) -> Result<Status, ComfyError> {
        let queue = self.get("GET /queue", "/queue").await?;
        let has = |list: &str| queue[list].as_array().into_iter().flatten().any(|item| item[1] == prompt_id);
        if has("queue_running") {
            return Ok(Status::Running);
        }
        if has("queue_pending") {
            return Ok(Status::Pending);
        }
        Ok(if self.history(prompt_id).await?.is_some() { Status::Ended } else { Status::Unknown })
    }

    /// Ids of the running prompts.
    pub async fn running(&self) -> Result<Vec<String>, ComfyError> {
        let queue = self.get("GET /queue", "/queue").await?;
        let items = queue["queue_running"].as_array().into_iter().flatten();
        Ok(items.filter_map(|item| item[1].as_str().map(str::to_owned)).collect())
    }

    /// The prompt's entry in the history.
    pub async fn history(&self, prompt_id: &str) -> Result<Option<Value>, ComfyError> {
        let mut all = self.get("GET /history", &format!("/history/{prompt_id}")).await?;
        Ok(all.get_mut(prompt_id).map(Value::take))
    }

    /// Takes the prompt out of the queue, or interrupts it if it is the one that runs.
    pub async fn stop(&self, prompt_id: &str) -> Result<(), ComfyError> {
        self.post("POST /queue", "/queue", &json!({ "delete": [prompt_id] })).await?;
        // Never without the id: that would hit whatever runs.
        self.post("POST /interrupt", "/interrupt", &json!({ "prompt_id": prompt_id })).await
    }

    /// Drops the prompt from the history, which is not needed once its result is published.
    pub async fn forget(&self, prompt_id: &str) -> Result<(), ComfyError> {
        self.post("POST /history", "/history", &json!({ "delete": [prompt_id] })).await
    }

    /// Answers at once while the server lives.
    pub async fn ping(&self) -> Result<(), ComfyError> {
        self.get("GET /prompt", "/prompt").await.map(drop)
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
        let form = Form::new()
            .part("image", Part::bytes(bytes).file_name(name.to_owned()))
            .text("type", "input")
            .text("subfolder", subfolder.to_owned())
            .text("overwrite", "true");
        let request = self.http.post(self.at("/upload/image")).timeout(SLOW).multipart(form);
        let (status, body) = self.send(request).await?;
        if status != 200 {
            return Err(self.status_error(what, status, &body));
        }
        // The server may have chosen another name.
        let answer = self.json(what, &body)?;
        let name = answer["name"].as_str().unwrap_or(name);
        let subfolder = answer["subfolder"].as_str().unwrap_or(subfolder);
        Ok(if subfolder.is_empty() { name.to_owned() } else { format!("{subfolder}/{name}") })
    }

    /// The bytes of a saved picture.
    pub async fn view(&self, image: &ImageRef) -> Result<Bytes, ComfyError> {
        let url = self.place_of(image)?;
        let (status, body) = self.send(self.http.get(url).timeout(SLOW)).await?;
        if status == 200 { Ok(body) } else { Err(self.status_error("GET /view", status, &body)) }
    }

    /// Whether a saved picture is there.
    pub async fn has(&self, image: &ImageRef) -> Result<bool, ComfyError> {
        let url = self.place_of(image)?;
        match self.send(self.http.head(url).timeout(QUICK)).await? {
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

    async fn get(&self, what: &'static str, path: &str) -> Result<Value, ComfyError> {
        let (status, body) = self.send(self.http.get(self.at(path)).timeout(SLOW)).await?;
        if status == 200 { self.json(what, &body) } else { Err(self.status_error(what, status, &body)) }
    }

    async fn post(&self, what: &'static str, path: &str, body: &Value) -> Result<(), ComfyError> {
        let (status, body) = self.send(self.http.post(self.at(path)).timeout(QUICK).json(body)).await?;
        if status == 200 { Ok(()) } else { Err(self.status_error(what, status, &body)) }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<(u16, Bytes), ComfyError> {
        let away = |source| ComfyError::Away { url: self.url.clone(), source };
        let response = request.send().await.map_err(away)?;
        let status = response.status().as_u16();
        Ok((status, response.bytes().await.map_err(away)?))
    }

    fn json(&self, what: &'static str, body: &[u8]) -> Result<Value, ComfyError> {
        parse(body).map_err(|source| ComfyError::NotJson { url: self.url.clone(), what, source })
    }

    fn status_error(&self, what: &'static str, status: u16, body: &[u8]) -> ComfyError {
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

/// Reads JSON as Python writes it: `NaN` and `Infinity` stand bare, and mean nothing to us.
pub(super) fn parse(body: &[u8]) -> Result<Value, serde_json::Error> {
    match serde_json::from_slice(body) {
        Ok(value) => Ok(value),
        Err(error) => match without_nan(body) {
            Some(cleaned) => serde_json::from_slice(&cleaned),
            None => Err(error),
        },
    }
}

/// `body` with bare `NaN`, `Infinity` and `-Infinity` replaced by `null`; `None` when it has none.
fn without_nan(body: &[u8]) -> Option<Vec<u8>> {
    const TOKENS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut cleaned = Vec::with_capacity(body.len());
    let (mut in_text, mut at, mut found) = (false, 0, false);
    while at < body.len() {
        if !in_text && let Some(token) = TOKENS.iter().find(|token| body[at..].starts_with(token)) {
            cleaned.extend_from_slice(b"null");
            at += token.len();
            found = true;
            continue;
        }
        match body[at] {
            b'"' => in_text = !in_text,
            // What follows a backslash cannot end the text.
            b'\\' if in_text && at + 1 < body.len() => {
                cleaned.push(b'\\');
                at += 1;
            }
            _ => {}
        }
        cleaned.push(body[at]);
        at += 1;
    }
    found.then_some(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_json_is_read() {
        let text = br#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \" NaN", "d": 1}"#;
        let value = parse(text).expect("readable");
        assert_eq!(value, json!({ "a": null, "b": [null, null], "c": "NaN \" NaN", "d": 1 }));
        assert!(parse(b"{nonsense").is_err());
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
