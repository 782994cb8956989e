//! What a ComfyUI's nodes declare, in every way that they have of declaring it.

use hearth_workflows::{graph::Graph, signatures::Signatures};
use serde_json::{Value, json};

fn signatures() -> Signatures {
    let class =
        |inputs: Value, outputs: Value| json!({ "input": inputs, "input_order": {}, "output": outputs });
    Signatures::read(&json!({
        "Load": class(json!({ "required": { "image": [["a.png"], { "image_upload": true }] } }), json!(["IMAGE", "MASK"])),
        "Old": class(json!({ "required": { "mode": [["a", "b", 4], {}], "image": ["IMAGE"] } }), json!(["IMAGE"])),
        "New": class(
            json!({ "required": { "mode": ["COMBO", { "options": ["a", "b"] }] }, "optional": { "any": ["*"] } }),
            json!(["IMAGE,MASK"])
        ),
        "Grows": class(json!({ "required": { "images": ["COMFY_AUTOGROW_V3", {}] } }), json!(["IMAGE"])),
        "Forced": class(json!({ "optional": { "caption": ["STRING", { "forceInput": true }] } }), json!(["STRING"])),
        "Number": class(json!({ "required": { "seed": ["INT", { "min": 0, "max": 18_446_744_073_709_551_615_u64 }] } }), json!(["INT"])),
        "VHS_VideoCombine": class(json!({ "required": { "images": ["IMAGE"] } }), json!([])),
    }))
}

/// What is wrong with a node of this class behind a loader.
fn told(class: &str, inputs: Value) -> Vec<String> {
    let graph = json!({
        "1": { "class_type": "Load", "inputs": { "image": "/anywhere/at all.png" } },
        "2": { "class_type": class, "inputs": inputs },
    });
    let graph = Graph::parse("graph.json", &graph.to_string()).expect("a graph");
    let chain = |error: &dyn std::error::Error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    signatures().check(&graph).iter().map(|mismatch| chain(mismatch)).collect()
}

#[test]
fn every_way_of_declaring_an_input_is_understood() {
    for (class, inputs) in [
        ("Old", json!({ "mode": 4, "image": ["1", 0] })),
        ("Old", json!({ "mode": 4.0, "image": ["1", 0] })),
        ("New", json!({ "mode": "b", "any": ["1", 1] })),
        ("New", json!({ "mode": "b", "any": 7 })),
        ("Grows", json!({ "images.image0": ["1", 0], "images.image1": ["1", 0] })),
        ("Forced", json!({})),
        ("Number", json!({ "seed": 18_446_744_073_709_551_615_u64 })),
        ("VHS_VideoCombine", json!({ "images": ["1", 0], "crf": 19, "pix_fmt": "yuv420p" })),
    ] {
        assert_eq!(told(class, inputs.clone()), Vec::<String>::new(), "{class} {inputs}");
    }
    for (class, inputs, wrong) in [
        (
            "Old",
            json!({ "mode": "c", "image": ["1", 0] }),
            "node 2 (Old), input mode: 'c' is not one of a, b, 4",
        ),
        (
            "Old",
            json!({ "mode": "a", "image": ["1", 1] }),
            "node 2 (Old), input image: takes IMAGE, but node 1 gives MASK",
        ),
        (
            "Old",
            json!({ "mode": "a", "image": ["1", 2] }),
            "node 2 (Old), input image: node 1 has no output 2",
        ),
        ("Old", json!({ "mode": "a" }), "node 2 (Old), input image: required, and not given"),
        (
            "Old",
            json!({ "mode": "a", "image": "x" }),
            "node 2 (Old), input image: takes IMAGE over a link, not a value",
        ),
        (
            "New",
            json!({ "mode": "a", "nay": 1 }),
            "node 2 (New), input nay: the class has no such input; it has any, mode",
        ),
        (
            "Forced",
            json!({ "caption": "x" }),
            "node 2 (Forced), input caption: takes STRING over a link, not a value",
        ),
        (
            "Number",
            json!({ "seed": -1 }),
            "node 2 (Number), input seed: -1 is out of range; give 0 to 18446744073709552000",
        ),
        ("Number", json!({ "seed": "1" }), "node 2 (Number), input seed: '1' is no whole number"),
        ("Gone", json!({}), "node 2 (Gone): there is no such node class"),
    ] {
        assert_eq!(told(class, inputs), [wrong]);
    }
}
