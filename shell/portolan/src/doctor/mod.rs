//! `portolan doctor`: what is wrong with a Service, and what mends it.
//!
//! A thin verb: it reads objects from the API server, tries a few connections
//! through it, asks each node's agent by way of it, and leaves every judgement
//! to `portolan_why::doctor`. It works against any cluster.

mod look;
mod show;

use std::process::ExitCode;

use anyhow::{Result, bail};
use portolan_api::lean;
use portolan_why::doctor::{Checkup, nearest};
use serde_json::json;

use crate::cli::{DoctorArgs, ReportOutput};
use crate::connect::Session;
use crate::out;
use crate::verbs::get::print_value;
use look::Look;

/// Runs the command. The exit code is 1 if a fault was found.
pub(crate) async fn run(args: DoctorArgs) -> Result<ExitCode> {
    let mut session = Session::open(&args.connection).await?;
    let once = Session::open_asking_once(&args.connection).await?;
    let wanted = wanted(&args.resources, args.connection.namespace.is_some())?;
    if let Some(Wanted {
        namespace: Some(namespace),
        ..
    }) = &wanted
    {
        session.namespace.clone_from(namespace);
    }
    if args.all_namespaces && wanted.is_some() {
        bail!("error: a Service cannot be asked for by name across all namespaces");
    }
    let look = Look::around(&session, once, &args.cluster_domain).await?;
    let checkups = match &wanted {
        Some(wanted) => {
            let service = find(&look, &session.namespace, &wanted.name)?;
            vec![look.examine(service, args.connect).await]
        }
        None => everything(&look, &session, &args).await,
    };
    let ill = checkups.iter().any(Checkup::has_faults);
    print(&args, &session, wanted.is_some(), &checkups)?;
    Ok(if ill {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The Service that was typed.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    name: String,
    /// The namespace that a DNS name says.
    namespace: Option<String>,
}

/// `service/web`, `svc/web`, `service web`, `web`, or as clients write it,
/// `web.shop` or `web.shop.svc.cluster.local`; none for all Services.
fn wanted(words: &[String], has_namespace: bool) -> Result<Option<Wanted>> {
    let is_kind = |word: &str| {
        let word = word.to_lowercase();
        matches!(
            word.as_str(),
            "service" | "services" | "svc" | "service.v1" | "services.v1"
        )
    };
    let name = match words {
        [] => return Ok(None),
        [kind] if is_kind(kind) => return Ok(None),
        [one] => match one.split_once('/') {
            Some((kind, name)) if is_kind(kind) => name,
            Some((kind, _)) => {
                bail!("error: the doctor examines Services, not {kind:?}: give service/NAME")
            }
            None => one,
        },
        [kind, name] if is_kind(kind) => name,
        _ => bail!("error: give one Service as service/NAME, or none for all of the namespace"),
    };
    if name.is_empty() {
        bail!("error: give the Service's name as in service/web");
    }
    let mut labels = name.trim_end_matches('.').split('.');
    let name = labels.next().unwrap_or_default().to_owned();
    let namespace = labels
        .next()
        .filter(|label| !label.is_empty())
        .map(str::to_owned);
    if namespace.is_some() && has_namespace {
        bail!("error: the name says a namespace already: leave out -n");
    }
    Ok(Some(Wanted { name, namespace }))
}

/// The Service, or why there is none, as far as the neighbours tell.
fn find<'l>(look: &'l Look, namespace: &str, name: &str) -> Result<&'l lean::Service> {
    let here = |service: &&lean::Service| service.metadata.namespace == namespace;
    let services = &look.observed.services;
    let found = services
        .iter()
        .filter(here)
        .find(|service| service.metadata.name == name);
    if let Some(service) = found {
        return Ok(service);
    }
    let mut lines = vec![format!(
        "Error from server (NotFound): services {name:?} not found"
    )];
    let known = look.observed.cluster.has_namespace(namespace);
    if !known {
        let all = look.observed.cluster.namespaces().map(|other| &**other);
        let meant = nearest(namespace, all).map(|meant| format!("; did you mean {meant}?"));
        lines.push(format!(
            "there is no namespace {namespace}{}",
            meant.unwrap_or_default()
        ));
    }
    for other in services
        .iter()
        .filter(|service| service.metadata.name == name)
    {
        let there = &other.metadata.namespace;
        lines.push(format!(
            "a Service {name} is in namespace {there}: from other namespaces its name is {name}.{there}, and this examines it: portolan doctor service/{name} -n {there}"
        ));
    }
    let names = services
        .iter()
        .filter(here)
        .map(|service| service.metadata.name.as_str());
    if let Some(meant) = nearest(name, names) {
        lines.push(format!(
            "namespace {namespace} has a Service {meant}: portolan doctor service/{meant} -n {namespace}"
        ));
    }
    bail!("{}", lines.join("\n"))
}

async fn everything(look: &Look, session: &Session, args: &DoctorArgs) -> Vec<Checkup> {
    let mut checkups = Vec::new();
    for service in &look.observed.services {
        if args.all_namespaces || service.metadata.namespace == session.namespace {
            checkups.push(look.examine(service, args.connect).await);
        }
    }
    checkups
}

fn print(args: &DoctorArgs, session: &Session, one: bool, checkups: &[Checkup]) -> Result<()> {
    if let Some(output) = args.output {
        let yaml = output == ReportOutput::Yaml;
        let value = match checkups {
            [only] if one => only.json(),
            all => json!({ "items": all.iter().map(Checkup::json).collect::<Vec<_>>() }),
        };
        return print_value(&value, yaml);
    }
    match checkups {
        [only] if one => show::checkup(only),
        [] if args.all_namespaces => out::note("No resources found"),
        [] => out::note(format_args!(
            "No resources found in {} namespace.",
            session.namespace
        )),
        all => show::overview(all, args.all_namespaces),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_as_kubectl_and_as_clients_name_it() {
        let typed = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            wanted(&words, false)
        };
        let named = |name: &str, namespace: Option<&str>| {
            Some(Wanted {
                name: name.to_owned(),
                namespace: namespace.map(str::to_owned),
            })
        };
        for words in [
            &["service/web"][..],
            &["svc/web"],
            &["service", "web"],
            &["Services", "web"],
            &["web"],
        ] {
            assert_eq!(typed(words).unwrap(), named("web", None), "{words:?}");
        }
        for words in ["web.shop", "svc/web.shop", "web.shop.svc.cluster.local."] {
            assert_eq!(
                typed(&[words]).unwrap(),
                named("web", Some("shop")),
                "{words}"
            );
        }
        assert_eq!(typed(&[]).unwrap(), None);
        assert_eq!(typed(&["services"]).unwrap(), None);
        for words in [
            &["pod/web"][..],
            &["service/"],
            &["pods", "web"],
            &["a", "b", "c"],
        ] {
            assert!(typed(words).is_err(), "{words:?}");
        }
        assert!(wanted(&["web.shop".to_owned()], true).is_err());
    }
}
