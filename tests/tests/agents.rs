//! The agents' side of the contract, spoken by hand.

use std::time::{SystemTime, UNIX_EPOCH};

use hearth_agent::NodeConfig;
use hearth_client::v1::{
    self, FailureKind, JobState, NodeState, attach_request::Message as Say, attach_response::Message as Order,
};
use hearth_proto::names::digest;
use hearth_tests::{
    clips,
    farm::{Farm, Setup, finish, request, until},
};
use hearth_workflows::library::Library;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// One node's stream.
struct Node {
    say: mpsc::Sender<v1::AttachRequest>,
    orders: tonic::Streaming<v1::AttachResponse>,
}

impl Node {
    async fn attach(farm: &Farm, name: &str, names: &[Vec<String>; 2]) -> Self {
        let url = format!("http://{}", farm.coordinator.address);
        let mut client = v1::agents_client::AgentsClient::connect(url).await.expect("connected");
        let (say, said) = mpsc::channel(8);
        let [node_classes_digest, models_digest] =
            names.each_ref().map(|names| digest(names.iter().map(String::as_str)));
        let hello = v1::Hello {
            node: name.to_owned(),
            capabilities: Some(v1::Capabilities {
                node_classes_digest,
                models_digest,
                pools: vec!["spoken".to_owned()],
                roots: vec!["plates".to_owned(), "comps".to_owned()],
                ..v1::Capabilities::default()
            }),
            readiness: Some(v1::NodeReadiness { slots: 1, ..v1::NodeReadiness::default() }),
            ..v1::Hello::default()
        };
        say.send(v1::AttachRequest { message: Some(Say::Hello(hello)) }).await.expect("room");
        let orders = client.attach(ReceiverStream::new(said)).await.expect("attached").into_inner();
        let mut node = Self { say, orders };
        assert!(matches!(node.hears().await, Order::Welcome(_)));
        node
    }

    async fn hears(&mut self) -> Order {
        self.orders.message().await.expect("goes on").expect("a message").message.expect("known")
    }

    async fn tells(&self, names: &[String]) {
        let names = Say::Names(v1::Names { names: names.to_vec() });
        self.say.send(v1::AttachRequest { message: Some(names) }).await.expect("room");
    }
}

/// A farm of a thousand like nodes would be told a hundred names by each of them whenever a coordinator starts.
#[tokio::test]
async fn names_are_told_once_for_all_nodes_and_no_node_works_before_its_own_are_known() {
    let farm = Farm::start(Setup::default()).await;
    clips::make(&farm.path("plates/sh010"), 1..=4, 8, 8);
    let pool = "spoken".to_owned();
    let submission = v1::SubmitJobRequest {
        chunk_frames: 1,
        pool,
        anyway: true,
        ..request("sh010", "resize-sharpen", "out")
    };
    farm.client.submit(submission).await.expect("accepted");
    let library = Library::read::<&str>(&[]);
    let classes = library.get("resize-sharpen").expect("shipped").needed_classes();
    let names = [classes.into_iter().map(str::to_owned).collect(), vec!["vae/some.safetensors".to_owned()]];

    let mut first = Node::attach(&farm, "first", &names).await;
    let Order::WantNames(v1::WantNames { digests }) = first.hears().await else { panic!("it is asked") };
    assert_eq!(digests.len(), 2);
    let listed = async |name: &str| {
        let nodes = farm.client.nodes().await.expect("nodes");
        nodes.into_iter().find(|node| node.name == name).expect("listed")
    };
    let node = listed("first").await;
    assert_eq!(node.state(), NodeState::Unready, "{node:?}");
    assert!(node.message.contains("names of its node classes"), "{node:?}");
    // What nobody asked for is nothing.
    first.tells(&["SomethingElse".to_owned()]).await;
    first.tells(&names[1]).await;
    first.tells(&names[0]).await;
    while !matches!(first.hears().await, Order::Assignment(_)) {}

    // The same by another: nothing is asked.
    let mut second = Node::attach(&farm, "second", &names).await;
    loop {
        match second.hears().await {
            Order::Assignment(_) => break,
            Order::WantNames(want) => panic!("asked again: {want:?}"),
            _ => {}
        }
    }
    // It offers less than the workflow needs: asked for what is new only, and given no work.
    let less = [vec!["ImageScale".to_owned()], names[1].clone()];
    let mut third = Node::attach(&farm, "third", &less).await;
    let Order::WantNames(v1::WantNames { digests }) = third.hears().await else { panic!("it is asked") };
    assert_eq!(digests, [digest(["ImageScale"])]);
    third.tells(&less[0]).await;
    while listed("third").await.state() != NodeState::Idle {
        tokio::task::yield_now().await;
    }
    farm.stop().await;
}

