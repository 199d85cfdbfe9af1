//! What a checkup says, as data.

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// It works, but not for everybody or not for sure.
    Warning,
    /// Clients get no answer.
    Fault,
}

impl Severity {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

/// A row of the checklist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Whom the selector selects.
    Selector,
    /// Whether these run and are ready.
    Pods,
    /// Whether they are endpoints.
    Endpoints,
    /// Which of their ports.
    Ports,
    /// Who may use which of them.
    Policy,
    /// Whether NetworkPolicies let them in.
    Access,
    /// Where clients knock.
    Address,
    /// By what name.
    Names,
    /// Whether they stay with one.
    Affinity,
    /// Whether nodes do as planned.
    Kernel,
}

impl Step {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Selector => "selector",
            Self::Pods => "pods",
            Self::Endpoints => "endpoints",
            Self::Ports => "ports",
            Self::Policy => "policy",
            Self::Access => "access",
            Self::Address => "address",
            Self::Names => "names",
            Self::Affinity => "affinity",
            Self::Kernel => "kernel",
        }
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The object, such as `service/web`.
    pub object: String,
    /// The object's namespace; empty for one without.
    pub namespace: String,
    /// The field, as an API path.
    pub field: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What mends it, if anything has to be mended.
    pub mend: Option<Mend>,
}

/// A change that mends something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mend {
    /// In words.
    pub text: String,
    /// As a command to type, where one does it.
    pub command: Option<String>,
}

/// What became of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Which.
    pub step: Step,
    /// Whether it was looked at, or why not.
    pub looked: bool,
    /// What was seen, in a few words.
    pub summary: String,
    /// What was found.
    pub findings: Vec<Finding>,
}

/// The verdict on a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Nothing is wrong.
    Ok,
    /// Something may be.
    Warning,
    /// Something is.
    Fault,
    /// It was not looked at.
    Skipped,
}

impl Mark {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fault => "fault",
            Self::Skipped => "skipped",
        }
    }
}

impl Checked {
    /// A step at which nothing is wrong.
    pub(super) fn ok(step: Step, summary: impl Into<String>) -> Self {
        Self {
            step,
            looked: true,
            summary: summary.into(),
            findings: Vec::new(),
        }
    }

    /// A step that cannot be or need not be looked at.
    pub(super) fn skipped(step: Step, why: impl Into<String>) -> Self {
        Self {
            looked: false,
            ..Self::ok(step, why)
        }
    }

    /// The same with findings.
    pub(super) fn with(mut self, findings: Vec<Finding>) -> Self {
        self.findings.extend(findings);
        self
    }

    /// The verdict.
    pub fn mark(&self) -> Mark {
        let worst = self.findings.iter().map(|finding| finding.severity).max();
        match worst {
            Some(Severity::Fault) => Mark::Fault,
            Some(Severity::Warning) => Mark::Warning,
            Some(Severity::Note) | None if self.looked => Mark::Ok,
            Some(Severity::Note) | None => Mark::Skipped,
        }
    }
}

/// Everything about one Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkup {
    /// The Service's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What kind of Service it is, and where, in one line.
    pub title: String,
    /// The checklist, in its order.
    pub steps: Vec<Checked>,
}

impl Checkup {
    /// All findings, in the order of the steps.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        self.steps.iter().flat_map(|step| &step.findings)
    }

    /// How many findings there are of one severity.
    pub fn count(&self, severity: Severity) -> usize {
        let of = |finding: &&Finding| finding.severity == severity;
        self.findings().filter(of).count()
    }

    /// Whether clients get no answer.
    pub fn has_faults(&self) -> bool {
        self.count(Severity::Fault) > 0
    }
}
