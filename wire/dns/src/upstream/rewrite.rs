//! Rules that answer one name as if another had been asked for, with CoreDNS'
//! meanings. The client never notices: its question comes back as it was, and
//! the names in the reply are turned back.
//!
//! Rules work on names as text, lower-case and with the final dot.

use regex::Regex;

use crate::message::{HEADER, Rcode, Request, Transport, parse, skip_name};
use crate::name::{Name, Spelled};
use crate::packed::Cursor;
use crate::record::Rtype;
use crate::splice::{read_name, spell_out};
use crate::write::Writer;

/// The most octets that an expression may take when compiled.
const MOST_REGEX: usize = 1 << 20;
/// A pointer to the name of the question.
const TO_QUESTION: [u8; 2] = [0xc0, HEADER as u8];

/// What of a name a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// All of it.
    Exact,
    /// How it begins.
    Prefix,
    /// How it ends.
    Suffix,
    /// Any part of it; each occurrence is replaced.
    Substring,
    /// A regular expression; the whole name is replaced, with `{1}` for its
    /// first group and so on.
    Regex,
}

/// Why a rule cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// An expression cannot be read.
    #[error("{0}")]
    Regex(String),
    /// What names are to be found by is empty.
    #[error("must not be empty")]
    Empty,
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    matching: Match,
    from: String,
    to: String,
    expression: Option<Regex>,
    proceed: bool,
    /// For owners and for names in record data of the reply; empty means that they
    /// are turned back as far as that follows from the rule.
    names: Vec<(Regex, String)>,
    values: Vec<(Regex, String)>,
}

impl Rule {
    /// A rule that replaces `from` by `to`. For [`Match::Exact`] both are names,
    /// whose final dot may be missing; the others take the text as it is.
    pub fn new(matching: Match, from: &str, to: &str) -> Result<Self, RuleError> {
        if from.is_empty() {
            return Err(RuleError::Empty);
        }
        let mut this = Self {
            matching,
            from: from.to_owned(),
            to: to.to_owned(),
            expression: None,
            proceed: false,
            names: Vec::new(),
            values: Vec::new(),
        };
        match matching {
            Match::Regex => this.expression = Some(compile(from)?),
            Match::Exact => {
                this.from = dotted(&from.to_ascii_lowercase());
                this.to = dotted(to);
            }
            Match::Prefix | Match::Suffix | Match::Substring => this.from.make_ascii_lowercase(),
        }
        Ok(this)
    }

    /// The rules after it are tried too, on the new name.
    pub fn proceeding(mut self) -> Self {
        self.proceed = true;
        self
    }

    /// Turns owners in replies back by an expression, in place of what follows
    /// from the rule itself.
    pub fn with_answer_name(mut self, from: &str, to: &str) -> Result<Self, RuleError> {
        self.names.push((compile(from)?, to.to_owned()));
        Ok(self)
    }

    /// The same for names in the data of records.
    pub fn with_answer_value(mut self, from: &str, to: &str) -> Result<Self, RuleError> {
        self.values.push((compile(from)?, to.to_owned()));
        Ok(self)
    }

    fn apply(&self, name: &str) -> Option<String> {
        match self.matching {
            Match::Exact => (name == self.from).then(|| self.to.clone()),
            Match::Prefix => Some(format!("{}{}", self.to, name.strip_prefix(&*self.from)?)),
            Match::Suffix => Some(format!("{}{}", name.strip_suffix(&*self.from)?, self.to)),
            Match::Substring => name
                .contains(&self.from)
                .then(|| name.replace(&self.from, &self.to)),
            Match::Regex => fill(self.expression.as_ref()?, name, &self.to),
        }
    }

    /// The way back that follows from the rule, for other names than the
    /// question's.
    fn undo(&self, name: &str) -> Option<String> {
        match self.matching {
            Match::Exact => (name == self.to.to_ascii_lowercase()).then(|| self.from.clone()),
            Match::Prefix if !self.to.is_empty() => {
                Some(format!("{}{}", self.from, name.strip_prefix(&*self.to)?))
            }
            Match::Suffix if !self.to.is_empty() => {
                Some(format!("{}{}", name.strip_suffix(&*self.to)?, self.from))
            }
            Match::Prefix | Match::Suffix | Match::Substring | Match::Regex => None,
        }
    }
}

fn compile(text: &str) -> Result<Regex, RuleError> {
    regex::RegexBuilder::new(text)
        .size_limit(MOST_REGEX)
        .build()
        .map_err(|error| RuleError::Regex(error.to_string()))
}

fn dotted(name: &str) -> String {
    format!("{}.", name.strip_suffix('.').unwrap_or(name))
}

/// The text `to` with the groups of a match, or nothing without a match.
fn fill(expression: &Regex, name: &str, to: &str) -> Option<String> {
    let groups = expression.captures(name)?;
    let mut out = to.to_owned();
    for (number, group) in groups.iter().enumerate() {
        let text = group.map_or("", |group| group.as_str());
        out = out.replace(&format!("{{{number}}}"), text);
    }
    Some(out)
}

/// All rules, in order.
#[derive(Debug, Clone, Default)]
pub struct Rewrites {
    rules: Vec<Rule>,
}

/// A query under another name, and the way back.
pub struct Rewritten<'r> {
    query: Vec<u8>,
    asked: Spelled,
    instead: Spelled,
    applied: Vec<&'r Rule>,
}

