//! Why ComfyUI did not answer as it should, and what stands in the way when it is not ComfyUI that answers.

use std::{error::Error as _, io, path::PathBuf};

use serde_json::Value;

/// A request to ComfyUI that failed.
#[derive(Debug, thiserror::Error)]
pub enum ComfyError {
    #[error("ComfyUI at {url} does not answer")]
    Away { url: String, source: reqwest::Error },
    /// The node cannot be used as it is. No prompt is to blame, and trying again does not help.
    #[error("ComfyUI at {url}: {what}: {obstacle}")]
    Obstructed { url: String, what: &'static str, obstacle: Obstacle },
    #[error("ComfyUI at {url} answered {status} to {what}: {body}")]
    Status { url: String, what: &'static str, status: u16, body: String },
    #[error("ComfyUI at {url} answered {what} with something that is no JSON")]
    NotJson { url: String, what: &'static str, source: serde_json::Error },
    #[error(
        "ComfyUI at {url} answered {what} with more than {} MiB; look whether ComfyUI listens at this address",
        limit >> 20
    )]
    TooLong { url: String, what: &'static str, limit: u64 },
    #[error("cannot write {}", file.display())]
    Save { file: PathBuf, source: io::Error },
}

/// What stands between an agent and its ComfyUI: everything about a request but the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    #[error(
        "access is refused (status {0}); a login or a proxy stands before ComfyUI: give the agent an address that needs no login"
    )]
    Login(u16),
    #[error(
        "the request is too large (status 413); start ComfyUI with a larger --max-upload-size (in MB), or raise the limit of the proxy before it"
    )]
    TooLarge,
    #[error("there is no such endpoint (status {0}); look whether ComfyUI listens at this address")]
    NoEndpoint(u16),
    #[error(
        "a web page came instead of an answer (status {0}); look whether a proxy or another program listens at this address"
    )]
    WebPage(u16),
    #[error(
        "the answer leads elsewhere (status {0}), which is not followed; give the agent the address that it leads to"
    )]
    Redirect(u16),
    #[error("the form of Hearth's prompt ids is refused; this ComfyUI needs a newer Hearth")]
    PromptId,
}

impl Obstacle {
    /// Reads what a status and a body say about the way to ComfyUI. `None`: ComfyUI itself has answered.
    pub(super) fn of(status: u16, body: &[u8], is_core_endpoint: bool) -> Option<Self> {
        let is_page = body.trim_ascii_start().starts_with(b"<");
        match status {
            401 | 403 | 407 => Some(Self::Login(status)),
            413 => Some(Self::TooLarge),
            300..=399 => Some(Self::Redirect(status)),
            // A gateway without a server behind it: that one may come back.
            502..=504 => None,
            404 | 405 if is_core_endpoint => Some(Self::NoEndpoint(status)),
            _ if is_page => Some(Self::WebPage(status)),
            _ => None,
        }
    }

    /// Reads the body of a 400 to `POST /prompt`.
    pub(super) fn of_refusal(answer: &Value) -> Option<Self> {
        (answer["error"]["type"] == "invalid_prompt_id").then_some(Self::PromptId)
    }
}

impl ComfyError {
    /// Whether it took the request, or the connection, and said nothing for as long as it was waited for.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Away { source, .. } if source.is_timeout())
    }

    /// Returns whether the host has refused the connection: no process listens there. A time-out says less.
    pub fn is_refused(&self) -> bool {
        let Self::Away { source, .. } = self else { return false };
        let mut cause = source.source();
        while let Some(this) = cause {
            if this
                .downcast_ref::<io::Error>()
                .is_some_and(|it| it.kind() == io::ErrorKind::ConnectionRefused)
            {
                return true;
            }
            cause = this.source();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_about_the_graph_is_told_apart() {
        let page = b"<html><body>Sign in</body></html>";
        for (status, body, core, obstacle) in [
            (401, &b""[..], true, Some(Obstacle::Login(401))),
            (403, page, true, Some(Obstacle::Login(403))),
            (413, b"", true, Some(Obstacle::TooLarge)),
            (302, b"", false, Some(Obstacle::Redirect(302))),
            (404, b"404: Not Found", true, Some(Obstacle::NoEndpoint(404))),
            (404, b"", false, None),
            (200, page, true, Some(Obstacle::WebPage(200))),
            (500, page, true, Some(Obstacle::WebPage(500))),
            (500, b"500 Internal Server Error", true, None),
            (502, page, true, None),
        ] {
            assert_eq!(Obstacle::of(status, body, core), obstacle, "{status}");
        }
        let refusal = |kind: &str| json!({ "error": { "type": kind }, "node_errors": {} });
        assert_eq!(Obstacle::of_refusal(&refusal("invalid_prompt_id")), Some(Obstacle::PromptId));
        assert_eq!(Obstacle::of_refusal(&refusal("prompt_no_outputs")), None);
    }
}
