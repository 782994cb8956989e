//! The stream to the coordinator that leads, connected again with back-off and jitter for as long as the agent lives.

use std::time::Duration;

use hearth_proto::{LEADER, MAX_MESSAGE_BYTES, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tracing::{debug, info, warn};

/// Messages that wait for the stream. While it is full, progress is dropped and results wait in the outbox.
const QUEUE: usize = 256;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(2);
const CONNECT: Duration = Duration::from_secs(2);

/// How often a coordinator must show that it is there, and how long it may take. One that hangs is left while
/// the node still has a chunk in hand.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// What a node hears from its link.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A new stream: hello goes first.
    Opened(mpsc::Sender<v1::AttachRequest>),
    Message(Box<v1::attach_response::Message>),
    Closed,
}

/// Keeps a stream open until the node has gone: to the coordinator that leads, found through any of those that
/// `coordinators` names.
pub(crate) async fn keep_linked(coordinators: Vec<Endpoint>, node: mpsc::Sender<Heard>) {
    let (mut told, mut sent_on) = (String::new(), 0_u32);
    let mut retry = FIRST_RETRY;
    let mut leader: Option<Endpoint> = None;
    for at in (0..coordinators.len()).cycle() {
        if node.is_closed() {
            return;
        }
        let endpoint = leader.take().unwrap_or_else(|| coordinators[at].clone());
        let ended = attach(&tuned(endpoint.clone()), &node).await;
        if node.send(Heard::Closed).await.is_err() {
            return;
        }
        match ended {
            Ok(()) => {
                debug!("the coordinator has closed the stream");
                (retry, sent_on) = (FIRST_RETRY, 0);
                told.clear();
            }
            Err(Refused::Follows(Some(found))) => {
                leader = Some(*found);
                sent_on += 1;
                if sent_on == 1 {
                    continue;
                }
                // Sent from one to the next: they do not agree yet who leads.
                retry = retry.min(FIRST_RETRY * 2);
            }
            // Another coordinator is about to lead.
            Err(Refused::Follows(None)) => retry = retry.min(FIRST_RETRY * 2),
            // As often as it changes: the farm may not be there yet, and then refuse it.
            Err(Refused::Because(error)) if error != told => {
                told.clone_from(&error);
                warn!(coordinator = %endpoint.uri(), error, "not linked; trying until it is");
            }
            Err(Refused::Because(_)) => {}
        }
        // Every coordinator is tried before the pause grows.
        if at + 1 == coordinators.len() {
            retry = (retry * 2).min(LAST_RETRY);
        }
        tokio::time::sleep(retry.mul_f64(rand::random_range(0.5..1.0))).await;
        if leader.is_none() {
            sent_on = 0;
        }
    }
}

fn tuned(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// Why a stream never came to be.
enum Refused {
    /// The coordinator follows another; this one, if there is any.
    Follows(Option<Box<Endpoint>>),
    Because(String),
}

impl Refused {
    fn of(status: &tonic::Status) -> Self {
        match status.metadata().get(LEADER) {
            Some(leader) => {
                let leader = leader.to_str().unwrap_or_default();
                let endpoint = Endpoint::from_shared(leader.to_owned()).ok().filter(|_| !leader.is_empty());
                Self::Follows(endpoint.map(Box::new))
            }
            None => Self::Because(status.message().to_owned()),
        }
    }
}

/// One stream, until it ends. An error means that it never came to be.
async fn attach(endpoint: &Endpoint, node: &mpsc::Sender<Heard>) -> Result<(), Refused> {
    let channel = endpoint.connect().await;
    let channel = channel.map_err(|error| Refused::Because(hearth_telemetry::chain(&error)))?;
    let mut client = v1::agents_client::AgentsClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let (sender, receiver) = mpsc::channel(QUEUE);
    // The coordinator answers once it has heard hello.
    if node.send(Heard::Opened(sender)).await.is_err() {
        return Ok(());
    }
    let response = client.attach(ReceiverStream::new(receiver)).await;
    let mut incoming = response.map_err(|status| Refused::of(&status))?.into_inner();
    info!(coordinator = %endpoint.uri(), "linked");
    loop {
        match incoming.message().await {
            Ok(Some(v1::AttachResponse { message: Some(message) })) => {
                if node.send(Heard::Message(Box::new(message))).await.is_err() {
                    return Ok(());
                }
            }
            Ok(Some(v1::AttachResponse { message: None })) => {}
            Ok(None) => return Ok(()),
            Err(status) => {
                info!(reason = status.message(), "the link is gone");
                return Ok(());
            }
        }
    }
}
