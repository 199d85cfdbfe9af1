//! Each invalid form of a NetworkPolicy, with Kubernetes' own words.

use crate::Cause;
use crate::kinds::network_policy::KIND;
use serde_json::{Value, json};

const PORT_CHARS: &str = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)";

fn made(spec: &Value) -> Value {
    let metadata = json!({"name": "p", "namespace": "default", "resourceVersion": "1"});
    let mut object = json!({"metadata": metadata, "spec": spec});
    (KIND.defaults)(&mut object);
    KIND.prepare_create(&mut object);
    object
}

fn lines(spec: &Value) -> Vec<String> {
    let causes = KIND.validate_create(&made(spec));
    causes.iter().map(Cause::to_string).collect()
}

/// What is said about a policy of which this is the rule of ingress.
fn ingress(rule: &Value) -> Vec<String> {
    lines(&json!({"podSelector": {}, "ingress": [rule]}))
}

/// The same about a port, without its path.
fn port(port: &Value) -> Vec<String> {
    let found = ingress(&json!({"ports": [port]}));
    let path = "spec.ingress[0].ports[0].";
    let said = found.iter().map(|line| line.strip_prefix(path));
    said.map(|line| line.expect("about the port").to_owned())
        .collect()
}

/// And about a range of addresses less others.
fn block(cidr: &str, except: &[&str]) -> Vec<String> {
    let found = ingress(&json!({"from": [{"ipBlock": {"cidr": cidr, "except": except}}]}));
    let path = "spec.ingress[0].from[0].ipBlock.";
    let said = found.iter().map(|line| line.strip_prefix(path));
    said.map(|line| line.expect("about the range").to_owned())
        .collect()
}

#[test]
fn c13_types_and_protocols_are_filled_in() {
    let plain = made(&json!({"podSelector": {}}));
    assert_eq!(plain["spec"]["policyTypes"], json!(["Ingress"]));
    let both = made(&json!({"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}));
    assert_eq!(both["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(both["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
    let empty = made(&json!({"podSelector": {}, "egress": []}));
    assert_eq!(empty["spec"]["policyTypes"], json!(["Ingress"]));
    let said = made(&json!({"podSelector": {}, "policyTypes": ["Egress"]}));
    assert_eq!(said["spec"]["policyTypes"], json!(["Egress"]));
}

#[test]
fn c13_a_whole_policy_is_fine() {
    let dns = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {},
    });
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "api-server"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{
            "from": [{"podSelector": {"matchLabels": {"app": "frontend"}}}],
            "ports": [{"protocol": "TCP", "port": 8080, "endPort": 8090}],
        }],
        "egress": [
            {"to": [dns], "ports": [{"protocol": "UDP", "port": "dns"}]},
            {"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]},
            {"to": [{"ipBlock": {"cidr": "2001:db8::/64", "except": ["2001:db8::/65"]}}]},
        ],
    });
    assert_eq!(lines(&spec), [""; 0]);
}

#[test]
fn n2_types() {
    let types = |types: Value| lines(&json!({"podSelector": {}, "policyTypes": types}));
    let unknown =
        "spec.policyTypes[0]: Unsupported value: \"X\": supported values: \"Egress\", \"Ingress\"";
    assert_eq!(types(json!(["X"])), [unknown]);
    let found = types(json!(["Ingress", "Egress", "Ingress"]));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("spec.policyTypes: Invalid value: "),
        "{found:?}"
    );
    assert!(
        found[0].ends_with(": may not specify more than two policyTypes"),
        "{found:?}"
    );
    // Twice the same is fine.
    assert_eq!(types(json!(["Egress", "Egress"])), [""; 0]);
}

