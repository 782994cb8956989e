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
    for fit in &response.nodes {
        let rest = (fit.count as usize).saturating_sub(fit.nodes.len());
        let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        let names = format!("{}{more}", fit.nodes.join(", "));
        line(if fit.lacks.is_empty() {
            format!("runs on {} of {}: {names}", fit.count, count(response.node_count as usize, "node"))
        } else {
            format!("not on {names}:\n  {}", fit.lacks.join("\n  "))
        });
    }
    let told: u32 = response.nodes.iter().map(|fit| fit.count).sum();
    if response.node_count > told {
        line(format!(
            "not on {} more, which lack other things",
            count((response.node_count - told) as usize, "node")
        ));
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
            let chunks = count(cost.chunks as usize, "chunk");
            line(format!("about {chunks}, {gpu} of GPU time{}", when.unwrap_or_default()));
        }
        None => line("nothing of its kind was measured before: no estimate".to_owned()),
    }
    if response.output_bytes > 0 {
        line(room(response.output_bytes, response.free_bytes));
    }
    for warning in &response.warnings {
        line(format!("warning: {warning}"));
    }
    text.trim_end().to_owned()
}

/// What would become of a batch: each of its jobs, and all of them together.
pub(super) fn batch(responses: &[v1::CheckJobResponse]) -> String {
    let mut text: String = responses.iter().map(|response| format!("{}\n\n", job(response))).collect();
    let jobs = count(responses.iter().map(|response| response.jobs.len()).sum(), "job");
    let costs: Vec<&v1::JobCost> = responses.iter().filter_map(|response| response.cost.as_ref()).collect();
    let gpu = duration(costs.iter().map(|cost| cost.gpu_seconds).fold(0.0, |all, one| all + one));
    let cost = match responses.len() - costs.len() {
        0 => format!("about {gpu} of GPU time"),
        _ if costs.is_empty() => "no estimate".to_owned(),
        unknown => format!("about {gpu} of GPU time, without {unknown} that nothing is known of"),
    };
    let _ = write!(text, "{jobs} in all: {cost}");
    let bytes = responses.iter().map(|response| response.output_bytes).fold(0, u64::saturating_add);
    // They need not all go to the same storage; where it is least, it may be short.
    let free = responses.iter().filter_map(|response| response.free_bytes).min();
    if bytes > 0 {
        let _ = write!(text, "\n{}", room(bytes, free));
    }
    if free.is_some_and(|free| bytes > free) {
        text.push_str("\nwarning: all of it may not fit");
    }
    text
}

fn room(bytes: u64, free: Option<u64>) -> String {
    let gigabytes = |bytes: u64| bytes as f64 / 1e9;
    let free = match free {
        Some(free) => format!("{:.0} GB free", gigabytes(free)),
        None => "free room unknown".to_owned(),
    };
    format!("about {:.2} GB before compression, {free}", gigabytes(bytes))
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
