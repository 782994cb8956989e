//! Everything that can be set. `docs/configuration.md` lists it.

use std::{collections::BTreeMap, env, net::SocketAddr, path::PathBuf, time::Duration};

use hearth_storage::Roots;
use hearth_telemetry::{LogFormat, host_name};
use serde::{Deserialize, Serialize};

use crate::{
    farm::{FarmConfig, LimitPolicy, ShowPolicy},
    store::{RedisOptions, StoreAddress},
};

/// Of one coordinator. Each field can stand in the file, as `HEARTH_<FIELD>`, or as a flag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients and agents connect.
    pub listen: SocketAddr,
    /// `/metrics` and `/healthz`.
    pub metrics_listen: SocketAddr,
    /// Where the farm is kept: a file, or a Redis.
    pub store: StoreAddress,
    /// Before every key in Redis, so that two farms can share one.
    pub store_prefix: String,
    /// PEM file of the authority that has signed the Redis server's certificate; empty: the system's.
    pub store_ca: PathBuf,
    /// How long a leader is believed without being heard of, in milliseconds.
    pub leader_lease_ms: u64,
    /// Where clients and agents reach this coordinator, as `http://host:port`; empty: this host's name and the
    /// port of `listen`.
    pub advertise: String,
    /// Storage roots of this host, by name.
    pub roots: Roots,
    /// Folders with workflow folders.
    pub workflows: Vec<PathBuf>,
    /// How long an attempt lives without being heard of, in seconds.
    pub lease_seconds: u64,
    /// How often agents are to be heard of, in milliseconds.
    pub heartbeat_ms: u32,
    /// How long a chunk should keep a node busy, in seconds.
    pub target_chunk_seconds: u64,
    /// Frames of the first chunk on a node that never ran the workflow.
    pub first_chunk_frames: u64,
    /// Failures after which a frame is given up.
    pub max_tries: u32,
    /// How long a node that failed a job leaves it alone at first, in milliseconds.
    pub retry_delay_ms: u64,
    /// How long a node that fails one job after another gets no work at first, in seconds.
    pub quarantine_seconds: u64,
    /// A chunk that has taken so many seconds more than 1.8 times what it should is given to another node, too.
    pub late_seconds: u64,
    /// What shows have had counts half after so many minutes.
    pub half_life_minutes: u64,
    /// Shows that are not like the others, by name.
    pub shows: BTreeMap<String, ShowPolicy>,
    /// What there is only so much of: licences, quotas; by name.
    pub limits: BTreeMap<String, LimitPolicy>,
    /// Ended jobs are forgotten after so many hours.
    pub keep_ended_hours: u64,
    /// What a cancelled job has rendered is kept for so many hours, in which `hearth retry` takes it up again.
    pub keep_cancelled_hours: u64,
    pub log_format: LogFormat,
    /// OTLP endpoint for traces, e.g. `http://localhost:4317`.
    pub otlp_endpoint: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        let farm = FarmConfig::default();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7400)),
            metrics_listen: SocketAddr::from(([127, 0, 0, 1], 7401)),
            store: StoreAddress::File(state_home().join("hearth/farm.redb")),
            store_prefix: "hearth:".to_owned(),
            store_ca: PathBuf::new(),
            leader_lease_ms: 3_000,
            advertise: String::new(),
            roots: Roots::default(),
            workflows: Vec::new(),
            lease_seconds: farm.lease.as_secs(),
            heartbeat_ms: 5_000,
            target_chunk_seconds: farm.target_chunk.as_secs(),
            first_chunk_frames: farm.first_chunk_frames,
            max_tries: farm.max_tries,
            retry_delay_ms: farm.retry_delay.as_millis() as u64,
            quarantine_seconds: farm.quarantine.as_secs(),
            late_seconds: farm.late.as_secs(),
            half_life_minutes: farm.half_life.as_secs() / 60,
            shows: farm.shows,
            limits: farm.limits,
            keep_ended_hours: farm.keep_ended.as_secs() / 3600,
            keep_cancelled_hours: farm.keep_cancelled.as_secs() / 3600,
            log_format: LogFormat::Text,
            otlp_endpoint: None,
        }
    }
}

impl Config {
    /// How long a leader is believed without being heard of.
    pub fn leader_lease(&self) -> Duration {
        Duration::from_millis(self.leader_lease_ms.max(500))
    }

    /// What the store needs to know when it is a Redis.
    pub fn redis(&self, address: SocketAddr) -> RedisOptions {
        RedisOptions {
            prefix: self.store_prefix.clone(),
            certificate: (!self.store_ca.as_os_str().is_empty()).then(|| self.store_ca.clone()),
            lease: self.leader_lease(),
            advertise: self.advertised(address),
        }
    }

    /// Where clients and agents reach this coordinator, which listens at `address`.
    pub fn advertised(&self, address: SocketAddr) -> String {
        if !self.advertise.is_empty() {
            return self.advertise.clone();
        }
        if !address.ip().is_unspecified() {
            return format!("http://{address}");
        }
        format!("http://{}:{}", host_name(), address.port())
    }

    pub fn farm(&self) -> FarmConfig {
        FarmConfig {
            lease: Duration::from_secs(self.lease_seconds.max(1)),
            target_chunk: Duration::from_secs(self.target_chunk_seconds.max(1)),
            first_chunk_frames: self.first_chunk_frames.max(1),
            max_tries: self.max_tries.max(1),
            retry_delay: Duration::from_millis(self.retry_delay_ms),
            quarantine: Duration::from_secs(self.quarantine_seconds.max(1)),
            late: Duration::from_secs(self.late_seconds),
            keep_ended: Duration::from_secs(self.keep_ended_hours * 3600),
            keep_cancelled: Duration::from_secs(self.keep_cancelled_hours * 3600),
            half_life: Duration::from_secs(self.half_life_minutes.max(1) * 60),
            shows: self.shows.clone(),
            limits: self.limits.clone(),
            ..FarmConfig::default()
        }
    }
}

fn state_home() -> PathBuf {
    let set = env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    set.or_else(|| env::home_dir().map(|home| home.join(".local/state"))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_are_named_in_the_file_as_they_are_written() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("coordinator.toml");
        let text = "half_life_minutes = 30\n[shows.DUNE_2]\nweight = 2.0\nmax_nodes = 40\n[limits.nuke]\nfarm = 10\nhost = 2\n[shows.\"late show\"]\npreemptible = true\n";
        std::fs::write(&file, text).expect("written");
        let flags: BTreeMap<String, String> = BTreeMap::new();
        let config: Config = hearth_telemetry::configure("coordinator", Some(file), &flags).expect("read");
        let farm = config.farm();
        let dune = ShowPolicy { weight: 2.0, max_nodes: 40, ..ShowPolicy::default() };
        assert_eq!(farm.limits.get("nuke"), Some(&LimitPolicy { farm: 10, host: 2 }));
        assert_eq!(farm.shows.get("DUNE_2"), Some(&dune));
        assert!(farm.shows["late show"].preemptible);
        assert_eq!(farm.half_life, Duration::from_secs(1800));
    }
}
