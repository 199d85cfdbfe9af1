//! How a process ended, as clients read it on the error stream.

use bytes::Bytes;
use portolan_api::Status;
use serde_json::{Value, json};

/// What a client understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Protocols before v4: the message alone, and only of a failure.
    Text,
    /// v4: a Status.
    Json,
    /// v5: a Status, with the words of the API server, which translates.
    JsonTranslated,
}

/// The end of a session.
#[derive(Debug)]
pub(super) enum Outcome {
    Success,
    /// The command ended with this code.
    Code {
        code: i32,
        command: Vec<String>,
    },
    /// There was no process, or it was lost.
    Failed(String),
}

/// What to write on the error stream, if anything.
pub(super) fn payload(format: Format, outcome: &Outcome) -> Option<Bytes> {
    let status = match outcome {
        Outcome::Success if format == Format::Text => return None,
        Outcome::Success => json!({"metadata": {}, "status": "Success"}),
        Outcome::Code { code, command } => exited(format, *code, command),
        Outcome::Failed(message) => failed(message),
    };
    Some(match format {
        Format::Text => Bytes::from(status["message"].as_str().unwrap_or_default().to_owned()),
        Format::Json | Format::JsonTranslated => Bytes::from(status.to_string()),
    })
}

fn exited(format: Format, code: i32, command: &[String]) -> Value {
    // Clients read one byte.
    let code = u8::try_from(code).unwrap_or(u8::MAX);
    let why = match format {
        Format::JsonTranslated => format!("command terminated with exit code {code}"),
        Format::Text | Format::Json => format!(
            "error executing command [{}], exit code {code}",
            command.join(" ")
        ),
    };
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: {why}"),
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
}

fn failed(message: &str) -> Value {
    let mut status = Status::internal(message).to_value();
    if let Some(map) = status.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Format, outcome: &Outcome) -> Value {
        serde_json::from_slice(&payload(format, outcome).unwrap()).unwrap()
    }

    #[test]
    fn ends_are_worded_for_each_protocol() {
        let code = Outcome::Code {
            code: 3,
            command: vec!["sh".to_owned(), "-c".to_owned()],
        };
        assert_eq!(payload(Format::Text, &Outcome::Success), None);
        assert_eq!(
            read(Format::Json, &Outcome::Success),
            json!({"metadata": {}, "status": "Success"})
        );
        assert_eq!(
            read(Format::Json, &code),
            json!({
                "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
                "message": "command terminated with non-zero exit code: error executing command [sh -c], exit code 3",
                "details": {"causes": [{"reason": "ExitCode", "message": "3"}]},
            })
        );
        assert_eq!(
            read(Format::JsonTranslated, &code)["message"],
            "command terminated with non-zero exit code: command terminated with exit code 3"
        );
        assert_eq!(
            payload(Format::Text, &Outcome::Failed("gone".to_owned())).unwrap(),
            "Internal error occurred: gone"
        );
        let failed = read(Format::Json, &Outcome::Failed("gone".to_owned()));
        assert_eq!(
            (&failed["code"], &failed["reason"]),
            (&json!(500), &json!("InternalError"))
        );
        let killed = Outcome::Code {
            code: 4096,
            command: Vec::new(),
        };
        assert_eq!(
            read(Format::Json, &killed)["details"]["causes"][0]["message"],
            "255"
        );
    }
}
