//! The Python client (PyPI `kubernetes`) against the embedded API server.

use std::process::{Command, ExitCode};

use anyhow::Result;
use portolan_conformance::scripts::{self, Language};
use portolan_conformance::tools;

fn interpreter() -> Result<Command> {
    let mut command = Command::new(tools::python()?);
    // No cache files in the source tree.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

static PYTHON: Language = Language {
    folder: "python",
    extension: ".py",
    interpreter,
    scripts: &[
        (
            "crud.py",
            "every_kind_lives_through_the_typed_python_client",
        ),
        ("errors.py", "refusals_carry_causes_by_field_in_python"),
        ("watching.py", "python_watches_from_any_version"),
        ("applying.py", "python_applies_on_the_server_side"),
        ("custom.py", "python_uses_custom_resources"),
        ("streams.py", "python_execs_forwards_and_follows"),
        ("election.py", "python_elects_a_leader_on_a_lease"),
    ],
};

fn main() -> ExitCode {
    scripts::main(&PYTHON)
}
