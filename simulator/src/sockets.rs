//! Who is told what. One socket a client id; nothing is buffered for those who are not there.

use std::{collections::HashMap, sync::Mutex};

use serde_json::Value;
use tokio::sync::mpsc;

/// Messages that wait for one socket; more are lost, as on a stalled client.
const QUEUE: usize = 8_192;

/// A message for a socket.
#[derive(Debug, Clone)]
pub enum Message {
    Text(String),
    Binary(Vec<u8>),
    Close,
}

#[derive(Debug)]
struct Socket {
    messages: mpsc::Sender<Message>,
    /// Whether it asked for previews with metadata.
    metadata: bool,
}

/// The open sockets by client id.
#[derive(Debug, Default)]
pub struct Sockets(Mutex<HashMap<String, Socket>>);

impl Sockets {
    /// A socket of `client`; it takes the place of an earlier one.
    pub fn open(&self, client: &str) -> mpsc::Receiver<Message> {
        let (messages, receiver) = mpsc::channel(QUEUE);
        self.with(|sockets| sockets.insert(client.to_owned(), Socket { messages, metadata: false }));
        receiver
    }

    /// The client's socket has closed. As in ComfyUI, this unregisters whatever socket the client has by
    /// now.
    pub fn closed(&self, client: &str) {
        self.with(|sockets| sockets.remove(client));
    }

    pub fn wants_metadata(&self, client: &str) {
        self.with(|sockets| {
            if let Some(socket) = sockets.get_mut(client) {
                socket.metadata = true;
            }
        });
    }

    pub fn has_metadata(&self, client: &str) -> bool {
        self.with(|sockets| sockets.get(client).is_some_and(|socket| socket.metadata))
    }

    /// To one client, if it is there.
    pub fn tell(&self, client: &str, kind: &str, data: &Value) {
        self.send(client, &text(kind, data));
    }

    /// To the owner of a prompt, or to everybody when nobody owns it.
    pub fn tell_owner_or_all(&self, owner: Option<&str>, kind: &str, data: &Value) {
        match owner {
            Some(owner) => self.tell(owner, kind, data),
            None => self.tell_all(kind, data),
        }
    }

    pub fn tell_all(&self, kind: &str, data: &Value) {
        self.send_all(&text(kind, data));
    }

    pub fn send(&self, client: &str, message: &Message) {
        self.with(|sockets| {
            if let Some(socket) = sockets.get(client) {
                // A full queue means a stalled client: it misses this.
                let _ = socket.messages.try_send(message.clone());
            }
        });
    }

    pub fn send_all(&self, message: &Message) {
        self.with(|sockets| {
            for socket in sockets.values() {
                let _ = socket.messages.try_send(message.clone());
            }
        });
    }

    /// Closes every socket.
    pub fn drop_all(&self) {
        self.send_all(&Message::Close);
        self.with(HashMap::clear);
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<String, Socket>) -> T) -> T {
        // A panic elsewhere leaves the map as it was: whole.
        work(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn text(kind: &str, data: &Value) -> Message {
    Message::Text(serde_json::json!({ "type": kind, "data": data }).to_string())
}
