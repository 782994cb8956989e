//! The agents' side of the contract, spoken by hand.

use std::time::{SystemTime, UNIX_EPOCH};

use hearth_agent::NodeConfig;
use hearth_client::v1::{self, NodeState, attach_request::Message as Say, attach_response::Message as Order};
use hearth_proto::names::digest;
use hearth_tests::{
    clips,
    farm::{Farm, Setup, request},
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
    let submission =
        v1::SubmitJobRequest { chunk_frames: 1, pool, ..request("sh010", "resize-sharpen", "out") };
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
