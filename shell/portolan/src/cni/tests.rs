use std::os::unix::net::UnixListener;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    let usual = [
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/var/run/netns/x"),
        ("CNI_IFNAME", "eth0"),
        (
            "CNI_ARGS",
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u-1",
        ),
    ];
    let all = usual.iter().chain(pairs);
    all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn previous() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "interfaces": [
            {"name": "cni0"}, {"name": "veth1"}, {"name": "eth0", "sandbox": "/var/run/netns/x"},
        ],
        "ips": [
            {"interface": 2, "address": "10.244.1.7/24", "gateway": "10.244.1.1"},
            {"interface": 2, "address": "fd00:10:244:1::7/64"},
            {"interface": 0, "address": "10.244.1.1/24"},
        ],
        "dns": {},
    })
}

fn config(socket: &str, more: &Value) -> Value {
    let mut config = json!({
        "cniVersion": "1.1.0", "name": "net", "type": NAME, "socket": socket,
        "timeoutSeconds": 1, "prevResult": previous(),
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        config[field] = value.clone();
    }
    config
}

fn call(command: &str, config: &Value) -> Result<Option<Value>, Failure> {
    let environment = environment(&[("CNI_COMMAND", command)]);
    carry_out(&environment, config.to_string().as_bytes())
}

fn code(command: &str, config: &Value) -> u32 {
    call(command, config).expect_err("a failure").code
}

/// An agent that gives this answer to one question; what it was asked.
fn agent(path: &std::path::Path, answer: &str) -> std::thread::JoinHandle<Value> {
    let listener = UnixListener::bind(path).unwrap();
    let answer = format!("{answer}\n");
    std::thread::spawn(move || {
        use std::io::{BufRead, BufReader, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        serde_json::from_str(&line).unwrap()
    })
}

#[test]
fn n16_add_tells_the_agent_and_passes_the_result_through() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let asked = agent(&socket, r#"{"done":true}"#);
    let answer = call("ADD", &config(socket.to_str().unwrap(), &json!({}))).unwrap();
    let mut expected = previous();
    expected["cniVersion"] = json!("1.1.0");
    assert_eq!(answer, Some(expected));
    let question = json!({
        "verb": "attach", "container": "c1/eth0", "namespace": "shop", "name": "web-0",
        "uid": "u-1", "addresses": ["10.244.1.7", "fd00:10:244:1::7"],
    });
    assert_eq!(asked.join().unwrap(), question);
}

#[test]
fn n16_without_an_agent_pods_wait_unless_they_may_pass() {
    let nobody = |more: &Value| config("/nonexistent/agent.sock", more);
    assert_eq!(code("ADD", &nobody(&json!({}))), TRY_AGAIN_LATER);
    assert_eq!(code("CHECK", &nobody(&json!({}))), TRY_AGAIN_LATER);
    assert_eq!(code("STATUS", &nobody(&json!({}))), NOT_AVAILABLE);
    assert_eq!(call("DEL", &nobody(&json!({}))), Ok(None));
    let gc = nobody(&json!({"cni.dev/valid-attachments": []}));
    assert_eq!(call("GC", &gc), Ok(None));
    let pass = nobody(&json!({"whenAway": "pass"}));
    assert!(matches!(call("ADD", &pass), Ok(Some(_))));
    assert_eq!(call("STATUS", &pass), Ok(None));
    // One that does not answer is not away: nothing may pass.
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let _silent = UnixListener::bind(&socket).unwrap();
    let silent = config(socket.to_str().unwrap(), &json!({"whenAway": "pass"}));
    assert_eq!(code("ADD", &silent), TRY_AGAIN_LATER);
}

#[test]
fn what_is_no_pod_is_passed_through() {
    let config = config("/nonexistent/agent.sock", &json!({}));
    for args in ["", "IgnoreUnknown=1;X=Y"] {
        let environment = environment(&[("CNI_COMMAND", "ADD"), ("CNI_ARGS", args)]);
        let done = carry_out(&environment, config.to_string().as_bytes());
        assert!(matches!(done, Ok(Some(_))), "{done:?}");
    }
}

#[test]
fn versions_are_spoken_or_refused() {
    let version = call("VERSION", &json!({"cniVersion": "0.4.0"})).unwrap();
    assert_eq!(
        version,
        Some(json!({"cniVersion": "0.4.0", "supportedVersions": VERSIONS}))
    );
    for (version, command, expected) in [
        ("0.2.0", "ADD", INCOMPATIBLE_VERSION),
        ("2.0.0", "ADD", INCOMPATIBLE_VERSION),
        ("0.3.1", "CHECK", INCOMPATIBLE_VERSION),
        ("1.0.0", "STATUS", INCOMPATIBLE_VERSION),
        ("1.0.0", "GC", INCOMPATIBLE_VERSION),
        ("1.1.0", "GC", INVALID_CONFIG),
        ("1.1.0", "DANCE", INVALID_ENVIRONMENT),
    ] {
        let config = config("/nonexistent", &json!({"cniVersion": version}));
        assert_eq!(code(command, &config), expected, "{version} {command}");
    }
}

#[test]
fn what_is_wrong_is_told_as_json_with_a_code() {
    for (more, expected) in [
        (json!({"prevResult": null}), INVALID_CONFIG),
        (json!({"socket": "here"}), INVALID_CONFIG),
        (json!({"timeoutSeconds": 0}), INVALID_CONFIG),
        (json!({"whenAway": "maybe"}), INVALID_CONFIG),
        (
            json!({"prevResult": {"ips": [{"address": "x"}]}}),
            INVALID_CONFIG,
        ),
    ] {
        let config = config("/nonexistent", &more);
        assert_eq!(code("ADD", &config), expected, "{more}");
    }
    let failure = carry_out(&environment(&[("CNI_COMMAND", "ADD")]), b"{").unwrap_err();
    assert_eq!(failure.code, FAILED_TO_DECODE);
    let told = failure.told(br#"{"cniVersion": "0.4.0"}"#);
    assert_eq!(
        (&told["cniVersion"], &told["code"]),
        (&json!("0.4.0"), &json!(6))
    );
    assert!(told["details"].is_string());
    let mut without = environment(&[("CNI_COMMAND", "ADD")]);
    without.remove("CNI_CONTAINERID");
    let config = config("/nonexistent", &json!({})).to_string();
    let failure = carry_out(&without, config.as_bytes()).unwrap_err();
    assert_eq!(failure.code, INVALID_ENVIRONMENT);
    assert!(failure.msg.contains("CNI_CONTAINERID"), "{failure:?}");
}

#[test]
fn the_plugin_is_put_behind_the_others_and_taken_away() {
    use clap::Parser;

    use crate::cli::{Cli, Command};
    let dir = tempfile::tempdir().unwrap();
    let (bin, conf) = (dir.path().join("bin"), dir.path().join("net.d"));
    for folder in [&bin, &conf] {
        std::fs::create_dir(folder).unwrap();
    }
    let install = |flags: &[&str]| {
        let folders = [
            "--bin-dir",
            bin.to_str().unwrap(),
            "--conf-dir",
            conf.to_str().unwrap(),
        ];
        let verb = ["portolan", "cni"].iter().chain(flags);
        let typed: Vec<&str> = verb.copied().chain(folders).collect();
        let Command::Cni(args) = Cli::try_parse_from(typed).unwrap().command else {
            panic!("another verb");
        };
        run(&args).map(|_| ())
    };
    let error = install(&["install"]).unwrap_err().to_string();
    assert!(error.contains("no CNI configuration"), "{error}");
    let list = json!({"cniVersion": "1.0.0", "name": "cbr0", "plugins": [
        {"type": "flannel", "delegate": {"isDefaultGateway": true}}, {"type": "portmap"},
    ]});
    let (first, single) = (conf.join("10-flannel.conflist"), conf.join("20-other.conf"));
    std::fs::write(&first, list.to_string()).unwrap();
    let other = json!({"cniVersion": "0.4.0", "name": "b", "type": "bridge", "bridge": "b0"});
    std::fs::write(&single, other.to_string()).unwrap();
    let read = |path: &std::path::Path| -> Value {
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    // As often as one likes, with what was asked last.
    install(&["install"]).unwrap();
    install(&["install", "--when-away=pass", "--timeout=9"]).unwrap();
    let mut with = list.clone();
    with["plugins"]
        .as_array_mut()
        .unwrap()
        .push(json!({"type": NAME, "socket": SOCKET, "timeoutSeconds": 9, "whenAway": "pass"}));
    assert_eq!(read(&first), with);
    assert!(bin.join(NAME).exists());
    // What is no list becomes one.
    install(&["install", "--conf=20-other.conf"]).unwrap();
    assert!(!single.exists());
    let made = read(&conf.join("20-other.conflist"));
    assert_eq!(
        (&made["name"], &made["cniVersion"]),
        (&json!("b"), &json!("0.4.0"))
    );
    assert_eq!(
        made["plugins"][0],
        json!({"type": "bridge", "bridge": "b0"})
    );
    assert_eq!(made["plugins"][1]["type"], NAME);
    install(&["uninstall"]).unwrap();
    assert_eq!(read(&first), list);
    assert!(!bin.join(NAME).exists());
    assert_eq!(std::fs::read_dir(&conf).unwrap().count(), 2);
}
