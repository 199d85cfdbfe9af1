use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const HEAD: &str = "apiVersion: dns.portolan.dev/v1alpha1\nkind: DNSConfiguration\n";

fn refused(body: &str) -> String {
    read(&format!("{HEAD}{body}")).expect_err(body).to_string()
}

const EVERYTHING: &str = r#"
kubernetes: {domain: Cluster.Local., pods: Verified, ttl: 30s, zonal: true}
forward:
- servers: [/etc/resolv.conf, 192.0.2.1, "[2001:db8::1]:5353", "tls://192.0.2.2", "tls://[2001:db8::2]:8853"]
  except: [internal.example]
  policy: Sequential
  tls: {serverName: dns.example, certificateAuthorities: /etc/ca.pem}
  randomizeCase: true
  maxFailures: 0
- domain: corp.example.
  servers: [192.0.2.3]
  transport: TCP
  timeout: 1.5s
maxConcurrent: 10
cache:
  maxEntries: 5
  positive: {minTTL: 5s, maxTTL: 1m}
  prefetch: {queries: 3}
  serveStale: {enabled: false}
rotate: true
hosts:
  entries: [{address: 192.0.2.9, names: [a.example, b.example]}]
rewrite:
- {from: a.example, to: b.example}
- type: Regex
  from: '(.*)\.in\.example\.'
  to: '{1}.svc.example.'
  continue: true
  answers: [{type: Value, from: 'x', to: 'y'}]
log: {oneIn: 100}
health: {lameduck: 5s}
ready: {address: ":99"}
metrics: {address: ""}
"#;

#[test]
fn d22_a_file_says_everything() {
    let text = format!("{HEAD}{EVERYTHING}");
    let found = read(&text).unwrap();
    let domain = Some("cluster.local".to_owned());
    let ttl = Some(Duration::from_secs(30));
    let (pods, zonal) = (Some(Pods::Verified), Some(true));
    assert_eq!(
        found.kubernetes,
        Kubernetes {
            domain,
            pods,
            ttl,
            zonal
        }
    );
    let server = |address: &str, tls| Upstream::Server {
        address: address.parse().unwrap(),
        tls,
    };
    let servers = [
        Upstream::File("/etc/resolv.conf".into()),
        server("192.0.2.1:53", false),
        server("[2001:db8::1]:5353", false),
        server("192.0.2.2:853", true),
        server("[2001:db8::2]:8853", true),
    ];
    assert_eq!(found.forward[0].servers, servers);
    assert_eq!(found.forward[1].timeout, Duration::from_millis(1500));
    assert!(found.forward[1].force_tcp && found.forward[0].max_failures == 0);
    let cache = found.cache.as_ref().unwrap();
    assert!(cache.serve_stale.is_none() && cache.max_bytes == Cache::default().max_bytes);
    assert_eq!(cache.prefetch.as_ref().unwrap().queries, 3);
    assert!(found.rotate && !DnsConfiguration::default().rotate);
    assert_eq!(found.log_one_in.map(NonZeroU32::get), Some(100));
    assert_eq!(found.hosts.entries[0].names, ["a.example", "b.example"]);
    assert!(found.rewrite[1].proceed && found.rewrite[1].answers[0].value);
    assert_eq!(found.places.ready, Some("0.0.0.0:99".parse().unwrap()));
    assert_eq!(
        (found.places.metrics, found.places.health.unwrap().port()),
        (None, 8080)
    );
    let again = serde_json::to_string(&found.to_value()).unwrap();
    assert_eq!(read(&again).unwrap(), found, "{again}");
}

#[test]
fn d22_what_is_not_said_is_usual() {
    assert_eq!(read(HEAD).unwrap(), DnsConfiguration::default());
    let shown = DnsConfiguration::default().to_value();
    assert_eq!(shown, json!({"apiVersion": API_VERSION, "kind": KIND}));
    let off = read(&format!("{HEAD}cache: {{enabled: false}}\nforward: []\n")).unwrap();
    assert!(off.cache.is_none() && off.forward.is_empty());
    let on = read(&format!("{HEAD}autopath: {{}}\n")).unwrap();
    assert_eq!(on.autopath, Some(Autopath::default()));
    let text = format!("{HEAD}autopath: {{resolvConf: /etc/own}}\n");
    let own = read(&text).unwrap();
    let shown = own.to_value();
    assert_eq!(shown["autopath"], json!({"resolvConf": "/etc/own"}));
}

