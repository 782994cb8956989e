//! The farm in Redis, for several coordinators of which one leads.
//!
//! Redis is the record and never the judge: one process writes, no decision reads an index back, and every
//! write is refused unless it comes from the leader with the newest epoch and continues exactly what was
//! written before (the *revision*, which counts groups). So a leader that was paused, and a Redis that has
//! forgotten something, are both noticed by the next write.

mod address;
mod error;
mod layout;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rand::RngExt as _;
use redis::{Script, aio::MultiplexedConnection};
use tracing::{info, warn};

use super::{Changed, Epoch, Group, Happened, Lead, News, Store, StoreError, Trust};
use crate::farm::{Key, Record, RecordError};

use address::Server;
pub use address::{AddressError, RedisAddress};
pub use error::RedisError;
use layout::{Layout, place_of, record_of};

/// Records that are looked up at once for one who follows; more, and it loads everything instead.
const MOST_FOLLOWED: usize = 20_000;

/// Records asked for in one round trip of a load.
const LOADED_AT_ONCE: usize = 500;

/// Maximum epoch and revision: far below 2^53, up to which every whole number is exact in the numbers of Redis' scripts.
const MOST_COUNTED: u64 = 1 << 50;

/// What a store in Redis needs to know beside the address.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Before every key, so that two farms can share a Redis.
    pub prefix: String,
    /// PEM file of the authority that has signed the server's certificate; `None`: the system's.
    pub certificate: Option<PathBuf>,
    /// How long a leader is believed without being heard of.
    pub lease: Duration,
    /// Where clients and agents reach this coordinator.
    pub advertise: String,
}

/// A farm's records in Redis.
pub struct Redis {
    address: RedisAddress,
    certificate: Option<Vec<u8>>,
    layout: Layout,
    lease: Duration,
    advertise: String,
    /// A random name of this leader-to-be.
    holder: String,
    scripts: Scripts,
    connection: Option<MultiplexedConnection>,
    server: Server,
    /// Groups written when the records were last in step with this process.
    revision: u64,
    /// The greatest revision ever seen.
    highest: u64,
    /// The greatest epoch ever seen.
    epoch: u64,
    /// The epoch when the records were last in step with this process.
    copied: u64,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Fields of a hash and their values.
type Pairs = Vec<(String, String)>;

/// Epoch and revision.
type Fence = (Option<u64>, Option<u64>);

/// Members of a sorted set and their scores.
type Scores = Vec<(String, f64)>;

fn call(script: &Script) -> redis::Cmd {
    let mut call = redis::cmd("EVALSHA");
    call.arg(script.get_hash());
    call
}

struct Scripts {
    lead: Script,
    keep: Script,
    commit: Script,
    follow: Script,
}

const LEAD: &str = include_str!("lead.lua");
const KEEP: &str = include_str!("keep.lua");
const COMMIT: &str = include_str!("commit.lua");
const FOLLOW: &str = include_str!("follow.lua");

impl Scripts {
    fn new() -> Self {
        Self {
            lead: Script::new(LEAD),
            keep: Script::new(KEEP),
            commit: Script::new(COMMIT),
            follow: Script::new(FOLLOW),
        }
    }

    fn all(&self) -> [(&Script, &'static str); 4] {
        [(&self.lead, LEAD), (&self.keep, KEEP), (&self.commit, COMMIT), (&self.follow, FOLLOW)]
    }
}

impl Redis {
    /// Nothing is asked of the Redis yet.
    pub fn new(address: RedisAddress, options: RedisOptions) -> Result<Self, StoreError> {
        let certificate = options
            .certificate
            .map(|path| std::fs::read(&path).map_err(|source| RedisError::Certificate { path, source }));
        let mut rng = rand::rng();
        Ok(Self {
            address,
            certificate: certificate.transpose()?,
            layout: Layout { prefix: options.prefix },
            lease: options.lease,
            advertise: options.advertise,
            holder: format!("{:016x}", rng.random::<u64>()),
            scripts: Scripts::new(),
            connection: None,
            server: Server::default(),
            revision: 0,
            highest: 0,
            epoch: 0,
            copied: 0,
        })
    }

    /// How long an answer may take. Half a lease: then there is still time to notice and to try again.
    fn patience(&self) -> Duration {
        (self.lease / 2).clamp(Duration::from_millis(250), Duration::from_secs(5))
    }