impl Rewrites {
    /// These rules, the first one first.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The name that is looked up in place of another: the first rule that
    /// matches decides, unless it lets later ones go on. What a rule makes that
    /// is no name does not count.
    pub fn name(&self, name: &Name) -> Option<Name> {
        let (name, _) = self.apply(name)?;
        Some(name)
    }

    fn apply(&self, name: &Name) -> Option<(Name, Vec<&Rule>)> {
        let mut found: Option<Name> = None;
        let mut applied = Vec::new();
        for rule in &self.rules {
            let current = found.as_ref().unwrap_or(name).to_string();
            let Some(to) = rule.apply(&current).and_then(|to| Name::parse(&to).ok()) else {
                continue;
            };
            found = Some(to);
            applied.push(rule);
            if !rule.proceed {
                break;
            }
        }
        Some((found.filter(|found| found != name)?, applied))
    }

    /// The query that is answered in place of this one; `None` if no rule matches.
    pub fn query(&self, query: &[u8]) -> Option<Rewritten<'_>> {
        if self.rules.is_empty() {
            return None;
        }
        let request = parse(query).ok()?;
        let (name, applied) = self.apply(&request.name.to_name())?;
        let (header, body) = query.split_at_checked(HEADER)?;
        let rest = body.get(request.name.wire().len()..)?;
        Some(Rewritten {
            query: [header, name.as_wire(), rest].concat(),
            instead: Spelled::of(&name),
            asked: request.name,
            applied,
        })
    }
}

/// A reply without records, with the flags of one that does not fit, and TC.
pub(crate) fn cut(
    query: &[u8],
    request: &Request<'_>,
    transport: Transport,
    header: &[u8],
) -> Option<Vec<u8>> {
    let mut cut = Vec::new();
    let mut writer = Writer::new(&mut cut, query, request, transport);
    writer.truncated();
    writer.finish(Rcode::NoError, None);
    *cut.get_mut(2)? = header.get(2)? | 0x02;
    *cut.get_mut(3)? = *header.get(3)?;
    Some(cut)
}

impl Rewritten<'_> {
    /// The query to answer.
    pub fn query(&self) -> &[u8] {
        &self.query
    }

    /// Turns the reply to [`Rewritten::query`] into one to `query`, which it was
    /// made of. A reply that cannot be read becomes SERVFAIL.
    pub fn restore(&self, query: &[u8], transport: Transport, reply: &mut Vec<u8>) {
        let restored = self.restored(query, transport, reply);
        match restored {
            Some(restored) => *reply = restored,
            None => {
                let reason = (0, "the reply to a rewritten name cannot be read");
                crate::failure(query, Rcode::ServFail, reason, reply);
            }
        }
    }

    fn restored(&self, query: &[u8], transport: Transport, reply: &[u8]) -> Option<Vec<u8>> {
        let request = parse(query).ok()?;
        let (header, body) = reply.split_at_checked(HEADER)?;
        let mut counts = Cursor(header.get(4..)?);
        let mut out = header.to_vec();
        let mut rest = Cursor(body);
        // A reply to what could not be read has no question.
        if counts.u16()? == 1 {
            skip_name(&mut rest)?;
            rest.take(4)?;
            out.extend_from_slice(request.question);
        }
        let records = counts.u16()? as u32 + counts.u16()? as u32 + counts.u16()? as u32;
        for _ in 0..records {
            self.record(reply, &mut rest, &mut out)?;
        }
        if out.len() > request.limit(transport) {
            return cut(query, &request, transport, header);
        }
        Some(out)
    }

    /// One record with the names that the client expects.
    fn record(&self, reply: &[u8], rest: &mut Cursor<'_>, out: &mut Vec<u8>) -> Option<()> {
        let owner = read_name(reply, reply.len() - rest.0.len())?;
        skip_name(rest)?;
        let fixed = rest.take(8)?;
        let rtype = Rtype(Cursor(fixed).u16()?);
        let length = usize::from(rest.u16()?);
        let at = reply.len() - rest.0.len();
        let data = rest.take(length)?;
        let owner = self.back(owner, |rule| &rule.names)?;
        if owner.wire() == self.asked.wire() {
            out.extend_from_slice(&TO_QUESTION);
        } else {
            out.extend_from_slice(owner.wire());
        }
        let data = spell_out(reply, at, (rtype, data), |name| {
            self.back(name, |rule| &rule.values)
        })?;
        out.extend_from_slice(fixed);
        out.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
        out.extend_from_slice(&data);
        Some(())
    }

    /// A name of the reply as the client expects it.
    fn back(
        &self,
        name: Spelled,
        explicit: impl Fn(&Rule) -> &[(Regex, String)],
    ) -> Option<Spelled> {
        if name.wire() == self.instead.wire() {
            return Spelled::read(self.asked.wire());
        }
        if name.wire() == [0] {
            return Some(name);
        }
        let mut current = name.to_name();
        for rule in self.applied.iter().rev() {
            let text = current.to_string();
            let given = explicit(rule);
            let back = if given.is_empty() {
                rule.undo(&text)
            } else {
                given.iter().find_map(|(from, to)| fill(from, &text, to))
            };
            if let Some(back) = back.and_then(|back| Name::parse(&back).ok()) {
                current = back;
            }
        }
        Some(Spelled::of(&current))
    }
}
