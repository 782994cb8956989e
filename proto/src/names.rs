//! The digest by which nodes name what their ComfyUI offers (message `Names` of the contract).

/// The digest of a set of names, however they are ordered; empty for none.
pub fn digest<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() {
        return String::new();
    }
    names.sort_unstable();
    names.dedup();
    let mut hasher = blake3::Hasher::new();
    for name in names {
        hasher.update(name.as_bytes());
        hasher.update(b"\n");
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `printf 'KSampler\nVAEDecode\n' | b3sum` has it.
    #[test]
    fn a_digest_is_of_the_set_and_known_to_other_programs() {
        let known = digest(["KSampler", "VAEDecode"]);
        assert_eq!(known, "186cab74dec5fd3efeace853349fd83cb402f5e12058bdf36a0f6589dde766f8");
        assert_eq!(digest(["VAEDecode", "KSampler", "VAEDecode"]), known);
        assert_ne!(digest(["VAEDecode"]), known);
        assert_eq!(digest([]), "");
    }
}
