//! An error and its causes on one line.

use std::{error::Error, fmt::Write as _};

/// `cannot read a.png: permission denied`: the error and each cause that it does not already tell.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            let _ = write!(text, ": {told}");
        }
        cause = error.source();
    }
    text
}
