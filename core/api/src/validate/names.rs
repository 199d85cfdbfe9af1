//! Rules for names: each function gives one message per broken rule.

/// A message with examples and the regular expression, as Kubernetes forms it.
fn with_regex(message: &str, regex: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples
        .iter()
        .map(|example| format!("'{example}', "))
        .collect();
    format!(
        "{message} (e.g. {}regex used for validation is '{regex}')",
        examples.join(" or ")
    )
}

fn too_long(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn lower_or_digit(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Starts and ends with `edge`, holds `inner` in between, is not empty.
fn shaped(text: &str, edge: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first), Some(last)) => {
            edge(*first) && edge(*last) && bytes.iter().all(|byte| inner(*byte))
        }
        _ => false,
    }
}

fn is_label(text: &str) -> bool {
    shaped(text, lower_or_digit, |byte| {
        lower_or_digit(byte) || byte == b'-'
    })
}

/// DNS-1123 label: `web`, `1-web`.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > 63 {
        messages.push(too_long(63));
    }
    if !is_label(text) {
        messages.push(with_regex(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
            "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "123-abc"],
        ));
    }
    messages
}

/// DNS-1035 label: a DNS-1123 label that begins with a letter.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > 63 {
        messages.push(too_long(63));
    }
    if !is_label(text) || !text.starts_with(|char: char| char.is_ascii_lowercase()) {
        messages.push(with_regex(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    messages
}

/// DNS-1123 subdomain: labels joined by dots.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > 253 {
        messages.push(too_long(253));
    }
    if !text.split('.').all(is_label) {
        messages.push(with_regex(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    messages
}

/// A key of labels and annotations: an optional subdomain, a slash, a name.
pub fn qualified_name(text: &str) -> Vec<String> {
    let regex = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    let shape = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    let examples = ["MyName", "my.name", "123-abc"];
    let mut messages = Vec::new();
    let (prefix, name) = match text.split_once('/') {
        None => (None, text),
        Some((_, rest)) if rest.contains('/') => {
            let message = with_regex(shape, regex, &examples);
            return vec![format!(
                "a qualified name {message} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some((prefix, name)) => (Some(prefix), name),
    };
    match prefix {
        Some("") => messages.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => messages.extend(
            dns1123_subdomain(prefix)
                .into_iter()
                .map(|message| format!("prefix part {message}")),
        ),
        None => {}
    }
    match name.len() {
        0 => messages.push("name part must be non-empty".to_owned()),
        64.. => messages.push(format!("name part {}", too_long(63))),
        _ => {}
    }
    if !is_name_part(name) {
        messages.push(format!("name part {}", with_regex(shape, regex, &examples)));
    }
    messages
}

fn is_name_part(text: &str) -> bool {
    shaped(
        text,
        |byte| byte.is_ascii_alphanumeric(),
        |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'),
    )
}

/// The value of a label.
pub fn label_value(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > 63 {
        messages.push(too_long(63));
    }
    if !text.is_empty() && !is_name_part(text) {
        messages.push(with_regex(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    messages
}

/// The name of a container port: an IANA service name.
pub fn port_name(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > 15 {
        messages.push("must be no more than 15 characters".to_owned());
    }
    if !text
        .bytes()
        .all(|byte| lower_or_digit(byte) || byte == b'-')
        || text.is_empty()
    {
        messages.push(
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned(),
        );
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        messages.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        messages.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        messages.push("must not begin or end with a hyphen".to_owned());
    }
    messages
}

/// A port number.
pub fn port_number(number: i64) -> Vec<String> {
    match number {
        1..=65535 => Vec::new(),
        _ => vec!["must be between 1 and 65535, inclusive".to_owned()],
    }
}

/// A key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > 253 {
        messages.push(too_long(253));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(allowed) {
        messages.push(with_regex(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => messages.push("must not be '.'".to_owned()),
        ".." => messages.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => messages.push("must not start with '..'".to_owned()),
        _ => {}
    }
    messages
}

/// The name of an environment variable (the relaxed rule since 1.34).
pub fn env_name(text: &str) -> Vec<String> {
    let printable = |byte: u8| (0x20..=0x7e).contains(&byte) && byte != b'=';
    match text.bytes().all(printable) {
        true => Vec::new(),
        false => vec![
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_subdomains() {
        for good in ["a", "web-1", "1web", &"a".repeat(63)] {
            assert!(dns1123_label(good).is_empty(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64)] {
            assert!(!dns1123_label(bad).is_empty(), "{bad}");
        }
        for good in ["a.b", "db.example.com"] {
            assert!(dns1123_subdomain(good).is_empty(), "{good}");
        }
        for bad in ["a..b", ".a", "a.", "a.-b"] {
            assert!(!dns1123_subdomain(bad).is_empty(), "{bad}");
        }
        assert_eq!(
            dns1123_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
    }

    #[test]
    fn qualified_names() {
        for good in ["app", "app.kubernetes.io/name", "a/B_c.d"] {
            assert!(qualified_name(good).is_empty(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "A.b/c", "a b", "-a"] {
            assert!(!qualified_name(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn s7_port_names() {
        for good in ["http", "http-2", "8080x"] {
            assert!(port_name(good).is_empty(), "{good}");
        }
        for bad in ["", "8080", "a--b", "-a", "this-is-far-too-long"] {
            assert!(!port_name(bad).is_empty(), "{bad}");
        }
        assert_eq!(port_name("HTTP").len(), 2, "two causes on one path");
    }
}