/// Faulty fields, and what is said of them.
const FAULTS: &[(&str, &str)] = &[
    (
        "forwards: []\nhosts: {entry: []}\n",
        "strict decoding error: unknown field \"forwards\", unknown field \"hosts.entry\"",
    ),
    (
        "forward: [{domain: x}]\n",
        "forward[0].servers: Required value",
    ),
    (
        "forward: [{servers: []}]\n",
        "forward[0].servers: Required value: at least one server",
    ),
    (
        "forward: [{servers: [dns.example]}]\n",
        "forward[0].servers[0]: Invalid value: \"dns.example\": must be ADDRESS, ADDRESS:PORT, tls://ADDRESS[:PORT], or the path of a resolv.conf",
    ),
    (
        "forward: [{servers: [192.0.2.1], policy: Fast}]\n",
        "forward[0].policy: Unsupported value: \"Fast\": supported values: \"Random\", \"RoundRobin\", \"Sequential\"",
    ),
    (
        "forward: [{domain: A., servers: [192.0.2.1]}, {domain: a, servers: [192.0.2.1]}]\n",
        "forward[1].domain: Duplicate value: \"a\"",
    ),
    (
        "forward: [{servers: [192.0.2.1], timeout: 0s}]\n",
        "forward[0].timeout: Invalid value: \"0s\": must be greater than 0s",
    ),
    (
        "forward: {}\n",
        "forward: Invalid value: {}: must be a list",
    ),
    (
        "maxConcurrent: 0\n",
        "maxConcurrent: Invalid value: 0: must be between 1 and 1000000, inclusive",
    ),
    (
        "kubernetes: {ttl: 5}\n",
        "kubernetes.ttl: Invalid value: 5: must be a string",
    ),
    (
        "kubernetes: {ttl: 1500ms}\n",
        "kubernetes.ttl: Invalid value: \"1500ms\": must be whole seconds",
    ),
    (
        "hosts: {entries: [{address: x, names: [a]}, {names: [a]}]}\n",
        "[hosts.entries[0].address: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff), hosts.entries[1].address: Required value]",
    ),
    (
        "rewrite: [{type: Regex, from: '(', to: x}]\n",
        "rewrite[0].from: Invalid value: \"(\": unclosed group",
    ),
    ("rewrite: [{to: x}]\n", "rewrite[0].from: Required value"),
    (
        "cache: {positive: {minTTL: 1m, maxTTL: 5s}}\n",
        "cache.positive: Invalid value: {\"maxTTL\":\"5s\",\"minTTL\":\"1m\"}: minTTL must not be above maxTTL",
    ),
    (
        "autopath: {resolvConf: here}\n",
        "autopath.resolvConf: Invalid value: \"here\": must be an absolute path",
    ),
    (
        "kubernetes: {zonal: 1}\n",
        "kubernetes.zonal: Invalid value: 1: must be true or false",
    ),
    ("log: {}\n", "log.oneIn: Required value"),
    (
        "ready: {address: x}\n",
        "ready.address: Invalid value: \"x\": must be ADDRESS:PORT, :PORT, or empty",
    ),
];

#[test]
fn d22_faults_are_told_by_their_fields() {
    for (body, expected) in FAULTS {
        assert_eq!(refused(body), *expected, "{body}");
    }
    let other = read("apiVersion: v1\nkind: ConfigMap\n")
        .unwrap_err()
        .to_string();
    assert_eq!(
        other,
        "no kind \"ConfigMap\" in version \"v1\" is known here, only DNSConfiguration in dns.portolan.dev/v1alpha1"
    );
    assert!(read("a: [").unwrap_err().to_string().contains("line "));
    assert!(read("").unwrap_err().to_string().contains("one document"));
}