#[test]
fn n7_a_peer_is_one_thing() {
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        let path = format!("spec.{list}[0].{peers}[1]");
        let said = |peer: Value| {
            lines(&json!({"podSelector": {}, list: [{peers: [{"podSelector": {}}, peer]}]}))
        };
        let empty = format!("{path}: Required value: must specify a peer");
        assert_eq!(said(json!({})), std::slice::from_ref(&empty));
        assert_eq!(said(json!({"podSelector": null})), [empty]);
        let both = format!("{path}: Forbidden: may not specify both ipBlock and another peer");
        let block = json!({"cidr": "10.0.0.0/8"});
        for other in ["podSelector", "namespaceSelector"] {
            let found = said(json!({other: {}, "ipBlock": block}));
            assert_eq!(found, std::slice::from_ref(&both));
        }
        let three = json!({"podSelector": {}, "namespaceSelector": {}, "ipBlock": block});
        assert_eq!(said(three), [both]);
        assert_eq!(
            said(json!({"podSelector": {}, "namespaceSelector": {}})),
            [""; 0]
        );
    }
}

#[test]
fn n8_ranges() {
    let no_range = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    assert_eq!(block("", &["x"]), ["cidr: Required value"]);
    for text in ["10.0.0.0", "10.0.0.0/33", "2001:db8::/129", "home/8", "/8"] {
        assert_eq!(
            block(text, &[]),
            [format!("cidr: Invalid value: {text:?}: {no_range}")]
        );
        let wanted = format!("except[0]: Invalid value: {text:?}: {no_range}");
        assert_eq!(block("10.0.0.0/8", &[text]), [wanted]);
    }
    for (text, message) in [
        (
            "10.0.0.1/8",
            "must not have bits set beyond the prefix length",
        ),
        (
            "010.0.0.0/8",
            "must not have leading 0s in IP or prefix length",
        ),
        (
            "10.0.0.0/08",
            "must not have leading 0s in IP or prefix length",
        ),
        (
            "::ffff:10.0.0.0/104",
            "must not have an IPv4-mapped IPv6 address",
        ),
    ] {
        assert_eq!(
            block(text, &[]),
            [format!("cidr: Invalid value: {text:?}: {message}")]
        );
    }
}

