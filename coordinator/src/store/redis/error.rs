//! What can be wrong with a Redis, each named for what it is.

use redis::{ErrorKind, ServerErrorKind};

use super::address::RedisAddress;

/// Why Redis did not do it. Names its address without the password.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    #[error("Redis at {server} does not answer; is it running, and is its address right?")]
    Away { server: String, source: redis::RedisError },
    #[error("what listens at {server} is no Redis; look at the address in `store` (HEARTH_STORE)")]
    NoRedis { server: String },
    #[error("Redis at {server} refuses user or password; look at the login in `store` (HEARTH_STORE)")]
    Login { server: String, source: redis::RedisError },
    #[error(
        "Redis at {server} does not allow a command or key to this user; docs/redis.md says which it needs"
    )]
    Forbidden { server: String, source: redis::RedisError },
    #[error("Redis at {server} is a read-only replica; give the primary's address, or the Sentinels'")]
    Replica { server: String },
    #[error(
        "Redis at {server} is full; raise its maxmemory, or remove what does not belong to the farm. Nothing is lost"
    )]
    Full { server: String, source: redis::RedisError },
    #[error("Redis at {server} cannot write to its disk; look at its log. Nothing is lost")]
    Disk { server: String, source: redis::RedisError },
    #[error(
        "Redis at {server} may throw keys away (maxmemory-policy {policy}), and with them frames; set maxmemory-policy to noeviction"
    )]
    Evicts { server: String, policy: String },
    #[error(
        "Redis at {server} is a cluster; a farm needs a single primary, with replicas and Sentinel if you like"
    )]
    Cluster { server: String },
    #[error("Redis at {server} has version {found}; a farm needs 6.2 or later")]
    TooOld { server: String, found: String },
    #[error("the Sentinels of {server} know no primary called {master}")]
    UnknownMaster { server: String, master: String },
    #[error("the certificate {path} cannot be read")]
    Certificate { path: std::path::PathBuf, source: std::io::Error },
    #[error("Redis at {server} holds something else under the farm's keys; give the farm another prefix")]
    Foreign { server: String, source: redis::RedisError },
    #[error(
        "Redis at {server} gives an answer to {what} that makes no sense; look what else lies on the way to it"
    )]
    NoSense { server: String, what: &'static str },
    #[error("Redis at {server} refuses a command")]
    Refused { server: String, source: redis::RedisError },
}

impl RedisError {
    pub(super) fn of(address: &RedisAddress, source: redis::RedisError) -> Self {
        let server = address.to_string();
        // Scripts pass on the error of their command, with the code in the text.
        let text = source.to_string();
        let says = |code: &str| source.code() == Some(code) || text.contains(code);
        match source.kind() {
            ErrorKind::AuthenticationFailed => Self::Login { server, source },
            ErrorKind::Server(ServerErrorKind::NoPerm) => Self::Forbidden { server, source },
            ErrorKind::Server(ServerErrorKind::ReadOnly) => Self::Replica { server },
            ErrorKind::Server(
                ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::TryAgain,
            )
            | ErrorKind::Io => Self::Away { server, source },
            _ if says("WRONGPASS") || says("NOAUTH") => Self::Login { server, source },
            _ if says("NOPERM") || says("ACL failure") => Self::Forbidden { server, source },
            _ if says("READONLY") => Self::Replica { server },
            _ if says("OOM") => Self::Full { server, source },
            _ if says("MISCONF") => Self::Disk { server, source },
            _ if says("WRONGTYPE") => Self::Foreign { server, source },
            _ if source.is_io_error() || source.is_connection_dropped() || source.is_timeout() => {
                Self::Away { server, source }
            }
            _ => Self::Refused { server, source },
        }
    }

    /// Whether waiting may help. The others need a person, and stop a coordinator that has just started.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Away { .. } | Self::Full { .. } | Self::Disk { .. } | Self::NoSense { .. })
    }
}
