//! Tables for the decision and the status: pods as YAML, states as values.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::{
    backoff::Backoff,
    decide::{Action, decide},
    state::{Blocked, Condemned, ContainerState, Ended, Life, PodState, Stopping},
    status::status,
};

fn now() -> Timestamp {
    "2026-11-21T00:00:00Z".parse().unwrap()
}

fn at(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

/// A pod of one container `web`; `more` goes into its spec.
fn pod(more: &str) -> Pod {
    let text = format!(
        "{{metadata: {{name: web-0, namespace: shop, uid: u1}}, \
          spec: {{containers: [{{name: web, image: nginx}}], {more}}}}}"
    );
    serde_saphyr::from_str(&text).unwrap()
}

fn deleted(mut pod: Pod, grace: i64) -> Pod {
    pod.metadata.deletion_timestamp = Some(super::status::seconds(at(grace)));
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    pod
}

fn running(ready: bool) -> ContainerState {
    ContainerState {
        life: Life::Running {
            id: "c1".into(),
            since: now(),
        },
        started: true,
        ready,
        ..ContainerState::default()
    }
}

fn ended(code: i32) -> ContainerState {
    ContainerState {
        life: Life::Ended(Ended {
            id: "c1".into(),
            code,
            signal: None,
            reason: if code == 0 { "Completed" } else { "Error" },
            message: String::new(),
            started: Some(now()),
            finished: now(),
        }),
        ..ContainerState::default()
    }
}

fn attached(containers: &[(&str, ContainerState)]) -> PodState {
    let containers = containers
        .iter()
        .map(|(name, state)| ((*name).to_owned(), state.clone()));
    PodState {
        start_time: Some(now()),
        ips: Some(vec!["10.244.1.5".parse().unwrap()]),
        containers: containers.collect(),
        ..PodState::default()
    }
}

/// Actions in short, with the wake-up in seconds from now.
fn told(pod: &Pod, state: &PodState) -> String {
    let decision = decide(pod, state, now());
    let mut words: Vec<String> = decision
        .actions
        .iter()
        .map(|action| match action {
            Action::Attach => "attach".into(),
            Action::Start(name) => format!("start {name}"),
            Action::BackOffPull(name) => format!("back-off-pull {name}"),
            Action::BackOffCrash(name) => format!("back-off-crash {name}"),
            Action::Stop { name, grace, .. } => format!("stop {name} {grace}"),
            Action::Kill(name) => format!("kill {name}"),
            Action::Detach => "detach".into(),
            Action::Release => "release".into(),
            Action::Forget => "forget".into(),
        })
        .collect();
    words.extend(
        decision
            .wake
            .map(|wake| format!("wake {}", wake.duration_since(now()).as_secs())),
    );
    words.join(", ")
}

#[test]
fn a_pod_comes_up_step_by_step() {
    let plain = pod("");
    for (state, expected) in [
        (PodState::default(), "attach"),
        (
            PodState {
                blocked: Some(Blocked {
                    until: at(4),
                    tries: 3,
                }),
                ..PodState::default()
            },
            "wake 4",
        ),
        (attached(&[]), "start web"),
        (attached(&[("web", running(false))]), ""),
        (attached(&[("web", ended(0))]), "start web"),
    ] {
        assert_eq!(told(&plain, &state), expected, "{state:?}");
    }
}

#[test]
fn restart_policies_decide_about_ends() {
    for (policy, code, expected) in [
        ("Always", 0, "start web"),
        ("Always", 1, "start web"),
        ("OnFailure", 0, "detach"),
        ("OnFailure", 1, "start web"),
        ("Never", 0, "detach"),
        ("Never", 1, "detach"),
    ] {
        let pod = pod(&format!("restartPolicy: {policy}"));
        assert_eq!(
            told(&pod, &attached(&[("web", ended(code))])),
            expected,
            "{policy} {code}"
        );
    }
}

#[test]
fn a_crash_loop_waits_longer_each_time() {
    let plain = pod("");
    let mut crashed = ended(1);
    crashed.crashes = Backoff::default();
    crashed.crashes.next(at(-1), at(-1));
    assert_eq!(
        told(&plain, &attached(&[("web", crashed.clone())])),
        "back-off-crash web"
    );
    let Life::Ended(last) = crashed.life.clone() else {
        panic!()
    };
    crashed.last = Some(last);
    crashed.life = Life::Waiting {
        reason: "CrashLoopBackOff",
        message: "m".into(),
    };
    assert_eq!(
        told(&plain, &attached(&[("web", crashed.clone())])),
        "wake 10"
    );
    if let Some(last) = &mut crashed.last {
        last.finished = at(-10);
    }
    assert_eq!(told(&plain, &attached(&[("web", crashed)])), "start web");
}

#[test]
fn an_image_that_cannot_be_had_is_looked_for_again() {
    let plain = pod("");
    let no_image = |reason, since: i64| ContainerState {
        life: Life::NoImage {
            reason,
            message: "m".into(),
            since: at(since),
            until: at(since + 10),
        },
        ..ContainerState::default()
    };
    for (reason, since, expected) in [
        ("ErrImagePull", 0, "wake 2"),
        ("ErrImagePull", -2, "back-off-pull web"),
        ("ImagePullBackOff", -3, "wake 7"),
        ("ImagePullBackOff", -10, "start web"),
    ] {
        let state = attached(&[("web", no_image(reason, since))]);
        assert_eq!(told(&plain, &state), expected, "{reason} {since}");
    }
}

#[test]
fn c16_deletion_is_graceful() {
    let going = deleted(pod(""), 30);
    let stopping = |deadline, killed| ContainerState {
        stopping: Some(Stopping {
            deadline: at(deadline),
            killed,
        }),
        ..running(true)
    };
    let mut detached = attached(&[("web", ended(0))]);
    detached.ips = None;
    let mut reported = detached.clone();
    reported.final_status_sent = true;
    for (state, expected) in [
        (attached(&[("web", running(true))]), "stop web 30"),
        (attached(&[("web", stopping(30, false))]), "wake 30"),
        (attached(&[("web", stopping(0, false))]), "kill web"),
        (attached(&[("web", stopping(0, true))]), ""),
        (attached(&[("web", ended(0))]), "detach"),
        (detached, ""),
        (reported, "release"),
    ] {
        assert_eq!(told(&going, &state), expected, "{state:?}");
    }
    // A second delete with less grace shortens what is under way.
    let hurried = deleted(pod(""), 5);
    assert_eq!(
        told(&hurried, &attached(&[("web", stopping(30, false))])),
        "wake 5"
    );
}

#[test]
fn a_pod_whose_object_is_gone_ends_at_once() {
    let gone = |mut state: PodState| {
        state.gone = true;
        state
    };
    let plain = pod("");
    let mut detached = gone(attached(&[("web", ended(0))]));
    detached.ips = None;
    assert_eq!(
        told(&plain, &gone(attached(&[("web", running(true))]))),
        "stop web 1"
    );
    assert_eq!(
        told(&plain, &gone(attached(&[("web", ended(137))]))),
        "detach"
    );
    assert_eq!(told(&plain, &detached), "forget");
}

#[test]
fn a_condemned_container_is_stopped_and_started_again() {
    let plain = pod("terminationGracePeriodSeconds: 7");
    let mut ill = running(true);
    ill.condemned = Some(Condemned {
        title: "Liveness",
        grace_seconds: None,
    });
    let decision = decide(&plain, &attached(&[("web", ill.clone())]), now());
    assert_eq!(
        decision.actions,
        [Action::Stop {
            name: "web".into(),
            grace: 7,
            why: "Container web failed liveness probe, will be restarted".into(),
        }]
    );
    ill.stopping = Some(Stopping {
        deadline: at(0),
        killed: false,
    });
    assert_eq!(told(&plain, &attached(&[("web", ill)])), "kill web");
}

#[test]
fn init_containers_run_one_after_the_other() {
    let init = "initContainers: [{name: a}, {name: side, restartPolicy: Always}, {name: b}]";
    let plain = pod(init);
    let mut starting = running(false);
    starting.started = false;
    for (containers, expected) in [
        (vec![], "start a"),
        (vec![("a", running(false))], ""),
        (vec![("a", ended(1))], "start a"),
        (vec![("a", ended(0))], "start side"),
        (vec![("a", ended(0)), ("side", starting)], ""),
        (vec![("a", ended(0)), ("side", running(true))], "start b"),
        (
            vec![("a", ended(0)), ("side", running(true)), ("b", ended(0))],
            "start web",
        ),
    ] {
        assert_eq!(
            told(&plain, &attached(&containers)),
            expected,
            "{containers:?}"
        );
    }
    let never = pod(&format!("restartPolicy: Never, {init}"));
    assert_eq!(told(&never, &attached(&[("a", ended(1))])), "detach");
    let over = [
        ("a", ended(0)),
        ("side", running(true)),
        ("b", ended(0)),
        ("web", ended(0)),
    ];
    assert_eq!(told(&never, &attached(&over)), "stop side 30");
}

#[test]
fn after_a_restart_of_the_lab_containers_start_once_more() {
    let mut pod = pod("");
    let status: PodStatus = serde_saphyr::from_str(
        "{phase: Running, podIP: 10.244.1.9, podIPs: [{ip: 10.244.1.9}], startTime: '2026-11-20T00:00:00Z', \
          containerStatuses: [{name: web, image: nginx, imageID: x, ready: true, restartCount: 2, \
          containerID: 'old', state: {running: {startedAt: '2026-11-20T00:00:01Z'}}}]}",
    )
    .unwrap();
    pod.status = Some(status);
    let mut state = PodState::recalled(&pod, now());
    assert_eq!(told(&pod, &state), "attach");
    let reported = status_of(&pod, &state);
    assert_eq!(reported["podIP"], serde_json::Value::Null);
    assert_eq!(reported["containerStatuses"][0]["restartCount"], 2);
    let terminated = &reported["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&terminated["exitCode"], &terminated["reason"]),
        (&255.into(), &"Unknown".into())
    );
    state.ips = Some(vec!["10.244.1.10".parse().unwrap()]);
    assert_eq!(told(&pod, &state), "start web");
}

fn status_of(pod: &Pod, state: &PodState) -> serde_json::Value {
    let host = [
        "172.18.0.2".parse().unwrap(),
        "fd00:172:18::2".parse().unwrap(),
    ];
    serde_json::to_value(status(pod, state, &host, now())).unwrap()
}

/// Phase, and the true conditions.
fn summary(pod: &Pod, state: &PodState) -> String {
    let status = status_of(pod, state);
    let phase = status["phase"].as_str().unwrap_or_default().to_owned();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let mut words = vec![phase];
    for condition in conditions {
        if condition["status"] == "True" {
            words.push(condition["type"].as_str().unwrap_or_default().to_owned());
        }
    }
    words.join(" ")
}

/// Waiting in `CrashLoopBackOff`.
fn looping() -> ContainerState {
    let mut looping = ended(1);
    if let Life::Ended(last) = std::mem::take(&mut looping.life) {
        looping.last = Some(last);
    }
    looping.life = Life::Waiting {
        reason: "CrashLoopBackOff",
        message: String::new(),
    };
    looping
}

#[test]
fn c16_phases_and_conditions_follow_the_containers() {
    let always = pod("");
    let never = pod("restartPolicy: Never");
    let on_failure = pod("restartPolicy: OnFailure");
    let init = pod("initContainers: [{name: a}]");
    let looping = looping();
    const NET: &str = "PodReadyToStartContainers";
    for (pod, state, expected) in [
        (
            &always,
            PodState::default(),
            "Pending Initialized".to_owned(),
        ),
        (&always, attached(&[]), format!("Pending {NET} Initialized")),
        (
            &always,
            attached(&[("web", running(false))]),
            format!("Running {NET} Initialized"),
        ),
        (
            &always,
            attached(&[("web", running(true))]),
            format!("Running {NET} Initialized Ready ContainersReady"),
        ),
        (
            &always,
            attached(&[("web", ended(1))]),
            format!("Running {NET} Initialized"),
        ),
        (
            &always,
            attached(&[("web", looping)]),
            format!("Running {NET} Initialized"),
        ),
        (
            &never,
            attached(&[("web", ended(0))]),
            format!("Succeeded {NET} Initialized"),
        ),
        (
            &never,
            attached(&[("web", ended(3))]),
            format!("Failed {NET} Initialized"),
        ),
        (
            &on_failure,
            attached(&[("web", ended(3))]),
            format!("Running {NET} Initialized"),
        ),
        (
            &init,
            attached(&[("a", running(false))]),
            format!("Pending {NET}"),
        ),
        (
            &init,
            attached(&[("a", ended(0))]),
            format!("Pending {NET} Initialized"),
        ),
    ] {
        assert_eq!(summary(pod, &state), expected, "{state:?}");
    }
}

#[test]
fn c16_a_pod_on_its_way_out_stays_ready_while_it_serves() {
    // A pod on its way out stays Ready while it serves (it is `serving` in its slices).
    let going = deleted(pod(""), 30);
    assert!(summary(&going, &attached(&[("web", running(true))])).contains(" Ready "));
    assert!(summary(&going, &attached(&[("web", ended(0))])).starts_with("Succeeded"));
    assert!(summary(&going, &attached(&[("web", ended(143))])).starts_with("Failed"));
}

#[test]
fn a_status_reads_as_kubelets() {
    let status = status_of(&pod(""), &attached(&[("web", running(false))]));
    assert_eq!(status["hostIP"], "172.18.0.2");
    assert_eq!(status["hostIPs"][1]["ip"], "fd00:172:18::2");
    assert_eq!(status["podIP"], "10.244.1.5");
    assert_eq!(status["podIPs"][0]["ip"], "10.244.1.5");
    assert_eq!(status["startTime"], "2026-11-21T00:00:00Z");
    let web = &status["containerStatuses"][0];
    assert_eq!(web["state"]["running"]["startedAt"], "2026-11-21T00:00:00Z");
    assert_eq!(
        (&web["ready"], &web["started"]),
        (&false.into(), &true.into())
    );
    assert_eq!(
        (&web["image"], &web["imageID"]),
        (&"nginx".into(), &"portolan://nginx".into())
    );
    let unready = &status["conditions"][2];
    assert_eq!(
        (&unready["type"], &unready["reason"]),
        (&"Ready".into(), &"ContainersNotReady".into())
    );
    assert_eq!(unready["message"], "containers with unready status: [web]");
}

#[test]
fn conditions_of_others_stay_and_times_move_with_the_status_only() {
    let mut pod = pod("");
    let old: PodStatus = serde_saphyr::from_str(
        "{conditions: [{type: PodScheduled, status: 'True', lastTransitionTime: '2020-01-01T00:00:00Z'}, \
          {type: Initialized, status: 'True', lastTransitionTime: '2020-01-01T00:00:00Z'}, \
          {type: Ready, status: 'False', lastTransitionTime: '2020-01-01T00:00:00Z'}]}",
    )
    .unwrap();
    pod.status = Some(old);
    let status = status_of(&pod, &attached(&[("web", running(true))]));
    let times: Vec<(&str, &str)> = status["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| {
            (
                c["type"].as_str().unwrap(),
                c["lastTransitionTime"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        times,
        [
            ("PodReadyToStartContainers", "2026-11-21T00:00:00Z"),
            ("Initialized", "2020-01-01T00:00:00Z"),
            ("Ready", "2026-11-21T00:00:00Z"),
            ("ContainersReady", "2026-11-21T00:00:00Z"),
            ("PodScheduled", "2020-01-01T00:00:00Z"),
        ]
    );
}
