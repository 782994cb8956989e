//! What stands in for nodes that cut out, key and put layers over each other.

use std::sync::Arc;

use super::{
    Data, Done, NodeError, Run,
    stand_in::{grey, part},
};
use crate::pixels::{Batch, Frame};

/// Picture, key as a picture, key as a mask.
pub(super) fn key(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (low, high, gamma) = (run.float("low"), run.float("high"), run.float("gamma").max(0.001));
    let operation = run.text("operation");
    let frames = run.batch("images")?.clone();
    let alpha: Batch = frames
        .iter()
        .map(|frame| {
            Arc::new(frame.per_pixel(|[red, green, blue]| {
                let key = match operation {
                    "redscreen" => 0.7 * (green + blue) - red + 1.0,
                    "bluescreen" => 0.7 * (red + green) - blue + 1.0,
                    _ => 0.7 * (red + blue) - green + 1.0,
                };
                let span = if (high - low).abs() < f32::EPSILON { f32::EPSILON } else { high - low };
                [((key - low) / span).clamp(0.0, 1.0).powf(1.0 / gamma); 3]
            }))
        })
        .collect();
    let outputs = vec![Data::Image(frames), Data::Image(alpha.clone()), Data::Mask(alpha)];
    Ok(Done { outputs, shown: None })
}

/// Matte, foreground, background.
pub(super) fn refine(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (black, white) = (run.float("blackpoint"), run.float("whitepoint"));
    let radius = run.int("preblur").max(0) as u32;
    let (frames, trimap) = (run.batch("images")?.clone(), run.batch("alpha_trimap")?);
    let alpha: Batch = trimap
        .iter()
        .map(|frame| {
            let soft = frame.blurred(radius, (radius as f32 / 2.0).max(0.1));
            Arc::new(soft.map(|value| ((value - black) / (white - black).max(0.01)).clamp(0.0, 1.0)))
        })
        .collect();
    let clean = |frame: &Arc<Frame>| {
        Arc::new(frame.per_pixel(|[red, green, blue]| [red, green.min(f32::midpoint(red, blue)), blue]))
    };
    let foreground = frames.iter().map(clean).collect();
    Ok(Done { outputs: vec![Data::Image(alpha), Data::Image(foreground), Data::Image(frames)], shown: None })
}

/// The fourth channel is one minus the mask.
pub(super) fn join_alpha(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let colour = run.batch("image")?.clone();
    let alpha: Batch = run
        .batch("alpha")?
        .iter()
        .zip(&colour)
        .map(|(mask, frame)| {
            mask.resized(frame.width, frame.height, "bilinear").map(|value| 1.0 - value).into()
        })
        .collect();
    // The shorter of the two, without a word.
    let count = alpha.len();
    Ok(Done { outputs: vec![Data::Rgba { colour: colour[..count].to_vec(), alpha }], shown: None })
}

/// What is brighter than a level that goes by `seed`.
fn bright(frames: &[Arc<Frame>], seed: u64) -> Batch {
    let level = 0.3 + 0.2 * part(seed);
    let matte = |frame: &Arc<Frame>| {
        grey(frame).blurred(2, 1.0).map(|value| ((value - level) * 8.0 + 0.5).clamp(0.0, 1.0)).into()
    };
    frames.iter().map(matte).collect()
}

/// What is bright is the subject.
pub(super) fn cut_out(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let frames = run.batch("image")?.clone();
    let subject = bright(&frames, run.seed(&["image"]));
    Ok(Done { outputs: vec![Data::Image(frames), Data::Mask(subject)], shown: None })
}

/// The same from `foreground`, and with the matte as alpha.
pub(super) fn cut_out_with_alpha(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let frames = run.batch("foreground")?.clone();
    let subject = bright(&frames, run.seed(&["foreground", "background"]));
    let cut = Data::Rgba { colour: frames.clone(), alpha: subject.clone() };
    Ok(Done { outputs: vec![Data::Image(frames), Data::Mask(subject), cut], shown: None })
}

/// The mask is one minus the fourth channel; without one it is zero all over.
pub(super) fn split_alpha(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (colour, alpha) = match run.linked.get("image") {
        Some(Data::Rgba { colour, alpha }) => (colour.clone(), alpha.clone()),
        _ => {
            let frames = run.batch("image")?.clone();
            let opaque = |f: &Arc<Frame>| Arc::new(Frame::filled(f.width, f.height, [1.0; 3]));
            (frames.clone(), frames.iter().map(opaque).collect())
        }
    };
    let masks = alpha.iter().map(|alpha| Arc::new(alpha.map(|value| 1.0 - value))).collect();
    Ok(Done { outputs: vec![Data::Image(colour), Data::Mask(masks)], shown: None })
}

pub(super) fn drop_shadow(run: &mut Run<'_>) -> Result<Done, NodeError> {
    let (layer, behind) = (run.batch("layer_image")?, run.batch("background_image")?);
    let masks = run.batch("layer_mask")?;
    let dark = run.int("opacity") as f32 / 100.0;
    let (right, down) = (run.int("distance_x"), run.int("distance_y"));
    let blur = (run.int("blur").max(0) as u32 / 4).min(8);
    let missing = || NodeError::raised("IndexError", "list index out of range");
    let made = layer.iter().enumerate().map(|(place, frame)| {
        let at = |batch: &Batch| batch.get(place).or(batch.last()).cloned();
        let (behind, mask) = (at(behind).ok_or_else(missing)?, at(masks).ok_or_else(missing)?);
        let shadow = mask.shifted(right, down).blurred(blur, (blur as f32 / 2.0).max(0.1));
        let shaded = behind.zip(&shadow, |value, shadow| value * (1.0 - dark * shadow));
        let front = frame.zip(&mask, |value, mask| value * mask);
        let rest = shaded.zip(&mask, |value, mask| value * (1.0 - mask));
        Ok(Arc::new(front.zip(&rest, |front, rest| front + rest)))
    });
    let colour = made.collect::<Result<Batch, NodeError>>()?;
    let alpha =
        colour.iter().map(|frame| Arc::new(Frame::filled(frame.width, frame.height, [1.0; 3]))).collect();
    Ok(Done { outputs: vec![Data::Rgba { colour, alpha }], shown: None })
}
