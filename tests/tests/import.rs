//! A workflow that nobody has written code for: a graph from ComfyUI, imported, checked and run, by files alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use hearth_client::v1::JobState;
use hearth_simulator::{Config, nodes::all_object_info};
use hearth_tests::{
    clips,
    farm::{Farm, Setup, request},
};
use hearth_workflows::{import::import, parameters::ParameterTexts, signatures::Signatures};
use serde_json::{Value, json};

/// As ComfyUI's *Export (API)* writes it.
fn exported() -> Value {
    json!({
        "1": { "class_type": "VHS_LoadImagesPath", "_meta": { "title": "plates" },
            "inputs": { "directory": "/home/artist/plates", "image_load_cap": 0, "skip_first_images": 0, "select_every_nth": 1 } },
        "2": { "class_type": "BetterFilmGrain", "_meta": { "title": "grain" },
            "inputs": { "image": ["1", 0], "scale": 0.5, "strength": 0.8, "saturation": 0.7, "toe": 0.0, "seed": 5 } },
        "3": { "class_type": "ImageSharpen", "_meta": { "title": "sharpen" },
            "inputs": { "image": ["2", 0], "sharpen_radius": 1, "sigma": 1.0, "alpha": 0.5 } },
        "9": { "class_type": "SaveImage", "_meta": { "title": "save" },
            "inputs": { "images": ["3", 0], "filename_prefix": "out/grainy" } },
    })
}

/// The same graph as the editor saves it, with a reroute, a bypassed node and a primitive on the way.
fn saved() -> Value {
    json!({
        "nodes": [
            { "id": 1, "type": "VHS_LoadImagesPath", "title": "plates", "mode": 0, "inputs": [],
              "widgets_values": { "directory": "/home/artist/plates", "image_load_cap": 0, "skip_first_images": 0,
                                  "select_every_nth": 1, "videopreview": {} } },
            { "id": 2, "type": "BetterFilmGrain", "title": "grain", "mode": 0,
              "inputs": [{ "name": "image", "type": "IMAGE", "link": 11 },
                         { "name": "strength", "type": "FLOAT", "link": 15, "widget": { "name": "strength" } }],
              "widgets_values": [0.5, 0.1, 0.7, 0.0, 5, "randomize"] },
            { "id": 3, "type": "ImageSharpen", "title": "sharpen", "mode": 0,
              "inputs": [{ "name": "image", "type": "IMAGE", "link": 13 }], "widgets_values": [1, 1.0, 0.5] },
            { "id": 4, "type": "Reroute", "mode": 0, "inputs": [{ "name": "", "type": "*", "link": 10 }],
              "outputs": [{ "type": "IMAGE" }] },
            { "id": 5, "type": "ImageInvert", "mode": 4, "inputs": [{ "name": "image", "type": "IMAGE", "link": 12 }],
              "outputs": [{ "type": "IMAGE" }], "widgets_values": [] },
            { "id": 6, "type": "PrimitiveNode", "mode": 0, "outputs": [{ "type": "FLOAT" }], "widgets_values": [0.8, "fixed"] },
            { "id": 7, "type": "Note", "mode": 0, "widgets_values": ["for the night shift"] },
            { "id": 9, "type": "SaveImage", "title": "save", "mode": 0,
              "inputs": [{ "name": "images", "type": "IMAGE", "link": 14 }], "widgets_values": ["out/grainy"] },
        ],
        "links": [[10, 1, 0, 4, 0, "IMAGE"], [11, 4, 0, 2, 0, "IMAGE"], [12, 2, 0, 5, 0, "IMAGE"],
                  [13, 5, 0, 3, 0, "IMAGE"], [14, 3, 0, 9, 0, "IMAGE"], [15, 6, 0, 2, 1, "FLOAT"]],
        "version": 0.4
    })
}

fn signatures() -> Signatures {
    Signatures::read(&all_object_info(&Config::default()))
}

