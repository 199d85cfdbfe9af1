//! What the doctor looks at: objects, a few connections, and the nodes' word.

use std::time::Duration;

use anyhow::Result;
use futures::{StreamExt as _, stream};
use http::Method;
use portolan_api::lean;
use portolan_plan::NodePlan;
use portolan_why::doctor::{
    Announcers, Answer, Attempt, Checkup, Kernel, KernelState, Knock, Seen, examine, worth_trying,
};

use crate::balancer;
use crate::connect::{self, Call, Session};
use crate::observed::{Observed, list};

/// How long a connection or a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many nodes or pods are asked at once.
const AT_ONCE: usize = 8;
/// Where a node's service proxy answers for its health; kube-proxy's port too.
const HEALTH_PORT: u16 = 10256;
/// How the API server begins the words for what it could not reach.
const UNREACHED: &str = "error trying to reach service";

/// Everything that was read at one moment.
pub(super) struct Look {
    pub(super) observed: Observed,
    deployments: Vec<lean::Deployment>,
    events: Vec<lean::Event>,
    plans: Vec<NodePlan>,
    kernels: Vec<Kernel>,
    announcers: Option<Announcers>,
    domain: String,
    /// For what may be unavailable.
    once: Session,
}

impl Look {
    /// Reads what every checkup needs.
    pub(super) async fn around(session: &Session, once: Session, domain: &str) -> Result<Self> {
        let mut observed = Observed::read(session).await?;
        observed.services.sort_by(|one, other| {
            let key = |service: &lean::Service| {
                (
                    service.metadata.namespace.clone(),
                    service.metadata.name.clone(),
                )
            };
            key(one).cmp(&key(other))
        });
        let mut nodes: Vec<String> = observed
            .nodes
            .iter()
            .map(|node| node.metadata.name.clone())
            .collect();
        nodes.sort();
        let asked = nodes.iter().map(|node| kernel(&once, node));
        let kernels = stream::iter(asked).buffered(AT_ONCE).collect().await;
        Ok(Self {
            deployments: list(session, "/apis/apps/v1/deployments").await?,
            events: list(session, "/api/v1/events?fieldSelector=type%3DWarning").await?,
            announcers: announcers(session, &observed).await,
            plans: nodes.iter().map(|node| observed.plan(node)).collect(),
            kernels,
            domain: domain.trim_matches('.').to_owned(),
            observed,
            once,
        })
    }

    /// Examines one Service, and tries connections if they may be tried.
    pub(super) async fn examine(&self, service: &lean::Service, connect: bool) -> Checkup {
        let seen = Seen {
            pods: &self.observed.pods,
            services: &self.observed.services,
            slices: &self.observed.slices,
            deployments: &self.deployments,
            events: &self.events,
            cluster: &self.observed.cluster,
            policies_unread: self.observed.policies_unread.as_deref(),
            problems: &self.observed.problems,
            plans: &self.plans,
            announcers: self.announcers.as_ref(),
            kernels: &self.kernels,
            domain: &self.domain,
        };
        let knocks = if connect {
            worth_trying(&seen, service)
        } else {
            Vec::new()
        };
        let tried = knocks.into_iter().map(|knock| attempt(&self.once, knock));
        let attempts: Vec<Attempt> = stream::iter(tried).buffered(AT_ONCE).collect().await;
        examine(&seen, service, &attempts)
    }
}

/// Who announces load balancers' addresses, where there are any.
async fn announcers(session: &Session, observed: &Observed) -> Option<Announcers> {
    let mut services = observed.services.iter();
    services.find(|service| !service.status.load_balancer.ingress.is_empty())?;
    let read = balancer::announcers(session).await;
    Some(read.unwrap_or_else(|error| Announcers {
        unread: Some(format!("{error:#}")),
        ..Announcers::default()
    }))
}

/// Tries a connection to a port of a pod, at the pod's address: the API server
/// makes it. Whatever is answered, something listens.
async fn attempt(session: &Session, knock: Knock) -> Attempt {
    let Knock {
        namespace,
        pod,
        port,
    } = &knock;
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/");
    let answer = match asked(session, &path, Method::HEAD).await {
        // An error of the server's own has its words in the body, which HEAD has not.
        Ok(answer) if answer.status >= 400 => match asked(session, &path, Method::GET).await {
            Ok(answer) => reached(&answer),
            Err(why) => Answer::Unknown(why),
        },
        Ok(_) => Answer::Accepted,
        Err(why) => Answer::Unknown(why),
    };
    Attempt { knock, answer }
}

async fn asked(session: &Session, path: &str, method: Method) -> Result<connect::Answer, String> {
    let call = Call {
        method,
        ..Call::get(path)
    };
    match tokio::time::timeout(PATIENCE, session.try_call(&call)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_late) => Err(format!("no answer in {} s", PATIENCE.as_secs())),
    }
}

