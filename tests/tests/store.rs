//! One suite for every kind of store: what is true of one is true of the other.

#[path = "../../coordinator/tests/support/mod.rs"]
mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hearth_coordinator::{
    farm::{
        AssignedWork, AttemptId, Command, Edit, Effect, FailureKind, Farm, JobFilter, Key, NodeName, Outcome,
        Priority, Record, Session, Step, Timestamp, invariants,
    },
    store::{Changed, Embedded, Epoch, Group, Happened, Lead, Redis, RedisOptions, Store, StoreError, Trust},
};
use hearth_tests::redis_server::RedisServer;
use hearth_workflows::FrameSet;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use support::{hello, snapshot, submission, workflow};

const LEASE: Duration = Duration::from_millis(600);

fn redis(server: &RedisServer, prefix: &str, advertise: &str) -> Redis {
    let options = RedisOptions {
        prefix: prefix.to_owned(),
        certificate: None,
        lease: LEASE,
        advertise: advertise.to_owned(),
    };
    Redis::new(server.url().parse().expect("address"), options).expect("store")
}

async fn lead(store: &mut impl Store) -> Epoch {
    match store.lead().await.expect("the store answers") {
        Lead::Ours { epoch, .. } => epoch,
        Lead::Theirs { address } => panic!("{address} leads"),
    }
}

fn group(changes: Vec<(Key, Option<Record>)>) -> Arc<Group> {
    Arc::new(Group { changes, events: Vec::new() })
}

fn record(text: &str) -> Option<Record> {
    Some(Record(text.to_owned()))
}