#[test]
fn d22_durations_are_those_of_go() {
    let cases = [
        ("0", Some(0)),
        ("5s", Some(5000)),
        ("1m30s", Some(90_000)),
        ("1.5h", Some(5_400_000)),
        (".5s", Some(500)),
        ("500ms", Some(500)),
        ("5", None),
        ("", None),
        ("s", None),
        ("5x", None),
        ("-1s", None),
        ("99999999999999999999h", None),
    ];
    for (text, millis) in cases {
        assert_eq!(
            parse_duration(text),
            millis.map(Duration::from_millis),
            "{text}"
        );
    }
}

proptest! {
    #[test]
    fn d22_durations_survive_writing(nanos in 0_u64..10_000_000_000_000_000) {
        let duration = Duration::from_nanos(nanos);
        prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
    }

    #[test]
    fn d22_no_corefile_breaks_the_import(text in "[a-z.{}()\"#:/\\\\ \n\t0-9%$]{0,120}") {
        if let Ok(imported) = import(&text) {
            let shown = serde_json::to_string(&imported.configuration.to_value()).unwrap();
            drop(read(&shown));
        }
    }
}

/// Converts, and checks that the file that comes out says the same.
fn converted(text: &str) -> (Value, Vec<String>) {
    let imported = import(text).unwrap();
    let value = imported.configuration.to_value();
    let shown = serde_json::to_string(&value).unwrap();
    assert_eq!(read(&shown).unwrap(), imported.configuration, "{shown}");
    let left = imported.not_converted.iter().map(ToString::to_string);
    (value, left.collect())
}

#[test]
fn d22_the_corefile_of_kubeadm_is_converted_whole() {
    let (value, left) = converted(
        ".:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
",
    );
    let expected = json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "kubernetes": {"domain": "cluster.local", "pods": "Insecure", "ttl": "30s"},
        "cache": {
            "maxEntries": 19968,
            "positive": {"minTTL": "5s", "maxTTL": "30s"},
            "negative": {"minTTL": "5s", "maxTTL": "30s"},
            "serveStale": {"enabled": false},
        },
        "rotate": true,
        "health": {"lameduck": "5s"},
    });
    assert_eq!(value, expected);
    assert_eq!(left, Vec::<String>::new());
}

const STUBS: &str = r#"# a comment
(common) {
    errors
    cache
}
.:53 {
    import common
    kubernetes cluster.local
    rewrite name suffix .corp.example. .default.svc.cluster.local. answer auto
    rewrite continue {
        name regex (.*)\.in\.example\. {1}.svc.example.
        answer name (.*)\.svc\.example\. {1}.in.example.
    }
    hosts {
        192.0.2.1 a.example b.example
        2001:db8::1 a.example # six
        no_reverse
        fallthrough
    }
    forward lab.example 192.0.2.53 192.0.2.54:5353 {
        policy sequential
        force_tcp
    }
    forward . tls://9.9.9.9 tls://149.112.112.112 {
        tls_servername dns.quad9.net
        health_check 5s
        max_fails 3
        expire 20s
        except "internal.example"
    }
}
corp.example:53, other.example:53 {
    import common
    forward . 192.0.2.10
}
"#;

#[test]
fn d22_stub_zones_hosts_and_rewrites_are_converted() {
    let (value, left) = converted(STUBS);
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(
        value["forward"],
        json!([
            {"domain": "lab.example", "servers": ["192.0.2.53", "192.0.2.54:5353"], "policy": "Sequential", "transport": "TCP"},
            {
                "domain": ".", "servers": ["tls://9.9.9.9", "tls://149.112.112.112"], "except": ["internal.example"],
                "tls": {"serverName": "dns.quad9.net"}, "healthCheckInterval": "5s", "maxFailures": 3, "idleTimeout": "20s",
            },
            {"domain": "corp.example", "servers": ["192.0.2.10"]},
            {"domain": "other.example", "servers": ["192.0.2.10"]},
        ])
    );
    assert_eq!(
        value["rewrite"],
        json!([
            {"type": "Suffix", "from": ".corp.example.", "to": ".default.svc.cluster.local."},
            {
                "type": "Regex", "from": r"(.*)\.in\.example\.", "to": "{1}.svc.example.", "continue": true,
                "answers": [{"type": "Name", "from": r"(.*)\.svc\.example\.", "to": "{1}.in.example."}],
            },
        ])
    );
    assert_eq!(
        value["hosts"],
        json!({
            "entries": [
                {"address": "192.0.2.1", "names": ["a.example", "b.example"]},
                {"address": "2001:db8::1", "names": ["a.example"]},
            ],
            "files": ["/etc/hosts"],
            "reverse": false,
        })
    );
}

