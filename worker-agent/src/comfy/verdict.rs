//! What ComfyUI's answers mean: refusals, and the end of a prompt as history tells it.

use std::collections::BTreeMap;

use hearth_proto::v1::FailureKind;
use serde_json::Value;
use tracing::warn;

use super::client::ImageRef;
use crate::chunk::Failure;

/// Lines of a traceback that are logged, and characters of an exception's message that people are shown.
const KEPT_TRACEBACK: usize = 100;
const KEPT_MESSAGE: usize = 500;

/// What a prompt made: by saver node, the pictures in order.
pub type Outputs = BTreeMap<String, Vec<ImageRef>>;

/// Reads a refusal of `POST /prompt`, or a 200 that lists `node_errors`.
pub fn refusal(answer: &Value) -> Failure {
    if answer["error"]["type"] == "missing_node_type" {
        let class = answer["error"]["extra_info"]["class_type"].as_str().unwrap_or("?");
        let message = format!(
            "ComfyUI has no node class {class}; install the custom node that brings it, and restart ComfyUI"
        );
        return Failure::new(FailureKind::Missing, message);
    }
    let mut lines = Vec::new();
    let mut only_missing = true;
    for (node, entry) in answer["node_errors"].as_object().into_iter().flatten() {
        let class = entry["class_type"].as_str().unwrap_or("?");
        for error in entry["errors"].as_array().into_iter().flatten() {
            let (message, details) =
                (error["message"].as_str().unwrap_or(""), error["details"].as_str().unwrap_or(""));
            lines.push(format!("node {node} ({class}): {message}: {details}"));
            only_missing &= is_missing_file(error);
        }
    }
    if lines.is_empty() {
        let text = |name: &str| answer["error"][name].as_str().unwrap_or("").to_owned();
        let message = format!("ComfyUI refused the prompt: {} {}", text("message"), text("details"));
        return Failure::new(FailureKind::Refused, message.trim_end().to_owned());
    }
    let kind = if only_missing { FailureKind::Missing } else { FailureKind::Refused };
    let advice = match kind {
        FailureKind::Missing => "; put the file where this ComfyUI looks for it",
        _ => "",
    };
    Failure::new(kind, format!("ComfyUI refused the prompt: {}{advice}", lines.join("; ")))
}

/// A choice that names a file which this server has not.
fn is_missing_file(error: &Value) -> bool {
    let file = error["extra_info"]["received_value"].as_str().unwrap_or("");
    let extensions = [".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx", ".sft", ".cube"];
    error["type"] == "value_not_in_list" && extensions.iter().any(|extension| file.ends_with(extension))
}

/// Reads a prompt's entry in the history.
pub fn verdict(entry: &Value) -> Result<Outputs, Failure> {
    let messages = entry["status"]["messages"].as_array().cloned().unwrap_or_default();
    let message = |kind: &str| messages.iter().find(|message| message[0] == kind).map(|message| &message[1]);
    if let Some(error) = message("execution_error") {
        return Err(execution_error(error));
    }
    if message("execution_interrupted").is_some() {
        let message = "the prompt was interrupted inside ComfyUI, by a person or another program";
        return Err(Failure::new(FailureKind::Interrupted, message));
    }
    if entry["status"]["completed"] != true || message("execution_success").is_none() {
        let message = "ComfyUI's history does not say that the prompt ended well; look at its log";
        return Err(Failure::new(FailureKind::Execution, message));
    }
    let mut outputs = Outputs::new();
    for (node, shown) in entry["outputs"].as_object().into_iter().flatten() {
        let images = shown["images"].as_array().into_iter().flatten();
        let images = images.filter_map(|image| serde_json::from_value(image.clone()).ok());
        outputs.insert(node.clone(), images.collect());
    }
    Ok(outputs)
}

/// Seconds from start to end of the prompt, as its own messages tell.
pub fn seconds(entry: &Value) -> f64 {
    let times: Vec<f64> = entry["status"]["messages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|message| message[1]["timestamp"].as_f64())
        .collect();
    match (times.first(), times.last()) {
        (Some(first), Some(last)) => ((last - first) / 1000.0).max(0.0),
        _ => 0.0,
    }
}

/// The exception in one line; all that it says, and where it was raised, goes to the log.
fn execution_error(error: &Value) -> Failure {
    let text = |name: &str| error[name].as_str().unwrap_or("").trim().to_owned();
    let (node, class, kind, message) =
        (text("node_id"), text("node_type"), text("exception_type"), text("exception_message"));
    let lines = error["traceback"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let traceback: String = lines.take(KEPT_TRACEBACK).collect();
    warn!(node, class, exception = kind, message, traceback, "a graph node has raised an exception");
    let mut said = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let first: String = said.next().unwrap_or("it says nothing more").chars().take(KEPT_MESSAGE).collect();
    let more = if said.next().is_some() { " (the agent's log has the rest)" } else { "" };
    let where_and_what = format!("{kind}: {first}{more}; node {node} ({class})");
    let out_of_memory = kind.ends_with("OutOfMemoryError")
        || message.contains("ran out of memory on your GPU")
        || (kind.ends_with("AcceleratorError") && message.contains("out of memory"));
    if out_of_memory {
        return Failure::new(FailureKind::OutOfMemory, format!("out of GPU memory: {where_and_what}"));
    }
    if class == "LoadImage" || kind.ends_with("UnidentifiedImageError") {
        return Failure::new(FailureKind::BadFrame, format!("ComfyUI cannot read a frame: {where_and_what}"));
    }
    Failure::new(FailureKind::Execution, where_and_what)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_exception_is_told_in_one_line_that_begins_with_it() {
        let failure = execution_error(&json!({
            "node_id": "5", "node_type": "KSampler", "exception_type": "RuntimeError",
            "exception_message": "Error(s) in loading state_dict for UNet:\n\tsize mismatch for a\n\tsize mismatch for b\n",
            "traceback": ["  File \"a.py\", line 1\n", "  File \"b.py\", line 2\n"],
        }));
        assert_eq!(failure.kind, FailureKind::Execution);
        assert_eq!(
            failure.message,
            "RuntimeError: Error(s) in loading state_dict for UNet: (the agent's log has the rest); node 5 (KSampler)"
        );
    }
}
