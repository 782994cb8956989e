//! A real redis-server of a test's own, on a free port.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::processes::{Process, free_port};

/// A redis-server with its data. Stops with its owner.
#[derive(Debug)]
pub struct RedisServer {
    pub port: u16,
    process: Process,
    arguments: Vec<String>,
    dir: PathBuf,
}

impl RedisServer {
    /// With an append-only file that is flushed every second, as a farm should have it.
    pub async fn start(dir: &Path) -> Self {
        Self::start_with(dir, &["--appendonly", "yes", "--appendfsync", "everysec"]).await
    }

    pub async fn start_with(dir: &Path, arguments: &[&str]) -> Self {
        let port = free_port();
        std::fs::create_dir_all(dir).expect("folder");
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let process = spawn(port, dir, &arguments);
        let server = Self { port, process, arguments, dir: dir.to_owned() };
        server.wait().await;
        server
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(self.port, &self.dir, &self.arguments);
        self.wait().await;
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A command of `redis-cli`'s kind, on a connection of its own.
    pub async fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        try_ask(&self.url(), command).await.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    async fn wait(&self) {
        let started = Instant::now();
        loop {
            match try_ask::<String>(&self.url(), &["PING"]).await {
                Ok(_) => return,
                // It answers, and wants a password.
                Err(error) if !error.is_io_error() && error.code() != Some("LOADING") => return,
                Err(error) => {
                    let said = self.process.said();
                    assert!(started.elapsed() < Duration::from_secs(20), "redis-server: {error}: {said}");
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

/// A command to the Redis at `url`.
pub async fn try_ask<T: redis::FromRedisValue>(url: &str, command: &[&str]) -> redis::RedisResult<T> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let mut ask = redis::cmd(command[0]);
    ask.arg(&command[1..]);
    ask.query_async(&mut connection).await
}

fn spawn(port: u16, dir: &Path, arguments: &[String]) -> Process {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", ""]).args(["--port", &port.to_string()]);
    command.arg("--dir").arg(dir).args(arguments);
    Process::start(&mut command, &dir.join("redis.log"))
}
