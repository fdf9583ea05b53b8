//! Whether reader, schema and documents say the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use jsonschema::Validator;

use super::super::client_auth::CredentialsKeys;
use super::super::error::ConfigError;
use super::super::setting::Setting;
use super::super::{parse, policy as policy_file};
use super::*;

pub(in crate::file) static NODE: LazyLock<Validator> = LazyLock::new(|| validator(&node()));
pub(in crate::file) static POLICY: LazyLock<Validator> = LazyLock::new(|| validator(&policy()));

fn validator(schema: &Value) -> Validator {
    jsonschema::draft202012::meta::validate(schema).unwrap();
    jsonschema::draft202012::new(schema).unwrap()
}

/// The schema takes what the reader takes, and nothing whose shape the reader refuses.
pub(in crate::file) fn agree(schema: &Validator, value: &Value, error: Option<&ConfigError>) {
    let said = schema.validate(value);
    match error {
        None => assert!(said.is_ok(), "only the schema refuses {value:#}: {said:?}"),
        Some(error) if error.is_shape() => {
            assert!(said.is_err(), "the schema takes {value:#}, but: {error}");
        }
        Some(_) => {}
    }
}

/// Values that fit, in which each key is there, and each `type` is in one of them.
fn samples(shape: &Shape) -> Vec<Value> {
    match shape {
        Shape::Value { schema, .. } => vec![sample(schema)],
        Shape::Mapping(shape) => full(shape, None),
        Shape::Choice { variants, .. } => {
            variants.iter().flat_map(|(tag, shape)| full(shape, Some(tag))).collect()
        }
        Shape::List(_, item) => samples(item).into_iter().map(|item| json!([item])).collect(),
        Shape::Named { name, shape, .. } => {
            samples(shape).into_iter().map(|entry| json!({ *name: entry })).collect()
        }
        Shape::Ignored => vec![json!({ "any": ["thing"] })],
        Shape::Refused => vec![json!(false)],
    }
}

fn sample(schema: &Value) -> Value {
    let word = &schema["anyOf"][0]["enum"][0];
    let kind = schema["type"].get(0).unwrap_or_else(|| &schema["type"]);
    match (&schema["examples"][0], kind.as_str()) {
        (Value::Null, Some("boolean")) => json!(true),
        (Value::Null, Some("integer")) => schema["minimum"].clone(),
        (Value::Null, None) if word.is_string() => word.clone(),
        (Value::Null, None) => schema["const"].clone(),
        (Value::Null, Some(_)) => json!("some-text"),
        (example, _) => example.clone(),
    }
}

fn full(shape: &MappingShape, tag: Option<&str>) -> Vec<Value> {
    let keys: Vec<_> = shape.keys.iter().map(|key| (key.name, samples(&(key.shape)()))).collect();
    let most = keys.iter().map(|(_, samples)| samples.len()).max().unwrap_or(1);
    let nth = |n: usize| {
        let entry = |(key, samples): &(&str, Vec<Value>)| {
            ((*key).to_owned(), samples[n % samples.len()].clone())
        };
        let tag = tag.map(|tag| ("type".to_owned(), json!(tag)));
        keys.iter().map(entry).chain(tag).collect()
    };
    (0..most).map(nth).collect()
}

/// The places of all values in a value, as JSON pointers.
fn places(value: &Value) -> Vec<String> {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| (key.replace('/', "~1"), value)).collect()
        }
        Value::Array(items) => {
            items.iter().enumerate().map(|(n, item)| (n.to_string(), item)).collect()
        }
        _ => Vec::new(),
    };
    let below = inner.into_iter().flat_map(|(key, value)| {
        places(value).into_iter().map(move |place| format!("/{key}{place}"))
    });
    std::iter::once(String::new()).chain(below).collect()
}

/// Everything that a change at one place makes of a value, but for what was there in the
/// same place before.
fn mutants(value: &Value, before: &mut BTreeSet<(String, String)>) -> Vec<Value> {
    let mut mutants = Vec::new();
    for place in places(value) {
        if !before.insert((place.clone(), value.pointer(&place).unwrap().to_string())) {
            continue;
        }
        let mut add = |change: &dyn Fn(&mut Value)| {
            let mut mutant = value.clone();
            change(mutant.pointer_mut(&place).expect("it is a place of this value"));
            mutants.push(mutant);
        };
        for other in [json!(null), json!(true), json!(-7), json!("x"), json!([]), json!([7])] {
            add(&|found| *found = other.clone());
        }
        add(&|found| *found = json!({}));
        if let Some(Value::Object(entries)) = value.pointer(&place) {
            add(&|found| found["unknown"] = json!(1));
            for key in entries.keys() {
                add(&|found| drop(found.as_object_mut().and_then(|entries| entries.remove(key))));
            }
        }
    }
    mutants
}

/// Whether schema and reader agree about all files that have every key, and about each that
/// differs from one of them at one place.
fn check<T: Setting>(schema: &Validator) {
    let read = |value: &Value| T::read(value.clone(), "", &mut Vec::new()).err();
    let (mut refused, mut before) = (0, BTreeSet::new());
    for sample in samples(&T::shape()) {
        assert_eq!(read(&sample), None, "{sample:#}");
        agree(schema, &sample, None);
        for mutant in mutants(&sample, &mut before) {
            let error = read(&mutant);
            refused += usize::from(error.as_ref().is_some_and(ConfigError::is_shape));
            agree(schema, &mutant, error.as_ref());
        }
    }
    assert!(refused > 50, "only {refused} were refused");
}

