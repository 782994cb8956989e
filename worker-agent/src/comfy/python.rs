//! JSON as Python writes it, which is a little more than JSON: `NaN` and `Infinity` stand bare, and a file name that is
//! no UTF-8 becomes a lone surrogate (`\udce9`).

use serde_json::Value;

/// Reads such JSON. What has no meaning in JSON becomes `null`, and a lone surrogate U+FFFD.
pub(super) fn parse(body: &[u8]) -> Result<Value, serde_json::Error> {
    match serde_json::from_slice(body) {
        Ok(value) => Ok(value),
        Err(error) => match mended(body) {
            Some(mended) => serde_json::from_slice(&mended),
            None => Err(error),
        },
    }
}

/// Returns `body` as JSON; `None` when there was nothing to mend.
fn mended(body: &[u8]) -> Option<Vec<u8>> {
    const BARE: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut mended = Vec::with_capacity(body.len());
    let (mut in_text, mut at, mut found) = (false, 0, false);
    while let Some(byte) = body.get(at) {
        let rest = &body[at..];
        let bare = BARE.iter().find(|bare| !in_text && rest.starts_with(bare));
        let (length, instead): (usize, Option<&[u8]>) = match byte {
            _ if let Some(bare) = bare => (bare.len(), Some(b"null")),
            b'"' => {
                in_text = !in_text;
                (1, None)
            }
            b'\\' if in_text => match (surrogate(rest), rest.get(6..).and_then(surrogate)) {
                (Some(Half::High), Some(Half::Low)) => (12, None),
                (Some(_), _) => (6, Some(br"\ufffd")),
                // What follows a backslash cannot end the text.
                (None, _) => (2, None),
            },
            _ => (1, None),
        };
        found |= instead.is_some();
        mended.extend_from_slice(instead.unwrap_or(&rest[..length.min(rest.len())]));
        at += length;
    }
    found.then_some(mended)
}

enum Half {
    High,
    Low,
}

/// The half of a surrogate pair that `text` begins with, as an escape.
fn surrogate(text: &[u8]) -> Option<Half> {
    let digits = std::str::from_utf8(text.strip_prefix(br"\u")?.get(..4)?).ok()?;
    match u16::from_str_radix(digits, 16).ok()? {
        0xd800..=0xdbff => Some(Half::High),
        0xdc00..=0xdfff => Some(Half::Low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_that_are_none_are_null() {
        let text = br#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \" NaN", "d": 1}"#;
        let value = parse(text).expect("readable");
        assert_eq!(value, json!({ "a": null, "b": [null, null], "c": "NaN \" NaN", "d": 1 }));
        assert!(parse(b"{nonsense").is_err());
        assert!(parse(br#"{"a": NaN, "b": "\"#).is_err());
    }

    #[test]
    fn lone_surrogates_are_replaced_and_pairs_kept() {
        let text = br#"["caf\udce9.png", "\ud83d\ude00", "\ud83d", "\\udce9", "\ud83dx\udce9"]"#;
        let value = parse(text).expect("readable");
        assert_eq!(value, json!(["caf\u{fffd}.png", "😀", "\u{fffd}", "\\udce9", "\u{fffd}x\u{fffd}"]));
    }
}
