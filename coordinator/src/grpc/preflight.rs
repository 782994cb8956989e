//! What would become of a job, in the contract's words.

use std::collections::BTreeMap;

use hearth_proto::v1;

use crate::{
    farm::{Forecast, Lack, NodeName, Submitted},
    submission::Room,
};

/// What a job that was not submitted would be.
pub(super) fn preflight(
    job: &Submitted,
    forecast: &Forecast,
    refusals: &BTreeMap<NodeName, Vec<String>>,
    room: &Room,
    colour_given: bool,
) -> v1::CheckJobResponse {
    let workflow = job.workflow.as_deref();
    let package_of = |class: &str| {
        let packages = &workflow?.manifest().needs.packages;
        packages
            .iter()
            .find(|(_, classes)| classes.iter().any(|one| one == class))
            .map(|(package, _)| package)
    };
    let told = |lack: &Lack| match lack {
        Lack::Class(class) => match package_of(class) {
            Some(package) => format!("{lack}; it comes with {package}"),
            None => lack.to_string(),
        },
        lack => lack.to_string(),
    };
    let nodes: Vec<v1::NodeFit> = forecast
        .nodes
        .iter()
        .map(|fit| v1::NodeFit {
            node: fit.node.to_string(),
            lacks: match refusals.get(&fit.node) {
                Some(wrong) => wrong.clone(),
                None => fit.lacks.iter().map(told).collect(),
            },
        })
        .collect();
    let mut warnings = Vec::new();
    if nodes.iter().all(|fit| !fit.lacks.is_empty()) {
        warnings.push(match nodes.len() {
            0 => "no node of its pool is connected; it would wait for one".to_owned(),
            count => format!("none of {count} nodes can run it; it would wait for one that can"),
        });
    }
    let clip = job.spec.render().and_then(|render| render.clip.as_ref());
    if let Some(clip) = clip.filter(|_| !colour_given) {
        let colour = clip.encoding.colour;
        warnings.push(format!("the clip's colour space is not said: taken for {colour}"));
    }
    if !room.is_writable {
        warnings
            .push("the coordinator cannot write to the output's folder; see that the agents can".to_owned());
    }
    if room.needed > room.free {
        warnings.push(format!(
            "the output may not fit: about {:.1} GB before compression, {:.1} GB free",
            room.needed as f64 / 1e9,
            room.free as f64 / 1e9
        ));
    }
    v1::CheckJobResponse {
        jobs: room.jobs.clone(),
        nodes,
        nodes_elsewhere: forecast.elsewhere as u32,
        warnings,
        cost: forecast.cost.map(|cost| v1::JobCost {
            gpu_seconds: cost.gpu_seconds,
            chunks: cost.chunks,
            earliest_seconds: cost.seconds.map(|(earliest, _)| earliest),
            latest_seconds: cost.seconds.map(|(_, latest)| latest),
        }),
        output_bytes: room.needed,
        free_bytes: room.free,
    }
}
