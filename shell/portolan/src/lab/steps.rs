//! Progress that a person sees: a spinner on a terminal while a step runs, and
//! one line with its time when it is done.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::out;

/// How wide a step's title may get before its time.
const TITLE: usize = 76;

/// A step that runs.
pub(crate) struct Step {
    title: String,
    begin: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// Begins a step and shows it.
    pub(crate) fn begin(title: impl Into<String>) -> Self {
        let title = title.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg}") {
                bar.set_style(style);
            }
            bar.set_message(title.clone());
            bar.enable_steady_tick(Duration::from_millis(80));
            bar
        });
        Self {
            title,
            begin: Instant::now(),
            bar,
        }
    }

    /// Shows what the step is waiting for.
    pub(crate) fn say(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {text}", self.title));
        }
    }

    /// Ends it well.
    pub(crate) fn done(self) {
        self.end(out::styled(out::GOOD, "✔"));
    }

    /// Ends it badly.
    pub(crate) fn failed(self) {
        self.end(out::styled(out::BAD, "✘"));
    }

    fn end(self, mark: String) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let took = out::styled(
            out::DIM,
            format_args!("{:>6.1} s", self.begin.elapsed().as_secs_f64()),
        );
        out::line(format_args!("{mark} {:<TITLE$}{took}", self.title));
    }
}
