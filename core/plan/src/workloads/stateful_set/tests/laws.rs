//! What holds whatever happens, and whenever the controller dies.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;

/// What happens between two steps.
#[derive(Clone, Debug)]
enum Happening {
    /// The controller acts, and dies after so many writes.
    Step(usize),
    /// The nth pod becomes ready, or unready.
    Ready(usize, bool),
    /// The nth pod is deleted by somebody.
    Kill(usize),
    /// The nth pod ends for good.
    Fail(usize),
    /// Deleted pods are gone.
    Reap,
    /// Another template.
    Image(u8),
    /// Another number.
    Scale(i64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => (0usize..5).prop_map(Happening::Step),
        6 => (0usize..5, prop::bool::weighted(0.8)).prop_map(|(n, r)| Happening::Ready(n, r)),
        1 => (0usize..5).prop_map(Happening::Kill),
        1 => (0usize..5).prop_map(Happening::Fail),
        4 => Just(Happening::Reap),
        1 => (1u8..4).prop_map(Happening::Image),
        1 => (0i64..6).prop_map(Happening::Scale),
    ]
}

/// What each write must leave true.
fn check(bed: &Bed, set: &StatefulSet, write: &Write, parallel: bool) -> Result<(), TestCaseError> {
    if write.kind != Kind::Pod {
        return Ok(());
    }
    let pods = bed.server.pods();
    let available = |ordinal: i64| {
        pods.iter()
            .any(|p| p.meta.key == pod_key(ordinal) && p.ready && p.is_active())
    };
    let ordinal = set.ordinal(&write.key.name).unwrap_or(-1);
    let ordinals = set.start..set.start + set.replicas;
    if matches!(write.action, Action::Create(_)) {
        prop_assert!(ordinals.contains(&ordinal));
        for below in set.start..ordinal {
            prop_assert!(parallel || available(below), "{ordinal} before {below}");
        }
    }
    let deletes = matches!(write.action, Action::Delete { .. });
    if deletes && ordinals.contains(&ordinal) && available(ordinal) {
        let left = ordinals.filter(|o| available(*o)).count() - 1;
        let left = i64::try_from(left).unwrap_or(0);
        prop_assert!(
            left >= set.replicas - 2,
            "{left} of {} are left",
            set.replicas
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens and whenever the controller dies: an ordered set never
    /// runs a pod before all below it are available, an update never takes
    /// more than maxUnavailable (two here), and in the end every pod is there
    /// once, with the newest template.
    #[test]
    fn it_keeps_its_order_and_its_bounds_and_ends(
        parallel in any::<bool>(),
        happenings in prop::collection::vec(happening(), 0..80),
    ) {
        let policy = if parallel { "Parallel" } else { "OrderedReady" };
        let mut bed = Bed::new(3, &json!({"podManagementPolicy": policy,
            "updateStrategy": {"type": "RollingUpdate",
                "rollingUpdate": {"partition": 0, "maxUnavailable": 2}}}));
        for happening in happenings {
            let pods = bed.server.pods();
            match happening {
                Happening::Step(count) => {
                    bed.server.seconds += 1;
                    let set = bed.set();
                    let step = bed.next();
                    for write in step.writes.iter().take(count) {
                        check(&bed, &set, write, parallel)?;
                        bed.server.write(write);
                    }
                }
                Happening::Ready(n, ready) => {
                    if let Some(pod) = pods.get(n).filter(|pod| pod.is_active()) {
                        bed.server.set_ready(&pod.meta.key, ready);
                    }
                }
                Happening::Kill(n) => {
                    if let Some(pod) = pods.get(n) {
                        bed.server.kill(&pod.meta.key);
                    }
                }
                Happening::Fail(n) => {
                    if let Some(pod) = pods.get(n) {
                        bed.server.fail(&pod.meta.key);
                    }
                }
                Happening::Reap => bed.server.reap(),
                Happening::Image(n) => bed.image(&format!("v{n}")),
                Happening::Scale(count) => bed.patch(&json!({"spec": {"replicas": count}})),
            }
        }
        bed.roll_out();
        let set = bed.set();
        let wanted: Vec<String> = (0..set.replicas).map(|o| format!("db-{o}")).collect();
        prop_assert_eq!(bed.names(), wanted);
        for pod in bed.server.pods() {
            prop_assert_eq!(of_revision(&pod), set.status.update_revision.as_str());
        }
        prop_assert_eq!(set.status.updated, set.replicas);
        prop_assert_eq!(set.status.current_revision, set.status.update_revision);
    }
}
