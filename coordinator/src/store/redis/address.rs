//! Where a Redis is, how to get in, and whether it is one that a farm can live in.

use std::{fmt, io, str::FromStr, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, TlsCertificates,
    aio::MultiplexedConnection,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::error::RedisError;

/// Oldest server that has every command the store needs.
const OLDEST: (u32, u32) = (6, 2);

/// A Redis, as `redis://[user:password@]host[:port][/db]`, `rediss://…` for TLS, or through Sentinel as
/// `redis+sentinel://[user:password@]host[:port],…/master[/db]`.
#[derive(Clone)]
pub struct RedisAddress {
    text: String,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Server(ConnectionInfo),
    /// The Sentinels, and the name under which they know the primary. Each carries the credentials and the
    /// database of the Redis itself.
    Sentinels {
        sentinels: Vec<ConnectionInfo>,
        master: String,
    },
}

/// Why a text is no address of a Redis.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is no address of a Redis: {reason}; write redis://user:password@host:6379/0, rediss://… for TLS, or redis+sentinel://host1:26379,host2:26379/mymaster"
)]
pub struct AddressError {
    text: String,
    reason: String,
}

impl RedisAddress {
    /// Whether the text means a Redis at all.
    pub fn is_meant(text: &str) -> bool {
        ["redis://", "rediss://", "redis+sentinel://", "rediss+sentinel://"]
            .iter()
            .any(|scheme| text.starts_with(scheme))
    }
}

impl FromStr for RedisAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = |reason: &str| AddressError { text: hidden(text), reason: reason.to_owned() };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let parse = |url: String| {
            let parsed = url.as_str().into_connection_info();
            parsed.map_err(|error| wrong(error.detail().unwrap_or(error.category())))
        };
        let place = match scheme.strip_suffix("+sentinel") {
            None => Place::Server(parse(text.to_owned())?),
            Some(scheme) => {
                let (login, rest) = match rest.rsplit_once('@') {
                    Some((login, rest)) => (format!("{login}@"), rest),
                    None => (String::new(), rest),
                };
                let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
                let (master, db) = path.split_once('/').unwrap_or((path, "0"));
                if master.is_empty() {
                    return Err(wrong("it does not say what the Sentinels call the primary"));
                }
                let sentinels: Result<_, _> = hosts
                    .split(',')
                    .map(|host| {
                        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
                        let port = if has_port { "" } else { ":26379" };
                        parse(format!("{scheme}://{login}{host}{port}/{db}"))
                    })
                    .collect();
                Place::Sentinels { sentinels: sentinels?, master: master.to_owned() }
            }
        };
        Ok(Self { text: text.to_owned(), place })
    }
}

/// The address without its password.
fn hidden(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    match rest.rsplit_once('@') {
        Some((login, host)) => match login.split_once(':') {
            Some((user, _)) => format!("{scheme}://{user}:***@{host}"),
            None => text.to_owned(),
        },
        None => text.to_owned(),
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hidden(&self.text))
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisAddress({self})")
    }
}

impl PartialEq for RedisAddress {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl RedisAddress {
    /// As it was written, password and all: for handing it on, never for showing it.
    pub(crate) fn secret(&self) -> &str {
        &self.text
    }

    /// Connects to the primary and looks whether a farm can live there.
    pub(super) async fn connect(
        &self,
        certificate: Option<&[u8]>,
        patience: Duration,
    ) -> Result<(MultiplexedConnection, Server), RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(patience))
            .set_response_timeout(Some(patience));
        let info = match &self.place {
            Place::Server(info) => info.clone(),
            Place::Sentinels { sentinels, master } => {
                self.primary(sentinels, master, certificate, &config).await?
            }
        };
        let told = |error| RedisError::of(self, error);
        if !speaks_redis(info.addr(), patience).await.map_err(|error| told(error.into()))? {
            return Err(RedisError::NoRedis { server: self.to_string() });
        }
        let client = client(info, certificate).map_err(told)?;
        let mut connection =
            client.get_multiplexed_async_connection_with_config(&config).await.map_err(told)?;
        let text: String = redis::cmd("INFO").query_async(&mut connection).await.map_err(told)?;
        let server = Server::read(&text);
        self.check(&server)?;
        Ok((connection, server))
    }

    /// Asks one Sentinel after another where the primary is.
    async fn primary(
        &self,
        sentinels: &[ConnectionInfo],
        master: &str,
        certificate: Option<&[u8]>,
        config: &AsyncConnectionConfig,
    ) -> Result<ConnectionInfo, RedisError> {
        let mut latest = None;
        for sentinel in sentinels {
            let asked = async {
                // Sentinels have logins of their own; those of the Redis are not shown to them.
                let bare = sentinel.clone().set_redis_settings(redis::RedisConnectionInfo::default());
                let client = client(bare, certificate)?;
                let mut connection = client.get_multiplexed_async_connection_with_config(config).await?;
                let mut ask = redis::cmd("SENTINEL");
                ask.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
                ask.query_async::<Option<(String, u16)>>(&mut connection).await
            };
            match asked.await {
                Ok(Some((host, port))) => {
                    let addr = match sentinel.addr() {
                        ConnectionAddr::TcpTls { insecure, .. } => {
                            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: None }
                        }
                        _ => ConnectionAddr::Tcp(host, port),
                    };
                    return Ok(sentinel.clone().set_addr(addr));
                }
                Ok(None) => {
                    latest = Some(RedisError::UnknownMaster {
                        server: self.to_string(),
                        master: master.to_owned(),
                    });
                }
                Err(error) => latest = Some(RedisError::of(self, error)),
            }
        }
        Err(latest.unwrap_or_else(|| RedisError::UnknownMaster {
            server: self.to_string(),
            master: master.to_owned(),
        }))
    }

    fn check(&self, server: &Server) -> Result<(), RedisError> {
        let name = self.to_string();
        if server.cluster {
            return Err(RedisError::Cluster { server: name });
        }
        if server.version < OLDEST {
            let (major, minor) = server.version;
            return Err(RedisError::TooOld { server: name, found: format!("{major}.{minor}") });
        }
        if server.replica {
            return Err(RedisError::Replica { server: name });
        }
        // `noeviction` is the default; another policy is a decision to let keys go.
        if server.policy != "noeviction" {
            return Err(RedisError::Evicts { server: name, policy: server.policy.clone() });
        }
        Ok(())
    }
}

