//! A check as people read it.

use std::fmt;

use portolan_model::Direction;

use super::TIER;
use super::check::{Check, Hop};
use super::judge::{Cause, Judgement, Near, at_port, list};
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
            &named(&self.from, self.packet.source.to_string()),
        )?;
        line(f, "to", &self.destination())?;
        for hop in &self.hops {
            if self.service.is_some() || self.hops.len() > 1 {
                let place = format!("{} {}", hop.target, at_node(hop));
                line(f, "", &named(&hop.who, place.trim_end().to_owned()))?;
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
fn named(who: &Who, place: String) -> String {
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
                format!("{}, {port}", named(&hop.who, place.trim_end().to_owned()))
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

impl Judgement {
    /// Who denies it, in a few words.
    pub fn blame(&self) -> String {
        let policies: Vec<String> = self.policies.iter().map(ToString::to_string).collect();
        let pod = self
            .pod
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        format!(
            "{} of pod {pod}, by {TIER} {}",
            word(self.direction),
            policies.join(", ")
        )
    }

    /// What the verdict follows from, in one line.
    pub fn reason(&self) -> String {
        let pod = self
            .pod
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let way = word(self.direction);
        match &self.cause {
            Cause::Open => format!("no policy selects pod {pod} for {way}"),
            Cause::Itself => "a pod always reaches itself".to_owned(),
            Cause::OwnNode => "a pod's own node always reaches it".to_owned(),
            Cause::Rules(rules) => {
                let first = rules.first();
                let first = first.map(|rule| format!("{} {}", rule.policy, rule.field()));
                let more = match rules.len() {
                    0 | 1 => String::new(),
                    many => format!(" (and {} more)", many - 1),
                };
                format!("{TIER} {}{more}", first.unwrap_or_default())
            }
            Cause::Nothing(near) if near.is_empty() => {
                let policies: Vec<String> = self.policies.iter().map(ToString::to_string).collect();
                let list = list(self.direction);
                format!(
                    "{TIER} {} isolates pod {pod} and has no rule in {list}: nothing is allowed",
                    policies.join(", ")
                )
            }
            Cause::Nothing(_) => {
                let policies: Vec<String> = self.policies.iter().map(ToString::to_string).collect();
                format!(
                    "{TIER} {} isolates pod {pod}, and no rule allows this",
                    policies.join(", ")
                )
            }
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
    let rule = format!("{} {}", near.rule.policy, near.rule.field());
    line(f, label, &rule)?;
    for miss in &near.misses {
        line(f, "", &format!("  {} {}", miss.field, miss.what))?;
    }
    Ok(())
}
