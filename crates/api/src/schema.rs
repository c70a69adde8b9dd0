//! What a value in a file may be, read from the same schema that Kubernetes enforces, so that both refuse the same things.
//!
//! State: none. Absent on purpose: a validator for any schema. This one knows what the schema of [`SwarmSpec`] has: objects, lists, maps, enumerations,
//! texts, integers and booleans. Ranges and lengths are [`crate::Swarm::check`]'s.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::{Problem, SwarmSpec};

/// The schema of a Swarm's specification, without references.
fn spec_schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<SwarmSpec>().to_value()
}

/// Reads a specification. A key without a value is as if it weren't there, as in Kubernetes.
pub(crate) fn read_spec(mut value: Value, path: &str) -> Result<SwarmSpec, Vec<Problem>> {
    drop_nulls(&mut value);
    let mut problems = Vec::new();
    compare(&spec_schema(), &value, path, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    // What the schema lets through can be deserialized, but for numbers beyond their type.
    serde_json::from_value(value).map_err(|error| vec![Problem::new(path, error.to_string())])
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Adds what is wrong with `value` by `schema` to `problems`.
fn compare(schema: &Value, value: &Value, path: &str, problems: &mut Vec<Problem>) {
    let schema = not_null(schema);
    if let Some(choices) = choices(schema) {
        if !value.as_str().is_some_and(|text| choices.contains(&text)) {
            problems.push(Problem::new(path, format!("{value} is unknown: write {}", choices.join(", "))));
        }
        return;
    }
    // What is optional is listed beside null.
    let of_type = |name: &str| {
        schema["type"] == name || schema["type"].as_array().is_some_and(|types| types.contains(&name.into()))
    };
    let wrong = |expected: &str| Problem::new(path, format!("{} is not {expected}", shown(value)));
    match value {
        Value::Object(map) if of_type("object") => {
            let properties = schema["properties"].as_object();
            for (key, value) in map {
                let below = format!("{path}.{key}");
                match properties.and_then(|properties| properties.get(key)) {
                    Some(schema) => compare(schema, value, &below, problems),
                    None if schema["additionalProperties"].is_object() => {
                        compare(&schema["additionalProperties"], value, &below, problems);
                    }
                    None => {
                        let known = properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
                        problems.push(Problem::new(below, format!("unknown key: write one of {}", known.join(", "))));
                    }
                }
            }
            for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !map.contains_key(key) {
                    problems.push(Problem::new(format!("{path}.{key}"), "missing: write it"));
                }
            }
        }
        Value::Array(list) if of_type("array") => {
            for (at, value) in list.iter().enumerate() {
                compare(&schema["items"], value, &format!("{path}[{at}]"), problems);
            }
        }
        Value::String(_) if of_type("string") => {}
        Value::Bool(_) if of_type("boolean") => {}
        Value::Number(number)
            if of_type("integer") && number.as_u64().is_some_and(|number| number <= u32::MAX.into()) => {}
        _ if of_type("object") => problems.push(wrong("a mapping: write keys and values, indented")),
        _ if of_type("array") => problems.push(wrong("a list: write each entry behind \"- \"")),
        _ if of_type("string") => problems.push(wrong("a text: write it in quotes")),
        _ if of_type("boolean") => problems.push(wrong("true or false")),
        _ => match (&schema["minimum"], &schema["maximum"]) {
            (Value::Number(low), Value::Number(high)) => {
                problems.push(wrong(&format!("a number from {low} to {high}")))
            }
            _ => problems.push(wrong("a whole number")),
        },
    }
}

/// The schema of what an optional value is when it is there.
fn not_null(schema: &Value) -> &Value {
    let mut alternatives = schema["anyOf"].as_array().into_iter().flatten();
    alternatives.find(|alternative| alternative["type"] != "null").unwrap_or(schema)
}

/// The texts of an enumeration; a documented one is a list of constants.
fn choices(schema: &Value) -> Option<Vec<&str>> {
    let constants =
        schema["oneOf"].as_array().map(|list| list.iter().filter_map(|one| one["const"].as_str()).collect());
    constants.or_else(|| schema["enum"].as_array().map(|list| list.iter().filter_map(Value::as_str).collect()))
}

/// A value in short: a whole mapping would hide what is said about it.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "a mapping".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        value => value.to_string(),
    }
}
