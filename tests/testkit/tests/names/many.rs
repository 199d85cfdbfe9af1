//! A headless Service with many endpoints, of which a few change at a time: that is done
//! in place, and must leave what making everything anew leaves.

use std::net::{IpAddr, Ipv4Addr};

use portolan_model::{
    Affinity, Change, Conditions, Endpoint, Fact, Family, Protocol, Publication, Service,
    ServiceKey, Slice, SliceKey, SlicePort, TrafficPolicy,
};
use portolan_plan::NodeView;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{Kept, config, zones_of};

/// As many as make all weights one, and some.
const SLICES: u8 = 5;
const OF_SLICE: u8 = 30;

/// A Service without ports.
pub(crate) fn service_at(name: &str, publication: Publication, address: Option<&str>) -> Fact {
    let service = Service {
        key: ServiceKey::new("default", name),
        publication,
        cluster_ips: address.iter().map(|ip| ip.parse().unwrap()).collect(),
        ports: Vec::new(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: Affinity::None,
        other_proxy: None,
        outer: None,
        spread: None,
    };
    Fact::Service(service.into())
}

/// A slice of one endpoint with a hostname.
pub(crate) fn slice_at(service: &str, hostname: &str, address: &str) -> Fact {
    let mut slice = slice(0);
    slice.service = ServiceKey::new("default", service);
    slice.endpoints.truncate(1);
    slice.endpoints[0].hostname = Some(hostname.into());
    slice.endpoints[0].address = address.parse().unwrap();
    Fact::Slice(slice.into())
}

fn endpoint(slice: u8, place: u8) -> Endpoint {
    Endpoint {
        address: IpAddr::V4(Ipv4Addr::new(10, 244, slice, place)),
        conditions: Conditions::READY,
        zone: 0,
        node: None,
        hostname: None,
        pod: None,
        hints: None,
    }
}

/// Two ports of each slice; one of them is another one in the last slice.
fn slice(slice: u8) -> Slice {
    let port = |name: &str, port| SlicePort {
        name: name.into(),
        protocol: Protocol::Tcp,
        port: Some(port),
    };
    let second = if slice + 1 == SLICES { 82 } else { 81 };
    Slice {
        service: ServiceKey::new("default", "big"),
        key: SliceKey {
            namespace: "default".into(),
            name: format!("big-{slice}").into(),
        },
        family: Family::V4,
        headless: true,
        weight: 1,
        ports: vec![port("http", 80), port("sql", second)],
        zones: Box::default(),
        endpoints: (0..OF_SLICE).map(|place| endpoint(slice, place)).collect(),
    }
}

/// What happens to one endpoint.
#[derive(Debug, Clone, Copy)]
enum Event {
    NotReady,
    Ready,
    /// It has a hostname, which others may have.
    Named(&'static str),
    /// It has the address of one in another slice too.
    At(u8),
    Gone,
    /// The whole slice has a port fewer.
    PortGone,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::NotReady),
        6 => Just(Event::Ready),
        4 => select(&["db-0", "db-1", "DB-1", "10-244-0-1"][..]).prop_map(Event::Named),
        3 => (0..OF_SLICE).prop_map(Event::At),
        2 => Just(Event::Gone),
        1 => Just(Event::PortGone),
    ]
}

fn happen(slice: &mut Slice, place: u8, event: Event) {
    let count = slice.endpoints.len().max(1);
    let found = slice.endpoints.get_mut(usize::from(place) % count);
    match (event, found) {
        (Event::PortGone, _) => drop(slice.ports.pop()),
        (_, None) => {}
        (Event::NotReady, Some(endpoint)) => endpoint.conditions.ready = false,
        (Event::Ready, Some(endpoint)) => endpoint.conditions.ready = true,
        (Event::Named(name), Some(endpoint)) => endpoint.hostname = Some(name.into()),
        (Event::At(other), Some(endpoint)) => {
            endpoint.address = IpAddr::V4(Ipv4Addr::new(10, 244, 0, other));
        }
        (Event::Gone, Some(_)) => drop(slice.endpoints.swap_remove(usize::from(place) % count)),
    }
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn d8_d9_d10_a_few_endpoints_of_many_change_in_place(
        events in vec((0..SLICES, 0..OF_SLICE, event()), 1..16),
        at_once in 1_usize..4,
        zonal: bool,
    ) {
        let view = NodeView {
            cluster_domain: "cluster.local".into(),
            cluster_pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            zonal_names: zonal,
            ..NodeView::default()
        };
        let mut slices: Vec<Slice> = (0..SLICES).map(slice).collect();
        let mut kept = Kept::new(&view);
        let fact = |slice: &Slice| Fact::Slice(slice.clone().into());
        let all = |slices: &[Slice]| -> Vec<Fact> {
            [service_at("big", Publication::Headless, None)].into_iter().chain(slices.iter().map(fact)).collect()
        };
        let first: Vec<Change> = all(&slices).into_iter().map(Change::Upsert).collect();
        kept.apply(&first);
        for round in events.chunks(at_once) {
            let mut changes = Vec::new();
            for (number, place, event) in round {
                let slice = &mut slices[usize::from(*number)];
                happen(slice, *place, *event);
                changes.push(Change::Upsert(fact(slice)));
            }
            kept.apply(&changes);
            let anew = zones_of(&all(&slices), &view);
            prop_assert!(kept.zones == anew, "after {round:?}");
        }
    }
}