    async fn connection(&mut self) -> Result<MultiplexedConnection, StoreError> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let (mut connection, server) =
            self.address.connect(self.certificate.as_deref(), self.patience()).await?;
        for (script, text) in self.scripts.all() {
            // Not `Script::load_async`, which panics when it is told another digest.
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(text);
            let loaded = load.query_async::<String>(&mut connection).await;
            let digest = loaded.map_err(|error| RedisError::of(&self.address, error))?;
            if digest != script.get_hash() {
                return Err(
                    RedisError::NoSense { server: self.address.to_string(), what: "SCRIPT LOAD" }.into()
                );
            }
        }
        if server.run_id != self.server.run_id {
            info!(redis = %self.address, "connected");
            if !server.appends {
                warn!(
                    redis = %self.address,
                    "this Redis keeps no append-only file: its death loses what came after its last snapshot; set appendonly yes"
                );
            }
        }
        self.server = server;
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    /// A connection that has failed is not used again: the next one asks anew where the primary is.
    fn told<T>(&mut self, answer: redis::RedisResult<T>) -> Result<T, StoreError> {
        answer.map_err(|error| {
            self.connection = None;
            RedisError::of(&self.address, error).into()
        })
    }

    /// Refuses an epoch or revision that no farm reaches: another command's answer, or one that was damaged on its way.
    fn counted(&mut self, number: Option<u64>, what: &'static str) -> Result<u64, StoreError> {
        match number {
            Some(number) if number <= MOST_COUNTED => Ok(number),
            _ => Err(self.no_sense(what)),
        }
    }

    /// Drops the connection: nobody knows which questions its next answers belong to.
    fn no_sense(&mut self, what: &'static str) -> StoreError {
        self.connection = None;
        RedisError::NoSense { server: self.address.to_string(), what }.into()
    }

    /// `jobs`: as in [`Store::keep`]; `None`: whatever is in it.
    async fn keep_for(
        &mut self,
        epoch: Epoch,
        milliseconds: u128,
        settled: bool,
        jobs: Option<usize>,
    ) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let mut call = call(&self.scripts.keep);
        call.arg(4);
        ["fence", "leader", "meta", "jobs"].iter().for_each(|name| {
            call.arg(self.layout.key(name));
        });
        call.arg(epoch.0).arg(&self.holder).arg(&self.advertise).arg(milliseconds.to_string());
        call.arg(if settled { self.server.run_id.as_str() } else { "" }).arg(self.revision);
        call.arg(jobs.map(|jobs| jobs.to_string()).unwrap_or_default());
        let answer = call.query_async::<String>(&mut connection).await;
        judge(&self.told(answer)?)
    }
}

fn judge(answer: &str) -> Result<(), StoreError> {
    match answer {
        "ok" => Ok(()),
        "deposed" => Err(StoreError::Deposed),
        // `lost`: not even the fence is left.
        _ => Err(StoreError::Behind),
    }
}

impl Store for Redis {
    async fn lead(&mut self) -> Result<Lead, StoreError> {
        let mut connection = self.connection().await?;
        let mut call = call(&self.scripts.lead);
        call.arg(2).arg(self.layout.key("fence")).arg(self.layout.key("leader"));
        call.arg(&self.holder).arg(&self.advertise).arg(self.lease.as_millis().to_string()).arg(self.epoch);
        let answer = call.query_async::<Vec<String>>(&mut connection).await;
        let answer = self.told(answer)?;
        let (epoch, found, server, before) = match &answer[..] {
            [theirs, address @ ..] if theirs == "theirs" => {
                return Ok(Lead::Theirs { address: address.first().cloned().unwrap_or_default() });
            }
            [ours, epoch, found, server, before] if ours == "ours" => {
                let mut count = |text: &str| self.counted(text.parse().ok(), "the call to lead");
                (count(epoch)?, count(found)?, server, count(before)?)
            }
            _ => return Err(self.no_sense("the call to lead")),
        };
        if epoch <= self.epoch {
            return Err(self.no_sense("the call to lead"));
        }
        self.epoch = epoch;
        let trust = if found < self.highest && before <= self.copied {
            Trust::Behind
        } else if found < self.highest {
            // Another has led since, without what Redis had lost: what is remembered here is another history.
            self.highest = found;
            Trust::Suspect
        } else if !server.is_empty() && *server != self.server.run_id {
            Trust::Suspect
        } else {
            Trust::Whole
        };
        self.copied = self.epoch;
        Ok(Lead::Ours { epoch: Epoch(self.epoch), trust })
    }

