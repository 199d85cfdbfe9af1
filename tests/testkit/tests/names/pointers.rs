//! What an address is called that is a Service's and an endpoint's.

use portolan_dns::Transport;
use portolan_model::{Change, Fact, Publication, ServiceKey};
use portolan_plan::NodeView;

use super::many::{service_at, slice_at};
use super::{Kept, wire, zones_of};

const ADDRESS: &str = "10.96.0.7";
const REVERSE: &str = "7.0.96.10.in-addr.arpa";

fn called(kept: &Kept) -> Vec<String> {
    let said = wire::ask(&kept.zones, REVERSE, "PTR", Transport::Tcp);
    let answers = said.map(|said| said.answers).unwrap_or_default();
    let word = |line: &String| line.split(' ').next_back().unwrap().to_owned();
    answers.iter().map(word).collect()
}

/// The Service's name wins whichever comes first, and the endpoint's comes back.
#[test]
fn d12_the_address_of_a_service_has_its_name_alone() {
    let view = NodeView {
        cluster_domain: "cluster.local".into(),
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        ..NodeView::default()
    };
    let db = [
        service_at("db", Publication::Headless, None),
        slice_at("db", "db-0", ADDRESS),
    ];
    let web = service_at("web", Publication::ClusterIp, Some(ADDRESS));
    let gone = |name: &str| {
        let key = ServiceKey::new("default", name);
        Change::Delete(portolan_model::Key::Service(key))
    };
    let come =
        |facts: &[Fact]| -> Vec<Change> { facts.iter().cloned().map(Change::Upsert).collect() };
    let own = ["web.default.svc.cluster.local"];
    let endpoint = ["db-0.db.default.svc.cluster.local"];
    let mut kept = Kept::new(&view);
    kept.apply(&come(&db));
    assert_eq!(called(&kept), endpoint);
    kept.apply(&come(std::slice::from_ref(&web)));
    assert_eq!(called(&kept), own);
    let both = [db.to_vec(), vec![web.clone()]].concat();
    assert!(kept.zones == zones_of(&both, &view));
    kept.apply(&[gone("web")]);
    assert_eq!(called(&kept), endpoint);

    let mut kept = Kept::new(&view);
    kept.apply(&come(&[web]));
    kept.apply(&come(&db));
    assert_eq!(called(&kept), own);
    // What was hidden goes too.
    kept.apply(&[gone("db")]);
    kept.apply(&[gone("web")]);
    assert_eq!(called(&kept), [""; 0]);
}
