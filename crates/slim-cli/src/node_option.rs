//! The option `--slim`: an address, or the JSON object that other SLIM programs
//! take, of which `endpoint` and `tls.insecure` count.

use serde_json::Value;

/// How to reach the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeOption {
    /// `http://host:port` or `host:port`.
    pub(crate) endpoint: String,
    /// Keys of the JSON object that have no effect here.
    pub(crate) ignored: Vec<String>,
}

/// Reads the option. Whether an address can be dialled is the client's to say.
///
/// # Errors
/// What is wrong with the JSON object.
pub(crate) fn parse(text: &str) -> Result<NodeOption, String> {
    let text = text.trim();
    if text.starts_with('{') {
        return from_json(text);
    }
    Ok(NodeOption { endpoint: text.to_owned(), ignored: Vec::new() })
}

fn from_json(text: &str) -> Result<NodeOption, String> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("not a JSON object: {error}"))?;
    let endpoint = match value.get("endpoint") {
        Some(Value::String(endpoint)) => endpoint.clone(),
        Some(_) => return Err("\"endpoint\" is not a text".to_owned()),
        None => {
            return Err("\"endpoint\" is missing: \
                        expected {\"endpoint\": \"http://host:port\", \"tls\": {\"insecure\": true}}"
                .to_owned());
        }
    };
    match value.pointer("/tls/insecure") {
        None | Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => {
            return Err("\"tls.insecure\" is false, but TLS is not supported yet".to_owned());
        }
        Some(_) => return Err("\"tls.insecure\" is neither true nor false".to_owned()),
    }
    Ok(NodeOption { endpoint, ignored: ignored(&value) })
}

fn ignored(value: &Value) -> Vec<String> {
    let keys = |value: Option<&Value>| -> Vec<String> {
        let keys = value.and_then(Value::as_object).map(|object| object.keys());
        keys.into_iter().flatten().cloned().collect()
    };
    let top = keys(Some(value)).into_iter().filter(|key| key != "endpoint" && key != "tls");
    let tls = keys(value.get("tls")).into_iter().filter(|key| key != "insecure");
    top.chain(tls.map(|key| format!("tls.{key}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, endpoint: &str, ignored: &[&str]) {
        let expected = NodeOption {
            endpoint: endpoint.to_owned(),
            ignored: ignored.iter().map(|key| (*key).to_owned()).collect(),
        };
        assert_eq!(parse(text), Ok(expected), "{text}");
    }

    fn refused(text: &str, expected: &str) {
        let error = parse(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }

    #[test]
    fn addresses_are_taken_as_they_are() {
        check("http://localhost:46357", "http://localhost:46357", &[]);
        check(" node:1 ", "node:1", &[]);
    }

    #[test]
    fn the_json_object_gives_its_endpoint() {
        let text = r#"{"endpoint": "http://localhost:46357", "tls": {"insecure": true}}"#;
        check(text, "http://localhost:46357", &[]);
        check(r#"{"endpoint": "node:1"}"#, "node:1", &[]);
    }

    #[test]
    fn keys_without_effect_are_named() {
        check(
            r#"{"endpoint": "node:1", "origin": "x", "tls": {"insecure": true, "ca_file": "y"}}"#,
            "node:1",
            &["origin", "tls.ca_file"],
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        refused("{", "not a JSON object");
        refused(r#"{"endpoint": "node:1"} x"#, "not a JSON object");
        refused("{}", "\"endpoint\" is missing");
        refused(r#"{"endpoint": 7}"#, "\"endpoint\" is not a text");
        refused(
            r#"{"endpoint": "node:1", "tls": {"insecure": false}}"#,
            "TLS is not supported yet",
        );
        refused(r#"{"endpoint": "node:1", "tls": {"insecure": "no"}}"#, "neither true nor false");
    }
}
