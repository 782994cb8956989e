//! Is the ComfyUI there, and what can it do?

use std::{collections::BTreeMap, time::Duration};

use hearth_proto::{names, v1::Capabilities};
use hearth_telemetry::chain;
use tokio::sync::mpsc;

use super::{
    client::{Client, ComfyError},
    folders,
};

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
    Up(Box<Offer>),
    Down {
        reason: String,
    },
}

/// What a ComfyUI offers: its node classes and models by digest, and the names behind them for a coordinator
/// that has not met them.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    pub capabilities: Capabilities,
    /// By digest.
    pub names: BTreeMap<String, Vec<String>>,
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
            match offer(&client).await {
                Ok(offer) => (true, Some(Health::Up(Box::new(offer)))),
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

/// What the server says of itself. Pools, roots, ffmpeg and what both see are the agent's to add.
async fn offer(client: &Client) -> Result<Offer, ComfyError> {
    let stats = client.system_stats().await?;
    let classes: Vec<String> = client
        .object_info()
        .await?
        .as_object()
        .into_iter()
        .flatten()
        .map(|(class, _)| class.clone())
        .collect();
    let models = client.models().await.unwrap_or_default();
    let device = &stats["devices"][0];
    let named = [classes, models].map(|all| (names::digest(all.iter().map(String::as_str)), all));
    let capabilities = Capabilities {
        node_classes_digest: named[0].0.clone(),
        models_digest: named[1].0.clone(),
        device: device["name"].as_str().unwrap_or("").to_owned(),
        vram_bytes: device["vram_total"].as_u64().unwrap_or(0),
        comfyui_version: stats["system"]["comfyui_version"].as_str().map(str::to_owned).unwrap_or_default(),
        pools: Vec::new(),
        roots: Vec::new(),
        ffmpeg: false,
        saves_to_paths: folders::output(&stats).is_some(),
    };
    Ok(Offer { capabilities, names: named.into() })
}
