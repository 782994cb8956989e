//! Which record stands under which key of Redis. `docs/redis.md` describes it for operators.
//!
//! Records that people look at one by one are hashes with a field for each member; those that come and go with
//! every chunk share one hash, a field each.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _};

use serde_json::{Map, Value};

use super::{Epoch, Group};
use crate::farm::{JobId, Key, Record};

/// Groups that the stream remembers for those who follow.
const REMEMBERED_GROUPS: usize = 1_000;

/// Words of one command; Lua cannot pass on many more than this.
const MOST_WORDS: usize = 2_000;

/// The keys of one farm.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) prefix: String,
}

/// Appends commands to a call of the commit script, in the form that it reads: for each the number of its words,
/// and the words.
struct Commands<'a>(&'a mut redis::Cmd);

impl Commands<'_> {
    fn push<const N: usize>(&mut self, words: [&str; N]) {
        self.0.arg(N);
        words.iter().for_each(|word| {
            self.0.arg(word);
        });
    }

    /// One command with many words after `head`, or several of them.
    fn many<W: AsRef<str>>(&mut self, head: [&str; 2], words: &[W]) {
        for some in words.chunks(MOST_WORDS) {
            self.0.arg(some.len() + 2).arg(head[0]).arg(head[1]);
            some.iter().for_each(|word| {
                self.0.arg(word.as_ref());
            });
        }
    }
}

impl Layout {
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The hash that is a record of its own.
    fn hash(&self, key: &Key) -> String {
        match key {
            Key::Spec(id) => self.key(&format!("job:{id}:spec")),
            key => self.key(&key.to_string()),
        }
    }

    fn pieces(&self, job: JobId) -> String {
        self.key(&format!("job:{job}:pieces"))
    }

    /// Appends what brings the store from before to after the changes, and what tells those who follow.
    pub(super) fn append(&self, call: &mut redis::Cmd, epoch: Epoch, revision: u64, group: &Group) {
        let mut commands = Commands(call);
        let (mut attempts, mut nodes, mut paces) = (Fields::default(), Fields::default(), Fields::default());
        let mut presets = Fields::default();
        let mut pieces: BTreeMap<JobId, Fields<'_>> = BTreeMap::new();
        let mut keys = String::new();
        for (key, record) in &group.changes {
            let from = keys.len();
            // Writing to a string cannot fail.
            let _ = writeln!(keys, "{key}");
            let record = record.as_ref();
            match key {
                Key::Attempt(_) | Key::Node(_) | Key::Pace(_) | Key::Preset(_) => {
                    // What stands behind the kind: `attempt:12-34`, `node:name`.
                    let (all, skipped) = match key {
                        Key::Attempt(_) => (&mut attempts, "attempt:"),
                        Key::Pace(_) => (&mut paces, "pace:"),
                        Key::Preset(_) => (&mut presets, "preset:"),
                        _ => (&mut nodes, "node:"),
                    };
                    all.note(keys[from + skipped.len()..].trim_end_matches('\n').to_owned(), record);
                }
                Key::Piece(id) => pieces.entry(id.job).or_default().note(id.number.to_string(), record),
                Key::Meta | Key::Shares | Key::Workflow(_) | Key::Spec(_) | Key::Job(_) => {
                    let hash = self.hash(key);
                    match record {
                        Some(record) => {
                            // A spec that was edited may have fewer members than before.
                            if matches!(key, Key::Spec(_)) {
                                commands.push(["DEL", &hash]);
                            }
                            commands.many(["HSET", &hash], &fields_of(record));
                        }
                        None => commands.push(["DEL", &hash]),
                    }
                    self.index(key, record, &mut commands);
                }
            }
        }
        attempts.into_commands(&self.key("attempts"), &mut commands);
        nodes.into_commands(&self.key("nodes"), &mut commands);
        paces.into_commands(&self.key("paces"), &mut commands);
        presets.into_commands(&self.key("presets"), &mut commands);
        for (job, fields) in pieces {
            fields.into_commands(&self.pieces(job), &mut commands);
        }
        // Events are plain values with string keys: they always serialise.
        let events = serde_json::to_string(&group.events).unwrap_or_default();
        let (stream, most) = (self.key("events"), REMEMBERED_GROUPS.to_string());
        let (id, epoch) = (format!("{revision}-0"), epoch.0.to_string());
        commands.push([
            "XADD", &stream, "MAXLEN", "~", &most, &id, "epoch", &epoch, "keys", &keys, "events", &events,
        ]);
    }

