//! Reading, checking and binding a workflow: every mistake has its own error, with file, node and input.

use std::collections::BTreeMap;

use hearth_workflows::{
    Frame, FrameRange, FrameSet, Workflow, WorkflowError,
    bind::{self, StagedClip},
    library::Library,
    split::Shape,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn shipped(name: &str) -> Workflow {
    Library::read::<&str>(&[]).get(name).expect("shipped").clone()
}

const MANIFEST: &str = include_str!("../library/temporal-smooth/hearth.toml");
const GRAPH: &str = include_str!("../library/temporal-smooth/graph.json");

fn with_graph(change: impl FnOnce(&mut Value)) -> Result<Workflow, WorkflowError> {
    let mut graph: Value = serde_json::from_str(GRAPH).expect("json");
    change(&mut graph);
    Workflow::parse("w", MANIFEST, &graph.to_string())
}

fn with_manifest(from: &str, to: &str) -> Result<Workflow, WorkflowError> {
    assert!(MANIFEST.contains(from), "{from}");
    Workflow::parse("w", &MANIFEST.replace(from, to), GRAPH)
}

#[test]
fn the_library_is_whole() {
    let library = Library::read::<&str>(&[]);
    assert!(library.errors.is_empty(), "{:?}", library.errors);
    assert_eq!(library.workflows.len(), 16);
    let unknown = library.get("nonsense").expect_err("unknown");
    let unknown = unknown.to_string();
    assert!(
        unknown.starts_with("no workflow 'nonsense'; the library has 3d-maps, background-plate, "),
        "{unknown}"
    );
}

#[test]
fn every_mistake_in_a_graph_is_told_with_file_node_and_input() {
    let told = |result: Result<Workflow, WorkflowError>| result.expect_err("a mistake").to_string();
    assert_eq!(
        told(with_graph(|graph| graph["7"]["inputs"]["image2"] = json!(["66", 0]))),
        "w/graph.json: node 7, input image2: links to node 66, which is not in the graph"
    );
    assert_eq!(
        told(with_graph(|graph| graph["2"]["inputs"]["image"] = json!(["8", 0]))),
        "w/graph.json: nodes 2, 3, 4, 7, 8, 9 feed each other in a circle"
    );
    assert!(told(with_graph(|graph| graph["7"]["inputs"]["image2"] = json!([1, 2]))).contains("no link"));
    assert!(
        told(with_graph(|graph| drop(graph["5"].as_object_mut().map(|n| n.remove("inputs")))))
            .contains("node 5 has no inputs")
    );
    assert!(
        told(with_graph(|graph| graph["5"]["class_type"] = json!("VHS_BatchManager")))
            .contains("VHS_BatchManager")
    );
    assert!(told(with_graph(|graph| *graph = json!({ "nodes": [], "links": [] }))).contains("editor format"));
    assert!(told(Workflow::parse("w", MANIFEST, "{")).contains("not valid JSON"));
    assert!(told(Workflow::parse("w", MANIFEST, "{}")).contains("no nodes"));
}

#[test]
fn every_mistake_in_a_manifest_is_told() {
    let told = |from: &str, to: &str| with_manifest(from, to).expect_err("a mistake").to_string();
    assert_eq!(
        told("sets = [\"8.blend_factor\"]", "sets = [\"88.blend_factor\"]"),
        "w/hearth.toml: parameter strength names node 88, which is not in the graph; the graph has 1, 10, 2, 3, 4, 5, 6, 7, 8, 9"
    );
    assert_eq!(
        told("sets = [\"8.blend_factor\"]", "sets = [\"8.image1\"]"),
        "w/hearth.toml: parameter strength sets input image1 of node 8 (ImageBlend), which is a link there; name an input that holds a value"
    );
    assert!(told("default = 0.5", "default = 7.5").contains("its own default does not fit"));
    assert!(told("node = \"9\"", "node = \"99\"").contains("pass beauty names node 99"));
    assert!(
        told("load = \"image\"", "load = \"directory\"").contains("wants a node with the input 'directory'")
    );
    assert!(told("kind = \"handles\"", "kind = \"halves\"").contains("w/hearth.toml"));
    assert!(told("[[pass]]\nname = \"beauty\"", "[[pass]]\nname = \"../up\"").contains("becomes a folder"));
    let mask = with_graph(|graph| graph["5"]["inputs"]["image"] = json!(["1", 1]));
    assert!(mask.expect_err("a mistake").to_string().contains("only its picture (output 0)"));
}

#[test]
fn what_is_bypassed_has_a_stand_in_for_every_output_that_is_used() {
    let style = shipped("style-transfer");
    let half = style.manifest_text().replace(r#", "structure.negative"]"#, "]");
    let told = Workflow::parse("w", &half, style.graph_text()).expect_err("half of it").to_string();
    assert!(told.contains("parameter structure: nothing stands in for output 1 of node structure"), "{told}");

    // What only goes with another bypassed node needs none, unless it stands in for that node.
    let graph = GRAPH.replace(r#""image2": ["7", 0]"#, r#""image2": ["7", 1]"#);
    let sets = r#"sets = ["8.blend_factor"]"#;
    let parsed = |bypass: &str| {
        let manifest = MANIFEST.replace(sets, &format!("{sets}\nbypass = {bypass}"));
        Workflow::parse("w", &manifest, &graph)
    };
    assert!(graph != GRAPH && parsed(r#"["7.image1", "8.image1"]"#).is_ok());
    let told = parsed(r#"["7.image1", "8.image2"]"#).expect_err("it stands in").to_string();
    assert!(told.contains("nothing stands in for output 1 of node 7"), "{told}");

    // Each output by its own: what is negative stays negative.
    let off = [("structure", "0"), ("reference", "plates/ref.png")];
    let off = off.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let clip = FrameRange::new(1, 1).expect("a range");
    let bound = bind::sample(&style, &off, &clip.into(), clip, "frames").expect("bound");
    let inputs = &style.graph().get("structure").expect("there").inputs;
    let sampler = bound.nodes().values().find(|node| node.class_type == "KSampler").expect("it samples");
    assert!(bound.get("structure").is_none() && bound.get("structure_frame0").is_none());
    assert_eq!(
        (&sampler.inputs["positive"], &sampler.inputs["negative"]),
        (&inputs["positive"], &inputs["negative"])
    );
    assert_ne!(inputs["positive"], inputs["negative"]);
}

#[test]
fn parameters_are_held_against_type_range_and_choices() {
    let workflow = shipped("resize-sharpen");
    let told = |name: &str, value: &str| {
        let given = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let declared = &workflow.manifest().parameters;
        hearth_workflows::parameters::resolve(workflow.name(), declared, &given)
            .map_err(|error| error.to_string())
    };
    assert_eq!(
        told("sharpness", "1"),
        Err("workflow resize-sharpen has no parameter 'sharpness'; it has filter, radius, scale, sharpen"
            .to_owned())
    );
    assert_eq!(
        told("scale", "9"),
        Err("workflow resize-sharpen, parameter scale: 9 is out of range; give 0.05 to 8".to_owned())
    );
    assert_eq!(
        told("radius", "1.5"),
        Err("workflow resize-sharpen, parameter radius: '1.5' is no whole number".to_owned())
    );
    assert!(told("scale", "nan").is_err());
    assert!(told("filter", "best").expect_err("no choice").contains("is not one of nearest-exact, bilinear"));
    let values = told("scale", "2").expect("fits");
    assert_eq!(values["scale"], json!(2.0));
    assert_eq!(values["filter"], json!("lanczos"));
}

#[test]
fn a_chunk_is_bound_with_its_handles_and_a_prefix_of_its_own() {
    let workflow = shipped("temporal-smooth");
    let clip = FrameRange::new(1001, 1100).expect("range");
    let own: FrameSet = "1001-1003".parse().expect("frames");
    let split = workflow.manifest().split(&BTreeMap::new()).expect("a split");
    let plan = split.plan(&own, clip, workflow.manifest().shape());
    // No handle before the clip's first frame.
    assert_eq!(plan.loaded.iter().map(|frame| frame.0).collect::<Vec<_>>(), [1001, 1002, 1003, 1004]);
    assert_eq!(plan.kept, [(0, Frame(1001)), (1, Frame(1002)), (2, Frame(1003))]);
    let staged = StagedClip::Files((0..4).map(|index| format!("f{index}.png")).collect());
    let prompt =
        bind::bind(&workflow, &BTreeMap::new(), &plan, &staged, &BTreeMap::new(), "/nowhere", "k3f9-1-7")
            .expect("bound");
    let graph = &prompt.graph;
    assert_eq!(graph["9"]["inputs"]["filename_prefix"], "hearth/k3f9-1-7/beauty");
    assert_eq!(prompt.savers["beauty"].prefix, "hearth/k3f9-1-7/beauty");
    assert_eq!(graph["4"]["inputs"]["length"], 4);
    assert_eq!(graph["1"]["inputs"]["image"], "f0.png");
    assert_eq!(graph["1_frame3"]["inputs"]["image"], "f3.png");
    // Whoever took the one picture takes the batch now.
    assert_eq!(graph["2"]["inputs"]["image"], json!(["1_batch3", 0]));
    assert_eq!(graph["1_batch3"]["inputs"], json!({ "image1": ["1_batch1", 0], "image2": ["1_batch2", 0] }));
}

proptest! {
    /// Chunks answer for every frame once, load what they need in order, and never leave the clip.
    #[test]
    fn any_carving_covers_the_clip(
        first in -20_i64..20, len in 1_i64..80, head in 0_u32..5, tail in 0_u32..5,
        sizes in prop::collection::vec(1_u64..17, 1..40),
    ) {
        let clip = FrameRange::new(first, first + len - 1).expect("range");
        let split = hearth_workflows::Split::Handles { head, tail };
        let mut waiting = FrameSet::from(clip);
        let mut kept: Vec<Frame> = Vec::new();
        for size in sizes.iter().cycle() {
            let own = split.carve(&mut waiting, *size, Shape::default());
            let plan = split.plan(&own, clip, Shape::default());
            prop_assert!(plan.loaded.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
            prop_assert!(plan.loaded.iter().all(|frame| clip.first <= *frame && *frame <= clip.last));
            for (place, frame) in &plan.kept {
                prop_assert_eq!(plan.loaded[*place], *frame);
                let (before, after) = (*place as i64, (plan.loaded.len() - place - 1) as i64);
                prop_assert!(before >= i64::from(head).min(frame.0 - clip.first.0));
                prop_assert!(after >= i64::from(tail).min(clip.last.0 - frame.0));
            }
            kept.extend(plan.kept.iter().map(|(_, frame)| *frame));
            if waiting.is_empty() {
                break;
            }
        }
        prop_assert_eq!(kept, clip.iter().collect::<Vec<_>>());
    }
}

/// Wherever the frames come from, each copy of a node gets its own.
#[test]
fn nodes_that_get_one_frame_at_a_time_do_so_behind_any_loader() {
    let manifest = r#"
        [workflow]
        title = "grain"
        purpose = "test"
        [clip]
        node = "1"
        load = "image"
        [split]
        kind = "per-frame"
        [[each]]
        nodes = ["2"]
        of = ["1"]
        seeds = ["2.seed"]
        [[pass]]
        name = "beauty"
        node = "3"
    "#;
    let graph = json!({
        "1": { "class_type": "LoadImage", "inputs": { "image": "x.png" } },
        "2": { "class_type": "BetterFilmGrain", "inputs": { "image": ["1", 0], "seed": 5 } },
        "3": { "class_type": "SaveImage", "inputs": { "images": ["2", 0], "filename_prefix": "x" } },
    });
    let workflow = Workflow::parse("w", manifest, &graph.to_string()).expect("a workflow");
    let clip = FrameRange::new(1001, 1100).expect("range");
    for count in 1..4 {
        let own: FrameSet = FrameRange::new(1001, 1000 + count).expect("range").into();
        let plan = hearth_workflows::Split::PerFrame.plan(&own, clip, workflow.manifest().shape());
        let staged = StagedClip::Files((0..count).map(|at| format!("{at}.png")).collect());
        let none = BTreeMap::new();
        let graph =
            bind::bind(&workflow, &none, &plan, &staged, &none, "/nowhere", "a").expect("bound").graph;
        let all = if count == 1 { "1".to_owned() } else { format!("1_batch{}", count - 1) };
        for index in 0..count {
            let copy = &graph[format!("2_frame{index}")]["inputs"];
            let pick = copy["image"][0].as_str().expect("a link");
            assert_eq!(
                graph[pick]["inputs"],
                json!({ "image": [all, 0], "batch_index": index, "length": 1 })
            );
            assert_eq!(copy["seed"], 5 + 1001 + index);
        }
        assert!(graph.get("2").is_none(), "the node itself has gone");
    }
    let named = manifest.replace("[[pass]]", "[parameters.\"../x\"]\ntype = \"int\"\ndefault = 1\n[[pass]]");
    let refused = Workflow::parse("w", &named, &graph.to_string()).expect_err("a path").to_string();
    assert!(refused.contains("parameter name '../x'"), "{refused}");
}
