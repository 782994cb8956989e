//! The stream to the coordinator, connected again with back-off and jitter for as long as the agent lives.

use std::time::Duration;

use hearth_proto::{MAX_MESSAGE_BYTES, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tracing::{debug, info, warn};

/// Messages that wait for the stream. While it is full, progress is dropped and results wait in the outbox.
const QUEUE: usize = 256;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(5);

/// A stream that is silent on the wire for so long is dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What a node hears from its link.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A new stream: hello goes first.
    Opened(mpsc::Sender<v1::AttachRequest>),
    Message(Box<v1::attach_response::Message>),
    Closed,
}

/// Keeps a stream open until the node has gone.
pub(crate) async fn keep_linked(endpoint: Endpoint, node: mpsc::Sender<Heard>) {
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    let mut retry = FIRST_RETRY;
    let mut told = false;
    while !node.is_closed() {
        match attach(&endpoint, &node).await {
            Ok(()) => {
                debug!("the coordinator has closed the stream");
                (retry, told) = (FIRST_RETRY, false);
            }
            Err(error) if !told => {
                told = true;
                warn!(coordinator = %endpoint.uri(), error, "not linked; trying until it is");
            }
            Err(_) => {}
        }
        if node.send(Heard::Closed).await.is_err() {
            return;
        }
        tokio::time::sleep(retry.mul_f64(rand::random_range(0.5..1.0))).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

/// One stream, until it ends. An error means that it never came to be.
async fn attach(endpoint: &Endpoint, node: &mpsc::Sender<Heard>) -> Result<(), String> {
    let channel = endpoint.connect().await.map_err(|error| hearth_telemetry::chain(&error))?;
    let mut client = v1::agents_client::AgentsClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let (sender, receiver) = mpsc::channel(QUEUE);
    // The coordinator answers once it has heard hello.
    if node.send(Heard::Opened(sender)).await.is_err() {
        return Ok(());
    }
    let response = client.attach(ReceiverStream::new(receiver)).await;
    let mut incoming = response.map_err(|status| status.message().to_owned())?.into_inner();
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
