//! Is the ComfyUI there, and what can it do?

use std::time::Duration;

use hearth_proto::v1::Capabilities;
use hearth_telemetry::chain;
use tokio::sync::mpsc;

use super::client::{Client, ComfyError};

/// How often a server that is there is asked.
const PERIOD: Duration = Duration::from_secs(2);

/// How often one that is away is asked.
const AWAY_PERIOD: Duration = Duration::from_millis(500);

/// Answers missed before it counts as away: a busy event loop may miss one.
const MISSES: u32 = 2;

/// A change of a node's health.
#[derive(Debug, Clone)]
pub enum Health {
    /// It has come (back): what it can do now.
    Up(Box<Capabilities>),
    Down {
        reason: String,
    },
}

/// Tells every change of the server's health, the first state included, until nobody listens.
pub async fn watch_health(client: Client, changes: mpsc::Sender<Health>) {
    let mut up: Option<bool> = None;
    let mut misses = 0;
    loop {
        let (now_up, change) = if up == Some(true) {
            match client.ping().await {
                Ok(()) => {
                    misses = 0;
                    (true, None)
                }
                Err(_) if misses + 1 < MISSES => {
                    misses += 1;
                    (true, None)
                }
                Err(error) => (false, Some(Health::Down { reason: chain(&error) })),
            }
        } else {
            match capabilities(&client).await {
                Ok(capabilities) => (true, Some(Health::Up(Box::new(capabilities)))),
                Err(_) if up == Some(false) => (false, None),
                Err(error) => (false, Some(Health::Down { reason: chain(&error) })),
            }
        };
        up = Some(now_up);
        if let Some(change) = change {
            misses = 0;
            if changes.send(change).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(if now_up && misses == 0 { PERIOD } else { AWAY_PERIOD }).await;
    }
}

/// What the server says of itself. Pools and roots are the agent's to add.
async fn capabilities(client: &Client) -> Result<Capabilities, ComfyError> {
    let stats = client.system_stats().await?;
    let classes = client.object_info().await?;
    let models = client.models().await.unwrap_or_default();
    let device = &stats["devices"][0];
    Ok(Capabilities {
        node_classes: classes.as_object().into_iter().flatten().map(|(class, _)| class.clone()).collect(),
        models,
        device: device["name"].as_str().unwrap_or("").to_owned(),
        vram_bytes: device["vram_total"].as_u64().unwrap_or(0),
        comfyui_version: stats["system"]["comfyui_version"].as_str().map(str::to_owned).unwrap_or_default(),
        pools: Vec::new(),
        roots: Vec::new(),
    })
}