    async fn load(&mut self) -> Result<BTreeMap<Key, Record>, StoreError> {
        let mut connection = self.connection().await?;
        // Read before the records: what changes meanwhile is told by the next look.
        let mut first = redis::pipe();
        first.hmget(self.layout.key("fence"), &["epoch", "revision"]);
        first.hgetall(self.layout.key("meta")).hgetall(self.layout.key("nodes"));
        first.hgetall(self.layout.key("attempts"));
        first.hgetall(self.layout.key("shares")).hgetall(self.layout.key("paces"));
        first.hgetall(self.layout.key("presets"));
        first.smembers(self.layout.key("workflows")).smembers(self.layout.key("jobs"));
        let answer = first.query_async(&mut connection).await;
        let first: (Fence, Pairs, Pairs, Pairs, Pairs, Pairs, Pairs, Vec<String>, Vec<String>) =
            self.told(answer)?;
        let ((epoch, revision), meta, nodes, attempts, shares, paces, presets, workflows, jobs) = first;
        let mut records = BTreeMap::new();
        let mut insert = |key: String, record: Record| -> Result<(), RecordError> {
            records.insert(key.parse()?, record);
            Ok(())
        };
        if !meta.is_empty() {
            insert("meta".to_owned(), record_of(meta))?;
        }
        if !shares.is_empty() {
            insert("shares".to_owned(), record_of(shares))?;
        }
        for (id, record) in paces {
            insert(format!("pace:{id}"), Record(record))?;
        }
        for (name, record) in nodes {
            insert(format!("node:{name}"), Record(record))?;
        }
        for (id, record) in presets {
            insert(format!("preset:{id}"), Record(record))?;
        }
        for (id, record) in attempts {
            insert(format!("attempt:{id}"), Record(record))?;
        }
        for some in workflows.chunks(LOADED_AT_ONCE) {
            let mut ask = redis::pipe();
            for id in some {
                ask.hgetall(self.layout.key(&format!("workflow:{id}")));
            }
            let answer = ask.query_async::<Vec<Pairs>>(&mut connection).await;
            for (id, fields) in some.iter().zip(self.told(answer)?) {
                if !fields.is_empty() {
                    insert(format!("workflow:{id}"), record_of(fields))?;
                }
            }
        }
        for some in jobs.chunks(LOADED_AT_ONCE) {
            let mut ask = redis::pipe();
            for id in some {
                ask.hgetall(self.layout.key(&format!("job:{id}:spec")));
                ask.hgetall(self.layout.key(&format!("job:{id}")));
                ask.hgetall(self.layout.key(&format!("job:{id}:pieces")));
            }
            let answer = ask.query_async::<Vec<Pairs>>(&mut connection).await;
            let mut answers = self.told(answer)?.into_iter();
            for id in some {
                let mut next = || answers.next().unwrap_or_default();
                for kind in ["spec", "job"] {
                    let fields = next();
                    if !fields.is_empty() {
                        insert(format!("{kind}:{id}"), record_of(fields))?;
                    }
                }
                for (number, record) in next() {
                    insert(format!("piece:{id}-{number}"), Record(record))?;
                }
            }
        }
        let (copied, revision) = (epoch.or(Some(0)), revision.or(Some(0)));
        self.copied = self.counted(copied, "the question for the fence")?;
        self.revision = self.counted(revision, "the question for the fence")?;
        self.highest = self.highest.max(self.revision);
        Ok(records)
    }

    async fn commit(&mut self, epoch: Epoch, group: Arc<Group>) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let next = self.highest + 1;
        let mut call = call(&self.scripts.commit);
        call.arg(2).arg(self.layout.key("fence")).arg(self.layout.key("leader"));
        call.arg(epoch.0).arg(&self.holder).arg(self.revision).arg(next);
        call.arg(self.lease.as_millis().to_string());
        self.layout.append(&mut call, epoch, next, &group);
        let answer = call.query_async::<String>(&mut connection).await;
        judge(&self.told(answer)?)?;
        (self.revision, self.highest) = (next, next);
        Ok(())
    }

    async fn catch_up(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let mut ask = redis::cmd("HMGET");
        ask.arg(self.layout.key("fence")).arg(&["epoch", "holder", "revision"]);
        let answer = ask.query_async(&mut connection).await;
        let fence: (Option<u64>, Option<String>, Option<u64>) = self.told(answer)?;
        let (Some(found), holder, revision) = fence else { return Err(StoreError::Behind) };
        if holder.as_ref() != Some(&self.holder) || found < epoch.0 {
            return Err(StoreError::Deposed);
        }
        if found > epoch.0 {
            // This coordinator had begun to lead again, and did not hear the answer.
            return Err(StoreError::Behind);
        }
        let next = self.highest + 1;
        match revision {
            Some(revision) if revision == next => {
                (self.revision, self.highest) = (next, next);
                Ok(())
            }
            Some(revision) if revision == self.revision => Ok(()),
            _ => Err(StoreError::Behind),
        }
    }

