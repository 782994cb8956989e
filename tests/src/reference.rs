//! What a workflow makes of a clip without any farm: a prompt to a simulator, in one piece or in chunks of
//! any kind.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use hearth_simulator::Simulator;
use hearth_storage::clip::file_of;
use hearth_workflows::{
    Frame, FrameRange, FrameSet, SequencePath, Workflow,
    bind::{self, StagedClip},
    parameters::ParameterTexts,
};
use image::DynamicImage;

/// A simulator that renders chunks directly.
#[derive(Debug)]
pub struct Reference {
    simulator: Simulator,
    dir: tempfile::TempDir,
    http: reqwest::Client,
}

impl Reference {
    pub async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().expect("tempdir");
        let config = hearth_simulator::Config { base: dir.path().to_owned(), ..Default::default() };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let simulator = Simulator::start(any, config).await.expect("simulator");
        Self { simulator, dir, http: reqwest::Client::new() }
    }

    /// Renders the frames `own` as one chunk; the pictures by frame, for each pass.
    pub async fn render(
        &self,
        workflow: &Workflow,
        parameters: &ParameterTexts,
        folder: &Path,
        own: &FrameSet,
        clip: FrameRange,
    ) -> BTreeMap<String, BTreeMap<Frame, DynamicImage>> {
        let id = uuid::Uuid::new_v4().to_string();
        let sequence: SequencePath = "root/plate.%04d.png".parse().expect("path");
        let split = workflow.manifest().split(parameters).expect("a split");
        let plan = split.plan(own, clip, workflow.manifest().shape());
        let input = self.dir.path().join("input").join(&id);
        std::fs::create_dir_all(&input).expect("folder");
        let staged = plan.loaded.iter().enumerate().map(|(index, frame)| {
            let name = format!("{index:06}.png");
            std::fs::copy(file_of(folder, &sequence, *frame), input.join(&name)).expect("copied");
            format!("{id}/{name}")
        });
        let staged = StagedClip::Files(staged.collect());
        let prompt = bind::bind(workflow, parameters, &plan, &staged, &BTreeMap::new(), "/nowhere", &id)
            .expect("bound");
        let body = serde_json::json!({ "prompt": prompt.graph, "prompt_id": id, "client_id": "reference" });
        let url = self.simulator.url();
        let response = self.http.post(format!("{url}/prompt")).json(&body).send().await.expect("answer");
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap_or_default());
        let entry = self.history(&id).await;
        assert_eq!(entry["status"]["completed"], true, "{entry}");
        let mut passes = BTreeMap::new();
        for (pass, saver) in &prompt.savers {
            let images = entry["outputs"][&saver.node]["images"].as_array().expect("images").clone();
            assert_eq!(images.len(), plan.made);
            let read = |index: usize| {
                let image = &images[index];
                let name = image["filename"].as_str().expect("name");
                let output =
                    self.dir.path().join("output").join(image["subfolder"].as_str().expect("folder"));
                image::open(output.join(name)).expect("picture")
            };
            passes.insert(
                pass.clone(),
                plan.kept.iter().map(|(index, frame)| (*frame, read(*index))).collect(),
            );
        }
        passes
    }

    async fn history(&self, id: &str) -> serde_json::Value {
        let url = format!("{}/history/{id}", self.simulator.url());
        let started = Instant::now();
        loop {
            let answer: serde_json::Value =
                self.http.get(&url).send().await.expect("answer").json().await.expect("json");
            if let Some(entry) = answer.get(id) {
                return entry.clone();
            }
            assert!(started.elapsed() < Duration::from_secs(60), "the prompt does not end");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The whole clip in one piece, first pass.
pub async fn unsplit(
    workflow: &Workflow,
    parameters: &ParameterTexts,
    folder: &Path,
    clip: FrameRange,
) -> BTreeMap<Frame, DynamicImage> {
    let reference = Reference::start().await;
    let mut passes = reference.render(workflow, parameters, folder, &clip.into(), clip).await;
    passes.pop_first().expect("a pass").1
}
