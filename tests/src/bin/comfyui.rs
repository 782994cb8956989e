//! Holds the workflows that ship with Hearth, and others by their folders, against a real ComfyUI on this machine: what
//! its nodes declare, whether its `/prompt` accepts them, and, for those that are named, whether they make the same
//! pictures in chunks as in one piece. Prints a table.
//!
//! ```text
//! cargo run --release -p hearth-tests --bin comfyui -- http://127.0.0.1:8188
//! cargo run --release -p hearth-tests --bin comfyui -- http://127.0.0.1:8188 film-look chroma-key:hair ./my-workflow
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    env,
    net::SocketAddr,
    path::Path,
    time::Instant,
};

use hearth_agent::{Agent, NodeConfig, Transfer};
use hearth_client::{
    FarmClient,
    v1::{self, JobState, submit_job_request},
};
use hearth_coordinator::Coordinator;
use hearth_pictures::{Raster, Samples};
use hearth_storage::Roots;
use hearth_tests::{
    clips,
    farm::{finish, source, wait_for_nodes},
};
use hearth_workflows::{
    FrameRange, bind,
    library::{self, Library},
    parameters::{ParameterTexts, ParameterType},
    signatures::Signatures,
};
use serde_json::{Value, json};

const FRAMES: i64 = 24;
const CHUNK: u32 = 7;
const SIZE: (u32, u32) = (192, 108);

#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut arguments = env::args().skip(1);
    let Some(url) = arguments.next() else { panic!("give the URL of a ComfyUI, e.g. http://127.0.0.1:8188") };
    let wanted: Vec<String> = arguments.collect();
    if wanted.is_empty() { accepted(&url).await } else { compared(&url, &wanted).await }
}

/// Whether the server accepts each template with its defaults and its presets.
async fn accepted(url: &str) {
    let http = reqwest::Client::new();
    let object_info: Value =
        http.get(format!("{url}/object_info")).send().await.expect("a ComfyUI").json().await.expect("JSON");
    let signatures = Signatures::read(&object_info);
    let dir = tempfile::tempdir().expect("a folder");
    clips::make(dir.path(), 0..=FRAMES, 64, 64);
    clips::make_exr(dir.path(), 0..=FRAMES, 64, 64);
    let folder = dir.path().to_str().expect("UTF-8");
    for (name, path) in clips::files(dir.path())
        .into_iter()
        .filter(|(_, path)| path.extension().is_some_and(|it| it == "png"))
    {
        let picture =
            reqwest::multipart::Part::bytes(std::fs::read(path).expect("a picture")).file_name(name);
        let form = reqwest::multipart::Form::new()
            .part("image", picture)
            .text("subfolder", bind::SAMPLE_INPUT)
            .text("overwrite", "true");
        let answer =
            http.post(format!("{url}/upload/image")).multipart(form).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{answer:?}");
    }
    let clip = FrameRange::new(0, FRAMES).expect("a range");
    println!("| workflow | nodes | /prompt |\n| --- | --- | --- |");
    for workflow in Library::read::<&str>(&[]).workflows.into_values() {
        let presets = workflow.manifest().presets.iter();
        let mut settings = vec![("defaults", ParameterTexts::new())];
        settings.extend(presets.map(|(name, preset)| (name.as_str(), preset.parameters.clone())));
        for (setting, texts) in settings {
            let mut texts = texts;
            for (name, parameter) in &workflow.manifest().parameters {
                if parameter.kind.is_on_storage() {
                    let ending = parameter.extensions.first().map_or("png", String::as_str);
                    texts.insert(name.clone(), format!("plates/any.{ending}"));
                }
            }
            let graph = bind::sample(&workflow, &texts, &clip.into(), clip, folder).expect("bound");
            let wrong: Vec<String> =
                signatures.check(&graph).iter().map(|wrong| hearth_telemetry::chain(wrong)).collect();
            let graph: serde_json::Map<String, Value> =
                graph.nodes().iter().map(|(id, node)| (id.clone(), node.to_value())).collect();
            let id = uuid::Uuid::new_v4().to_string();
            let body = json!({ "prompt": graph, "prompt_id": id, "client_id": "hearth" });
            let answer = http.post(format!("{url}/prompt")).json(&body).send().await.expect("an answer");
            let status = answer.status();
            let answer: Value = answer.json().await.unwrap_or_default();
            let errors = answer["node_errors"].as_object().is_some_and(|errors| !errors.is_empty());
            let told =
                if status == 200 && !errors { "accepted".to_owned() } else { format!("{status} {answer}") };
            let nodes = if wrong.is_empty() { "as declared".to_owned() } else { wrong.join("; ") };
            println!("| {}, {setting} | {nodes} | {told} |", workflow.name());
            // Only whether it would be run was the question.
            for (place, what) in
                [("queue", json!({ "delete": [id] })), ("interrupt", json!({ "prompt_id": id }))]
            {
                let _ = http.post(format!("{url}/{place}")).json(&what).send().await;
            }
        }
    }
}

