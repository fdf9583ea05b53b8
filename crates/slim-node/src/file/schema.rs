//! The JSON schemas of the node's file and of a policy.
//!
//! They are of a file as it is written. What a reference stands for they cannot know, so
//! one is taken wherever a text may say it, but not for a mapping, and not for a `type`.

use serde_json::{Map, Value, json};

use super::keys::FileKeys;
use super::policy::PolicyKeys;
use super::setting::{Demand, Key, MappingShape, Setting as _, Shape, prose};
use super::value::REFERENCE;

#[cfg(test)]
pub(super) mod tests;

/// The schema of the node's file.
pub(crate) fn node() -> Value {
    document("Configuration of a SLIM node", &FileKeys::shape())
}

/// The schema of a policy.
pub(crate) fn policy() -> Value {
    document("Policy of a SLIM node", &PolicyKeys::shape())
}

fn document(title: &str, shape: &Shape) -> Value {
    let mut document = schema(shape);
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    document["title"] = title.into();
    // Whatever order other crates ask of serde_json.
    document.sort_all_objects();
    document
}

fn schema(shape: &Shape) -> Value {
    match shape {
        Shape::Value { schema, .. } => schema.clone(),
        Shape::Mapping(shape) => mapping(shape, None),
        Shape::Choice { variants, .. } => {
            let variants = variants.iter().map(|(tag, shape)| mapping(shape, Some(tag)));
            json!({ "oneOf": variants.collect::<Vec<_>>() })
        }
        Shape::List(least, item) => {
            json!({ "type": "array", "items": entry(item), "minItems": least })
        }
        Shape::Named { pattern, shape, .. } => json!({
            "type": "object",
            "patternProperties": { *pattern: entry(shape) },
            "additionalProperties": false,
            "minProperties": 1,
            "maxProperties": 1,
        }),
        Shape::Ignored => json!({}),
        Shape::Refused => json!({ "anyOf": [
            { "enum": [false, "false", [], {}] },
            { "type": "string", "pattern": format!("^{REFERENCE}$") },
        ] }),
    }
}

/// What is not behind a key of ours.
fn entry(shape: &Shape) -> Value {
    let mut schema = schema(shape);
    if matches!(shape, Shape::Mapping(shape) if !shape.is_required()) {
        or_nothing(&mut schema);
    }
    schema
}

fn mapping(shape: &MappingShape, tag: Option<&str>) -> Value {
    let mut properties: Map<String, Value> =
        shape.keys.iter().map(|key| (key.name.to_owned(), property(key))).collect();
    let required = shape.keys.iter().filter(|key| (key.is_required)()).map(|key| key.name);
    let required: Vec<_> = required.chain(tag.map(|_| "type")).collect();
    if let Some(tag) = tag {
        properties.insert("type".to_owned(), json!({ "const": tag }));
    }
    let mut schema = json!({
        "type": "object",
        "description": prose(shape.about),
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    if !shape.demands.is_empty() {
        schema["allOf"] = shape.demands.iter().map(demand).collect();
    }
    schema
}

fn demand((keys, _): &Demand) -> Value {
    let is_there = |key: &&str| {
        let is_said = json!({ "not": { "type": "null" } });
        json!({ "required": [key], "properties": { *key: is_said } })
    };
    json!({ "anyOf": keys.iter().map(is_there).collect::<Vec<_>>() })
}

fn property(key: &Key) -> Value {
    let shape = (key.shape)();
    let mut property = schema(&shape);
    if !(key.is_required)() {
        or_nothing(&mut property);
    }
    let prefix = match shape {
        Shape::Ignored => "No effect: ",
        Shape::Refused => "Refused: ",
        _ => "",
    };
    property["description"] = format!("{prefix}{}", prose(key.about)).into();
    if let Some(default) = (key.default)() {
        property["default"] = default;
    }
    property
}

/// Who writes a key and nothing behind it has left it out.
fn or_nothing(schema: &mut Value) {
    match schema.get_mut("type") {
        Some(Value::Array(types)) => types.push("null".into()),
        Some(one) => *one = Value::from(vec![one.take(), "null".into()]),
        None => {
            for alternatives in ["anyOf", "oneOf"] {
                if let Some(Value::Array(alternatives)) = schema.get_mut(alternatives) {
                    alternatives.push(json!({ "type": "null" }));
                }
            }
        }
    }
}
