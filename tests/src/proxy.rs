//! A link between two parties that can be cut, and on which answers can be changed: a TCP proxy on a port of its own.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
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
    /// A Redis that lies: three in ten of its answers are others than it gave, drawn from this seed, and some of what it
    /// is asked for it says to have done.
    LyingRedis {
        seed: u64,
    },
}

impl Link {
    fn carries(self) -> bool {
        matches!(self, Self::Whole | Self::LyingRedis { .. })
    }
}

/// Answers that a lying Redis gives instead of its own.
const ANSWERS: [&[u8]; 19] = [
    b"-READONLY You can't write against a read only replica.\r\n",
    b"-LOADING Redis is loading the dataset in memory\r\n",
    b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    b"-NOSCRIPT No matching script.\r\n",
    b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    b"-MASTERDOWN Link with MASTER is down\r\n",
    b"-NOPERM this user has no permissions\r\n",
    b"-\xff\xfe\x1b]52;c;bG9s\x07\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b":-9223372036854775808\r\n",
    b"$2\r\nok\r\n",
    b"$7\r\ndeposed\r\n",
    b"$4\r\nlost\r\n",
    b"*5\r\n$4\r\nours\r\n$20\r\n18446744073709551615\r\n$20\r\n18446744073709551615\r\n$0\r\n\r\n$1\r\n0\r\n",
    // More than there will ever be.
    b"*2147483647\r\n",
    b"$536870911\r\nx",
    b"\0\x01\x02HTTP/1.1 400 Bad Request\r\n\r\n",
];

/// Asked instead of what a client asks.
const ECHO_OK: &[u8] = b"*2\r\n$4\r\nECHO\r\n$2\r\nok\r\n";

/// A link to `target`. Ends with its owner.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    link: watch::Sender<Link>,
    lies: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (link, state) = watch::channel(Link::Whole);
        let lies = Arc::new(AtomicU64::new(0));
        let told = lies.clone();
        let task = tokio::spawn(async move {
            let mut number = 0;
            while let Ok((from, _)) = listener.accept().await {
                number += 1;
                tokio::spawn(carry(from, target, state.clone(), number, told.clone()));
            }
        });
        Self { address, link, lies, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set(&self, link: Link) {
        self.link.send_replace(link);
    }

    /// Lies told on it so far.
    pub fn lies(&self) -> u64 {
        self.lies.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection, until either side ends it or the link is torn.
async fn carry(
    from: TcpStream,
    target: SocketAddr,
    mut link: watch::Receiver<Link>,
    number: u64,
    lies: Arc<AtomicU64>,
) {
    let mut torn = link.clone();
    let both = async {
        if link.wait_for(|link| link.carries()).await.is_err() {
            return;
        }
        let Ok(to) = TcpStream::connect(target).await else { return };
        // A short message must not wait for the answer to the one before it.
        let _ = (from.set_nodelay(true), to.set_nodelay(true));
        let (from_read, from_write) = from.into_split();
        let (to_read, to_write) = to.into_split();
        let there = Liar { number: number * 2, lies: lies.clone(), answers: false, rng: None, blocks: 0 };
        let back = Liar { number: number * 2 + 1, lies, answers: true, rng: None, blocks: 0 };
        tokio::select! {
            () = pour(from_read, to_write, link.clone(), there) => {}
            () = pour(to_read, from_write, link.clone(), back) => {}
        }
    };
    tokio::select! {
        () = both => {}
        _ = torn.wait_for(|link| *link == Link::Torn) => {}
    }
}

async fn pour(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut link: watch::Receiver<Link>,
    mut liar: Liar,
) {
    let mut block = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut block).await {
        let carries = link.wait_for(|link| link.carries()).await.map(|link| *link);
        let Ok(carries) = carries else { return };
        if read == 0 {
            return;
        }
        let given = match carries {
            Link::LyingRedis { seed } => liar.says(seed, &block[..read]).await,
            _ => Some(block[..read].to_vec()),
        };
        let Some(given) = given else { return };
        if to.write_all(&given).await.is_err() {
            return;
        }
    }
}

/// One direction of a connection to a Redis that lies.
struct Liar {
    number: u64,
    lies: Arc<AtomicU64>,
    /// The direction from the Redis.
    answers: bool,
    rng: Option<StdRng>,
    /// Blocks that have been passed on.
    blocks: u32,
}

/// Answers of a new connection that are rarely changed, or nothing but greetings would be.
const GREETINGS: u32 = 6;

impl Liar {
    /// Returns the bytes to pass on instead of `block`; `None` ends the connection.
    async fn says(&mut self, seed: u64, block: &[u8]) -> Option<Vec<u8>> {
        let rng =
            self.rng.get_or_insert_with(|| StdRng::seed_from_u64(seed.wrapping_mul(1 << 20) + self.number));
        self.blocks += 1;
        let share = match self.answers {
            true if self.blocks > GREETINGS => 0.3,
            true => 0.05,
            false => 0.02,
        };
        if !rng.random_bool(share) {
            return Some(block.to_vec());
        }
        self.lies.fetch_add(1, Ordering::Relaxed);
        if !self.answers {
            return Some(ECHO_OK.to_vec());
        }
        match rng.random_range(0..24_usize) {
            0 => None,
            // Cut off, and the rest comes never.
            1 => Some(block[..rng.random_range(0..block.len())].to_vec()),
            // Twice: every later answer belongs to the question before.
            2 => Some([block, block].concat()),
            // Arrays in arrays, deeper than anybody reads.
            3 => Some(b"*1\r\n".repeat(50_000)),
            4 => {
                let wait = Duration::from_millis(rng.random_range(0..1_500));
                tokio::time::sleep(wait).await;
                Some(block.to_vec())
            }
            5 => {
                let mut block = block.to_vec();
                let at = rng.random_range(0..block.len());
                block[at] ^= 1 << rng.random_range(0..8_u32);
                Some(block)
            }
            _ => Some(ANSWERS[rng.random_range(0..ANSWERS.len())].to_vec()),
        }
    }
}
