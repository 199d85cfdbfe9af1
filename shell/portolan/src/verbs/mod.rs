//! Thin clients of the Kubernetes API: the verbs that kubectl has, with its
//! flags, for a machine without kubectl. They work against any cluster.

pub(crate) mod apply;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod exec;
pub(crate) mod expose;
pub(crate) mod get;
pub(crate) mod logs;
pub(crate) mod make;
pub(crate) mod manifests;
pub(crate) mod pods;
pub(crate) mod port_forward;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod selector;
pub(crate) mod service;

/// `a=b,c` as a query parameter.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn selectors_survive_a_query() {
        assert_eq!(
            super::encoded("app=web,tier in (a)"),
            "app%3Dweb%2Ctier%20in%20%28a%29"
        );
    }
}
