//! `/metrics` for Prometheus, and `/healthz` for whoever looks whether the program can work. Nobody should restart a
//! coordinator for that: what it remembers may be all that is left of a store that is away.

use std::{fmt::Write as _, io, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};

use crate::listen::{Limits, Listener};

/// Scrapers come and go.
const CONNECTIONS: usize = 256;
/// Longer than between two scrapes.
const IDLE: Duration = Duration::from_secs(150);

const OPEN_METRICS: &str = "application/openmetrics-text";

/// What a listener for [`serve_metrics`] allows.
#[must_use]
pub fn metrics_limits() -> Limits {
    Limits { connections: CONNECTIONS, idle: Some(IDLE), ..Limits::of_process() }
}

/// Serves `registry` until `stop` resolves. `healthy`: what keeps the program from its work, if something does;
/// `/healthz` then answers 503 with it.
///
/// # Errors
/// When the listener breaks.
pub async fn serve_metrics(
    listener: Listener,
    registry: Arc<Registry>,
    healthy: impl Fn() -> Result<(), String> + Clone + Send + Sync + 'static,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let metrics = move |headers: HeaderMap| {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &registry);
        let accepted = headers.get(ACCEPT).and_then(|accepted| accepted.to_str().ok()).unwrap_or_default();
        let answer = if accepted.contains(OPEN_METRICS) {
            ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
        } else {
            ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], classic(&text))
        };
        async move { answer }
    };
    let health = move || {
        let answer = match healthy() {
            Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        };
        async move { answer }
    };
    let app = Router::new().route("/metrics", get(metrics)).route("/healthz", get(health));
    axum::serve(listener, app).with_graceful_shutdown(stop).await
}

/// Prometheus' own text of the same: there a counter is described under the name that it is told under, and neither
/// units nor an end are.
fn classic(open: &str) -> String {
    let counters: Vec<&str> =
        open.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(open.len());
    for line in open.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let described = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        let counter =
            described.and_then(|rest| rest.split(' ').next()).filter(|name| counters.contains(name));
        // Writing into a string does not fail.
        let _ = match counter {
            Some(name) => {
                let (before, after) = line.split_at("# HELP ".len() + name.len());
                writeln!(text, "{before}_total{after}")
            }
            None => writeln!(text, "{line}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classic_text_names_counters_as_it_tells_them() {
        let open = "# HELP hearth_frames_done Frames finished.\n# TYPE hearth_frames_done counter\n\
                    hearth_frames_done_total 7\n# HELP hearth_leading It leads.\n# TYPE hearth_leading gauge\n\
                    hearth_leading 1\n# UNIT hearth_leading bytes\n# EOF\n";
        let expected = "# HELP hearth_frames_done_total Frames finished.\n# TYPE hearth_frames_done_total counter\n\
                    hearth_frames_done_total 7\n# HELP hearth_leading It leads.\n# TYPE hearth_leading gauge\n\
                    hearth_leading 1\n";
        assert_eq!(classic(open), expected);
    }
}
