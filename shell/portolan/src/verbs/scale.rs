//! `portolan scale`.

use anyhow::{Result, bail};
use http::Method;
use serde_json::json;

use crate::cli::ScaleArgs;
use crate::connect::{Call, Session};
use crate::out;
use crate::resources::Resources;

/// Runs the verb.
pub(crate) async fn run(args: ScaleArgs) -> Result<()> {
    let session = Session::open(&args.connection).await?;
    let resources = Resources::discover(&session).await?;
    for (resource, name) in resources.parse(&args.resources)? {
        let Some(name) = name else {
            bail!("error: resource(s) were provided, but no name was specified")
        };
        let path = resource.path(Some(&session.namespace), Some(&name)) + "/scale";
        let patch = json!({"spec": {"replicas": args.replicas}});
        session
            .call(&Call::sending(
                Method::PATCH,
                &path,
                "application/merge-patch+json",
                &patch,
            ))
            .await?;
        out::line(format_args!("{} scaled", resource.named(&name)));
    }
    Ok(())
}
