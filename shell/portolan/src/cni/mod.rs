//! The CNI plugin: a pod's network is ready once its policies are in the kernel (N16).
//!
//! It is the last of a node's plugins, and changes nothing: it tells the node's agent
//! which addresses the others gave to which pod, waits until the agent has committed
//! what policies say of the pod, and passes their result through. The runtime starts
//! no process of the pod before that.
//!
//! CNI 0.3.0 to 1.1.0: ADD, CHECK, DEL, VERSION, STATUS and GC, with errors as JSON on
//! standard output. <https://www.cni.dev/docs/spec/>

mod install;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use ipnet::IpNet;
use portolan_agent::gate_socket::{AskError, SOCKET, ask};
use serde_json::{Value, json};

use crate::cli::{CniArgs, CniCommand};
use crate::out;

/// The plugin's name, as configurations and the folder of plugins have it.
pub(crate) const NAME: &str = "portolan-cni";

/// The versions of the specification that it speaks.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// What is answered to whoever speaks none of them.
const NEWEST: &str = "1.1.0";

/// How long ADD waits, if the configuration does not say.
const PATIENCE: u64 = 30;
/// How long everything else waits: it is answered at once.
const SOON: Duration = Duration::from_secs(5);

// Error codes of the specification.
const INCOMPATIBLE_VERSION: u32 = 1;
const INVALID_ENVIRONMENT: u32 = 4;
const IO_FAILURE: u32 = 5;
const FAILED_TO_DECODE: u32 = 6;
const INVALID_CONFIG: u32 = 7;
const TRY_AGAIN_LATER: u32 = 11;
const NOT_AVAILABLE: u32 = 50;
/// Codes from 100 on are a plugin's own: the agent refused.
const REFUSED: u32 = 100;

/// Whether the program was called as a plugin.
pub(crate) fn is_plugin() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    name.is_some_and(|name| name.file_name() == Some(NAME.as_ref()))
}

