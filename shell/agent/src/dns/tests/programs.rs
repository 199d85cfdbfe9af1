//! Other people's clients beside `dig`: kdig (knot-dnsutils), drill (ldnsutils) and
//! delv (bind9-dnsutils), each with every kind of record.

use portolan_dns::{Data, Name, Zone};

use super::{Lab, name, within};

/// A question, and what every client prints of the answer.
const ASKED: [(&str, &str, &str); 9] = [
    ("web.default.svc.cluster.local", "A", "10.96.7.1"),
    ("both.default.svc.cluster.local", "AAAA", "fd00::7"),
    (
        "_http._tcp.web.default.svc.cluster.local",
        "SRV",
        "0 100 80 web.default.svc.cluster.local.",
    ),
    (
        "1.7.96.10.in-addr.arpa",
        "PTR",
        "web.default.svc.cluster.local.",
    ),
    ("alias.default.svc.cluster.local", "A", "10.96.7.1"),
    (
        "alias.default.svc.cluster.local",
        "CNAME",
        "web.default.svc.cluster.local.",
    ),
    ("dns-version.cluster.local", "TXT", "\"1.1.0\""),
    (
        "cluster.local",
        "SOA",
        "ns.dns.cluster.local. hostmaster.cluster.local.",
    ),
    ("cluster.local", "NS", "ns.dns.cluster.local."),
];

/// Records of the kinds that the usual zone does not have, and a reverse zone.
fn fill(lab: &Lab) {
    let mut zones = (**lab.zones.load()).clone();
    let zone = zones.zone_mut(&name("cluster.local")).unwrap();
    let web = name("web.default.svc.cluster.local");
    let srv = Data::Srv {
        priority: 0,
        weight: 100,
        port: 80,
        target: web.clone(),
    };
    let sets = [
        ("_http._tcp.web.default.svc", srv),
        ("alias.default.svc", Data::Cname(web.clone())),
        ("dns-version", Data::Txt(vec![b"1.1.0".to_vec()])),
    ];
    for (owner, data) in sets {
        let owner = name(&format!("{owner}.cluster.local"));
        zone.set(&owner, &[data.into()]).unwrap();
    }
    let mut reverse = Zone::new(name("96.10.in-addr.arpa"), 5, 1);
    let address = Name::reverse([10, 96, 7, 1].into());
    reverse.set(&address, &[Data::Ptr(web).into()]).unwrap();
    zones.insert(reverse);
    lab.zones.store(zones.into());
}

/// Runs a program with the server's address in its words and returns what it prints.
async fn run(lab: &Lab, words: &str) -> String {
    let words = words
        .replace("ADDRESS", &lab.address.ip().to_string())
        .replace("PORT", &lab.address.port().to_string());
    let mut words = words.split_whitespace();
    let program = words.next().unwrap();
    let output = within(tokio::process::Command::new(program).args(words).output()).await;
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; cargo xtask setup"));
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

async fn all(before: &str) {
    let lab = Lab::start(None);
    fill(&lab);
    for (owner, rtype, expected) in ASKED {
        let text = run(&lab, &format!("{before} {owner} {rtype}")).await;
        assert!(text.contains(expected), "{before} {owner} {rtype}: {text}");
    }
    let text = run(&lab, &format!("{before} nope.cluster.local A")).await;
    let missing = text.to_lowercase();
    assert!(
        missing.contains("nxdomain") || missing.contains("ncache nxdomain"),
        "{text}"
    );
}

#[tokio::test]
async fn d3_d17_kdig_understands_every_kind_of_record() {
    all("kdig @ADDRESS -p PORT +timeout=10 +retry=0").await;
    all("kdig @ADDRESS -p PORT +tcp +keepopen +timeout=10 +retry=0").await;
}

#[tokio::test]
async fn d3_d17_drill_understands_every_kind_of_record() {
    all("drill @ADDRESS -p PORT").await;
}

#[tokio::test]
async fn d3_d17_delv_understands_every_kind_of_record() {
    all("delv @ADDRESS -p PORT -i").await;
}
