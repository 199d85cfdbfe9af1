//! A check as people read it.

use std::fmt;

use portolan_model::{Direction, Tier};
use portolan_plan::policy::Source;

use super::check::{Check, Hop};
use super::judge::{Cause, Judgement, Near, RuleAt, at_port, list, named};
use super::world::Who;

/// So many rules that come near are told.
const SHOWN: usize = 3;

fn line(f: &mut fmt::Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    writeln!(f, "{}", format!("{label:<10} {text}").trim_end())
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

/// Labelled lines, in the order of the connection's way.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        line(
            f,
            "from",
            &placed(&self.from, self.packet.source.to_string()),
        )?;
        line(f, "to", &self.destination())?;
        for hop in &self.hops {
            if self.service.is_some() || self.hops.len() > 1 {
                let place = format!("{} {}", hop.target, at_node(hop));
                line(f, "", &placed(&hop.who, place.trim_end().to_owned()))?;
            }
            if let Some(hidden) = &hop.hidden {
                let text = format!(
                    "the source is hidden: the destination {}: {} of {}",
                    hidden.why, hidden.address, hidden.node
                );
                line(f, "source", &text)?;
            }
            for judgement in hop.judgements() {
                judged(f, judgement)?;
            }
        }
        line(f, "verdict", &self.verdict())
    }
}

fn at_node(hop: &Hop) -> String {
    hop.node
        .as_deref()
        .map_or_else(String::new, |node| format!("on {node}"))
}

/// `pod shop/web (10.244.1.2)`.
fn placed(who: &Who, place: String) -> String {
    match who {
        Who::Address(_) => place,
        Who::Pod(_) | Who::Names | Who::Node(_) => format!("{who} ({place})"),
    }
}

impl Check {
    fn destination(&self) -> String {
        let packet = &self.packet;
        let port = at_port(packet.protocol, packet.port);
        let address = packet.destination;
        match (&self.service, self.hops.as_slice()) {
            (Some(found), _) => {
                format!("service {} ({address}), {port}", found.service)
            }
            (None, [hop]) => {
                let place = format!("{address} {}", at_node(hop));
                format!("{}, {port}", placed(&hop.who, place.trim_end().to_owned()))
            }
            (None, _) => format!("{address}, {port}"),
        }
    }

    /// The verdict in one line.
    pub fn verdict(&self) -> String {
        if let Some(stopped) = &self.stopped {
            return format!("no connection: {stopped}; no policy has a say in that");
        }
        let denied: Vec<&Hop> = self.hops.iter().filter(|hop| !hop.allowed()).collect();
        let Some(first) = denied.first() else {
            let judged = self
                .hops
                .iter()
                .any(|hop| hop.judgements().next().is_some());
            return match judged {
                true => "allowed".to_owned(),
                false => "allowed: neither end is a pod, so no policy has a say".to_owned(),
            };
        };
        let whose: Vec<String> = first
            .judgements()
            .filter(|judgement| !judgement.allowed)
            .map(Judgement::blame)
            .collect();
        let part = if denied.len() < self.hops.len() {
            format!(" at {} of {} endpoints", denied.len(), self.hops.len())
        } else {
            String::new()
        };
        format!("denied{part}: {}", whose.join("; and "))
    }
}

/// `NetworkPolicy shop/web`, `ClusterNetworkPolicy web (tier Admin)`.
fn titled(policy: &Source, tier: Option<Tier>) -> String {
    match policy {
        Source::Policy(key) => format!("NetworkPolicy {key}"),
        Source::Cluster(name) => {
            let tier = tier.map_or("", Tier::name);
            format!("ClusterNetworkPolicy {name} (tier {tier})")
        }
    }
}

impl Judgement {
    fn pod_name(&self) -> String {
        self.pod
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default()
    }

    /// Who decides: `NetworkPolicy shop/web, shop/all`.
    pub fn deciders(&self) -> String {
        let Some((first, others)) = self.policies.split_first() else {
            return String::new();
        };
        let others = others.iter().map(named);
        let all: Vec<String> = [titled(first, self.tier)]
            .into_iter()
            .chain(others)
            .collect();
        all.join(", ")
    }

    /// Who denies it, in a few words.
    pub fn blame(&self) -> String {
        let (way, pod) = (word(self.direction), self.pod_name());
        format!("{way} of pod {pod}, by {}", self.deciders())
    }

    /// What the verdict follows from, in one line.
    pub fn reason(&self) -> String {
        let pod = self.pod_name();
        let rule = |rule: &RuleAt| format!("{} {}", titled(&rule.policy, self.tier), rule.field());
        match &self.cause {
            Cause::Open => format!("no policy is about pod {pod} for {}", word(self.direction)),
            Cause::Itself => "a pod always reaches itself".to_owned(),
            Cause::OwnNode => "a pod's own node always reaches it".to_owned(),
            Cause::Rules(rules) => {
                let first = rules.first().map(rule).unwrap_or_default();
                match rules.len() {
                    0 | 1 => first,
                    many => format!("{first} (and {} more)", many - 1),
                }
            }
            Cause::Denied(at) => format!("{} denies it", rule(at)),
            Cause::Nothing(near) if near.is_empty() => format!(
                "{} isolates pod {pod} and has no rule in {}: nothing is allowed",
                self.deciders(),
                list(self.direction)
            ),
            Cause::Nothing(_) => format!(
                "{} isolates pod {pod}, and no rule allows this",
                self.deciders()
            ),
        }
    }
}

fn judged(f: &mut fmt::Formatter<'_>, judgement: &Judgement) -> fmt::Result {
    let verdict = if judgement.allowed {
        "allowed"
    } else {
        "denied"
    };
    let text = format!("{verdict}: {}", judgement.reason());
    line(f, word(judgement.direction), &text)?;
    if let (Cause::Nothing(near), false) = (&judgement.cause, judgement.allowed) {
        for (index, one) in near.iter().take(SHOWN).enumerate() {
            let label = if index == 0 { "  nearest" } else { "" };
            nearest(f, label, one)?;
        }
        if near.len() > SHOWN {
            line(f, "", &format!("and {} rules more", near.len() - SHOWN))?;
        }
    }
    Ok(())
}

fn nearest(f: &mut fmt::Formatter<'_>, label: &str, near: &Near) -> fmt::Result {
    let rule = format!("{} {}", named(&near.rule.policy), near.rule.field());
    line(f, label, &rule)?;
    for miss in &near.misses {
        line(f, "", &format!("  {} {}", miss.field, miss.what))?;
    }
    Ok(())
}
