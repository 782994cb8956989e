//! A farm in a real Redis: everything that can be wrong with it is named, and what it loses is found again.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use hearth_client::{
    ClientError, FarmClient,
    v1::{JobState, ListJobsRequest},
};
use hearth_coordinator::{Config, Coordinator, driver::Standing};
use hearth_storage::Roots;
use hearth_telemetry::chain;
use hearth_tests::{
    clips,
    facility::{Facility, Plan},
    farm::{assert_right, finish, request, until},
    processes::{Process, free_port},
    proxy::Link,
    redis_server::{RedisServer, try_ask},
    reference::unsplit,
};
use hearth_workflows::{FrameRange, library::Library};

fn config(dir: &Path, store: &str) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut roots = Roots::default();
    for root in ["plates", "comps"] {
        fs::create_dir_all(dir.join(root)).expect("root");
        roots.insert(root, dir.join(root));
    }
    Config {
        listen: any,
        metrics_listen: any,
        store: store.parse().expect("address"),
        leader_lease_ms: 1_000,
        roots,
        ..Config::default()
    }
}

/// Why a coordinator does not start on this store.
async fn refusal(dir: &Path, store: &str) -> String {
    match Coordinator::start(&config(dir, store)).await {
        Ok(_) => panic!("a coordinator has started on {store}"),
        Err(error) => chain(&error),
    }
}

