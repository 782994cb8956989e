//! What the farm does not know of its nodes, asked of them: would their ComfyUI take this workflow with these settings?
//! Only it knows the ranges and lists of its node classes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use hearth_workflows::{Workflow, parameters::ParameterTexts};
use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, timeout_at},
};

use crate::farm::NodeName;

/// How long answers are waited for. A ComfyUI that is busy loading a model answers late.
const PATIENCE: Duration = Duration::from_secs(5);

/// Nodes that are asked. Those of one farm are alike, and a thousand answers would help nobody.
pub(super) const ASKED: usize = 16;

/// A question to some nodes.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) nodes: BTreeSet<NodeName>,
    pub(super) workflow: Arc<Workflow>,
    /// Of every take.
    pub(super) settings: Vec<ParameterTexts>,
    pub(super) answers: mpsc::Sender<(NodeName, Vec<String>)>,
}

/// What is said to nodes without the farm.
#[derive(Debug, Clone)]
pub(super) enum Call {
    Ask(Arc<Question>),
    /// Ask the ComfyUI what it offers; `None`: of every node.
    Refresh(Option<NodeName>),
}

/// Carries questions to whoever speaks with the nodes.
#[derive(Debug, Clone)]
pub struct Questions(broadcast::Sender<Call>);

impl Default for Questions {
    fn default() -> Self {
        Self(broadcast::channel(64).0)
    }
}

impl Questions {
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Call> {
        self.0.subscribe()
    }

    /// Has ComfyUIs asked at once what they offer; `None`: those of every node.
    pub(super) fn refresh(&self, node: Option<NodeName>) {
        // Without a connected node nobody listens.
        let _ = self.0.send(Call::Refresh(node));
    }

    /// What each node's ComfyUI would not take; those that do not answer in time are left out.
    pub(super) async fn ask(
        &self,
        nodes: BTreeSet<NodeName>,
        workflow: Arc<Workflow>,
        settings: Vec<ParameterTexts>,
    ) -> BTreeMap<NodeName, Vec<String>> {
        let (answers, mut answered) = mpsc::channel(ASKED);
        let mut told = BTreeMap::new();
        let (count, until) = (nodes.len(), Instant::now() + PATIENCE);
        // Without a connected node nobody listens.
        let question = Question { nodes, workflow, settings, answers };
        if self.0.send(Call::Ask(Arc::new(question))).is_err() {
            return told;
        }
        while told.len() < count {
            match timeout_at(until, answered.recv()).await {
                Ok(Some((node, wrong))) => drop(told.insert(node, wrong)),
                Ok(None) | Err(_) => break,
            }
        }
        told
    }
}
