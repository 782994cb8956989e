//! A link between two parties that can be cut: a TCP proxy on a port of its own.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
    task::JoinHandle,
};

/// What a link does with what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Whole,
    /// Nothing arrives, and nobody is told: a cable is out, a switch is dead.
    Silent,
    /// Every connection is torn, and none is made.
    Torn,
}

/// A link to `target`. Ends with its owner.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    link: watch::Sender<Link>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (link, state) = watch::channel(Link::Whole);
        let task = tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                tokio::spawn(carry(from, target, state.clone()));
            }
        });
        Self { address, link, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection, until either side ends it or the link is torn.
async fn carry(from: TcpStream, target: SocketAddr, mut link: watch::Receiver<Link>) {
    let mut torn = link.clone();
    let both = async {
        if link.wait_for(|link| *link == Link::Whole).await.is_err() {
            return;
        }
        let Ok(to) = TcpStream::connect(target).await else { return };
        // A short message must not wait for the answer to the one before it.
        let _ = (from.set_nodelay(true), to.set_nodelay(true));
        let (from_read, from_write) = from.into_split();
        let (to_read, to_write) = to.into_split();
        tokio::select! {
            () = pour(from_read, to_write, link.clone()) => {}
            () = pour(to_read, from_write, link.clone()) => {}
        }
    };
    tokio::select! {
        () = both => {}
        _ = torn.wait_for(|link| *link == Link::Torn) => {}
    }
}

async fn pour(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut link: watch::Receiver<Link>) {
    let mut block = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut block).await {
        if read == 0 || link.wait_for(|link| *link == Link::Whole).await.is_err() {
            return;
        }
        if to.write_all(&block[..read]).await.is_err() {
            return;
        }
    }
}
