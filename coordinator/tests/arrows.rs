//! The arrows between the rooms of the farm, read from the sources: who may name whom, and who may call whose functions of
//! `Farm`. An arrow that points up fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A room, and the rooms that it may use beside itself. `mod.rs` and `invariants.rs` may use all.
const ROOMS: [(&str, &[&str]); 6] = [
    ("model", &[]),
    ("state", &["model"]),
    ("handlers", &["model", "state"]),
    ("scheduler", &["model", "state"]),
    ("queries", &["model", "state", "scheduler"]),
    ("records", &["model", "state"]),
];

fn farm() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/farm")
}

/// Each file of a room, without comments and tests.
fn sources(room: &str) -> Vec<(String, String)> {
    let files = fs::read_dir(farm().join(room)).expect("a room").map(|entry| entry.expect("a file").path());
    let mut sources: Vec<(String, String)> = files
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
            let name = format!("{room}/{}", path.file_name().expect("a name").to_string_lossy());
            (name, lines.collect::<Vec<_>>().join("\n"))
        })
        .collect();
    sources.sort();
    sources
}

/// The names of rooms behind `crate::farm::`, in lists of imports and in paths.
fn rooms_named(code: &str) -> BTreeSet<&'static str> {
    let mut named = BTreeSet::new();
    for (at, found) in code.match_indices("crate::farm::") {
        let rest = &code[at + found.len()..];
        // A list ends where its bracket closes; a path with its statement.
        let mut depth = 0_usize;
        let end = rest.find(|letter: char| {
            match letter {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            letter == ';' || (depth == 0 && !(letter.is_alphanumeric() || "_:{}".contains(letter)))
        });
        let list = &rest[..end.unwrap_or(rest.len())];
        for (room, _) in ROOMS {
            let is_named = |(at, _): (usize, &str)| {
                let before = list[..at].chars().next_back();
                before.is_none_or(|letter| !letter.is_alphanumeric() && letter != '_')
                    && list[..at].matches('{').count() - list[..at].matches('}').count() <= 1
            };
            if list.match_indices(&format!("{room}::")).any(is_named) {
                named.insert(room);
            }
        }
    }
    named
}

/// The code of `Farm`'s own functions.
fn of_farm(code: &str) -> String {
    let mut inside = false;
    let lines = code.lines().filter(|line| {
        let begins = line.starts_with("impl Farm {");
        inside = (inside || begins) && *line != "}";
        inside && !begins
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The functions of `Farm` that a room has.
fn functions(code: &str) -> BTreeSet<String> {
    let code = of_farm(code);
    let signatures = code.lines().filter_map(|line| line.split_once(" fn "));
    signatures.map(|(_, rest)| rest.split(['(', '<']).next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn no_room_of_the_farm_uses_one_above_it() {
    let mut wrong = Vec::new();
    let mut owner: BTreeMap<String, &str> = BTreeMap::new();
    for (room, _) in ROOMS {
        for (_, code) in sources(room) {
            owner.extend(functions(&code).into_iter().map(|name| (name, room)));
        }
    }
    assert!(owner.len() > 100, "{} functions were found", owner.len());
    for (room, may_use) in ROOMS {
        for (file, code) in sources(room) {
            let allowed = |other: &str| other == room || may_use.contains(&other);
            let is_hidden =
                |(at, found): (usize, &str)| code[at + found.len()..].starts_with(char::is_uppercase);
            if code.match_indices("crate::farm::").any(is_hidden) {
                wrong.push(format!("{file} names something of the farm without its room"));
            }
            for other in rooms_named(&code).into_iter().filter(|other| !allowed(other)) {
                wrong.push(format!("{file} names {other}"));
            }
            for (name, other) in owner.iter().filter(|(_, other)| !allowed(other)) {
                if of_farm(&code).contains(&format!("self.{name}("))
                    || code.contains(&format!("farm.{name}("))
                {
                    wrong.push(format!("{file} calls {name}, of {other}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that point up:\n{}", wrong.join("\n"));
}

#[test]
fn arrows_are_seen() {
    let code = "use crate::farm::{\n    model::{ids::JobId, job},\n    state::Farm,\n};\nlet x = crate::farm::scheduler::carve();";
    assert_eq!(rooms_named(code), BTreeSet::from(["model", "scheduler", "state"]));
    let code = "impl Farm {\n    pub(in crate::farm) fn one<'a>(&self) {\n    }\n    fn two(&self) {}\n}\nfn three() {}";
    assert_eq!(functions(code), BTreeSet::from(["one".to_owned(), "two".to_owned()]));
}