/// A workstation works in its hours only, and says when those are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workstation_joins_in_its_hours() {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    // 1970 began on a Thursday. Three days from now it is another day in every time zone.
    let days = ["thu", "fri", "sat", "sun", "mon", "tue", "wed"];
    let other_day = days[((seconds / 86_400 + 3) % 7) as usize];
    let farm = Farm::start(Setup {
        tune_agent: Box::new(move |config| {
            let node = |name: &str, hours: &str| NodeConfig {
                name: name.to_owned(),
                hours: Some(hours.parse().expect("hours")),
                ..config.nodes[0].clone()
            };
            let (off, on) = (node("off", other_day), node("on", "mon-sun 00:00-24:00"));
            config.nodes.extend([off, on]);
        }),
        ..Setup::default()
    })
    .await;
    farm.wait_for_nodes(3).await;
    let nodes = farm.client.nodes().await.expect("nodes");
    let off = nodes.iter().find(|node| node.name == "off").expect("it is there");
    assert_eq!(off.state(), NodeState::Unready);
    let told = format!("outside its hours ({other_day}); it works again from {other_day} 00:00");
    assert_eq!(off.message, told);
    farm.stop().await;
}

/// The names of the node classes that a workflow of the library needs.
fn classes_of(workflow: &str) -> [Vec<String>; 2] {
    let library = Library::read::<&str>(&[]);
    let classes = library.get(workflow).expect("shipped").needed_classes();
    [classes.into_iter().map(str::to_owned).collect(), Vec::new()]
}

/// It says that it has rendered everything and put it together, at speeds of its own making, and has done nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_only_says_so_does_not_make_a_job_done() {
    let farm = Farm::start(Setup::default()).await;
    clips::make(&farm.path("plates/sh010"), 1..=4, 8, 8);
    // The honest ones are away.
    for node in farm.client.nodes().await.expect("nodes") {
        let drain = v1::control_node_request::Action::Drain(v1::Drain {});
        farm.client.control_node(&node.name, drain).await.expect("drained");
    }
    let names = classes_of("resize-sharpen");
    let mut liar = Node::attach(&farm, "liar", &names).await;
    let submission = v1::SubmitJobRequest { chunk_frames: 1, ..request("sh010", "resize-sharpen", "out") };
    let job = farm.client.submit(submission).await.expect("accepted").job.expect("a job").job_id;
    let lying = tokio::spawn(async move {
        let times = [f64::NAN, f64::INFINITY, 1e308, -1.0];
        for time in times.into_iter().cycle() {
            match liar.hears().await {
                Order::WantNames(_) => {
                    for names in &names {
                        liar.tells(names).await;
                    }
                }
                Order::Assignment(assignment) => {
                    let frames = match assignment.work {
                        Some(v1::assignment::Work::Chunk(chunk)) => chunk.frames,
                        _ => String::new(),
                    };
                    let result = v1::AttemptResult {
                        attempt_id: assignment.attempt_id,
                        job_id: assignment.job_id,
                        frames,
                        outcome: Some(v1::attempt_result::Outcome::Succeeded(v1::Succeeded {
                            seconds: time,
                            ..v1::Succeeded::default()
                        })),
                    };
                    let _ = liar.say.send(v1::AttachRequest { message: Some(Say::Result(result)) }).await;
                }
                _ => {}
            }
        }
    });
    let hindered = until(&farm.client, job, |job| job.failures.len() > 1).await;
    assert_eq!(hindered.state(), JobState::Assembling, "{hindered:?}");
    for failure in &hindered.failures {
        assert_eq!(failure.kind(), FailureKind::Storage, "{failure:?}");
        assert!(failure.message.contains("says that comps/out is in its place"), "{}", failure.message);
    }
    // Its times have poisoned nothing.
    assert!(hindered.frames_per_second.is_finite());
    lying.abort();
    // An honest node finds that nothing was made, and makes it.
    for node in farm.client.nodes().await.expect("nodes").iter().filter(|node| node.name != "liar") {
        let undrain = v1::control_node_request::Action::Undrain(v1::Undrain {});
        farm.client.control_node(&node.name, undrain).await.expect("undrained");
    }
    let (job, failures) = finish(&farm.client, job).await;
    assert_eq!(job.state(), JobState::Done, "{failures:?}");
    assert_eq!(clips::read(&farm.path("comps/out")).len(), 4);
    farm.stop().await;
}

#[tokio::test]
async fn a_second_agent_of_the_same_name_is_refused_with_both_hosts() {
    let farm = Farm::start(Setup::default()).await;
    let attach = async |host: &str, instance: &str| {
        let url = format!("http://{}", farm.coordinator.address);
        let mut client = v1::agents_client::AgentsClient::connect(url).await.expect("connected");
        let (say, said) = mpsc::channel(8);
        let hello = v1::Hello {
            node: "render01:8188".to_owned(),
            host: host.to_owned(),
            instance: instance.to_owned(),
            ..v1::Hello::default()
        };
        say.send(v1::AttachRequest { message: Some(Say::Hello(hello)) }).await.expect("room");
        client.attach(ReceiverStream::new(said)).await.map(|attached| (say, attached.into_inner()))
    };
    let first = attach("render01", "one").await.expect("the first");
    let refused = attach("render07", "two").await.expect_err("the second");
    assert_eq!(refused.code(), tonic::Code::AlreadyExists);
    assert!(refused.message().contains("by an agent on render01; yours is on render07"), "{refused}");
    // The first one's connection is cut: it is itself.
    let again = attach("render01", "one").await.expect("the first again");
    drop((first, again));
    let mut tries = 0;
    while let Err(refused) = attach("render07", "two").await {
        // Until the coordinator has heard that the first has gone.
        assert!(refused.code() == tonic::Code::AlreadyExists && tries < 500, "{refused}");
        tries += 1;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    farm.stop().await;
}