/// Starts a coordinator on this store and stops it again: it can live there.
async fn lives(config: &Config) {
    let coordinator = Coordinator::start(config).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(*coordinator.driver.standing().borrow(), Standing::Leading);
    coordinator.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_redis_that_a_farm_cannot_live_in_is_named_for_what_it_is() {
    let dir = tempfile::tempdir().expect("tempdir");
    let at = |name: &str| dir.path().join(name);
    let told = async |arguments: &[&str], name: &str| {
        let server = RedisServer::start_with(&at(name), arguments).await;
        let text = refusal(dir.path(), &server.url()).await;
        (server, text)
    };
    let (_, text) = told(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"], "cache").await;
    assert!(text.contains("may throw keys away (maxmemory-policy allkeys-lru)"), "{text}");
    let (_, text) = told(&["--cluster-enabled", "yes"], "cluster").await;
    assert!(text.contains("is a cluster"), "{text}");
    let (locked, text) = told(&["--requirepass", "secret"], "locked").await;
    assert!(text.contains("refuses user or password") && !text.contains("secret"), "{text}");
    let wrong = locked.url().replace("redis://", "redis://:wrong@");
    let text = refusal(dir.path(), &wrong).await;
    assert!(text.contains("refuses user or password") && !text.contains("wrong@"), "{text}");

    let primary = RedisServer::start(&at("primary")).await;
    let (_, text) = told(&["--replicaof", "127.0.0.1", &primary.port.to_string()], "replica").await;
    assert!(text.contains("read-only replica"), "{text}");
    lives(&config(dir.path(), &primary.url())).await;
    primary.ask::<i64>(&["HSET", "hearth:meta", "schema", "99"]).await;
    let text = refusal(dir.path(), &primary.url()).await;
    assert!(text.contains("has schema 99") && text.contains("update Hearth"), "{text}");
    primary.ask::<String>(&["FLUSHALL"]).await;
    primary.ask::<String>(&["SET", "hearth:fence", "mine"]).await;
    let text = refusal(dir.path(), &primary.url()).await;
    assert!(text.contains("something else under the farm's keys"), "{text}");
}

#[tokio::test]
async fn users_prefixes_and_tls_work() {
    let dir = tempfile::tempdir().expect("tempdir");
    let openssl = |arguments: &str| {
        let made = Command::new("openssl").args(arguments.split(' ')).current_dir(dir.path()).output();
        let made = made.expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=farm-ca");
    openssl("req -newkey rsa:2048 -nodes -keyout redis.key -out redis.csr -subj /CN=localhost");
    fs::write(dir.path().join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").expect("written");
    openssl(
        "x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out redis.pem -days 2 -extfile names",
    );
    let path = |name: &str| dir.path().join(name).display().to_string();
    let tls = free_port();
    let server = RedisServer::start_with(
        &dir.path().join("redis"),
        &[
            "--tls-port",
            &tls.to_string(),
            "--tls-cert-file",
            &path("redis.pem"),
            "--tls-key-file",
            &path("redis.key"),
            "--tls-ca-cert-file",
            &path("ca.pem"),
            "--tls-auth-clients",
            "no",
        ],
    )
    .await;
    // The rule that docs/redis.md gives.
    let rule = include_str!("../../docs/redis.md");
    let rule =
        rule.lines().find(|line| line.starts_with("ACL SETUSER ")).expect("docs/redis.md has the rule");
    let words: Vec<&str> = rule.split_whitespace().collect();
    server.ask::<String>(&words).await;
    let mut config = config(dir.path(), &format!("rediss://hearth:a-password@localhost:{tls}/0"));
    let text = match Coordinator::start(&config).await {
        Ok(coordinator) => {
            // Without the authority the server could be anybody: it must not be talked to.
            assert!(matches!(*coordinator.driver.standing().borrow(), Standing::Away { .. }));
            coordinator.stop().await.expect("stopped");
            String::new()
        }
        Err(error) => chain(&error),
    };
    assert!(!text.contains("a-password"), "{text}");
    config.store_ca = dir.path().join("ca.pem");
    lives(&config).await;
    // Another prefix is another farm; this user may only touch the one.
    config.store_prefix = "other:".to_owned();
    let text = match Coordinator::start(&config).await {
        Ok(_) => panic!("a forbidden prefix"),
        Err(error) => chain(&error),
    };
    assert!(text.contains("does not allow a command or key"), "{text}");
    config.store = server.url().parse().expect("address");
    lives(&config).await;
    let tags: Vec<Option<String>> = vec![
        server.ask(&["HGET", "hearth:meta", "tag"]).await,
        server.ask(&["HGET", "other:meta", "tag"]).await,
    ];
    assert!(tags[0].is_some() && tags[1].is_some() && tags[0] != tags[1], "{tags:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_by_sentinel_is_followed() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut primary = RedisServer::start(&dir.path().join("primary")).await;
    let replica = RedisServer::start_with(
        &dir.path().join("replica"),
        &["--appendonly", "yes", "--replicaof", "127.0.0.1", &primary.port.to_string()],
    )
    .await;
    let started = Instant::now();
    while !replica.ask::<String>(&["INFO", "replication"]).await.contains("master_link_status:up") {
        assert!(started.elapsed() < Duration::from_secs(20), "the replica does not follow");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let port = free_port();
    let file = dir.path().join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor hearth 127.0.0.1 {} 1\nsentinel down-after-milliseconds hearth 500\nsentinel failover-timeout hearth 3000\n",
        dir.path().display(),
        primary.port
    );
    fs::write(&file, text).expect("written");
    let mut command = Command::new("redis-server");
    command.arg(&file).arg("--sentinel");
    let _sentinel = Process::start(&mut command, &dir.path().join("sentinel.log"));
    let sentinel = format!("redis://127.0.0.1:{port}");
    // It must know of the replica before there is anything to fail over to.
    let started = Instant::now();
    loop {
        let known: redis::RedisResult<Vec<redis::Value>> =
            try_ask(&sentinel, &["SENTINEL", "REPLICAS", "hearth"]).await;
        if known.is_ok_and(|known| !known.is_empty()) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "the Sentinel finds no replica");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let text = refusal(dir.path(), &format!("redis+sentinel://127.0.0.1:{port}/nobody")).await;
    assert!(text.contains("know no primary called nobody"), "{text}");

    let config = config(dir.path(), &format!("redis+sentinel://127.0.0.1:{port}/hearth"));
    let coordinator = Coordinator::start(&config).await.expect("coordinator");
    let client = FarmClient::new(&format!("http://{}", coordinator.address)).expect("client");
    clips::make(&dir.path().join("plates/a"), 1..=4, 16, 9);
    let job = client.submit(request("a", "resize-sharpen", "a")).await.expect("accepted");
    let job = job.job.expect("a job").job_id;
    // Asynchronous replication: what the replica has not yet is what a fail-over loses.
    primary.ask::<i64>(&["WAIT", "1", "5000"]).await;
    primary.kill();
    let started = Instant::now();
    // The same one: of what was asked in the moment of the kill nobody knows whether it was done.
    let submission = hearth_client::v1::SubmitJobRequest {
        request_id: "b".to_owned(),
        ..request("a", "resize-sharpen", "b")
    };
    loop {
        match client.submit(submission.clone()).await {
            Ok(_) => break,
            Err(error) => {
                assert!(started.elapsed() < Duration::from_secs(30), "{error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    assert!(client.job(job).await.expect("still there").output.ends_with("/a"));
    assert!(replica.ask::<String>(&["INFO", "replication"]).await.contains("role:master"));
    coordinator.stop().await.expect("stopped");
}

/// A facility with a job in the middle of its work, and what it must look like in the end.
struct AtWork {
    facility: Facility,
    job: u64,
    expected: BTreeMap<hearth_workflows::Frame, image::DynamicImage>,
}

const FRAMES: i64 = 60;

async fn at_work(plan: Plan) -> AtWork {
    let facility = Facility::start(plan).await;
    let clip = facility.path("plates/sh010");
    clips::make(&clip, 1..=FRAMES, 32, 18);
    let library = Library::read::<&str>(&[]);
    let workflow = library.get("temporal-smooth").expect("shipped");
    let range = FrameRange::new(1, FRAMES).expect("range");
    let expected = unsplit(workflow, &BTreeMap::new(), &clip, range).await;
    let submission = hearth_client::v1::SubmitJobRequest {
        chunk_frames: 3,
        ..request("sh010", "temporal-smooth", "sh010")
    };
    let job = facility.client.submit(submission).await.expect("accepted").job.expect("a job").job_id;
    until(&facility.client, job, |job| {
        let counts = job.counts.unwrap_or_default();
        counts.done > 8 && counts.running > 0
    })
    .await;
    AtWork { facility, job, expected }
}

impl AtWork {
    /// The job ends right, and no frame was begun twice but the `again` that may have been.
    async fn ends_right(&self, again: u64) {
        let (ended, failures) = finish(&self.facility.client, self.job).await;
        assert_eq!(ended.state(), JobState::Done, "{}: {failures:?}", ended.message);
        let started = Instant::now();
        while !clips::leftovers(&self.facility.path("comps")).is_empty() {
            assert!(started.elapsed() < Duration::from_secs(10));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_right(&self.facility.path("comps"), "sh010", &self.expected);
        let begun = hearth_tests::faults::begun(&self.facility.agents_said());
        let most = FRAMES as u64 + again;
        assert!(begun <= most, "{begun} frames were begun, though only {again} of {FRAMES} were in flight");
        let check = self.facility.hearth(&["farm", "check", "--store", &self.facility.redis.url()]);
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_work_goes_on_and_submitting_says_try_again() {
    let mut work = at_work(Plan { coordinators: 2, seconds_per_frame: 0.5, ..Plan::default() }).await;
    work.facility.redis.kill();
    let submission = request("sh010", "resize-sharpen", "other");
    let started = Instant::now();
    let error = loop {
        match work.facility.client.submit(submission.clone()).await {
            Err(ClientError::Refused { message, .. }) if message.contains("nothing was changed") => {
                break message;
            }
            other => assert!(started.elapsed() < Duration::from_secs(10), "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(error.contains("does not answer") && error.contains("try again"), "{error}");
    // Chunks go on: their results wait beside the agents.
    let waiting = || {
        let results = |agent: usize| {
            let folders =
                fs::read_dir(work.facility.path(&format!("agent{agent}"))).into_iter().flatten().flatten();
            folders.flat_map(|node| fs::read_dir(node.path().join("results")).into_iter().flatten()).count()
        };
        results(0) + results(1)
    };
    let started = Instant::now();
    while waiting() == 0 {
        assert!(started.elapsed() < Duration::from_secs(20), "no result waits");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    work.facility.redis.restart().await;
    work.ends_right(0).await;
    let jobs = work.facility.client.jobs(ListJobsRequest::default()).await.expect("jobs");
    assert_eq!(jobs.total, 1, "something was half-submitted: {jobs:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_loses_nothing_and_goes_on_when_there_is_room() {
    let work = at_work(Plan { coordinators: 1, seconds_per_frame: 0.5, ..Plan::default() }).await;
    work.facility.redis.ask::<String>(&["CONFIG", "SET", "maxmemory", "1kb"]).await;
    let submission = request("sh010", "resize-sharpen", "other");
    let started = Instant::now();
    let error = loop {
        match work.facility.client.submit(submission.clone()).await {
            Err(ClientError::Refused { message, .. }) if message.contains("is full") => break message,
            Ok(accepted) => panic!("there is no room for {accepted:?}"),
            other => assert!(started.elapsed() < Duration::from_secs(10), "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(error.contains("raise its maxmemory"), "{error}");
    work.facility.redis.ask::<String>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    work.ends_right(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_loses_everything_gets_it_back_from_the_leader() {
    let work = at_work(Plan { coordinators: 1, seconds_per_frame: 0.4, ..Plan::default() }).await;
    work.facility.redis.ask::<String>(&["FLUSHALL"]).await;
    work.ends_right(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_loses_everything_gets_it_back_from_whoever_leads_next() {
    let mut work = at_work(Plan { coordinators: 2, seconds_per_frame: 0.4, ..Plan::default() }).await;
    let leader = work.facility.wait_for_leader().await;
    let hearth = |facility: &Facility, line: &str| {
        let ran = facility.hearth(&line.split(' ').collect::<Vec<_>>());
        let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
        assert!(ran.status.success(), "{line}: {said}");
        said
    };
    for line in [
        "preset save soft -w film-look -p grain=0.3 --user anna",
        "preset save soft -w film-look -p grain=0.7 --user anna",
        "preset save hard -w film-look -p grain=0 --user anna",
        "preset delete hard --user anna",
    ] {
        hearth(&work.facility, line);
    }
    // The other has heard of all that, once it hears of what was later.
    let follower = FarmClient::new(&work.facility.coordinators[1 - leader].link.url()).expect("client");
    let done = |job: &hearth_client::v1::Job| job.counts.unwrap_or_default().done;
    let before = done(&work.facility.client.job(work.job).await.expect("the job"));
    until(&follower, work.job, |job| done(job) > before).await;
    // What it has heard of is all that there is. It may not have heard of the chunk that a node was given last: that one
    // is begun again.
    work.facility.coordinators[leader].process.kill();
    work.facility.redis.ask::<String>(&["FLUSHALL"]).await;
    work.ends_right(6 * 3).await;
    assert!(
        hearth(&work.facility, "preset list --user anna").lines().count() == 2
            && hearth(&work.facility, "preset diff soft --user anna") == "grain: 0.3 -> 0.7\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_loses_its_latest_writes_is_reconciled_with_storage() {
    let mut work = at_work(Plan { coordinators: 2, seconds_per_frame: 0.2, ..Plan::default() }).await;
    // An older copy of the append-only file, and no coordinator that remembers more.
    let folder = work.facility.path("redis/appendonlydir");
    let copy = work.facility.path("copy");
    copy_folder(&folder, &copy);
    let done = |job: &hearth_client::v1::Job| job.counts.unwrap_or_default().done;
    // Most of the job is done meanwhile: far more than is in flight.
    let latest = until(&work.facility.client, work.job, |job| done(job) >= 42).await;
    for member in &mut work.facility.coordinators {
        member.process.kill();
    }
    work.facility.redis.kill();
    fs::remove_dir_all(&folder).expect("removed");
    fs::rename(&copy, &folder).expect("put back");
    work.facility.redis.restart().await;
    (0..2).for_each(|index| work.facility.restart_coordinator(index));
    // What was not done when everything died may be begun again, and nothing else.
    work.ends_right(FRAMES as u64 - done(&latest)).await;
    let log: String = work.facility.coordinators.iter().map(|member| member.process.said()).collect();
    assert!(log.contains("every open job is looked up on storage first"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_farm_whose_every_record_is_lost_is_recovered_from_storage() {
    let mut work = at_work(Plan { coordinators: 1, seconds_per_frame: 0.4, ..Plan::default() }).await;
    work.facility.coordinators[0].process.kill();
    work.facility.redis.ask::<String>(&["FLUSHALL"]).await;
    let comps = work.facility.path("comps").display().to_string();
    let store = work.facility.redis.url();
    // A frame that is not whole any more must be made again.
    let spoilt = spoil_one(&work.facility.path("comps"));
    let recovered = work.facility.hearth(&["farm", "recover", "--store", &store, &comps]);
    let said = String::from_utf8_lossy(&recovered.stderr).into_owned();
    assert!(recovered.status.success(), "{said}");
    assert!(said.contains(&format!("job {}: ", work.job)) && said.contains("1 jobs recovered"), "{said}");
    assert!(!said.contains(": 0 of "), "HEARTH_ROOTS is not heard: {said}");
    // Not twice over the same store.
    let again = work.facility.hearth(&["farm", "recover", "--store", &store, &comps]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("has a farm already"));
    work.facility.restart_coordinator(0);
    assert!(spoilt.exists());
    // No record says what the nodes hold: until the last of them is back, what it holds may be given to another,
    // and then to one more.
    work.ends_right(2 * 6 * 2 * 3 + 3).await;
}

/// Cuts one finished frame short.
fn spoil_one(comps: &Path) -> std::path::PathBuf {
    let work = clips::leftovers(comps).pop().expect("work under way");
    let mut chunks = fs::read_dir(comps.join(work)).expect("work folder").flatten().map(|entry| entry.path());
    let chunk = chunks.find(|path| path.join("chunk.json").is_file()).expect("a published chunk");
    let pass =
        fs::read_dir(&chunk).expect("chunk").flatten().map(|entry| entry.path()).find(|path| path.is_dir());
    let mut frames = fs::read_dir(pass.expect("a pass")).expect("pass").flatten().map(|entry| entry.path());
    let frame = frames.next().expect("a frame");
    let bytes = fs::read(&frame).expect("read");
    // The agent has linked it from ComfyUI's output: another file under this name, as a broken disk leaves it.
    fs::remove_file(&frame).expect("removed");
    fs::write(&frame, &bytes[..bytes.len() / 2]).expect("written");
    frame
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_farm_moves_between_redis_and_a_file() {
    let mut work = at_work(Plan { coordinators: 1, seconds_per_frame: 0.4, ..Plan::default() }).await;
    let redis = work.facility.redis.url();
    let (there, back) = (work.facility.path("there.json"), work.facility.path("back.json"));
    let (there, back) = (there.display().to_string(), back.display().to_string());
    let file = work.facility.path("farm.redb").display().to_string();
    let ok = |arguments: &[&str]| {
        let done = work.facility.hearth(arguments);
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    // Reading does no harm while a leader is at work; writing is refused.
    ok(&["farm", "export", "--store", &redis, &there]);
    let led = work.facility.hearth(&["farm", "import", "--store", &redis, &there]);
    assert!(String::from_utf8_lossy(&led.stderr).contains("leads this farm"));
    work.facility.coordinators[0].process.kill();
    let ok = |arguments: &[&str]| {
        let done = work.facility.hearth(arguments);
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    ok(&["farm", "export", "--store", &redis, &there]);
    ok(&["farm", "import", "--store", &file, &there]);
    let checked = ok(&["farm", "check", "--store", &file, "--json"]);
    let checked: serde_json::Value = serde_json::from_str(&checked).expect("json");
    assert_eq!((&checked["whole"], &checked["open_jobs"]), (&true.into(), &1.into()), "{checked}");
    ok(&["farm", "export", "--store", &file, &back]);
    let values = |path: &str| -> Vec<serde_json::Value> {
        let text = fs::read_to_string(path).expect("exported");
        text.lines().map(|line| serde_json::from_str(line).expect("json")).collect()
    };
    assert_eq!(values(&there), values(&back));
    // Back into an emptied Redis, where the job goes on.
    work.facility.redis.ask::<String>(&["FLUSHALL"]).await;
    ok(&["farm", "import", "--store", &redis, &back]);
    // A file that was cut off is no farm.
    let text = fs::read_to_string(&back).expect("exported");
    fs::write(&back, &text[..text.len() / 2]).expect("written");
    let cut = work.facility.hearth(&["farm", "import", "--store", &file, &back]);
    assert!(!cut.status.success());
    work.facility.restart_coordinator(0);
    work.ends_right(6 * 2 * 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_follow_send_readers_and_writers_to_the_leader() {
    let work = at_work(Plan { coordinators: 2, seconds_per_frame: 0.5, ..Plan::default() }).await;
    let leader = work.facility.wait_for_leader().await;
    let follower = &work.facility.coordinators[1 - leader];
    // A client that only knows the one who follows goes where it is sent.
    let client = FarmClient::new(&follower.link.url()).expect("client");
    let view = until(&client, work.job, |job| job.counts.unwrap_or_default().done > 10).await;
    assert_eq!(view.name, "sh010/plate");
    let nodes = client.nodes().await.expect("nodes");
    assert_eq!(nodes.len(), 6);
    assert!(nodes.iter().all(|node| !node.device.is_empty()), "{nodes:?}");
    // A watch hears chunks finish, and the end.
    let watching = tokio::spawn({
        let (client, job) = (FarmClient::new(&follower.link.url()).expect("client"), work.job);
        async move {
            let (mut watch, mut chunks, mut last) = (client.watch(job, false), 0, None);
            while let Some(update) = watch.next().await.expect("goes on") {
                match update {
                    hearth_client::v1::watch_job_response::Update::ChunkFinished(_) => chunks += 1,
                    hearth_client::v1::watch_job_response::Update::Job(job) => last = Some(job.state()),
                    _ => {}
                }
            }
            (chunks, last)
        }
    });
    client.submit(request("sh010", "resize-sharpen", "other")).await.expect("sent on to the leader");
    // The leader is cut off from Redis; the other takes over, and nobody notices.
    work.facility.coordinators[leader].to_redis.set(Link::Silent);
    // The other job has as many frames.
    work.ends_right(FRAMES as u64 + 6 * 2 * 3).await;
    work.facility.coordinators[leader].to_redis.set(Link::Whole);
    let (chunks, last) = watching.await.expect("watched");
    assert!(chunks > 0 && last == Some(JobState::Done), "{chunks} {last:?}");
    assert_eq!(work.facility.wait_for_leader().await, 1 - leader);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_a_moment_before_redis_is_emptied_is_there_after_it() {
    let work = at_work(Plan { coordinators: 2, seconds_per_frame: 0.5, ..Plan::default() }).await;
    let client = &work.facility.client;
    for round in 0..4 {
        let mut jobs = Vec::new();
        for job in 0..3 {
            let output = format!("round{round}_{job}");
            let submitted =
                client.submit(request("sh010", "resize-sharpen", &output)).await.expect("accepted");
            jobs.push((submitted.job.expect("a job").job_id, output));
        }
        // The one who follows may not have heard of the last of them.
        work.facility.redis.ask::<String>(&["FLUSHALL"]).await;
        work.facility.wait_for_leader().await;
        for (job, output) in jobs {
            let found = client.job(job).await.expect("it was acknowledged");
            assert_eq!(found.output, format!("comps/{output}"));
            client
                .control(
                    job,
                    hearth_client::v1::control_job_request::Action::Cancel(
                        hearth_client::v1::Cancel::default(),
                    ),
                )
                .await
                .expect("it is there");
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).expect("folder").flatten() {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

/// By hand, or by a policy that throws keys away: what the leader has is written again, before a restart shows that it is
/// not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_somebody_removes_are_written_again() {
    let mut work = at_work(Plan { coordinators: 1, seconds_per_frame: 0.3, ..Plan::default() }).await;
    let is_back = async |work: &AtWork, key: &str| {
        let started = Instant::now();
        while work.facility.redis.ask::<u32>(&["EXISTS", key]).await == 0 {
            assert!(started.elapsed() < Duration::from_secs(20), "{key} is not written again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    for key in ["hearth:jobs", "hearth:meta"] {
        assert_eq!(work.facility.redis.ask::<u32>(&["DEL", key]).await, 1, "{key}");
        is_back(&work, key).await;
    }
    // Something else in its place: told by name, and over as soon as it is gone.
    work.facility.redis.ask::<u32>(&["DEL", "hearth:jobs"]).await;
    work.facility.redis.ask::<String>(&["SET", "hearth:jobs", "mine"]).await;
    let started = Instant::now();
    while !work.facility.coordinators[0].process.said().contains("holds something else under the farm's keys")
    {
        assert!(started.elapsed() < Duration::from_secs(20), "it is not told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    work.facility.redis.ask::<u32>(&["DEL", "hearth:jobs"]).await;
    is_back(&work, "hearth:jobs").await;
    work.facility.restart_coordinator(0);
    work.ends_right(6 * 2 * 3).await;
}
