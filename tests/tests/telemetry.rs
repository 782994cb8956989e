//! What a supervisor's dashboards live on: metrics of coordinator and agent, and one trace a job, from the
//! client through the coordinator and the agent to the ComfyUI prompt.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use hearth_client::v1::{JobState, SubmitJobRequest};
use hearth_tests::{
    clips,
    farm::{Farm, PATIENCE, Setup, finish, request},
    processes::{Processes, free_port},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    trace::v1::{Span, status::StatusCode},
};
use tonic::{Request, Response, Status};

#[tokio::test]
async fn the_coordinator_tells_its_numbers() {
    let farm = Farm::start(Setup::default()).await;
    clips::make(&farm.path("plates/sh010"), 1..=8, 16, 12);
    let (job, _) = farm.run(request("sh010", "resize-sharpen", "out")).await;
    assert_eq!(job.state(), JobState::Done);
    // And one that waits: no node is in its pool.
    let waiting = SubmitJobRequest {
        pool: "nowhere".to_owned(),
        anyway: true,
        priority: Some(70),
        ..request("sh010", "resize-sharpen", "waiting")
    };
    farm.client.submit(waiting).await.expect("accepted");
    let url = format!("http://{}/metrics", farm.coordinator.metrics_address);
    // Gauges are taken at the driver's tick.
    let started = Instant::now();
    let text = loop {
        let text = reqwest::get(&url).await.expect("answer").text().await.expect("text");
        if text.contains("hearth_queue_frames{priority=\"70\"} 8") || started.elapsed() > PATIENCE {
            break text;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for line in [
        "hearth_frames_done_total 8",
        "hearth_nodes{state=\"idle\"} 2",
        "# TYPE hearth_chunk_seconds histogram",
        "# TYPE hearth_store_commit_seconds histogram",
        "hearth_queue_frames{priority=\"70\"} 8",
        "hearth_queue_jobs{priority=\"70\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let url = format!("http://{}/metrics", farm.agent.metrics_address);
    let text = reqwest::get(&url).await.expect("answer").text().await.expect("text");
    for line in [
        "hearth_agent_comfyui_up{node=\"node0\"} 1",
        "hearth_agent_results_unreported{node=\"node0\"} 0",
        "# TYPE hearth_agent_chunk_seconds histogram",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    farm.stop().await;
}

/// Takes spans as an OpenTelemetry collector does.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().expect("whole");
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.unwrap_or_default().attributes;
            let service = attributes.iter().find(|pair| pair.key == "service.name");
            let service = format!("{:?}", service.and_then(|pair| pair.value.clone()));
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                kept.push((service.clone(), span));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_one_trace_from_the_client_to_the_prompt() {
    let collector = Collector::default();
    let port = free_port();
    let serving = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .serve(([127, 0, 0, 1], port).into());
    tokio::spawn(serving);
    let endpoint = format!("http://127.0.0.1:{port}");
    let environment =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let farm = Processes::start(1, 0.0, &environment).await;
    clips::make(&farm.path("plates/sh010"), 1..=4, 16, 12);
    let clip = "plates/sh010/plate.%04d.png";
    let submitted = farm.hearth(&["submit", clip, "-w", "resize-sharpen", "-o", "comps/out"]);
    assert!(submitted.status.success(), "{}", String::from_utf8_lossy(&submitted.stderr));
    finish(&farm.client, 1).await;
    // The output is taken now.
    let refused = farm.hearth(&["submit", clip, "-w", "resize-sharpen", "-o", "comps/out"]);
    assert!(!refused.status.success());

    let expected: BTreeSet<&str> =
        ["hearth submit", "submit", "attempt", "stage", "queue", "comfyui", "collect"].into();
    let started = Instant::now();
    loop {
        let spans = collector.0.lock().expect("whole").clone();
        let root = spans.iter().find(|(_, span)| span.name == "hearth submit");
        if let Some((_, root)) = root {
            let of_job: Vec<_> = spans.iter().filter(|(_, span)| span.trace_id == root.trace_id).collect();
            let names: BTreeSet<&str> = of_job.iter().map(|(_, span)| span.name.as_str()).collect();
            let services: BTreeSet<&str> = of_job.iter().map(|(service, _)| service.as_str()).collect();
            // What was refused is told as an error, and nothing else is.
            let failed = |(_, span): &&(String, Span)| {
                span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
            };
            assert!(!of_job.iter().any(failed), "{of_job:?}");
            let refused = spans.iter().filter(failed).any(|(_, span)| {
                span.name == "submit"
                    && span.status.as_ref().is_some_and(|status| status.message.contains("exists"))
            });
            if names.is_superset(&expected) && services.len() == 3 && refused {
                break;
            }
        }
        let told: Vec<_> =
            spans.iter().map(|(service, span)| (service, &span.name, &span.trace_id)).collect();
        assert!(started.elapsed() < PATIENCE, "no whole trace: {told:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