fn hearth(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let program = Path::new(env!("CARGO_BIN_EXE_comfyui")).with_file_name("hearth");
    let output = Command::new(program).current_dir(folder).args(arguments).output().expect("hearth runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_workflow_needs_no_code() {
    let library = tempfile::tempdir().expect("a folder");
    let folders = vec![library.path().to_owned()];
    let farm = Farm::start(Setup {
        tune_coordinator: Box::new(move |config| config.workflows = folders),
        ..Setup::default()
    })
    .await;
    clips::make(&farm.path("plates/sh010"), 1001..=1012, 48, 32);
    std::fs::write(library.path().join("grainy.json"), exported().to_string()).expect("written");

    let url = farm.simulators[0].url();
    let (code, said, err) = hearth(library.path(), &["workflow", "import", "grainy.json", "--node", &url]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{said}");
    for guess in ["the clip comes in through node 1 (VHS_LoadImagesPath)", "nodes 2 draw noise by the place"]
    {
        assert!(said.contains(guess), "{said}");
    }
    let (code, said, _) = hearth(library.path(), &["workflow", "check", "grainy", "--node", &url]);
    assert_eq!((code, said.as_str()), (Some(0), "grainy: that ComfyUI would take it\n"));
    // Never over what somebody has finished by hand.
    let (code, _, err) = hearth(library.path(), &["workflow", "import", "grainy.json", "--node", &url]);
    assert!(code == Some(1) && err.contains("grainy/hearth.toml exists already"), "{err}");

    let mut made = Vec::new();
    for (output, chunk_frames, strength) in
        [("whole", 100, "0.8"), ("split", 5, "0.8"), ("other", 100, "0.1")]
    {
        let mut request = request("sh010", "grainy", output);
        request.parameters.insert("strength".to_owned(), strength.to_owned());
        request.chunk_frames = chunk_frames;
        let (job, failures) = farm.run(request).await;
        assert_eq!(job.state(), JobState::Done, "{failures:?}");
        made.push(clips::read(&farm.path(&format!("comps/{output}"))));
    }
    assert_eq!(made[0].len(), 12);
    assert!(made[0] == made[1], "grain shows the cut");
    assert!(made[0] != made[2], "the parameter does nothing");

    // What is wrong by then is found before a GPU is touched.
    let manifest = library.path().join("grainy/hearth.toml");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    std::fs::write(
        &manifest,
        text.replace("default = 0.8", "default = 80.0").replace("max = 10", "max = 100"),
    )
    .expect("written");
    let (code, said, _) = hearth(library.path(), &["workflow", "check", "grainy", "--node", &url]);
    assert_eq!(code, Some(1));
    assert!(said.contains("input strength: 80.0 is out of range; give 0 to 10"), "{said}");
    farm.stop().await;
}

#[test]
fn a_graph_from_the_editor_is_the_exported_one_or_is_refused() {
    let signatures = signatures();
    let from_editor = import("w", "w.json", &saved().to_string(), Some(&signatures)).expect("converted");
    let from_export = import("w", "w.json", &exported().to_string(), Some(&signatures)).expect("a graph");
    assert_eq!(from_editor, from_export);

    let refused = |text: &Value, signatures| {
        import("w", "w.json", &text.to_string(), signatures).expect_err("refused").to_string()
    };
    assert!(refused(&saved(), None).contains("name one with --node"));
    let mut unknown = saved();
    unknown["nodes"][2]["type"] = "NodeOfTheFuture".into();
    let told = refused(&unknown, Some(&signatures));
    assert!(told.contains("NodeOfTheFuture"), "{told}");
    let mut more = saved();
    more["nodes"][2]["widgets_values"] = json!([1, 1.0, 0.5, "who knows"]);
    // What stands behind the last widget is a button's, or the editor's own.
    let from_more = import("w", "w.json", &more.to_string(), Some(&signatures)).expect("converted");
    assert_eq!(from_more.workflow, from_export.workflow);
    assert!(from_more.notes.len() > from_export.notes.len(), "it is said: {:?}", from_more.notes);
    // The package has another version by now. What it has more of at its end has a default; otherwise, which value is
    // whose cannot be said.
    let mut fewer = saved();
    fewer["nodes"][2]["widgets_values"] = json!([1, 1.0]);
    let from_fewer = import("w", "w.json", &fewer.to_string(), Some(&signatures)).expect("converted");
    assert!(from_fewer.notes.iter().any(|note| note.contains("alpha")), "{:?}", from_fewer.notes);
    let mut other = saved();
    other["nodes"][2]["widgets_values"] = json!(["lanczos", 1, 1.0]);
    let told = refused(&other, Some(&signatures));
    assert!(told.contains("\"lanczos\" cannot be sharpen_radius"), "{told}");
    // What is only looked at is saved instead.
    let mut preview = exported();
    preview["9"]["class_type"] = "PreviewImage".into();
    let from_preview = import("w", "w.json", &preview.to_string(), Some(&signatures)).expect("converted");
    assert_eq!(from_preview.workflow.manifest().passes.len(), 1);
    let mut silent = exported();
    silent.as_object_mut().expect("a graph").remove("9");
    let told = refused(&silent, Some(&signatures));
    assert!(told.contains("nothing in it saves pictures"), "{told}");
}

/// A bypassed node gives what comes in at the output's own place, if that is of its type: the negative stays negative.
#[test]
fn a_bypassed_node_passes_on_what_is_in_its_place() {
    let conditioning = |name: &str, link: i64| json!({ "name": name, "type": "CONDITIONING", "link": link });
    let text = |id: i64, text: &str| {
        json!({ "id": id, "type": "CLIPTextEncode", "mode": 0, "widgets_values": [text], "title": "言葉",
                "inputs": [{ "name": "clip", "type": "CLIP", "link": 1 }] })
    };
    let graph = json!({
        "nodes": [
            { "id": 1, "type": "CheckpointLoaderSimple", "mode": 0, "inputs": [], "widgets_values": ["sd15.safetensors"] },
            text(2, "a fox"),
            text(3, "blurry"),
            { "id": 4, "type": "ControlNetApplyAdvanced", "mode": 4,
              "inputs": [conditioning("positive", 2), conditioning("negative", 3)],
              "outputs": [{ "type": "CONDITIONING" }, { "type": "CONDITIONING" }] },
            { "id": 5, "type": "EmptyLatentImage", "mode": 0, "inputs": [], "widgets_values": [64, 64, 4] },
            { "id": 6, "type": "KSampler", "mode": 0, "widgets_values": [7, "fixed", 20, 8.0, "euler", "normal", 1.0],
              "inputs": [{ "name": "model", "type": "MODEL", "link": 4 }, conditioning("positive", 5),
                         conditioning("negative", 6), { "name": "latent_image", "type": "LATENT", "link": 7 }] },
            { "id": 7, "type": "VAEDecode", "mode": 0, "inputs": [{ "name": "samples", "type": "LATENT", "link": 8 },
                                                                   { "name": "vae", "type": "VAE", "link": 9 }] },
            { "id": 9, "type": "SaveImage", "mode": 0, "inputs": [{ "name": "images", "type": "IMAGE", "link": 10 }],
              "widgets_values": ["out"] },
        ],
        "links": [[1, 1, 1, 2, 0, "CLIP"], [2, 2, 0, 4, 0, "CONDITIONING"], [3, 3, 0, 4, 1, "CONDITIONING"],
                  [4, 1, 0, 6, 0, "MODEL"], [5, 4, 0, 6, 1, "CONDITIONING"], [6, 4, 1, 6, 2, "CONDITIONING"],
                  [7, 5, 0, 6, 3, "LATENT"], [8, 6, 0, 7, 0, "LATENT"], [9, 1, 2, 7, 1, "VAE"], [10, 7, 0, 9, 0, "IMAGE"]],
    });
    let draft = import("w", "w.json", &graph.to_string(), Some(&signatures())).expect("converted");
    let graph: Value = serde_json::from_str(draft.workflow.graph_text()).expect("JSON");
    let inputs = &graph["6"]["inputs"];
    assert_eq!((&inputs["positive"], &inputs["negative"]), (&json!(["2", 0]), &json!(["3", 0])));
    // Titles without a letter that a name may have still give every text a name.
    let parameters = &draft.workflow.manifest().parameters;
    assert_eq!(
        (parameters["prompt"].default_text(), parameters["negative"].default_text()),
        ("a fox".into(), "blurry".into())
    );
}

/// Every graph that ships with Hearth is taken for what its manifest says, as far as a graph can say it.
#[test]
fn the_shipped_graphs_are_guessed_right() {
    let signatures = signatures();
    let library = hearth_workflows::library::Library::read::<&str>(&[]);
    for (name, workflow) in &library.workflows {
        let draft = import(name, "graph.json", workflow.graph_text(), Some(&signatures)).expect(name);
        let (guess, right) = (draft.workflow.manifest(), workflow.manifest());
        assert_eq!(
            guess.clip.as_ref().map(|clip| (&clip.node, clip.load)),
            right.clip.as_ref().map(|clip| (&clip.node, clip.load)),
            "{name}"
        );
        let passes = |manifest: &hearth_workflows::manifest::Manifest| {
            manifest.passes.iter().map(|pass| (pass.node.clone(), pass.save)).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(passes(guess), passes(right), "{name}");
        let none = ParameterTexts::new();
        let kind =
            |split: hearth_workflows::Split| split.to_string().split([' ', ',']).next().map(str::to_owned);
        let (guessed, split) = (guess.split(&none).expect("a split"), right.split(&none).expect("a split"));
        // What looks at places in the batch is not cut until somebody says how.
        let right = if name == "temporal-smooth" { Some("whole".to_owned()) } else { kind(split) };
        assert_eq!(kind(guessed), right, "{name}");
        // What draws noise, and all that is no picture between it and the clip, gets one frame at a time.
        let frame_by_frame = |manifest: &hearth_workflows::manifest::Manifest| -> BTreeSet<String> {
            manifest.each.iter().flat_map(|each| each.nodes.clone()).collect()
        };
        let guessed = frame_by_frame(guess);
        let right: BTreeSet<String> = match name.as_str() {
            "style-transfer" => {
                ["structure", "shape", "encode", "sample", "decode"].map(str::to_owned).into()
            }
            "flux-upscale" => ["refine".to_owned()].into(),
            "film-look" => ["grain".to_owned()].into(),
            _ => BTreeSet::new(),
        };
        assert_eq!(guessed, right, "{name}");
    }
}
