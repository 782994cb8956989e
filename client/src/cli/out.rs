//! Output for people and programs. Names, texts and messages come from other people and their files: on a
//! terminal none of them may do more than be read. Nobody may read any more (`hearth jobs | head`).

use std::{
    borrow::Cow,
    fmt,
    io::{ErrorKind, Write},
};

/// `println!` of what [`clean`] leaves; ends the program when nobody reads.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::out::line(std::io::stdout().lock(), &format_args!($($text)*)) };
}

/// The same on standard error.
macro_rules! complain {
    ($($text:tt)*) => { $crate::cli::out::line(std::io::stderr().lock(), &format_args!($($text)*)) };
}

pub(crate) use {complain, say};

/// Writes `text` and a line feed.
pub(crate) fn line(mut out: impl Write, text: &fmt::Arguments<'_>) {
    let text = text.to_string();
    match writeln!(out, "{}", clean(&text)) {
        // Whoever reads has enough, as `head` has after ten lines.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        // There is nowhere left to say so.
        Err(_) => std::process::exit(1),
        Ok(()) => {}
    }
}

/// With everything that steers a terminal, or turns the order of letters around, as `\u001b`, which is the same to
/// whoever reads JSON. Line feeds and tabs stay.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    let steers = |letter: char| match letter {
        '\n' | '\t' => false,
        // Marks, embeddings, overrides and isolates of bidirectional text.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        letter => letter.is_control(),
    };
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if steers(letter) {
            // All of them have four digits.
            cleaned.push_str(&format!("\\u{:04x}", u32::from(letter)));
        } else {
            cleaned.push(letter);
        }
    }
    Cow::Owned(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(clean("plates/größe ü.%04d.exr\n\tnext"), "plates/größe ü.%04d.exr\n\tnext");
        // Writes the clipboard; clears the line; C1's own introducer; turns the name around.
        assert_eq!(clean("a\u{1b}]52;c;eA==\u{7}b"), "a\\u001b]52;c;eA==\\u0007b");
        assert_eq!(clean("a\rb\u{9b}2J"), "a\\u000db\\u009b2J");
        assert_eq!(clean("gpj\u{202e}exr"), "gpj\\u202eexr");
        let json = serde_json::json!({ "name": "\u{9b}\u{202e}" }).to_string();
        let back: serde_json::Value = serde_json::from_str(&clean(&json)).expect("still JSON");
        assert_eq!(back["name"], "\u{9b}\u{202e}");
    }
}
