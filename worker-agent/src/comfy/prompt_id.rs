//! The id under which ComfyUI knows an attempt's prompt.

use std::fmt;

use uuid::Uuid;

/// Namespace of Hearth's prompt ids; itself the UUIDv5 of the URL namespace and `urn:hearth:attempt`.
const NAMESPACE: Uuid = Uuid::from_u128(0x479e_b0e2_b0d6_591c_8a5c_05af_5101_6f01);

/// A prompt id of any client, as text.
///
/// Hearth's own follow from the attempt id (UUIDv5), so that a restarted agent finds the prompts of its earlier life.
/// ComfyUI takes nothing but canonical lower-case UUIDs since 0.25.0. Which attempt a foreign id stands for is read
/// from the prompt's `extra_data`, not from the id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PromptId(String);

impl PromptId {
    /// Returns the id of an attempt's prompt. `uuidgen --sha1 --namespace NAMESPACE --name ATTEMPT` gives the same.
    pub fn of_attempt(attempt: &str) -> Self {
        Self(Uuid::new_v5(&NAMESPACE, attempt.as_bytes()).hyphenated().to_string())
    }

    /// Takes an id that ComfyUI has reported.
    pub fn reported(id: &str) -> Self {
        Self(id.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for PromptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_follows_from_its_address() {
        assert_eq!(NAMESPACE, Uuid::new_v5(&Uuid::NAMESPACE_URL, b"urn:hearth:attempt"));
    }

    #[test]
    fn an_attempt_always_has_the_same_canonical_id_of_its_own() {
        let id = PromptId::of_attempt("k3f9-12-34");
        assert_eq!(id, PromptId::of_attempt("k3f9-12-34"));
        assert_ne!(id, PromptId::of_attempt("k3f9-12-35"));
        let parsed: Uuid = id.as_str().parse().expect("a UUID");
        assert_eq!((parsed.hyphenated().to_string(), parsed.get_version_num()), (id.to_string(), 5));
    }
}