/// Renders each of `wanted` (a name or a folder, and after a colon a preset) in one piece and in chunks, on a farm whose
/// only node is the server.
async fn compared(url: &str, wanted: &[String]) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut roots = Roots::default();
    for root in ["plates", "comps"] {
        std::fs::create_dir_all(dir.path().join(root)).expect("a root");
        roots.insert(root, dir.path().join(root));
    }
    clips::make_screen(&dir.path().join("plates/screen"), 1001..=1000 + FRAMES, SIZE.0, SIZE.1);
    clips::draw(3, SIZE.0, SIZE.1).save(dir.path().join("plates/background.png")).expect("a picture");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let coordinator = Coordinator::start(&hearth_coordinator::Config {
        listen: any,
        metrics_listen: any,
        store: dir.path().join("farm.redb").into(),
        roots: roots.clone(),
        ..hearth_coordinator::Config::default()
    })
    .await
    .expect("a coordinator");
    let farm = format!("http://{}", coordinator.address);
    let node = NodeConfig {
        name: "real".to_owned(),
        comfyui: url.to_owned(),
        transfer: Some(Transfer::Shared),
        ..NodeConfig::default()
    };
    let agent = Agent::start(hearth_agent::Config {
        coordinator: farm.clone(),
        nodes: vec![node],
        roots,
        state: dir.path().join("agent"),
        metrics_listen: any,
        ..hearth_agent::Config::default()
    })
    .await
    .expect("an agent");
    let client = FarmClient::new(&farm).expect("a client");
    wait_for_nodes(&client, 1).await;

    println!("| workflow | pass | frames | chunks | differ | most | seconds whole | in chunks |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (index, one) in wanted.iter().enumerate() {
        let mut made = Vec::new();
        for (kind, chunk_frames) in [("whole", 10_000), ("chunks", CHUNK)] {
            let output = format!("{index}-{kind}");
            let started = Instant::now();
            let request = request(one, &output, chunk_frames);
            let job = client.submit(request).await.unwrap_or_else(|error| panic!("{one}: {error}"));
            let (job, failures) = finish(&client, job.job.expect("a job").job_id).await;
            assert_eq!(job.state(), JobState::Done, "{one}: {failures:?}");
            let seconds = started.elapsed().as_secs_f64();
            made.push((pictures(&dir.path().join("comps").join(&output)), seconds));
        }
        let [(whole, whole_seconds), (chunks, chunk_seconds)] = &made[..] else { unreachable!("two kinds") };
        assert_eq!(whole.keys().collect::<Vec<_>>(), chunks.keys().collect::<Vec<_>>(), "{one}");
        let mut passes: BTreeMap<&str, (usize, usize, f64)> = BTreeMap::new();
        for (file, picture) in whole {
            let pass = file.split_once('/').map_or("", |(pass, _)| pass);
            let off = difference(picture, &chunks[file]);
            let entry = passes.entry(pass).or_default();
            *entry = (entry.0 + 1, entry.1 + usize::from(off > 0.0), entry.2.max(off));
        }
        for (pass, (frames, differ, most)) in passes {
            let count = frames.div_ceil(CHUNK as usize);
            println!(
                "| {one} | {pass} | {frames} | about {count} | {differ} | {most:.5} | {whole_seconds:.1} | {chunk_seconds:.1} |"
            );
        }
    }
    agent.stop().await.expect("stopped");
    coordinator.stop().await.expect("stopped");
}

fn request(one: &str, output: &str, chunk_frames: u32) -> v1::SubmitJobRequest {
    let (name, preset) = one.split_once(':').unwrap_or((one, ""));
    let (workflow, named) = if name.contains('/') {
        let workflow = library::read_folder(Path::new(name)).expect("a workflow");
        let named = source(workflow.name(), workflow.manifest_text(), workflow.graph_text());
        (workflow, named)
    } else {
        let workflow = Library::read::<&str>(&[]).get(name).expect("a workflow").clone();
        (workflow, submit_job_request::Workflow::WorkflowName(name.to_owned()))
    };
    let manifest = workflow.manifest();
    let known = manifest.presets.get(preset);
    assert!(preset.is_empty() || known.is_some(), "{name} has no preset {preset}");
    let given = known.map(|preset| preset.parameters.clone()).unwrap_or_default();
    let mut parameters: HashMap<String, String> = given.into_iter().collect();
    for (name, parameter) in &manifest.parameters {
        if parameter.kind == ParameterType::Picture && parameter.bypass.is_empty() {
            parameters.insert(name.clone(), "plates/background.png".to_owned());
        }
    }
    let has_clip = manifest.clip.is_some();
    let or_nothing = |text: String| if has_clip { text } else { String::new() };
    // No more than its nodes take in one piece.
    let frames = (FRAMES as u64).min(manifest.shape().max);
    v1::SubmitJobRequest {
        workflow: Some(named),
        clip: or_nothing("plates/screen/plate.%04d.exr".to_owned()),
        frames: or_nothing(format!("1001-{}", 1000 + frames)),
        output: format!("comps/{output}"),
        chunk_frames,
        parameters,
        no_deliveries: true,
        // Both are cut off alike.
        allow_clipping: true,
        ..v1::SubmitJobRequest::default()
    }
}

fn pictures(folder: &Path) -> BTreeMap<String, Raster> {
    let mut found = BTreeMap::new();
    for (name, path) in clips::files(folder) {
        found.insert(name, hearth_pictures::read(&path).expect("a picture"));
    }
    found
}

/// The greatest difference of a value; white is 1.
fn difference(one: &Raster, other: &Raster) -> f64 {
    let values = |samples: &Samples| -> Vec<f64> {
        match samples {
            Samples::U8(values) => values.iter().map(|value| f64::from(*value) / 255.0).collect(),
            Samples::U16(values) => values.iter().map(|value| f64::from(*value) / 65535.0).collect(),
            Samples::F16(values) => values.iter().map(|value| value.to_f64()).collect(),
            Samples::F32(values) => values.iter().map(|value| f64::from(*value)).collect(),
        }
    };
    let planes = one.planes.iter().zip(&other.planes);
    let off = planes.flat_map(|(one, other)| {
        values(&one.samples).into_iter().zip(values(&other.samples)).map(|(one, other)| (one - other).abs())
    });
    off.fold(0.0, f64::max)
}
