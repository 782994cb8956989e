//! ComfyUI's WebSocket: told to whoever listens, connected again with a new client id whenever it drops.
//!
//! A new id each time, because ComfyUI unregisters a reconnected socket when the old one closes. Prompts
//! queued under an older id say nothing here any more: their watchers ask over HTTP.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};
use tokio_tungstenite::{
    connect_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};
use tracing::{debug, warn};

use super::{client::Client, prompt_id::PromptId, python::parse};

/// Events that a slow listener may lag behind; then it asks over HTTP.
const EVENTS: usize = 1_024;

/// ComfyUI sends everything in single frames, pictures too.
const MAX_FRAME: usize = 256 * 1024 * 1024;

/// Between pings, and the silence after which the connection counts as dead.
const PING: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(45);
const CONNECT: Duration = Duration::from_secs(10);

const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// A message about one prompt.
#[derive(Debug, Clone)]
pub struct Event {
    pub prompt: PromptId,
    pub what: Happening,
}

#[derive(Debug, Clone)]
pub enum Happening {
    Started,
    /// A node begins.
    Executing {
        node: String,
    },
    /// A step of a node.
    Progress {
        step: f64,
        steps: f64,
    },
    /// How many nodes are through.
    Finished {
        nodes: usize,
    },
    Preview(PreviewPicture),
    /// The prompt is over and its history can be read.
    Ended,
    /// Something else about it.
    Other,
}

#[derive(Debug, Clone)]
pub struct PreviewPicture {
    pub media_type: &'static str,
    pub bytes: Arc<[u8]>,
}

/// The connection of one node.
#[derive(Debug, Clone)]
pub struct Socket {
    events: broadcast::Sender<Event>,
    client_id: watch::Receiver<Option<String>>,
}

impl Socket {
    /// Connects and stays connected until the returned future is dropped.
    pub fn open(client: Client) -> (Self, impl Future<Output = ()>) {
        let (events, _) = broadcast::channel(EVENTS);
        let (id, client_id) = watch::channel(None);
        let socket = Self { events: events.clone(), client_id };
        (socket, stay_connected(client, events, id))
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// The id to queue prompts under, while connected.
    pub fn client_id(&self) -> Option<String> {
        self.client_id.borrow().clone()
    }

    /// Calls `told` whenever it is connected again: the server may be another one by then.
    pub async fn watch_reconnections(&self, told: impl Fn()) {
        let mut id = self.client_id.clone();
        let mut last: Option<String> = None;
        while let Ok(now) = id.wait_for(|id| id.is_some() && *id != last).await.map(|id| id.clone()) {
            if std::mem::replace(&mut last, now).is_some() {
                told();
            }
        }
    }

    /// Waits until connected, at most for `patience`.
    pub async fn connected(&self, patience: Duration) -> Option<String> {
        let mut id = self.client_id.clone();
        let waiting = id.wait_for(Option::is_some);
        match tokio::time::timeout(patience, waiting).await {
            Ok(Ok(id)) => id.clone(),
            _ => None,
        }
    }
}

async fn stay_connected(client: Client, events: broadcast::Sender<Event>, id: watch::Sender<Option<String>>) {
    let mut retry = FIRST_RETRY;
    loop {
        let client_id = uuid::Uuid::new_v4().simple().to_string();
        match talk(&client, &client_id, &events, &id).await {
            Ok(()) => retry = FIRST_RETRY,
            Err(error) => debug!(url = client.url(), %error, "no socket"),
        }
        if id.send_replace(None).is_some() {
            retry = FIRST_RETRY;
            warn!(url = client.url(), "the socket to ComfyUI has dropped");
        }
        tokio::time::sleep(retry.mul_f64(rand::random_range(0.5..1.0))).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

async fn talk(
    client: &Client,
    client_id: &str,
    events: &broadcast::Sender<Event>,
    id: &watch::Sender<Option<String>>,
) -> Result<(), Box<tokio_tungstenite::tungstenite::Error>> {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_FRAME)).max_frame_size(Some(MAX_FRAME));
    let connecting = connect_async_with_config(client.socket_url(client_id), Some(config), true);
    let Ok(connected) = tokio::time::timeout(CONNECT, connecting).await else { return Ok(()) };
    let (mut socket, _) = connected?;
    // Only the first message is looked at.
    let flags = json!({ "type": "feature_flags", "data": { "supports_preview_metadata": true } });
    socket.send(Message::text(flags.to_string())).await.map_err(Box::new)?;
    id.send_replace(Some(client_id.to_owned()));
    let mut running = PromptId::reported("");
    let mut ping = tokio::time::interval(PING);
    let mut heard = Instant::now();
    loop {
        let message = tokio::select! {
            message = socket.next() => match message {
                Some(message) => message,
                None => break,
            },
            _ = ping.tick() => {
                // A host that lost its power never closes its end.
                if heard.elapsed() > SILENCE {
                    break;
                }
                socket.send(Message::Ping(Vec::new().into())).await.map_err(Box::new)?;
                continue;
            }
        };
        heard = Instant::now();
        let event = match message.map_err(Box::new)? {
            Message::Text(text) => parse(text.as_bytes()).ok().and_then(|value| read_text(&value)),
            Message::Binary(bytes) => read_binary(&bytes, &running),
            Message::Close(_) => break,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
        };
        if let Some(event) = event {
            if matches!(event.what, Happening::Started) {
                running.clone_from(&event.prompt);
            }
            // Nobody listening is no mistake.
            let _ = events.send(event);
        }
    }
    Ok(())
}

fn read_text(message: &Value) -> Option<Event> {
    let data = &message["data"];
    let prompt = PromptId::reported(data["prompt_id"].as_str()?);
    let node = || data["node"].as_str().map(str::to_owned);
    let number = |name: &str| data[name].as_f64().unwrap_or(0.0);
    let what = match message["type"].as_str()? {
        "execution_start" => Happening::Started,
        "executing" => match data["display_node"].as_str().map(str::to_owned).or_else(node) {
            Some(node) => Happening::Executing { node },
            None => Happening::Ended,
        },
        "progress" => Happening::Progress { step: number("value"), steps: number("max") },
        "progress_state" => {
            let nodes = data["nodes"].as_object()?;
            Happening::Finished { nodes: nodes.values().filter(|node| node["state"] == "finished").count() }
        }
        _ => Happening::Other,
    };
    Some(Event { prompt, what })
}

/// Event 4 is a picture with metadata, event 1 one without: that belongs to whatever runs.
fn read_binary(bytes: &[u8], running: &PromptId) -> Option<Event> {
    let number = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (prompt, picture) = match number(0)? {
        1 => (running.to_owned(), bytes.get(8..)?),
        4 => {
            let length = number(4)? as usize;
            let about = parse(bytes.get(8..8_usize.checked_add(length)?)?).ok()?;
            (PromptId::reported(about["prompt_id"].as_str()?), bytes.get(8 + length..)?)
        }
        _ => return None,
    };
    // Custom nodes send other things under the same numbers.
    let media_type = match picture {
        [0xff, 0xd8, ..] => "image/jpeg",
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        _ => return None,
    };
    let what = Happening::Preview(PreviewPicture { media_type, bytes: picture.into() });
    (!prompt.is_empty()).then_some(Event { prompt, what })
}
