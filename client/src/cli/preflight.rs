//! What a dry run tells.

use std::fmt::Write as _;

use hearth_proto::v1;

use super::tables::duration;

/// What would become of a job.
pub(super) fn job(response: &v1::CheckJobResponse) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    for job in &response.jobs {
        let what =
            if job.delivery.is_empty() { format!("frames {}", job.frames) } else { job.delivery.clone() };
        line(format!("{}: {what} to {}", job.name, job.output));
    }
    let (able, not): (Vec<_>, Vec<_>) = response.nodes.iter().partition(|fit| fit.lacks.is_empty());
    let names = able.iter().map(|fit| fit.node.as_str()).collect::<Vec<_>>().join(", ");
    line(match able.len() {
        0 => "runs on no node".to_owned(),
        count => format!("runs on {count} of {} nodes: {names}", response.nodes.len()),
    });
    // Many like nodes lack the same.
    let mut lacks: Vec<(&[String], Vec<&str>)> = Vec::new();
    for fit in &not {
        match lacks.iter_mut().find(|(lacks, _)| *lacks == fit.lacks.as_slice()) {
            Some((_, nodes)) => nodes.push(&fit.node),
            None => lacks.push((&fit.lacks, vec![&fit.node])),
        }
    }
    for (lacks, nodes) in lacks {
        line(format!("not on {}:\n  {}", nodes.join(", "), lacks.join("\n  ")));
    }
    if response.nodes_elsewhere > 0 {
        line(format!("{} more nodes are not in its pool", response.nodes_elsewhere));
    }
    match &response.cost {
        Some(cost) => {
            let when = cost.earliest_seconds.zip(cost.latest_seconds).map(|(earliest, latest)| {
                format!(", done in {} to {}", duration(earliest), duration(latest))
            });
            let gpu = duration(cost.gpu_seconds);
            let chunks =
                if cost.chunks == 1 { "1 chunk".to_owned() } else { format!("{} chunks", cost.chunks) };
            line(format!("about {chunks}, {gpu} of GPU time{}", when.unwrap_or_default()));
        }
        None => line("nothing of its kind was measured before: no estimate".to_owned()),
    }
    if response.output_bytes > 0 {
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        let free = match response.free_bytes {
            Some(free) => format!("{:.0} GB free", gigabytes(free)),
            None => "free room unknown".to_owned(),
        };
        line(format!("about {:.2} GB before compression, {free}", gigabytes(response.output_bytes)));
    }
    for warning in &response.warnings {
        line(format!("warning: {warning}"));
    }
    text.trim_end().to_owned()
}

/// What would become of a batch: each of its jobs, and all of them together.
pub(super) fn batch(responses: &[v1::CheckJobResponse]) -> String {
    let mut text: String = responses.iter().map(|response| format!("{}\n\n", job(response))).collect();
    let jobs: usize = responses.iter().map(|response| response.jobs.len()).sum();
    let costs: Vec<&v1::JobCost> = responses.iter().filter_map(|response| response.cost.as_ref()).collect();
    let gpu = duration(costs.iter().map(|cost| cost.gpu_seconds).fold(0.0, |all, one| all + one));
    let _ = match responses.len() - costs.len() {
        0 => write!(text, "{jobs} jobs in all: about {gpu} of GPU time"),
        _ if costs.is_empty() => write!(text, "{jobs} jobs in all: no estimate"),
        unknown => write!(
            text,
            "{jobs} jobs in all: about {gpu} of GPU time, without {unknown} that nothing is known of"
        ),
    };
    text
}