/// The words of the API server, if the answer is its own and not the other side's.
fn own_words(answer: &connect::Answer) -> Option<&str> {
    let own = answer.status >= 400 && answer.body["kind"] == "Status";
    own.then(|| answer.body["message"].as_str().unwrap_or_default())
}

/// What an answer tells of the port behind the API server.
fn reached(answer: &connect::Answer) -> Answer {
    let Some(words) = own_words(answer) else {
        return Answer::Accepted;
    };
    let Some(why) = words.strip_prefix(UNREACHED) else {
        return Answer::Unknown(words.to_owned());
    };
    let why = why.trim_start_matches([':', ' ']);
    if why.contains("refused") {
        return Answer::Refused(why.to_owned());
    }
    let broke = ["EOF", "malformed", "reset", "invalid HTTP"];
    if broke.iter().any(|word| why.contains(word)) {
        // It listens, and speaks something else.
        return Answer::Accepted;
    }
    Answer::Unknown(why.to_owned())
}

/// Asks a node's agent, by way of the API server, whether its kernel holds the plan.
async fn kernel(session: &Session, node: &str) -> Kernel {
    let path = format!("/api/v1/nodes/{node}:{HEALTH_PORT}/proxy/healthz");
    let state = match asked(session, &path, Method::GET).await {
        Ok(answer) => of_health(&answer),
        Err(why) => KernelState::NotAsked(why),
    };
    Kernel {
        node: node.to_owned(),
        state,
    }
}

fn of_health(answer: &connect::Answer) -> KernelState {
    if let Some(updated) = answer.body["lastUpdated"].as_str() {
        return match answer.status {
            200 => KernelState::Holds(updated.to_owned()),
            // On its way out a node says 503, and forwards all the same.
            _ if answer.body["nodeEligible"] == false => KernelState::Holds(updated.to_owned()),
            _ if updated.is_empty() => KernelState::Fails("nothing is programmed yet".to_owned()),
            _ => KernelState::Fails(format!("the kernel last held the plan at {updated}")),
        };
    }
    match own_words(answer) {
        Some(words) if words.starts_with(UNREACHED) => {
            let why = words
                .trim_start_matches(UNREACHED)
                .trim_start_matches([':', ' ']);
            KernelState::Silent(why.to_owned())
        }
        Some(words) => KernelState::NotAsked(words.to_owned()),
        None => KernelState::NotAsked(format!(
            "port {HEALTH_PORT} of the node answers with {}, which is no service proxy's word",
            answer.status
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn answer(status: u16, body: Value) -> connect::Answer {
        connect::Answer { status, body }
    }

    fn status(code: u16, message: &str) -> connect::Answer {
        answer(code, json!({"kind": "Status", "message": message}))
    }

    #[test]
    fn what_listens_is_told_from_what_does_not() {
        let refused = "dial tcp 10.244.1.5:8080: connect: connection refused";
        let words = |why: &str| status(503, &format!("{UNREACHED}: {why}"));
        assert_eq!(
            reached(&words(refused)),
            Answer::Refused(refused.to_owned())
        );
        assert_eq!(reached(&words("EOF")), Answer::Accepted);
        assert!(matches!(
            reached(&words("dial tcp: i/o timeout")),
            Answer::Unknown(_)
        ));
        assert!(matches!(
            reached(&status(403, "pods \"a\" is forbidden")),
            Answer::Unknown(_)
        ));
        let own = answer(503, Value::String("busy".to_owned()));
        assert_eq!(reached(&own), Answer::Accepted, "the pod's own answer");
    }

    #[test]
    fn a_node_says_whether_its_kernel_holds_the_plan() {
        let at = "2026-01-02T03:04:05Z";
        let said = |code, eligible, at: &str| {
            of_health(&answer(
                code,
                json!({"lastUpdated": at, "nodeEligible": eligible}),
            ))
        };
        assert_eq!(said(200, true, at), KernelState::Holds(at.to_owned()));
        assert_eq!(said(503, false, at), KernelState::Holds(at.to_owned()));
        assert!(matches!(said(503, true, at), KernelState::Fails(_)));
        assert!(matches!(said(503, true, ""), KernelState::Fails(_)));
        let silent = of_health(&status(503, &format!("{UNREACHED}: connection refused")));
        assert_eq!(silent, KernelState::Silent("connection refused".to_owned()));
        for other in [
            status(404, "not found"),
            answer(200, Value::String("hello".to_owned())),
        ] {
            assert!(matches!(of_health(&other), KernelState::NotAsked(_)));
        }
    }
}