/// What holds for any store, given one that is empty.
async fn suite(store: &mut impl Store) {
    assert!(store.load().await.expect("load").is_empty());
    let old = lead(store).await;
    store.commit(old, group(vec![(Key::Meta, record(r#"{"schema":1}"#))])).await.expect("commit");
    // The same group once more, as after an answer that did not arrive.
    store.commit(old, group(vec![(Key::Meta, record(r#"{"schema":1}"#))])).await.expect("commit");
    let node = Key::Node("host: 1\"{}".into());
    let job: Key = "job:7".parse().expect("key");
    let attempt: Key = "attempt:7-3".parse().expect("key");
    let everything = vec![
        (node.clone(), record(r#"{"drained":true}"#)),
        (job.clone(), record(r#"{"phase":"rendering","paused":false,"waiting":"7","priority":60,"x":null}"#)),
        ("spec:7".parse().expect("key"), record(r#"{"name":"12","clip":"plates/a.%04d.png"}"#)),
        ("piece:7-2".parse().expect("key"), record(r#"{"frames":"1-4"}"#)),
        (attempt.clone(), record(r#"{"node":"a"}"#)),
        ("workflow:abc".parse().expect("key"), record(r#"{"graph":"{\"1\": {}}"}"#)),
        ("preset:user/anna b./soft key".parse().expect("key"), record(r#"{"versions":[]}"#)),
    ];
    store.commit(old, group(everything.clone())).await.expect("commit");
    let mut expected: BTreeMap<Key, Option<Record>> = everything.into_iter().collect();
    expected.insert(Key::Meta, record(r#"{"schema":1}"#));
    let loaded: BTreeMap<Key, Option<Record>> =
        store.load().await.expect("load").into_iter().map(|(key, record)| (key, Some(record))).collect();
    assert_eq!(loaded, expected);

    // A new leader; the old one is refused, and nothing of its group is written.
    store.resign(old).await.expect("resigned");
    let new = lead(store).await;
    assert!(new > old);
    let refused = store.commit(old, group(vec![(attempt.clone(), None)])).await;
    assert!(matches!(refused, Err(StoreError::Deposed)), "{refused:?}");
    assert!(store.load().await.expect("load").contains_key(&attempt));
    store.keep(new, true, 0).await.expect("kept");
    let nothing = expected.into_keys().map(|key| (key, None)).collect();
    store.commit(new, group(nothing)).await.expect("commit");
    assert!(store.load().await.expect("load").is_empty());
}

#[tokio::test]
async fn a_file_keeps_what_it_is_given() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("farm.redb");
    let mut store = Embedded::open(&path).expect("open");
    suite(&mut store).await;
    // One file, one process.
    assert!(matches!(Embedded::open(&path), Err(StoreError::InUse { .. })));
}

#[tokio::test]
async fn redis_keeps_what_it_is_given() {
    let dir = tempfile::tempdir().expect("tempdir");
    let server = RedisServer::start(dir.path()).await;
    // Two farms share it.
    suite(&mut redis(&server, "hearth:", "http://a")).await;
    let mut other = redis(&server, "other:", "http://a");
    suite(&mut other).await;
    let left: Vec<String> = server.ask(&["KEYS", "*"]).await;
    let bookkeeping = ["fence", "leader", "events"];
    assert!(left.iter().all(|key| bookkeeping.iter().any(|kept| key.ends_with(kept))), "{left:?}");
}

/// A farm that is told things at random, with its records as a leader would commit them.
struct Life {
    rng: SmallRng,
    farm: Farm,
    now: u64,
    jobs: u32,
    session: u64,
    held: Vec<(Session, NodeName, AttemptId, FrameSet)>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let farm = Farm::new(support::config(), hearth_coordinator::farm::FarmTag("t".to_owned()));
        Self { rng: SmallRng::seed_from_u64(seed), farm, now: 1, jobs: 0, session: 0, held: Vec::new() }
    }

    /// Something happens; the changes it brings.
    fn happens(&mut self) -> Group {
        self.now += self.rng.random_range(1..3_000);
        let jobs: Vec<_> = self.farm.jobs(&JobFilter { limit: 100, ..JobFilter::default() }).0;
        let some_job = jobs.get(self.rng.random_range(0..=jobs.len())).map(|job| job.id);
        let command = match (self.rng.random_range(0..12), some_job) {
            (0 | 1, _) => {
                self.jobs += 1;
                let name = ["resize-sharpen", "temporal-smooth"][self.rng.random_range(0..2)];
                let frames = format!("1-{}", self.rng.random_range(1..60));
                let submission = submission(
                    &format!("job{}", self.jobs),
                    &frames,
                    self.rng.random_range(0..=100),
                    &workflow(name),
                );
                Command::Submit(Box::new(submission))
            }
            (2 | 3, _) => {
                self.session += 1;
                hello(self.session, &format!("node{}", self.rng.random_range(0..4)), 2)
            }
            (4, Some(job)) => Command::Pause(job),
            (5, Some(job)) => Command::Resume(job),
            (6, Some(job)) if self.rng.random_bool(0.3) => Command::Cancel(job),
            // A spec gets members that it had not, and loses them again.
            (7, Some(job)) if self.rng.random_bool(0.5) => {
                let max_nodes = Some(self.rng.random_range(0..2));
                Command::Edit(job, Box::new(Edit { max_nodes, ..Edit::default() }))
            }
            (7, Some(job)) => {
                Command::SetPriority(job, Priority::new(self.rng.random_range(0..=100)).expect("valid"))
            }
            (8, Some(job)) => Command::Retry(job),
            _ if !self.held.is_empty() => {
                let at = self.rng.random_range(0..self.held.len());
                let (session, node, attempt, frames) = self.held.swap_remove(at);
                let outcome = if self.rng.random_bool(0.2) {
                    let kind = FailureKind::Execution;
                    Outcome::Failed { kind, message: "12".to_owned(), frames: FrameSet::new() }
                } else {
                    Outcome::Succeeded { seconds: 0.5, published: None }
                };
                Command::Result { session, node, attempt, frames, outcome }
            }
            _ => Command::Tick,
        };
        self.does(command)
    }

    fn does(&mut self, command: Command) -> Group {
        let step = self.farm.apply(Timestamp(self.now), command);
        self.take(&step);
        let keys: std::collections::BTreeSet<Key> = step.changes.into_iter().collect();
        let changes = keys.into_iter().map(|key| (key.clone(), self.farm.record(&key))).collect();
        let events = step.effects.into_iter().filter_map(|effect| match effect {
            Effect::Job { job, event } => Some(Happened { cursor: self.now, job, event }),
            _ => None,
        });
        Group { changes, events: events.collect() }
    }

    fn take(&mut self, step: &Step) {
        for effect in &step.effects {
            if let Effect::Assign { session, assignment } = effect {
                let id = assignment.attempt;
                let holder =
                    self.farm.nodes().into_iter().find(|node| node.attempts.iter().any(|held| held.id == id));
                let frames = match &assignment.work {
                    AssignedWork::Chunk(frames) => frames.clone(),
                    AssignedWork::Assembly(_) | AssignedWork::Delivery | AssignedWork::CleanUp => {
                        FrameSet::new()
                    }
                };
                if let Some(holder) = holder {
                    self.held.push((*session, holder.about.name, id, frames));
                }
            }
        }
    }
}

/// Any sequence of commits and reloads gives the same farm, in a file, in Redis, and with one who follows.
#[tokio::test]
async fn any_commits_and_reloads_give_the_same_farm() {
    let dir = tempfile::tempdir().expect("tempdir");
    let server = RedisServer::start(dir.path()).await;
    let first: u64 = std::env::var("HEARTH_SEED").map_or(0, |seed| seed.parse().expect("a number"));
    for seed in first..first + 12 {
        println!("replay with HEARTH_SEED={seed}");
        let mut file = Embedded::open(&dir.path().join(format!("{seed}.redb"))).expect("open");
        let prefix = format!("farm{seed}:");
        let (mut leader, mut follower) =
            (redis(&server, &prefix, "http://leader"), redis(&server, &prefix, "http://follower"));
        let (in_file, mut in_redis) = (lead(&mut file).await, lead(&mut leader).await);
        let mut life = Life::new(seed);
        let begun = life.farm.keys().into_iter().map(|key| (key.clone(), life.farm.record(&key))).collect();
        let begun = group(begun);
        file.commit(in_file, begun.clone()).await.expect("commit");
        leader.commit(in_redis, begun).await.expect("commit");
        let mut copy: Option<Farm> = None;
        for _ in 0..150 {
            let done = Arc::new(life.happens());
            if !done.changes.is_empty() {
                file.commit(in_file, done.clone()).await.expect("commit");
                leader.commit(in_redis, done).await.expect("commit");
            }
            let whole = snapshot(&life.farm);
            let now = Timestamp(life.now);
            match life.rng.random_range(0..10) {
                // One who follows looks.
                0..4 => {
                    let news = follower.follow().await.expect("news");
                    assert_eq!(news.leader.as_deref(), Some("http://leader"));
                    match news.changed {
                        Changed::Some(changed) if copy.is_some() => {
                            let farm = copy.as_mut().expect("there");
                            let changes = changed.changes.iter().map(|(key, record)| (key, record.as_ref()));
                            farm.absorb(now, changes).expect("understood");
                        }
                        Changed::Behind => panic!("nothing was lost"),
                        _ => {
                            let records = follower.load().await.expect("load");
                            copy = Farm::restore(now, support::config(), &records).expect("a farm");
                        }
                    }
                    let copy = copy.as_ref().expect("there");
                    assert_eq!(snapshot(copy), whole);
                    invariants::check(copy).expect("whole");
                }
                // A new leader loads.
                4 => {
                    let (from_file, from_redis) =
                        (file.load().await.expect("load"), leader.load().await.expect("load"));
                    assert_eq!(from_file, whole);
                    assert_eq!(from_redis, whole);
                    assert_eq!(
                        leader.check_indexes(&from_redis).await.expect("looked"),
                        Vec::<String>::new()
                    );
                    leader.resign(in_redis).await.expect("resigned");
                    in_redis = lead(&mut leader).await;
                    life.farm =
                        Farm::restore(now, support::config(), &from_redis).expect("a farm").expect("a farm");
                    let back = Arc::new(life.does(Command::Disconnected));
                    if !back.changes.is_empty() {
                        file.commit(in_file, back.clone()).await.expect("commit");
                        leader.commit(in_redis, back).await.expect("commit");
                    }
                    life.held.clear();
                }
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn one_leads_until_it_resigns_or_is_not_heard_of() {
    let dir = tempfile::tempdir().expect("tempdir");
    let server = RedisServer::start(dir.path()).await;
    let (mut a, mut b) = (redis(&server, "hearth:", "http://a"), redis(&server, "hearth:", "http://b"));
    let first = lead(&mut a).await;
    assert_eq!(b.lead().await.expect("answer"), Lead::Theirs { address: "http://a".to_owned() });
    a.resign(first).await.expect("resigned");
    let second = lead(&mut b).await;
    assert!(second > first);
    // The one that was led by before is refused, whatever it tries.
    let refused = a.commit(first, group(vec![(Key::Meta, None)])).await;
    assert!(matches!(refused, Err(StoreError::Deposed)), "{refused:?}");
    assert!(matches!(a.keep(first, true, 0).await, Err(StoreError::Deposed)));
    assert_eq!(a.lead().await.expect("answer"), Lead::Theirs { address: "http://b".to_owned() });
    // B is not heard of: its lease runs out by itself.
    let waited = std::time::Instant::now();
    while matches!(a.lead().await.expect("answer"), Lead::Theirs { .. }) {
        assert!(waited.elapsed() < LEASE * 4, "the lease does not run out");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(matches!(b.commit(second, group(vec![(Key::Meta, None)])).await, Err(StoreError::Deposed)));
}

#[tokio::test]
async fn what_redis_has_lost_is_noticed_by_the_next_write() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut server = RedisServer::start(dir.path()).await;
    let mut store = redis(&server, "hearth:", "http://a");
    let epoch = lead(&mut store).await;
    let meta = |n: u32| group(vec![(Key::Meta, record(&format!(r#"{{"n":{n}}}"#)))]);
    store.commit(epoch, meta(1)).await.expect("commit");
    store.keep(epoch, true, 0).await.expect("kept");
    server.ask::<String>(&["CONFIG", "SET", "appendfsync", "no"]).await;
    // A restart that loses nothing: everything goes on, but a new leader would look twice.
    server.restart().await;
    let mut other = redis(&server, "hearth:", "http://b");
    store.resign(epoch).await.expect_err("the connection is gone");
    store.resign(epoch).await.expect("resigned");
    assert!(matches!(other.lead().await.expect("answer"), Lead::Ours { trust: Trust::Suspect, .. }));
    let epoch = lead(&mut other).await;
    other.load().await.expect("load");
    other.commit(epoch, meta(2)).await.expect("commit");
    other.keep(epoch, true, 0).await.expect("kept");
    assert!(matches!(other.lead().await.expect("answer"), Lead::Ours { trust: Trust::Whole, .. }));
    let epoch = lead(&mut other).await;
    // The last group is forgotten.
    server.ask::<i64>(&["HSET", "hearth:fence", "revision", "1"]).await;
    assert!(matches!(other.commit(epoch, meta(3)).await, Err(StoreError::Behind)));
    assert!(matches!(other.keep(epoch, true, 0).await, Err(StoreError::Behind)));
    assert!(matches!(other.lead().await.expect("answer"), Lead::Ours { trust: Trust::Behind, .. }));
    // Everything is forgotten.
    server.ask::<String>(&["FLUSHALL"]).await;
    assert!(matches!(other.commit(epoch, meta(3)).await, Err(StoreError::Behind)));
    assert!(matches!(other.lead().await.expect("answer"), Lead::Ours { trust: Trust::Behind, .. }));
}
