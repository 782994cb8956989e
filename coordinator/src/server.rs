//! One coordinator process: store, driver, gRPC and metrics, put together and taken down in order.

use std::{
    future::IntoFuture as _,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use hearth_proto::{MAX_MESSAGE_BYTES, v1};
use hearth_storage::Calls;
use hearth_telemetry::{Connection, Limits, Listener, metrics_limits, serve_metrics};
use prometheus_client::registry::Registry;
use rand::RngExt as _;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_stream::Stream;
use tonic::transport::Server;
use tracing::info;

use crate::{
    Config,
    driver::{self, Clock, ClockError, Driver, DriverOptions, Standing},
    farm::FarmTag,
    grpc::{AgentsService, FarmService, MOST_WATCHERS, Proof},
    store::{Embedded, Redis, RedisAddress, Store, StoreAddress, StoreError},
    survey::survey,
    telemetry::Meters,
};

/// Calls to one storage root at a time, and how long each is waited for: looking at every frame of a long clip takes
/// its time.
const STORAGE_CALLS: usize = 16;
const STORAGE_PATIENCE: Duration = Duration::from_secs(60);

/// Requests of one connection at a time: an agent has one, a page a few.
const STREAMS: u32 = 256;

/// How often a peer must show that it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Why a coordinator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on {address}; is another program using it?")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Clock(#[from] ClockError),
    #[error("gRPC has stopped")]
    Grpc(#[from] tonic::transport::Error),
    #[error("reflection cannot be served")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("a part of the coordinator ended by a mistake of its own; please report this")]
    Ended(#[source] tokio::task::JoinError),
    #[error("metrics cannot be served")]
    Metrics(#[source] io::Error),
}

/// A running coordinator.
#[derive(Debug)]
pub struct Coordinator {
    pub address: SocketAddr,
    pub metrics_address: SocketAddr,
    pub driver: Driver,
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<(), ServerError>>,
}

impl Coordinator {
    /// Starts listening; it serves from then on.
    pub async fn start(config: &Config) -> Result<Self, ServerError> {
        let listener = listen(config.listen, Limits::of_process()).await?;
        let metrics_listener = listen(config.metrics_listen, metrics_limits()).await?;
        let address = local(&listener, config.listen)?;
        let metrics_address = local(&metrics_listener, config.metrics_listen)?;

        let mut registry = Registry::default();
        let meters = Arc::new(Meters::register(&mut registry));
        let roots = Arc::new(config.roots.clone());
        let mut tasks = JoinSet::new();
        let clock = Clock::start()?;
        let driver = match &config.store {
            StoreAddress::File(path) => {
                drive(Embedded::open(path)?, config, clock, &meters, &mut tasks).await?
            }
            StoreAddress::Redis(redis) => {
                let store = Redis::new(RedisAddress::clone(redis), config.redis(address))?;
                drive(store, config, clock, &meters, &mut tasks).await?
            }
        };

        let previews = crate::grpc::Previews::default();
        let questions = crate::grpc::Questions::default();
        let calls = Calls::new(STORAGE_CALLS, STORAGE_PATIENCE);
        let clients = FarmService {
            driver: driver.clone(),
            roots: roots.clone(),
            calls: calls.clone(),
            folders: Arc::new(config.workflows.clone()),
            previews: previews.clone(),
            questions: questions.clone(),
            watchers: Arc::new(Semaphore::new(MOST_WATCHERS)),
        };
        let agents = AgentsService {
            driver: driver.clone(),
            proof: Proof { driver: driver.clone(), calls, roots: roots.clone() },
            heartbeat_ms: config.heartbeat_ms,
            previews,
            names: crate::grpc::SharedNames::default(),
            questions,
            sessions: Arc::new(AtomicU64::new(0)),
        };
        let clients = v1::farm_server::FarmServer::new(clients)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let agents = v1::agents_server::AgentsServer::new(agents)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let (health_reporter, health) = tonic_health::server::health_reporter();
        health_reporter.set_serving::<v1::farm_server::FarmServer<FarmService>>().await;
        health_reporter.set_serving::<v1::agents_server::AgentsServer<AgentsService>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;

        let (stop, stopped) = watch::channel(false);
        let server = Server::builder()
            .max_concurrent_streams(Some(STREAMS))
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .add_service(clients)
            .add_service(agents)
            .add_service(health)
            .add_service(reflection)
            .serve_with_incoming(connections(listener));
        let ended = when(stopped.clone());
        // Streams of agents and watchers never end by themselves: on stop they are cut, and come back to
        // the next coordinator.
        tasks.spawn(async move {
            tokio::select! {
                served = server.into_future() => Ok(served?),
                () = ended => Ok(()),
            }
        });
        let registry = Arc::new(registry);
        let standing = driver.standing();
        let healthy = move || match &*standing.borrow() {
            Standing::Away { why } => Err(format!("the farm's store is away: {why}")),
            Standing::Leading | Standing::Following { .. } => Ok(()),
        };
        tasks.spawn(async move {
            serve_metrics(metrics_listener, registry, healthy, when(stopped))
                .await
                .map_err(ServerError::Metrics)
        });
        info!(%address, metrics = %metrics_address, "the coordinator is up");
        Ok(Self { address, metrics_address, driver, stop, tasks })
    }

    /// Stops in order: no new requests, what is waiting is committed, then the end. Running chunks go on;
    /// their results are taken when a coordinator is back.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        self.stop.send_replace(true);
        self.driver.stop().await;
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap_or_else(|error| Err(ServerError::Ended(error)))?;
        }
        Ok(())
    }

    /// Serves until `stop` resolves or something breaks.
    pub async fn serve(mut self, stop: impl Future<Output = ()>) -> Result<(), ServerError> {
        tokio::select! {
            () = stop => self.stop().await,
            Some(task) = self.tasks.join_next() => task.unwrap_or_else(|error| Err(ServerError::Ended(error))),
        }
    }
}

/// Starts to lead or to follow.
async fn drive<S: Store>(
    store: S,
    config: &Config,
    clock: Clock,
    meters: &Arc<Meters>,
    tasks: &mut JoinSet<Result<(), ServerError>>,
) -> Result<Driver, StoreError> {
    let roots = config.roots.clone();
    let options = DriverOptions {
        farm: config.farm(),
        tag: new_tag(),
        lease: config.leader_lease(),
        meters: meters.clone(),
        survey: Arc::new(move |tag, job| survey(&roots, tag, job)),
    };
    let (driver, engine) = driver::start(store, options, clock).await?;
    tasks.spawn(async move {
        engine.await;
        Ok(())
    });
    Ok(driver)
}

/// Runs a coordinator until `stop` resolves.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), ServerError> {
    let coordinator = Coordinator::start(&config).await?;
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    coordinator.serve(stop).await
}

async fn when(mut stopped: watch::Receiver<bool>) {
    // The sender's end means the same.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn connections(listener: Listener) -> impl Stream<Item = io::Result<Connection>> {
    futures_util::stream::unfold(listener, async |listener| {
        let (connection, _) = listener.accept().await;
        Some((Ok(connection), listener))
    })
}

async fn listen(address: SocketAddr, limits: Limits) -> Result<Listener, ServerError> {
    Listener::bind(address, limits).await.map_err(|source| ServerError::Listen { address, source })
}

fn local(listener: &Listener, address: SocketAddr) -> Result<SocketAddr, ServerError> {
    listener.local_addr().map_err(|source| ServerError::Listen { address, source })
}

/// Four letters and digits that name a new farm.
pub(crate) fn new_tag() -> FarmTag {
    const LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";
    let mut rng = rand::rng();
    FarmTag((0..4).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect())
}
