//! Is the ComfyUI there, and what can it do?

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hearth_proto::{names, v1::Capabilities};
use hearth_telemetry::chain;
use serde_json::Value;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use super::{client::Client, error::ComfyError, folders};

/// Versions of ComfyUI that the contract tests and the comparisons of every release were run with.
pub const TESTED: [&str; 2] = ["0.19.3", "0.33.0"];

/// How often a server that is there is asked.
const PERIOD: Duration = Duration::from_secs(2);

/// How often one that is away is asked.
const AWAY_PERIOD: Duration = Duration::from_millis(500);

/// How often one that is there is asked what it offers: files come and go while it runs.
const OFFER_PERIOD: Duration = Duration::from_secs(60);

/// Answers missed before it counts as away: a busy event loop may miss one.
const MISSES: u32 = 2;

/// A change of a node's health.
#[derive(Debug, Clone)]
pub enum Health {
    /// It has come (back): what it can do now.
    Up(Box<Offer>),
    /// It is there as before, but offers something else by now.
    Changed(Box<Offer>),
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
    /// Of everything that it says of its node classes: the files that an input may name stand only there.
    digest: Digest,
}

type Digest = [u8; 32];

/// Reports every change of the server's health, the first state included, until nobody listens. `refresh`: what it
/// offers is asked at once.
pub async fn watch_health(client: Client, refresh: Arc<Notify>, changes: mpsc::Sender<Health>) {
    let mut up: Option<Digest> = None;
    let mut reported_down = false;
    let mut misses = 0;
    let mut offered_at = Instant::now();
    loop {
        let mut change = None;
        if let Some(digest) = up {
            let asked = if offered_at.elapsed() < OFFER_PERIOD {
                client.ping().await.map(|()| None)
            } else {
                offered_at = Instant::now();
                offer(&client).await.map(Some)
            };
            match asked {
                Ok(offer) => {
                    misses = 0;
                    if let Some(offer) = offer.filter(|offer| offer.digest != digest) {
                        up = Some(offer.digest);
                        change = Some(Health::Changed(Box::new(offer)));
                    }
                }
                Err(error) => {
                    // One that was waited for so long is no slip.
                    misses += if error.is_silence() { MISSES } else { 1 };
                    if misses >= MISSES {
                        up = None;
                        reported_down = true;
                        change = Some(Health::Down { reason: chain(&error) });
                    }
                }
            }
        } else {
            match offer(&client).await {
                Ok(offer) => {
                    (up, misses, offered_at) = (Some(offer.digest), 0, Instant::now());
                    change = Some(Health::Up(Box::new(offer)));
                }
                Err(error) if !std::mem::replace(&mut reported_down, true) => {
                    change = Some(Health::Down { reason: chain(&error) });
                }
                Err(_) => {}
            }
        }
        if let Some(change) = change
            && changes.send(change).await.is_err()
        {
            return;
        }
        let pause = if up.is_some() && misses == 0 { PERIOD } else { AWAY_PERIOD };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = refresh.notified() => offered_at = Instant::now().checked_sub(OFFER_PERIOD).unwrap_or(offered_at),
        }
    }
}

/// What the server says of itself. Pools, roots, ffmpeg and what both see are the agent's to add.
async fn offer(client: &Client) -> Result<Offer, ComfyError> {
    // What follows may take its time, with thousands of files; whether anybody is there must not.
    client.ping().await?;
    let stats = client.system_stats().await?;
    let object_info = client.object_info().await?;
    let classes: Vec<String> =
        object_info.as_object().into_iter().flatten().map(|(class, _)| class.clone()).collect();
    let mut models = client.models().await.unwrap_or_default();
    models.sort_unstable();
    let device = &stats["devices"][0];
    let digest = digest_of(&object_info, &models, &stats);
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
    Ok(Offer { capabilities, names: named.into(), digest })
}

/// Maps have an order of their own in `serde_json`, so that the same answer always has the same digest.
fn digest_of(object_info: &Value, models: &[String], stats: &Value) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(object_info.to_string().as_bytes());
    // Of the rest, free memory is another one every time.
    let device = &stats["devices"][0];
    for said in [&device["name"], &device["vram_total"], &stats["system"]["comfyui_version"]] {
        hasher.update(said.to_string().as_bytes()).update(b"\n");
    }
    models.iter().for_each(|model| {
        hasher.update(model.as_bytes()).update(b"\n");
    });
    *hasher.finalize().as_bytes()
}
