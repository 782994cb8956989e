//! `/metrics` for Prometheus, and `/healthz` for whoever restarts us.

use std::{io, sync::Arc};

use axum::{Router, http::header::CONTENT_TYPE, response::IntoResponse as _, routing::get};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;

/// Serves `registry` until `stop` resolves.
pub async fn serve_metrics(
    listener: TcpListener,
    registry: Arc<Registry>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let metrics = move || {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &registry);
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        async move { ([(CONTENT_TYPE, kind)], text).into_response() }
    };
    let app = Router::new().route("/metrics", get(metrics)).route("/healthz", get(|| async { "ok\n" }));
    axum::serve(listener, app).with_graceful_shutdown(stop).await
}