/// `portolan cni`.
pub(crate) fn run(args: &CniArgs) -> Result<ExitCode> {
    match &args.command {
        None => return Ok(plugin()),
        Some(CniCommand::Install(args)) => install::install(args)?,
        Some(CniCommand::Uninstall(args)) => install::uninstall(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The plugin: one command from the environment, carried out.
pub(crate) fn plugin() -> ExitCode {
    let mut config = Vec::new();
    let environment = std::env::vars().collect();
    let read = std::io::stdin().read_to_end(&mut config);
    let done = read
        .map_err(|error| {
            Failure::new(
                IO_FAILURE,
                format!("cannot read the configuration: {error}"),
            )
        })
        .and_then(|_| carry_out(&environment, &config));
    match done {
        Ok(answer) => {
            if let Some(answer) = answer {
                out::line(answer);
            }
            ExitCode::SUCCESS
        }
        Err(failure) => {
            out::line(failure.told(&config));
            ExitCode::FAILURE
        }
    }
}

/// What the runtime is told.
#[derive(Debug, PartialEq)]
struct Failure {
    code: u32,
    msg: String,
    details: String,
}

impl Failure {
    fn new(code: u32, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    fn with(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    fn told(&self, config: &[u8]) -> Value {
        let config: Value = serde_json::from_slice(config).unwrap_or_default();
        let version = config["cniVersion"].as_str();
        let version = version.filter(|version| VERSIONS.contains(version));
        let mut told = json!({
            "cniVersion": version.unwrap_or(NEWEST), "code": self.code, "msg": self.msg,
        });
        if !self.details.is_empty() {
            told["details"] = json!(self.details);
        }
        told
    }
}

type Environment = BTreeMap<String, String>;

/// The plugin's configuration.
struct Config {
    version: String,
    socket: PathBuf,
    patience: Duration,
    /// Pods start while no agent runs.
    passes: bool,
    all: Value,
}

/// Does what the environment says; what is printed.
fn carry_out(environment: &Environment, config: &[u8]) -> Result<Option<Value>, Failure> {
    let command = variable(environment, "CNI_COMMAND")?;
    let config: Value = serde_json::from_slice(config).map_err(|error| {
        let told = Failure::new(FAILED_TO_DECODE, "the configuration is not JSON");
        told.with(error.to_string())
    })?;
    if command == "VERSION" {
        let version = config["cniVersion"].as_str().unwrap_or(NEWEST);
        return Ok(Some(
            json!({"cniVersion": version, "supportedVersions": VERSIONS}),
        ));
    }
    let config = Config::read(config)?;
    match command {
        "ADD" => add(environment, &config).map(Some),
        "CHECK" => {
            config.at_least("0.4.0", command)?;
            add(environment, &config).map(|_| None)
        }
        "DEL" => {
            let question = json!({"verb": "detach", "container": place(environment)?});
            // What is gone is gone, and an agent that is away will see it.
            match ask(&config.socket, &question, SOON) {
                Ok(()) | Err(AskError::Away { .. }) => Ok(None),
                Err(error) => Err(refused(error)),
            }
        }
        "STATUS" => {
            config.at_least("1.1.0", command)?;
            match ask(&config.socket, &json!({"verb": "status"}), SOON) {
                Err(AskError::Away { .. }) if config.passes => Ok(None),
                Ok(()) => Ok(None),
                Err(error) => Err(Failure {
                    code: NOT_AVAILABLE,
                    ..refused(error)
                }),
            }
        }
        "GC" => {
            config.at_least("1.1.0", command)?;
            let question = json!({"verb": "keep", "containers": valid(&config.all)?});
            match ask(&config.socket, &question, SOON) {
                Ok(()) | Err(AskError::Away { .. }) => Ok(None),
                Err(error) => Err(refused(error)),
            }
        }
        other => Err(Failure::new(
            INVALID_ENVIRONMENT,
            format!("CNI_COMMAND: {other:?} is not known"),
        )),
    }
}

fn variable<'e>(environment: &'e Environment, name: &str) -> Result<&'e str, Failure> {
    let value = environment.get(name).filter(|value| !value.is_empty());
    value.map(String::as_str).ok_or_else(|| {
        Failure::new(
            INVALID_ENVIRONMENT,
            format!("required env variable {name} missing"),
        )
    })
}

/// A container's interface.
fn place(environment: &Environment) -> Result<String, Failure> {
    let container = variable(environment, "CNI_CONTAINERID")?;
    Ok(format!(
        "{container}/{}",
        variable(environment, "CNI_IFNAME")?
    ))
}

/// The interfaces that there are, as GC gives them.
fn valid(config: &Value) -> Result<Vec<String>, Failure> {
    const FIELD: &str = "cni.dev/valid-attachments";
    let list = config[FIELD].as_array();
    let list = list.ok_or_else(|| Failure::new(INVALID_CONFIG, format!("{FIELD} is missing")))?;
    let places = list.iter().map(|one| {
        let place = (one["containerID"].as_str(), one["ifname"].as_str());
        let (Some(container), Some(name)) = place else {
            let what = "containerID or ifname is missing";
            return Err(Failure::new(INVALID_CONFIG, format!("{FIELD}: {what}")));
        };
        Ok(format!("{container}/{name}"))
    });
    places.collect()
}

impl Config {
    fn read(all: Value) -> Result<Self, Failure> {
        // Without a version it is 0.1.0.
        let version = all["cniVersion"].as_str().unwrap_or("0.1.0").to_owned();
        if !VERSIONS.contains(&version.as_str()) {
            let told = Failure::new(INCOMPATIBLE_VERSION, "incompatible CNI versions");
            let spoken = VERSIONS.join(", ");
            return Err(told.with(format!("config is {version:?}, plugin supports {spoken}")));
        }
        let invalid = |field: &str, wanted: &str| {
            let value = &all[field];
            Failure::new(INVALID_CONFIG, format!("{field}: {value} is not {wanted}"))
        };
        let absent = |field: &str| all[field].is_null();
        let socket = match all["socket"].as_str() {
            Some(path) if path.starts_with('/') => path.into(),
            None if absent("socket") => SOCKET.into(),
            Some(_) | None => return Err(invalid("socket", "an absolute path")),
        };
        let seconds = match all["timeoutSeconds"].as_u64() {
            Some(seconds) if (1..=600).contains(&seconds) => seconds,
            None if absent("timeoutSeconds") => PATIENCE,
            Some(_) | None => return Err(invalid("timeoutSeconds", "a number from 1 to 600")),
        };
        let passes = match all["whenAway"].as_str() {
            Some("fail") => false,
            Some("pass") => true,
            None if absent("whenAway") => false,
            Some(_) | None => return Err(invalid("whenAway", "\"fail\" or \"pass\"")),
        };
        Ok(Self {
            version,
            socket,
            patience: Duration::from_secs(seconds),
            passes,
            all,
        })
    }

    /// Refuses a command that the configuration's version does not have.
    fn at_least(&self, version: &str, command: &str) -> Result<(), Failure> {
        // These versions are in the order of their text.
        if self.version.as_str() >= version {
            return Ok(());
        }
        let told = format!("config version {:?} has no {command}", self.version);
        Err(Failure::new(INCOMPATIBLE_VERSION, told))
    }

    /// What the plugins before this one made.
    fn before(&self) -> Result<&Value, Failure> {
        let before = &self.all["prevResult"];
        before.is_object().then_some(before).ok_or_else(|| {
            let told = "must be called as a chained plugin, behind one that gives addresses";
            Failure::new(INVALID_CONFIG, told).with("prevResult is missing")
        })
    }
}

/// The addresses of the container; those of interfaces outside it are not its own.
fn addresses(result: &Value) -> Result<Vec<IpAddr>, Failure> {
    let interfaces = result["interfaces"].as_array();
    let is_inside = |ip: &&Value| {
        let index = ip["interface"].as_u64();
        let index = index.and_then(|index| usize::try_from(index).ok());
        let interface = index.and_then(|index| interfaces?.get(index));
        interface.is_none_or(|interface| {
            let sandbox = interface["sandbox"].as_str();
            sandbox.is_some_and(|sandbox| !sandbox.is_empty())
        })
    };
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter(is_inside)
        .map(|ip| {
            let text = ip["address"].as_str().unwrap_or_default();
            let net = text.parse::<IpNet>().map(|net| net.addr()).ok();
            net.or_else(|| text.parse().ok()).ok_or_else(|| {
                let address = &ip["address"];
                let told = format!("prevResult.ips: {address} is not an address");
                Failure::new(INVALID_CONFIG, told)
            })
        })
        .collect()
}

/// `CNI_ARGS`: pairs with semicolons between them.
fn arguments(environment: &Environment) -> BTreeMap<&str, &str> {
    let all = environment.get("CNI_ARGS").map(String::as_str);
    let pairs = all.unwrap_or_default().split(';');
    pairs.filter_map(|pair| pair.split_once('=')).collect()
}

/// Tells the agent, waits for the policies, and passes the result through.
fn add(environment: &Environment, config: &Config) -> Result<Value, Failure> {
    let place = place(environment)?;
    let mut result = config.before()?.clone();
    result["cniVersion"] = json!(config.version);
    let pod = arguments(environment);
    let (Some(namespace), Some(name)) = (pod.get("K8S_POD_NAMESPACE"), pod.get("K8S_POD_NAME"))
    else {
        // No pod of Kubernetes: no policy is about it.
        return Ok(result);
    };
    let addresses = addresses(&result)?;
    if addresses.is_empty() {
        return Ok(result);
    }
    let question = json!({
        "verb": "attach", "container": place, "namespace": namespace, "name": name,
        "uid": pod.get("K8S_POD_UID").copied().unwrap_or_default(), "addresses": addresses,
    });
    match ask(&config.socket, &question, config.patience) {
        Ok(()) => Ok(result),
        Err(AskError::Away { .. }) if config.passes => Ok(result),
        Err(error @ (AskError::Away { .. } | AskError::Late { .. })) => {
            let told = format!("the policies of pod {namespace}/{name} are not in place yet");
            Err(Failure::new(TRY_AGAIN_LATER, told).with(in_one_line(&error)))
        }
        Err(error) => Err(refused(error)),
    }
}

fn refused(error: AskError) -> Failure {
    let code = match error {
        AskError::Away { .. } | AskError::Late { .. } => TRY_AGAIN_LATER,
        AskError::Refused(_) => REFUSED,
    };
    Failure::new(code, in_one_line(&error))
}

fn in_one_line(error: &AskError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
