//! Many requests at once, some of whose clients hang up in the middle.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt as _;

use super::*;

const CIDRS: &[&str] = &["10.96.0.0/27", "fd00::/123"];
const PORTS: RangeInclusive<u16> = 30_000..=30_019;
const CLIENTS: u64 = 8;
const REQUESTS: u64 = 120;

/// One client: creates, changes and deletes its own Services.
async fn client(cluster: Arc<Cluster>, number: u64) {
    let mut seed = number + 1;
    for _ in 0..REQUESTS {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695);
        let random = seed >> 33;
        let name = format!("c{number}-{}", random % 6);
        let key = Key::new(cluster.allocator.places.services, "default", &name);
        let old = cluster.store.get(&key).map(|stored| stored.value());
        let writing = async {
            if old.is_some() && random.is_multiple_of(3) {
                return cluster.write(None, old.as_ref(), None).await;
            }
            let mut new = service(&name, wish(random));
            if let Some(old) = &old {
                new["spec"]["clusterIP"] = old["spec"]["clusterIP"].clone();
            }
            let dry_run = random.is_multiple_of(7);
            let assigned = cluster.allocator.assign(&mut new, old.as_ref(), dry_run);
            match assigned {
                Ok(reservation) if !dry_run => {
                    cluster
                        .write(Some(&new), old.as_ref(), Some(reservation))
                        .await
                }
                Ok(_) | Err(_) => Err(WriteError::Missing),
            }
        };
        if random.is_multiple_of(4) {
            // The client hangs up: the write is on its way, nobody waits.
            writing.now_or_never();
            tokio::task::yield_now().await;
        } else {
            // Refused because the range is full, or because of an own write
            // that was still on its way: both leave nothing.
            drop(writing.await);
        }
    }
}

fn wish(random: u64) -> Value {
    let mut spec = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]});
    if (random >> 3).is_multiple_of(2) {
        spec["ipFamilyPolicy"] = json!("PreferDualStack");
    }
    if (random >> 4).is_multiple_of(3) {
        spec["ports"][0]["nodePort"] = json!(30_000 + (random >> 6) % 20);
    }
    if (random >> 5).is_multiple_of(3) {
        spec["clusterIP"] = json!(format!("10.96.0.{}", 1 + (random >> 7) % 30));
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
    }
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a12_a_crowd_gets_nothing_twice_and_leaves_nothing() {
    let cluster = Arc::new(Cluster::with_ports(CIDRS, PORTS).await);
    let clients = (0..CLIENTS).map(|number| tokio::spawn(client(Arc::clone(&cluster), number)));
    for client in futures::future::join_all(clients).await {
        client.unwrap();
    }
    // Whatever nobody waited for is before this in the writer's queue.
    let last = service("last", json!({"clusterIP": "None"}));
    cluster.write(Some(&last), None, None).await.unwrap();
    let services = cluster
        .store
        .cache()
        .snapshot(cluster.allocator.places.services);
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    let mut ports = BTreeSet::new();
    let mut some = 0;
    for (name, stored) in &services.objects {
        let value = stored.value();
        for address in addresses_of(&value) {
            let twice = owners.insert(address.to_string(), name.name.clone());
            assert_eq!(twice, None, "{address}");
        }
        for port in ports_of(&value) {
            assert!(ports.insert(port), "{port}");
            some += 1;
        }
    }
    assert!(some > 4, "nothing came of all the requests");
    let (addresses, used_ports, objects) = cluster.used();
    assert_eq!(objects, owners.keys().cloned().collect::<Vec<_>>());
    assert_eq!((addresses, used_ports), (owners.len(), ports.len()));
    for (_, stored) in &services.objects {
        let old = stored.value();
        cluster.write(None, Some(&old), None).await.unwrap();
    }
    assert_eq!(cluster.used(), (0, 0, Vec::new()));
}