/// Longest first line of a Redis, in bytes.
const GREETING: usize = 512;

/// Whether what listens there answers as a Redis does. What does not is never read any further: another program may send
/// without end.
async fn speaks_redis(address: &ConnectionAddr, patience: Duration) -> io::Result<bool> {
    let ConnectionAddr::Tcp(host, port) = address else { return Ok(true) };
    let greeted = async {
        let mut stream = TcpStream::connect((host.as_str(), *port)).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut line = Vec::with_capacity(GREETING);
        while line.len() < GREETING && !line.ends_with(b"\n") && stream.read_buf(&mut line).await? > 0 {}
        Ok::<_, io::Error>(line)
    };
    let line = timeout(patience, greeted).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // An error in words is its answer to whoever has not logged in.
    Ok(line.starts_with(b"+PONG\r\n") || line.starts_with(b"-"))
}

fn client(info: ConnectionInfo, certificate: Option<&[u8]>) -> redis::RedisResult<Client> {
    // Another part of the program may have chosen already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match (info.addr(), certificate) {
        (ConnectionAddr::TcpTls { .. }, Some(certificate)) => {
            let certificates = TlsCertificates { client_tls: None, root_cert: Some(certificate.to_vec()) };
            Client::build_with_tls(info, certificates)
        }
        _ => Client::open(info),
    }
}

/// What a Redis says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Server {
    version: (u32, u32),
    /// Another one after every restart, and another one for every server.
    pub(super) run_id: String,
    policy: String,
    replica: bool,
    cluster: bool,
    /// Whether every write goes to an append-only file.
    pub(super) appends: bool,
}

impl Server {
    fn read(info: &str) -> Self {
        let field = |name: &str| {
            let mut lines = info.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(found, _)| *found == name).map_or("", |(_, value)| value.trim())
        };
        let mut version = field("redis_version").split('.').map(|part| part.parse().unwrap_or(0));
        Self {
            version: (version.next().unwrap_or(0), version.next().unwrap_or(0)),
            run_id: field("run_id").to_owned(),
            policy: field("maxmemory_policy").to_owned(),
            replica: field("role") == "slave",
            cluster: field("cluster_enabled") == "1",
            appends: field("aof_enabled") == "1",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_program_is_told_from_a_redis_by_its_first_words() {
        for (says, is_redis) in [
            (&b"+PONG\r\n"[..], true),
            (b"-NOAUTH Authentication required.\r\n", true),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", false),
            (b"$900000000\r\n", false),
            (&[0; 10_000], false),
        ] {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
            let address = listener.local_addr().expect("bound");
            let address = ConnectionAddr::Tcp(address.ip().to_string(), address.port());
            let answers = async {
                let (mut stream, _) = listener.accept().await.expect("asked");
                let _ = stream.read(&mut [0; 16]).await;
                let _ = stream.write_all(says).await;
            };
            let (found, ()) = tokio::join!(speaks_redis(&address, Duration::from_secs(5)), answers);
            assert_eq!(
                found.expect("it answers"),
                is_redis,
                "{}",
                String::from_utf8_lossy(&says[..says.len().min(20)])
            );
        }
    }

    #[test]
    fn addresses_are_read_and_shown_without_their_password() {
        let address = |text: &str| text.parse::<RedisAddress>().expect(text);
        assert_eq!(address("redis://farm:se:cret@db:6380/2").to_string(), "redis://farm:***@db:6380/2");
        let sentinel = address("redis+sentinel://farm:secret@a,b:26380,[::1]:5/hearth/3");
        assert_eq!(sentinel.to_string(), "redis+sentinel://farm:***@a,b:26380,[::1]:5/hearth/3");
        assert!(!format!("{sentinel:?}").contains("secret"));
        let Place::Sentinels { sentinels, master } = sentinel.place else { panic!("sentinels") };
        assert_eq!(master, "hearth");
        let found: Vec<String> = sentinels.iter().map(|info| info.addr().to_string()).collect();
        assert_eq!(found[..2], ["a:26379", "b:26380"]);
        assert_eq!((sentinels[0].redis_settings().db(), sentinels.len()), (3, 3));
        for wrong in ["redis://", "redis://h/x", "redis+sentinel://a,b", "redis+sentinel://a:b:c/m"] {
            assert!(wrong.parse::<RedisAddress>().is_err(), "{wrong}");
        }
    }
}
