//! Arguments of the verbs that speak to what runs in pods.

use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Connection, DryRun};

/// `5s`, `1m30s`, `500ms`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time such as 500ms, 30s or 1m30s");
    let mut left = text;
    let mut total = Duration::ZERO;
    while !left.is_empty() {
        let digits = left
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(left.len());
        let (number, rest) = left.split_at(digits);
        let number: u64 = number.parse().map_err(|_not_digits| wrong())?;
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(letters);
        total += match unit {
            "ms" => Duration::from_millis(number),
            "s" | "" => Duration::from_secs(number),
            "m" => Duration::from_secs(number * 60),
            "h" => Duration::from_secs(number * 3600),
            _ => return Err(wrong()),
        };
        left = rest;
    }
    Ok(total)
}

/// What a terminal is joined to.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Streams {
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// Standard input is a terminal
    #[arg(short = 't', long)]
    pub(crate) tty: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) streams: Streams,
    /// POD or TYPE/NAME
    #[arg(value_name = "POD")]
    pub(crate) target: String,
    /// Which container [default: the first]
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Print only what the command prints
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How long to wait for a running pod
    #[arg(long, default_value = "1m", value_parser = duration, value_name = "TIME")]
    pub(crate) pod_running_timeout: Duration,
    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// What happens when a container ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Restart {
    /// It is started again
    #[value(name = "Always")]
    Always,
    /// It is started again if it failed
    #[value(name = "OnFailure")]
    OnFailure,
    /// Nothing
    #[value(name = "Never")]
    Never,
}

impl Restart {
    /// As manifests write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::OnFailure => "OnFailure",
            Self::Never => "Never",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) streams: Streams,
    /// The pod's name
    pub(crate) name: String,
    /// The image of its container
    #[arg(long)]
    pub(crate) image: String,
    /// Delete the pod once it was attached to and ended
    #[arg(long)]
    pub(crate) rm: bool,
    /// Wait for the pod and join its streams [default: true with -i]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) attach: Option<bool>,
    /// What happens when the container ends
    #[arg(long, default_value = "Always", ignore_case = true)]
    pub(crate) restart: Restart,
    /// A port that the container listens on
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Make a Service for that port too
    #[arg(long, requires = "port")]
    pub(crate) expose: bool,
    /// An environment variable, NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Labels of the pod [default: run=NAME]
    #[arg(short, long, value_name = "KEY=VALUE,…")]
    pub(crate) labels: Option<String>,
    /// The words after -- are the command, and not arguments of the image's own
    #[arg(long)]
    pub(crate) command: bool,
    /// Print only what the pod prints
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// How long to wait for the pod to run
    #[arg(long, default_value = "1m", value_parser = duration, value_name = "TIME")]
    pub(crate) pod_running_timeout: Duration,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
    /// Arguments for the container, after --
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PortForwardArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// POD or TYPE/NAME
    #[arg(value_name = "POD")]
    pub(crate) target: String,
    /// LOCAL:REMOTE, PORT for the same on both sides, :REMOTE for any free local port
    #[arg(required = true, value_name = "PORT")]
    pub(crate) ports: Vec<String>,
    /// Where to listen on this machine
    #[arg(long, value_delimiter = ',', default_value = "localhost", value_parser = address, value_name = "ADDRESS")]
    pub(crate) address: Vec<Listen>,
    /// How long to wait for a running pod
    #[arg(long, default_value = "1m", value_parser = duration, value_name = "TIME")]
    pub(crate) pod_running_timeout: Duration,
}

/// Where a forwarded port listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listen {
    /// 127.0.0.1, and ::1 where there is one.
    Localhost,
    /// Exactly there.
    At(IpAddr),
}

fn address(text: &str) -> Result<Listen, String> {
    if text == "localhost" {
        return Ok(Listen::Localhost);
    }
    let at: IpAddr = text
        .parse()
        .map_err(|_no_address| format!("{text:?} is neither localhost nor an address"))?;
    Ok(Listen::At(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert!(duration("soon").is_err());
        assert!(duration("5 weeks").is_err());
    }
}