#[test]
fn reader_and_schema_of_the_node_agree_at_every_key() {
    check::<FileKeys>(&NODE);
}

#[test]
fn reader_and_schema_of_a_policy_agree_at_every_key() {
    check::<PolicyKeys>(&POLICY);
}

/// What `auth` of a peer may be is declared here and read by slim-identity.
#[test]
fn credentials_are_read_with_every_key() {
    for mut sample in samples(&CredentialsKeys::shape()) {
        // One of both is enough, and two are refused.
        for place in ["/key/key", ""] {
            if let Some(Value::Object(entries)) = sample.pointer_mut(place) {
                entries.remove("data");
            }
        }
        let read = slim_identity::LinkCredentials::from_config(sample.clone());
        assert!(read.is_ok(), "{sample:#}: {read:?}");
    }
}

/// Says each default.
fn fill(shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Mapping(shape), value) => fill_mapping(shape, value),
        (Shape::Choice { variants, .. }, value) => {
            let (_, shape) = variants.iter().find(|(tag, _)| value["type"] == **tag).unwrap();
            fill_mapping(shape, value);
        }
        (Shape::List(_, item), Value::Array(items)) => {
            items.iter_mut().for_each(|value| fill(item, value));
        }
        (Shape::Named { shape, .. }, Value::Object(entries)) => {
            entries.values_mut().for_each(|value| fill(shape, value));
        }
        _ => {}
    }
}

fn fill_mapping(shape: &MappingShape, value: &mut Value) {
    for Key { name, shape, default, .. } in &shape.keys {
        if let Some(default) = default() {
            value[*name] = default;
        } else if let Some(value) = value.get_mut(*name).filter(|value| !value.is_null()) {
            fill(&shape(), value);
        }
    }
}

/// What a file makes of a node.
fn effect(file: &Value) -> String {
    let text = file.to_string();
    let config = parse(&text, &|reference| panic!("{reference:?}")).unwrap();
    let log_level = config.log_level.unwrap_or(crate::DEFAULT_LOG_LEVEL);
    let thread_name = config.thread_name.clone();
    let thread_name = thread_name.unwrap_or_else(|| crate::DEFAULT_THREAD_NAME.to_owned());
    let (threads, servers) = (config.worker_threads, format!("{:?}", config.servers));
    let node = crate::node_config(config);
    format!("{log_level} {thread_name} {threads:?} {servers} {node:?}")
}

#[test]
fn who_says_the_defaults_changes_nothing() {
    let source = json!({ "type": "file", "cert": "/c", "key": "/k" });
    let peer = |backoff| {
        json!({
            "node_id": "b", "endpoint": "https://b:1", "tls": {}, "backoff": backoff,
            "auth": { "type": "basic", "username": "a", "password": "b" },
        })
    };
    let file = json!({
        "tracing": {}, "runtime": {},
        "services": { "slim/0": {
            "node_id": "a",
            "dataplane": {
                "limits": {},
                "servers": [
                    { "endpoint": "0.0.0.0:1", "tls": { "source": source }, "keepalive": {} },
                ],
            },
            "peers": { "discovery": {
                "type": "static", "peers": [peer(json!({ "type": "exponential" })), peer(json!(null))],
            } },
        } },
    });
    let mut filled = file.clone();
    fill(&FileKeys::shape(), &mut filled);
    assert_eq!(filled["services"]["slim/0"]["peers"]["topology"], "full_mesh");
    assert_eq!(filled["services"]["slim/0"]["dataplane"]["servers"][0]["keepalive"]["time"], "2m");
    assert_eq!(effect(&filled), effect(&file));
}

/// The blocks of YAML in a document, without the spaces in front of all of their lines.
fn blocks(document: &str) -> Vec<String> {
    let blocks = document.split("```yaml\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap_or(rest));
    let inner = |block: &str| {
        let indent = block.len() - block.trim_start_matches(' ').len();
        let lines = block.lines().map(|line| line.get(indent..).unwrap_or_default());
        lines.map(|line| format!("{line}\n")).collect()
    };
    blocks.map(inner).collect()
}

#[test]
fn examples_of_the_documents_can_be_used() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let paths = fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().path());
    let mut found = 0;
    for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        for block in blocks(&fs::read_to_string(&path).unwrap()) {
            let text = match block.as_str() {
                // Of a list of servers.
                entry if entry.starts_with("- endpoint") => {
                    let entry: Value = serde_saphyr::from_str(entry).unwrap();
                    json!({ "services": { "slim/0": { "dataplane": { "servers": entry } } } })
                        .to_string()
                }
                text => text.to_owned(),
            };
            let value: Value = serde_saphyr::from_str(&text).unwrap();
            let (schema, read) = if value.get("rules").is_some() {
                (&POLICY, policy_file::parse(&text).err())
            } else if value.get("services").is_some() {
                (&NODE, parse(&text, &|_| Ok("7".to_owned())).err().map(|error| error.to_string()))
            } else {
                continue;
            };
            assert_eq!(read, None, "{}: {block}", path.display());
            agree(schema, &value, None);
            found += 1;
        }
    }
    assert!(found >= 5, "only {found}");
}