    async fn keep(&mut self, epoch: Epoch, settled: bool, jobs: usize) -> Result<(), StoreError> {
        self.keep_for(epoch, self.lease.as_millis(), settled, Some(jobs)).await
    }

    async fn resign(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        self.keep_for(epoch, 0, false, None).await
    }

    async fn follow(&mut self) -> Result<News, StoreError> {
        let mut connection = self.connection().await?;
        let mut call = call(&self.scripts.follow);
        call.arg(3);
        ["fence", "leader", "events"].iter().for_each(|name| {
            call.arg(self.layout.key(name));
        });
        call.arg(&self.layout.prefix).arg(self.revision).arg(MOST_FOLLOWED);
        let answer = call.query_async(&mut connection).await;
        let news: (u64, u64, String, String, Vec<String>, Vec<redis::Value>, Vec<String>) =
            self.told(answer)?;
        let (revision, epoch, leader, kind, keys, values, events) = news;
        let revision = self.counted(Some(revision), "the question for news")?;
        let epoch = self.counted(Some(epoch), "the question for news")?;
        self.epoch = self.epoch.max(epoch);
        let leader = (!leader.is_empty()).then_some(leader);
        match kind.as_str() {
            "reset" => return Ok(News { leader, changed: Changed::Everything }),
            // Another leads since, without what Redis had lost: what is remembered here is another history.
            "behind" if epoch > self.copied => {
                self.highest = revision;
                return Ok(News { leader, changed: Changed::Everything });
            }
            "behind" => return Ok(News { leader, changed: Changed::Behind }),
            _ => {}
        }
        let mut group = Group::default();
        for (key, value) in keys.iter().zip(values) {
            let key: Key = key.parse()?;
            let record = match &key {
                Key::Attempt(_) | Key::Piece(_) | Key::Node(_) | Key::Pace(_) | Key::Preset(_) => {
                    let text = redis::from_redis_value::<Option<String>>(value);
                    self.told(text.map_err(Into::into))?.map(Record)
                }
                Key::Meta | Key::Shares | Key::Workflow(_) | Key::Spec(_) | Key::Job(_) => {
                    let fields = redis::from_redis_value::<Vec<(String, String)>>(value);
                    let fields = self.told(fields.map_err(Into::into))?;
                    (!fields.is_empty()).then(|| record_of(fields))
                }
            };
            group.changes.push((key, record));
        }
        group.changes.sort_by(|(a, _), (b, _)| a.cmp(b));
        for events in events {
            // Another version's events are not worth failing for: the records tell the rest.
            group.events.extend(serde_json::from_str::<Vec<Happened>>(&events).unwrap_or_default());
        }
        (self.revision, self.copied) = (revision, epoch);
        self.highest = self.highest.max(revision);
        Ok(News { leader, changed: Changed::Some(group) })
    }

    async fn check_indexes(&mut self, records: &BTreeMap<Key, Record>) -> Result<Vec<String>, StoreError> {
        let mut connection = self.connection().await?;
        let mut ask = redis::pipe();
        ask.zrange_withscores(self.layout.key("queue"), 0, -1);
        ask.zrange_withscores(self.layout.key("ended"), 0, -1);
        ask.smembers(self.layout.key("jobs"));
        let answer = ask.query_async::<(Scores, Scores, BTreeSet<String>)>(&mut connection).await;
        let (queue, ended, jobs) = self.told(answer)?;
        let (mut queued, mut over, mut known) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        for (key, record) in records {
            let Key::Job(id) = key else { continue };
            let place = place_of(record);
            queued.extend(place.waits_at.map(|priority| (id.to_string(), priority)));
            over.extend(place.ended.map(|time| (id.to_string(), time)));
            known.insert(id.to_string());
        }
        let mut wrong = Vec::new();
        for (name, found, expected) in [("queue", queue, queued), ("ended", ended, over)] {
            let found: BTreeMap<String, u64> =
                found.into_iter().map(|(job, score)| (job, score as u64)).collect();
            if found != expected {
                wrong.push(format!(
                    "{} does not list what the jobs say; it leads people astray, and nothing else",
                    self.layout.key(name)
                ));
            }
        }
        for job in jobs.difference(&known) {
            wrong.push(format!("{} lists job {job}, which has no record", self.layout.key("jobs")));
        }
        Ok(wrong)
    }
}
