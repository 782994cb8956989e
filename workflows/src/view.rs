//! A view transform: how light of any brightness is brought between 0 and 1, so that it can be had back.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Light is first made brighter or darker by `exposure`, and then bent by a curve that leaves the dark alone, brings `white`
/// to 1 and everything darker below it (Reinhard et al. 2002, equation 4, channel by channel). What is brighter than
/// `white` is cut off. Written `white=16,exposure=-1`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct View {
    /// In stops: 1 is twice as bright.
    exposure: f32,
    /// Light after the exposure that becomes 1; at least 1, at which nothing is bent.
    white: f32,
}

/// A text that is no view transform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is no view transform: {wrong}; write it like white=16 or white=16,exposure=-1")]
pub struct NoView {
    given: String,
    wrong: &'static str,
}

impl View {
    /// Exposures reach from minus this to this.
    const MOST_STOPS: f32 = 20.0;
    /// The largest number of a half float.
    const MOST_WHITE: f32 = 65_504.0;

    /// A value between 0 and 1 for `light`, which is not negative and not above [`brightest`](Self::brightest).
    pub fn of(self, light: f32) -> f32 {
        let light = (light * self.exposure.exp2()).max(0.0);
        let bent = light * (1.0 + light / (self.white * self.white)) / (1.0 + light);
        bent.min(1.0)
    }

    /// The light of which `value` was made, for values between 0 and 1; what is beyond them is taken for the nearest.
    pub fn undone(self, value: f32) -> f32 {
        // In double precision: near white the difference of nearly equal numbers is left.
        let (value, square) = (f64::from(value).clamp(0.0, 1.0), f64::from(self.white).powi(2));
        // The positive root of light² / white² + (1 - value) light - value.
        let half = square * (1.0 - value) / 2.0;
        let light = (half * half + square * value).sqrt() - half;
        (light / f64::from(self.exposure).exp2()) as f32
    }

    /// The light that becomes 1.
    pub fn brightest(self) -> f32 {
        self.white / self.exposure.exp2()
    }
}

impl FromStr for View {
    type Err = NoView;

    fn from_str(text: &str) -> Result<Self, NoView> {
        let wrong = |wrong| NoView { given: text.chars().take(100).collect(), wrong };
        let (mut exposure, mut white) = (None, None);
        for part in text.split(',') {
            let (name, value) = part.split_once('=').ok_or_else(|| wrong("each part is NAME=NUMBER"))?;
            let place = match name.trim() {
                "exposure" => &mut exposure,
                "white" => &mut white,
                _ => return Err(wrong("it has a white and an exposure, and nothing else")),
            };
            let number: f32 = value.trim().parse().map_err(|_| wrong("each part is NAME=NUMBER"))?;
            if place.replace(number).is_some() {
                return Err(wrong("a part stands there twice"));
            }
        }
        let view = Self { exposure: exposure.unwrap_or(0.0), white: white.unwrap_or(1.0) };
        if !(-Self::MOST_STOPS..=Self::MOST_STOPS).contains(&view.exposure) {
            return Err(wrong("the exposure lies between -20 and 20 stops"));
        }
        if !(1.0..=Self::MOST_WHITE).contains(&view.white) {
            return Err(wrong("white lies between 1 and 65504"));
        }
        if view.brightest() > Self::MOST_WHITE {
            return Err(wrong("the light that becomes white, before the exposure, is at most 65504"));
        }
        Ok(view)
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "white={}", self.white)?;
        if self.exposure != 0.0 {
            write!(f, ",exposure={}", self.exposure)?;
        }
        Ok(())
    }
}

impl TryFrom<String> for View {
    type Error = NoView;

    fn try_from(text: String) -> Result<Self, NoView> {
        text.parse()
    }
}

impl From<View> for String {
    fn from(view: View) -> Self {
        view.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// All light that it shows comes back, and brighter is never darker.
        #[test]
        fn light_comes_back(exposure in -8.0_f32..8.0, white in 1.0_f32..1_000.0, share in 0.0_f32..1.0) {
            let view = format!("white={white},exposure={exposure}").parse::<View>();
            prop_assume!(white / exposure.exp2() <= View::MOST_WHITE);
            let view = view.expect("a view");
            prop_assert_eq!(view.to_string().parse(), Ok(view));
            let light = view.brightest() * share;
            let value = view.of(light);
            prop_assert!((0.0..=1.0).contains(&value), "{} of {}", value, light);
            let back = view.undone(value);
            // A step of the value is a step of light as wide as the curve is flat.
            let step = view.undone(value + 4.0 * f32::EPSILON) - view.undone((value - 4.0 * f32::EPSILON).max(0.0));
            prop_assert!((back - light).abs() <= step + 1e-5 * light, "{} came back as {}", light, back);
            prop_assert!(view.of(light * 1.01) >= value);
        }
    }

    #[test]
    fn what_is_no_view_is_told() {
        for (text, told) in [
            ("", "each part is NAME=NUMBER"),
            ("16", "each part is NAME=NUMBER"),
            ("white=bright", "each part is NAME=NUMBER"),
            ("white=0.5", "white lies between 1 and 65504"),
            ("white=NaN", "white lies between"),
            ("exposure=inf", "between -20 and 20"),
            ("white=4,white=5", "twice"),
            ("gamma=2", "nothing else"),
            ("white=16,exposure=-13", "at most 65504"),
        ] {
            let error = text.parse::<View>().expect_err(text).to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
        assert_eq!(
            " exposure = -1 ,white=16".parse::<View>().expect("a view").to_string(),
            "white=16,exposure=-1"
        );
    }
}
