//! Which record stands under which key of Redis. `docs/redis.md` describes it for operators.
//!
//! Records that people look at one by one are hashes with a field for each member; those that come and go with
//! every chunk share one hash, a field each.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::farm::{JobId, Key, Record};

/// Words of one command; Lua cannot pass on many more than this.
const MOST_WORDS: usize = 2_000;

/// The keys of one farm.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) prefix: String,
}

/// Commands of Redis in the form that the commit script reads: for each the number of its words, and the words.
#[derive(Debug, Default)]
pub(super) struct Commands {
    pub(super) words: Vec<String>,
}

impl Commands {
    fn push<const N: usize>(&mut self, words: [&str; N]) {
        self.words.push(N.to_string());
        self.words.extend(words.map(str::to_owned));
    }

    /// One command with many words after `head`, or several of them.
    fn many(&mut self, head: [&str; 2], words: Vec<String>) {
        let mut rest = words.into_iter().peekable();
        while rest.peek().is_some() {
            let some: Vec<String> = rest.by_ref().take(MOST_WORDS).collect();
            self.words.push((some.len() + 2).to_string());
            self.words.extend(head.map(str::to_owned));
            self.words.extend(some);
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

    /// What brings the store from before to after the changes.
    pub(super) fn commands(&self, changes: &[(Key, Option<Record>)]) -> Commands {
        let mut commands = Commands::default();
        let (mut attempts, mut nodes) = (Fields::default(), Fields::default());
        let mut pieces: BTreeMap<JobId, Fields> = BTreeMap::new();
        for (key, record) in changes {
            match key {
                Key::Attempt(id) => attempts.note(id.to_string(), record.as_ref()),
                Key::Node(name) => nodes.note(name.to_string(), record.as_ref()),
                Key::Piece(id) => {
                    pieces.entry(id.job).or_default().note(id.number.to_string(), record.as_ref());
                }
                Key::Meta | Key::Workflow(_) | Key::Spec(_) | Key::Job(_) => {
                    let hash = self.hash(key);
                    match record {
                        Some(record) => commands.many(["HSET", &hash], fields_of(record)),
                        None => commands.push(["DEL", &hash]),
                    }
                    self.index(key, record.as_ref(), &mut commands);
                }
            }
        }
        attempts.into_commands(&self.key("attempts"), &mut commands);
        nodes.into_commands(&self.key("nodes"), &mut commands);
        for (job, fields) in pieces {
            fields.into_commands(&self.pieces(job), &mut commands);
        }
        commands
    }

    /// What leads an operator, and a load, to the record. Nothing is decided by it.
    fn index(&self, key: &Key, record: Option<&Record>, commands: &mut Commands) {
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
struct Fields {
    set: Vec<String>,
    removed: Vec<String>,
}

impl Fields {
    fn note(&mut self, field: String, record: Option<&Record>) {
        match record {
            Some(record) => self.set.extend([field, record.0.clone()]),
            None => self.removed.push(field),
        }
    }

    fn into_commands(self, hash: &str, commands: &mut Commands) {
        commands.many(["HSET", hash], self.set);
        commands.many(["HDEL", hash], self.removed);
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
