//! A listener that peers cannot use up: connections that say nothing are closed, and neither one address nor all of
//! them together take every file descriptor of the process.
//!
//! Knows nothing of what is spoken over a connection.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::warn;

/// Bytes that a peer must have sent before it counts as one: what HTTP/2 begins with.
const PREFACE: usize = 24;

/// How long a new connection may say nothing.
const SILENCE: Duration = Duration::from_secs(10);

/// After an error of the system's, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// File descriptors that are for everything but connections: the store, storage, logs.
const OWN_FILES: u64 = 256;

/// Connections where the system tells no limit.
const MOST: usize = 16_384;

/// One address gets this part of all connections. Those of this host are not counted: whoever works here has other means.
const SHARE: usize = 4;

/// What may be open at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub connections: usize,
    /// How long a new connection may say nothing.
    pub silence: Duration,
    /// A connection that has said nothing for so long is closed; `None`: once it has spoken it may stay, since what is
    /// spoken looks after that.
    pub idle: Option<Duration>,
}

impl Limits {
    /// As many connections as the process can have, which is raised to what the system allows.
    #[must_use]
    pub fn of_process() -> Self {
        let allowed = getrlimit(Resource::Nofile);
        let raised =
            setrlimit(Resource::Nofile, Rlimit { current: allowed.maximum, maximum: allowed.maximum });
        let files = if raised.is_ok() { allowed.maximum } else { allowed.current };
        let connections = files.map_or(MOST, |files| files.saturating_sub(OWN_FILES).max(64) as usize);
        Self { connections: connections.min(MOST), silence: SILENCE, idle: None }
    }
}

/// Listens at a TCP address.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    limits: Limits,
    places: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// Connections that were not taken, since their address had its share.
    refused: AtomicU64,
}

impl Listener {
    /// # Errors
    /// When the address is taken, or not of this host.
    pub async fn bind(address: SocketAddr, limits: Limits) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        let places = Arc::new(Semaphore::new(limits.connections));
        Ok(Self { tcp, limits, places, by_address: Arc::default(), refused: AtomicU64::new(0) })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next connection. While all places are taken, others wait in the system's queue.
    pub async fn accept(&self) -> (Connection, SocketAddr) {
        loop {
            let Ok(place) = self.places.clone().acquire_owned().await else {
                // Nobody closes it.
                std::future::pending().await
            };
            let (stream, from) = match self.tcp.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "a connection is not taken");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(counted) = Counted::new(&self.by_address, from.ip(), self.limits.connections) else {
                let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
                // Ever more rarely: whoever floods must not flood the log.
                if refused.is_power_of_two() {
                    let most = self.limits.connections / SHARE;
                    warn!(address = %from.ip(), most, refused, "an address has its share of connections; raise the limit of open files if many hosts share it");
                }
                continue;
            };
            // Without TCP_NODELAY: what a busy coordinator tells its nodes bit by bit goes in fewer packets, which makes 5 %
            // more chunks a second; what is written at once is not held back.
            let patience = Box::pin(sleep(self.limits.silence));
            let idle = self.limits.idle;
            return (Connection { stream, idle, heard: 0, patience, _counted: counted, _place: place }, from);
        }
    }
}

/// One more connection of an address, for as long as it lives.
#[derive(Debug)]
struct Counted {
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Counted {
    /// `None`: the address has its share.
    fn new(by_address: &Arc<Mutex<HashMap<IpAddr, usize>>>, address: IpAddr, all: usize) -> Option<Self> {
        let mut counts = by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= (all / SHARE).max(1) && !address.is_loopback() {
            return None;
        }
        *count += 1;
        Some(Self { by_address: by_address.clone(), address })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// A connection of a [`Listener`].
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    idle: Option<Duration>,
    /// Bytes so far, up to those of the preface.
    heard: usize,
    patience: Pin<Box<Sleep>>,
    _counted: Counted,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.heard = (self.heard + buffer.filled().len() - before).min(PREFACE);
            if let Some(idle) = self.idle {
                self.patience.as_mut().reset(Instant::now() + idle);
            }
            return read;
        }
        if self.heard < PREFACE || self.idle.is_some() {
            ready!(self.patience.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        Self::accept(self).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[test]
    fn an_address_gets_its_share_and_no_more() {
        let counts = Arc::default();
        let of = |address: [u8; 4]| Counted::new(&counts, IpAddr::from(address), 8);
        let taken: Vec<_> = (0..3).map(|_| of([10, 0, 0, 1])).collect();
        assert_eq!(taken.iter().flatten().count(), 2);
        assert!(of([10, 0, 0, 2]).is_some(), "others have theirs");
        assert_eq!((0..9).filter_map(|_| of([127, 0, 0, 1])).count(), 9);
        drop(taken);
        assert!(of([10, 0, 0, 1]).is_some(), "and it has it again");
    }

    #[tokio::test]
    async fn who_says_nothing_is_let_go_and_the_next_gets_the_place() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let limits = Limits { connections: 1, silence: Duration::from_millis(20), idle: None };
        let listener = Listener::bind(any, limits).await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let mute = TcpStream::connect(address).await.expect("connected");
        let (mut connection, _) = listener.accept().await;
        let mut bytes = Vec::new();
        let told = connection.read_to_end(&mut bytes).await.expect_err("too long");
        assert_eq!(told.kind(), io::ErrorKind::TimedOut);
        drop(connection);
        let _next = TcpStream::connect(address).await.expect("connected");
        listener.accept().await;
        drop(mute);
    }
}