#[test]
fn d19_search_completion_and_zonal_names_are_converted() {
    let (value, left) = converted(
        "cluster.local {
    autopath @kubernetes
    kubernetes {
        pods verified
        zonal
    }
}
. {
    autopath example.org /etc/resolv.conf
}
",
    );
    assert_eq!(value["autopath"], json!({}));
    assert_eq!(
        value["kubernetes"],
        json!({"domain": "cluster.local", "pods": "Verified", "zonal": true})
    );
    assert_eq!(
        left,
        ["line 9: autopath example.org /etc/resolv.conf: only autopath @kubernetes is there"]
    );
}

#[test]
fn d22_what_cannot_be_converted_is_listed_with_its_line() {
    let (value, left) = converted(
        "tls://.:853 {
    forward . 192.0.2.1
}
.:1053 {
    log example.com
    template ANY ANY {
        rcode NXDOMAIN
    }
    kubernetes cluster.local other.local {
        namespaces a
        fallthrough
    }
    rewrite type ANY HINFO
    forward . dns.example {$DNS}
    forward . 192.0.2.1 {
        next NXDOMAIN
    }
    import custom/*.override
    cache 30 example.com {
        keepttl
    }
    hosts /etc/names
}
",
    );
    let expected = [
        "line 1: tls://.:853: only plain DNS is served",
        "line 4: .:1053: ports are given by --listen",
        "line 5: log example.com: all queries are logged, in CoreDNS' usual format",
        "line 6: template ANY ANY: there is nothing like it",
        "line 9: kubernetes cluster.local other.local: only cluster.local is served: a cluster has one domain",
        "line 10: namespaces a: an option of kubernetes that is not known",
        "line 11: fallthrough: unknown names of the cluster's own domain do not exist; reverse names do fall through",
        "line 13: rewrite type ANY HINFO: only names are rewritten",
        "line 14: forward . dns.example {$DNS}: environment variables are not read",
        "line 16: next NXDOMAIN: an option of forward that is not known",
        "line 18: import custom/*.override: other files are not read: convert them one by one",
        "line 19: cache 30 example.com: the cache is for all names outside the cluster",
        "line 20: keepttl: an option of cache that is not known",
        "line 22: hosts /etc/names: names that are not written down go on, as with fallthrough",
    ];
    assert_eq!(left, expected);
    assert_eq!(value["log"], json!({"oneIn": 1}));
    assert_eq!(
        import(".:53 {\n errors\n").unwrap_err().to_string(),
        "line 1: syntax: a block that begins here has no closing brace"
    );
    assert_eq!(import(". {\n a \"b\n").unwrap_err().line, 2);
}

#[test]
fn d22_the_documented_file_can_be_read() {
    let document = include_str!("../../../../docs/dns.md");
    let (_, file) = document.split_once("```yaml\n").unwrap();
    let (file, _) = file.split_once("```").unwrap();
    let found = read(file).unwrap();
    // What it shows as usual is usual.
    let usual = DnsConfiguration::default();
    let shown = Forward {
        except: Vec::new(),
        tls: Tls::default(),
        ..found.forward[0].clone()
    };
    assert_eq!(shown, usual.forward[0]);
    let cache = Cache {
        prefetch: None,
        ..found.cache.unwrap()
    };
    assert_eq!(Some(cache), usual.cache);
    assert_eq!(found.places, usual.places);
    assert_eq!(
        (found.hosts.ttl, found.max_concurrent),
        (usual.hosts.ttl, usual.max_concurrent)
    );
}
