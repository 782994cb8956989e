//! `hearth deliver`, and what `hearth submit --deliver` takes.

use hearth_proto::v1::{self, deliver_request::Source};
use hearth_storage::Roots;
use hearth_workflows::delivery::DeliveryFormat;

use super::{CliError, flags::Deliver, submit::below_root};
use crate::FarmClient;

pub(super) async fn deliver(client: &FarmClient, flags: Deliver) -> Result<v1::DeliverResponse, CliError> {
    let roots: Roots = flags.roots.parse()?;
    let source = match flags.source.parse() {
        Ok(job) => Source::JobId(job),
        Err(_) => Source::Clip(below_root(&roots, &flags.source)?),
    };
    let deliveries = flags.formats.iter().map(|text| {
        Ok(v1::Delivery {
            text: flags.text.clone(),
            frame_rate: flags.rate.clone(),
            curve: flags.curve.map(|curve| curve.to_string()).unwrap_or_default(),
            ..read(text, &roots)?
        })
    });
    let request = v1::DeliverRequest {
        source: Some(source),
        deliveries: deliveries.collect::<Result<_, CliError>>()?,
        frames: flags.frames,
        colour_space: flags.colour_space,
        show: flags.show,
        user: flags.user,
        priority: flags.priority,
        overwrite: flags.overwrite,
        request_id: String::new(),
    };
    Ok(client.deliver(request).await?)
}

/// `FORMAT[:PASS][=OUTPUT]`.
pub(super) fn read(text: &str, roots: &Roots) -> Result<v1::Delivery, CliError> {
    let (what, output) = text.split_once('=').unwrap_or((text, ""));
    let (format, pass) = what.split_once(':').unwrap_or((what, ""));
    // Said here already, with what there is.
    let format: DeliveryFormat = format.parse()?;
    Ok(v1::Delivery {
        format: format.to_string(),
        pass: pass.to_owned(),
        output: below_root(roots, output)?,
        ..v1::Delivery::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_names_format_pass_and_output() {
        let roots = Roots::default();
        let told = |text: &str| {
            let delivery = read(text, &roots).expect(text);
            [delivery.format, delivery.pass, delivery.output]
        };
        assert_eq!(told("h264"), ["h264", "", ""]);
        assert_eq!(told("prores-4444:matte"), ["prores-4444", "matte", ""]);
        assert_eq!(told("h264=out/sh010.mp4"), ["h264", "", "out/sh010.mp4"]);
        assert_eq!(told("h264:depth=out/d.mp4"), ["h264", "depth", "out/d.mp4"]);
        let error = read("h265", &roots).expect_err("unknown").to_string();
        assert!(error.contains("there are prores-4444, prores-422-hq, h264"), "{error}");
    }
}
