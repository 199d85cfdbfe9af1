//! Flags and environment of the application.

use std::{num::NonZeroU32, time::Duration};

/// Answers with the name of its pod, over HTTP, TCP and UDP.
#[derive(clap::Parser, Debug)]
#[command(name = "portolan echo", args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) server: ServerArgs,
    #[command(subcommand)]
    pub(super) mode: Option<Mode>,
}

#[derive(clap::Subcommand, Debug)]
pub(super) enum Mode {
    /// Sends requests and counts who answered
    Client(ClientArgs),
}

#[derive(clap::Args, Clone, Debug)]
pub(super) struct ServerArgs {
    /// Serve HTTP on this port; may be repeated [default: 8080]
    #[arg(
        long = "port",
        value_name = "PORT",
        env = "ECHO_PORT",
        value_delimiter = ','
    )]
    pub(super) http: Vec<u16>,
    /// Serve lines over TCP on this port; may be repeated
    #[arg(long, value_name = "PORT", env = "ECHO_TCP", value_delimiter = ',')]
    pub(super) tcp: Vec<u16>,
    /// Serve datagrams over UDP on this port; may be repeated
    #[arg(long, value_name = "PORT", env = "ECHO_UDP", value_delimiter = ',')]
    pub(super) udp: Vec<u16>,
    /// Answer every HTTP request with this text
    #[arg(long, value_name = "TEXT", env = "ECHO_TEXT")]
    pub(super) text: Option<String>,
    /// /healthz fails for so long after the start
    #[arg(long, value_name = "TIME", env = "ECHO_HEALTHZ_OK_AFTER", value_parser = duration)]
    pub(super) healthz_ok_after: Option<Duration>,
    /// /healthz fails from this time after the start on
    #[arg(long, value_name = "TIME", env = "ECHO_HEALTHZ_FAIL_AFTER", value_parser = duration)]
    pub(super) healthz_fail_after: Option<Duration>,
    /// After SIGTERM keep accepting for so long, while the Service forgets this pod
    #[arg(long, value_name = "TIME", env = "ECHO_DRAIN", value_parser = duration, default_value = "1s")]
    pub(super) drain: Duration,
}

#[derive(clap::Args, Clone, Debug)]
pub(super) struct ClientArgs {
    /// Where to send requests
    #[arg(long, value_name = "URL")]
    pub(super) url: http::Uri,
    /// How many requests
    #[arg(long, value_name = "N", default_value = "1")]
    pub(super) count: u32,
    /// How many at a time
    #[arg(long, value_name = "N", default_value = "1")]
    pub(super) concurrency: NonZeroU32,
    /// Pause between the starts of two requests
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0ms")]
    pub(super) interval: Duration,
    /// How long one request may take
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s")]
    pub(super) timeout: Duration,
    /// Resolve the name and connect anew for each request
    #[arg(long)]
    pub(super) new_connection: bool,
    /// Print the summary alone
    #[arg(long, short)]
    pub(super) quiet: bool,
}

/// `250ms`, `2s`, `1m`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits
        .parse()
        .map_err(|e| format!("{text:?} is no time such as 250ms, 2s or 1m: {e}"))?;
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("{other:?} is no unit of time: use ms, s, m or h")),
    };
    Duration::try_from_secs_f64(number * unit).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn times_have_units() {
        for (text, millis) in [
            ("250ms", 250),
            ("2s", 2000),
            ("1m", 60_000),
            ("3", 3000),
            ("0.5s", 500),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "1y", "-1s", "1e400s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ports_repeat_and_the_client_has_flags_of_its_own() {
        let args =
            Args::try_parse_from(["echo", "--port", "80", "--port", "8080", "--udp=53"]).unwrap();
        assert_eq!(
            (args.server.http, args.server.udp),
            (vec![80, 8080], vec![53])
        );
        let args = Args::try_parse_from([
            "echo",
            "client",
            "--url",
            "http://web",
            "--count",
            "300",
            "--concurrency",
            "4",
            "--interval",
            "5ms",
            "--new-connection",
        ])
        .unwrap();
        let Some(Mode::Client(client)) = args.mode else {
            panic!("no client")
        };
        assert_eq!((client.count, client.concurrency.get()), (300, 4));
        assert!(client.new_connection && !client.quiet);
        assert!(Args::try_parse_from(["echo", "client"]).is_err());
    }
}