    /// What leads an operator, and a load, to the record. Nothing is decided by it.
    fn index(&self, key: &Key, record: Option<&Record>, commands: &mut Commands<'_>) {
        match (key, record) {
            (Key::Workflow(id), Some(_)) => commands.push(["SADD", &self.key("workflows"), &id.to_string()]),
            (Key::Workflow(id), None) => commands.push(["SREM", &self.key("workflows"), &id.to_string()]),
            (Key::Job(id), record) => {
                let id = id.to_string();
                let place = record.map(place_of).unwrap_or_default();
                match record {
                    Some(_) => commands.push(["SADD", &self.key("jobs"), &id]),
                    None => commands.push(["SREM", &self.key("jobs"), &id]),
                }
                match place.waits_at {
                    Some(priority) => commands.push(["ZADD", &self.key("queue"), &priority.to_string(), &id]),
                    None => commands.push(["ZREM", &self.key("queue"), &id]),
                }
                match place.ended {
                    Some(time) => commands.push(["ZADD", &self.key("ended"), &time.to_string(), &id]),
                    None => commands.push(["ZREM", &self.key("ended"), &id]),
                }
            }
            _ => {}
        }
    }
}

/// Where a job stands in the indexes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct JobPlace {
    /// Its priority, while frames of it wait and it is not paused.
    pub(super) waits_at: Option<u64>,
    /// When it ended, Unix time in milliseconds.
    pub(super) ended: Option<u64>,
}

pub(super) fn place_of(record: &Record) -> JobPlace {
    let Ok(Value::Object(job)) = serde_json::from_str(&record.0) else { return JobPlace::default() };
    let waits = job.get("phase").and_then(Value::as_str) == Some("rendering")
        && job.get("paused") == Some(&Value::Bool(false))
        && job.get("waiting").and_then(Value::as_str).is_some_and(|frames| !frames.is_empty());
    JobPlace {
        waits_at: job.get("priority").and_then(Value::as_u64).filter(|_| waits),
        ended: job.get("ended").and_then(Value::as_u64),
    }
}

/// Fields of a hash that many records share.
#[derive(Debug, Default)]
struct Fields<'a> {
    set: Vec<Cow<'a, str>>,
    removed: Vec<String>,
}

impl<'a> Fields<'a> {
    fn note(&mut self, field: String, record: Option<&'a Record>) {
        match record {
            Some(record) => self.set.extend([Cow::Owned(field), Cow::Borrowed(record.0.as_str())]),
            None => self.removed.push(field),
        }
    }

    fn into_commands(self, hash: &str, commands: &mut Commands<'_>) {
        commands.many(["HSET", hash], &self.set);
        commands.many(["HDEL", hash], &self.removed);
    }
}

/// A record's members as fields and values of a hash.
fn fields_of(record: &Record) -> Vec<String> {
    let Ok(Value::Object(members)) = serde_json::from_str(&record.0) else { return Vec::new() };
    members.into_iter().flat_map(|(name, value)| [name, text_of(&value)]).collect()
}

/// The record whose members these are.
pub(super) fn record_of(fields: Vec<(String, String)>) -> Record {
    let members: Map<String, Value> = fields.into_iter().map(|(name, text)| (name, value_of(text))).collect();
    Record(Value::Object(members).to_string())
}

/// A string stands as it is, for people; but one that reads like JSON stands as JSON, so that it stays a string.
fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) if serde_json::from_str::<Value>(text).is_err() => text.clone(),
        value => value.to_string(),
    }
}

fn value_of(text: String) -> Value {
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            ".*".prop_map(Value::String),
            "[0-9\\-\",{}\\[\\]a-f ]{0,6}".prop_map(Value::String),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
            proptest::collection::vec("[a-z0-9]{0,3}".prop_map(Value::String), 0..3).prop_map(Value::from),
        ]
    }

    proptest! {
        #[test]
        fn a_record_comes_back_from_its_hash(members in proptest::collection::btree_map("[a-z]{1,4}", value(), 1..5)) {
            let record = Record(serde_json::to_string(&members).expect("json"));
            let fields = fields_of(&record);
            let pairs = fields.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
            prop_assert_eq!(record_of(pairs), record);
        }
    }

    #[test]
    fn what_people_read_is_plain() {
        assert_eq!(text_of(&Value::from("1-40,60")), "1-40,60");
        assert_eq!(text_of(&Value::from("7")), "\"7\"");
        assert_eq!(text_of(&Value::from(50)), "50");
    }
}