#[test]
fn n8_what_is_excepted_is_a_part() {
    let subset = "must be a strict subset of `cidr`";
    let inside = ["10.1.0.0/16", "10.255.255.255/32"];
    assert_eq!(block("10.0.0.0/8", &inside), [""; 0]);
    assert_eq!(block("2001:db8::/32", &["2001:db8:1::/48"]), [""; 0]);
    for (whole, part) in [
        ("10.0.0.0/8", "192.168.0.0/16"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/8", "0.0.0.0/0"),
        ("10.0.0.0/8", "2001:db8::/64"),
        ("2001:db8::/32", "2001:db9::/48"),
    ] {
        let wanted = format!("except[1]: Invalid value: {part:?}: {subset}");
        let first = if whole.starts_with("10") {
            "10.1.0.0/16"
        } else {
            "2001:db8:1::/48"
        };
        assert_eq!(block(whole, &[first, part]), [wanted]);
    }
}

/// What a policy had before may stay, wherever it is put.
#[test]
fn n8_ranges_that_were_there_are_not_judged_again() {
    let of = |rules: Value| made(&json!({"podSelector": {}, "egress": rules}));
    let odd = json!({"ipBlock": {"cidr": "010.0.0.0/8", "except": ["10.1.0.1/16"]}});
    let old = of(json!([{"to": [odd]}]));
    let moved = of(json!([{}, {"to": [{"podSelector": {}}, odd]}]));
    let causes = KIND.validate_update(&moved, &old);
    let said: Vec<String> = causes.iter().map(Cause::to_string).collect();
    assert_eq!(said, [""; 0]);
    let more = json!({"ipBlock": {"cidr": "010.0.0.0/8", "except": ["10.1.0.2/16"]}});
    let causes = KIND.validate_update(&of(json!([{"to": [more]}])), &old);
    let said: Vec<String> = causes.iter().map(Cause::to_string).collect();
    let path = "spec.egress[0].to[0].ipBlock.except[0]";
    let wanted = format!(
        "{path}: Invalid value: \"10.1.0.2/16\": must not have bits set beyond the prefix length"
    );
    assert_eq!(said, [wanted]);
}

#[test]
fn n9_ranges_of_ports() {
    let number = "must be between 1 and 65535, inclusive";
    assert_eq!(port(&json!({"port": 80, "endPort": 80})), [""; 0]);
    assert_eq!(
        port(&json!({"port": 90, "endPort": 80})),
        ["endPort: Invalid value: 90: must be greater than or equal to `port`"]
    );
    assert_eq!(
        port(&json!({"port": 80, "endPort": 65536})),
        [format!("endPort: Invalid value: 65536: {number}")]
    );
    assert_eq!(
        port(&json!({"port": "http", "endPort": 80})),
        ["endPort: Invalid value: 80: may not be specified when `port` is non-numeric"]
    );
    assert_eq!(
        port(&json!({"endPort": 80})),
        ["endPort: Invalid value: 80: may not be specified when `port` is not specified"]
    );
    for protocol in ["ICMP", "tcp", "SCTPs"] {
        assert_eq!(
            port(&json!({"port": 80, "protocol": protocol})),
            [format!(
                "protocol: Unsupported value: {protocol:?}: supported values: \"SCTP\", \"TCP\", \"UDP\""
            )]
        );
    }
}

#[test]
fn n20_ports() {
    let number = "must be between 1 and 65535, inclusive";
    for wrong in [0, -1, 65536] {
        assert_eq!(
            port(&json!({"port": wrong})),
            [format!("port: Invalid value: {wrong}: {number}")]
        );
    }
    for (name, messages) in [
        (
            "",
            &[PORT_CHARS, "must contain at least one letter (a-z)"][..],
        ),
        ("8080", &["must contain at least one letter (a-z)"]),
        ("a--b", &["must not contain consecutive hyphens"]),
        ("-a", &["must not begin or end with a hyphen"]),
        ("Web", &[PORT_CHARS]),
        (
            "sixteen-letters-",
            &[
                "must be no more than 15 characters",
                "must not begin or end with a hyphen",
            ],
        ),
    ] {
        let wanted: Vec<String> = messages
            .iter()
            .map(|message| format!("port: Invalid value: {name:?}: {message}"))
            .collect();
        assert_eq!(port(&json!({"port": name})), wanted);
    }
    for good in [
        json!(1),
        json!(65535),
        json!("http-2"),
        json!("fifteen-letters"),
    ] {
        assert_eq!(port(&json!({"port": good})), [""; 0], "{good}");
    }
}

#[test]
fn n20_selectors() {
    let value = "a valid label must be an empty string or consist of alphanumeric characters";
    let name = "name part must consist of alphanumeric characters";
    for (selector, field, message) in [
        (json!({"matchLabels": {"app": "a b"}}), "matchLabels", value),
        (json!({"matchLabels": {"a b": "c"}}), "matchLabels", name),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            "matchExpressions[0].values",
            "Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
            "matchExpressions[0].values",
            "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "Near"}]}),
            "matchExpressions[0].operator",
            "Invalid value: \"Near\": not a valid selector operator",
        ),
        (
            json!({"matchExpressions": [{"key": "-", "operator": "Exists"}]}),
            "matchExpressions[0].key",
            name,
        ),
        (
            json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b", "c d"]}]}),
            "matchExpressions[0].values[1]",
            value,
        ),
    ] {
        let everywhere = json!({
            "podSelector": selector,
            "ingress": [{"from": [{"podSelector": selector}]}],
            "egress": [{"to": [{"namespaceSelector": selector}]}],
        });
        let found = lines(&everywhere);
        let paths = [
            "spec.podSelector",
            "spec.ingress[0].from[0].podSelector",
            "spec.egress[0].to[0].namespaceSelector",
        ];
        assert_eq!(found.len(), paths.len(), "{found:?}");
        for (line, path) in found.iter().zip(paths) {
            assert!(line.starts_with(&format!("{path}.{field}: ")), "{line}");
            assert!(line.contains(message), "{line}");
        }
    }
}
