//! The words of agents, as the farm takes them: every text of a length that can be told to everybody, every number finite and
//! in range. An agent may be broken, of another make, or no agent at all.

use hearth_proto::v1;

use super::shortened;

/// Bytes of a node's name: it stands in every table, and in the names of records.
pub(super) const NAME: usize = 200;

/// Bytes of a word that an agent says of itself: its host, its GPU, a version.
const WORD: usize = 200;

/// Bytes of a sentence for people: why it is not ready, what happened.
const SENTENCE: usize = 8_192;

/// Pools of a node.
const POOLS: usize = 64;

/// Storage roots of a node, attempts that it holds.
const MANY: usize = 256;

/// Seconds that a chunk can take; more is a mistake.
const LONGEST: f64 = 31.0 * 24.0 * 3600.0;

/// Bytes of a preview.
const PREVIEW: usize = 1 << 20;

/// GPU memory that no node has.
const MOST_VRAM: u64 = 1 << 50;

/// Seconds on a GPU; what is no time counts as none.
pub(super) fn seconds(told: f64) -> f64 {
    if (0.0..=LONGEST).contains(&told) { told } else { 0.0 }
}

/// On one line.
fn word(text: String) -> String {
    let plain = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    shortened(plain, WORD)
}

/// With its line feeds.
pub(super) fn sentence(text: String) -> String {
    let plain = |letter: char| if letter.is_control() && letter != '\n' { ' ' } else { letter };
    shortened(text.chars().map(plain).collect(), SENTENCE)
}

pub(super) fn hello(told: v1::Hello) -> v1::Hello {
    v1::Hello {
        node: told.node,
        host: word(told.host),
        agent_version: word(told.agent_version),
        instance: word(told.instance),
        capabilities: told.capabilities.map(capabilities),
        readiness: told.readiness.map(readiness),
        held: told.held.into_iter().take(MANY).collect(),
    }
}

pub(super) fn readiness(told: v1::NodeReadiness) -> v1::NodeReadiness {
    v1::NodeReadiness {
        slots: told.slots,
        reason: sentence(told.reason),
        capabilities: told.capabilities.map(capabilities),
    }
}

fn capabilities(told: v1::Capabilities) -> v1::Capabilities {
    let words = |all: Vec<String>, most| all.into_iter().take(most).map(word).collect();
    v1::Capabilities {
        pools: words(told.pools, POOLS),
        device: word(told.device),
        vram_bytes: told.vram_bytes.min(MOST_VRAM),
        comfyui_version: word(told.comfyui_version),
        roots: words(told.roots, MANY),
        node_classes_digest: word(told.node_classes_digest),
        models_digest: word(told.models_digest),
        ffmpeg: told.ffmpeg,
        saves_to_paths: told.saves_to_paths,
    }
}

pub(super) fn progress(told: v1::AttemptProgress) -> v1::AttemptProgress {
    let count = |number: f64| if (0.0..=1e9).contains(&number) { number } else { 0.0 };
    v1::AttemptProgress {
        phase: told.phase,
        graph_node: word(told.graph_node),
        graph_node_title: word(told.graph_node_title),
        step: count(told.step),
        steps: count(told.steps),
        fraction: count(told.fraction).min(1.0),
    }
}

/// `None`: it is too large to be passed on.
pub(super) fn preview(told: v1::Preview, node: &str) -> Option<v1::Preview> {
    let is_small = told.image.len() <= PREVIEW;
    is_small.then(|| v1::Preview { node: node.to_owned(), media_type: word(told.media_type), ..told })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_finite_and_in_range() {
        let bits = |number: f64| number.to_bits();
        assert!([0.0, 12.5, LONGEST].iter().all(|time| bits(seconds(*time)) == bits(*time)));
        let no_times = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 1e308, LONGEST + 1.0];
        assert!(no_times.iter().all(|time| bits(seconds(*time)) == bits(0.0)));
        let told = v1::AttemptProgress {
            step: f64::NAN,
            steps: 1e300,
            fraction: 7.0,
            graph_node: "9".repeat(10_000),
            ..v1::AttemptProgress::default()
        };
        let taken = progress(told);
        assert_eq!(
            [taken.step, taken.steps, taken.fraction].map(f64::to_bits),
            [0.0, 0.0, 1.0].map(f64::to_bits)
        );
        assert!(taken.graph_node.len() < WORD + 4);
    }

    #[test]
    fn texts_are_bounded_and_steer_nothing() {
        let told = v1::Hello {
            node: "n".to_owned(),
            host: "a\u{1b}]52;c;eA==\u{7}\nb".to_owned(),
            capabilities: Some(v1::Capabilities {
                pools: vec!["p".repeat(WORD + 1); POOLS + 1],
                vram_bytes: u64::MAX,
                ..v1::Capabilities::default()
            }),
            readiness: Some(v1::NodeReadiness {
                reason: "r".repeat(SENTENCE + 1),
                ..v1::NodeReadiness::default()
            }),
            held: vec![v1::HeldAttempt::default(); MANY + 1],
            ..v1::Hello::default()
        };
        let taken = hello(told);
        assert_eq!(taken.host, "a ]52;c;eA==  b");
        let capabilities = taken.capabilities.expect("some");
        assert_eq!((capabilities.pools.len(), capabilities.vram_bytes), (POOLS, MOST_VRAM));
        assert!(capabilities.pools[0].len() < WORD + 4);
        assert!(taken.readiness.expect("some").reason.len() < SENTENCE + 4);
        assert_eq!(taken.held.len(), MANY);
        let image = |bytes| v1::Preview { image: vec![0; bytes], ..v1::Preview::default() };
        assert!(preview(image(PREVIEW), "n").is_some() && preview(image(PREVIEW + 1), "n").is_none());
    }
}
