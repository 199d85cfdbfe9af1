//! Says on the objects that announcing reads what they cover, and what in them cannot
//! be honoured: on announcements of our own by their status, on all others by an event.
//!
//! Every agent knows all of it, and the first by name of those that announce says it.
//! While two take themselves for the first, both say the same.

use std::time::Duration;

use jiff::Timestamp;
use portolan_client as at;
use portolan_client::{Client, Recorder, Regarding, Resource, Severity, Target, Writer};
use portolan_plan::announce::{About, Report, Reports, Subject};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::COMPONENT;

/// Changes within so long make one write.
const PAUSE: Duration = Duration::from_secs(1);
/// How soon a write that failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Says what changes until `over`.
pub(super) async fn run(
    client: Client,
    node: String,
    mut reports: watch::Receiver<Reports>,
    over: CancellationToken,
) {
    let writer = Writer::new(client.clone(), COMPONENT);
    let recorder = Recorder::new(client, COMPONENT, &node);
    let mut said = Reports::new();
    loop {
        let now = reports.borrow_and_update().clone();
        let failed = say(&writer, &recorder, &now, &mut said).await;
        let pause = if failed { AGAIN } else { PAUSE };
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        if failed {
            continue;
        }
        tokio::select! {
            () = over.cancelled() => return,
            Ok(()) = reports.changed() => {}
            else => return,
        }
    }
}

/// Says what has not been said yet. Whether something could not be.
async fn say(writer: &Writer, recorder: &Recorder, now: &Reports, said: &mut Reports) -> bool {
    let mut failed = false;
    said.retain(|about, _| now.contains_key(about));
    for (about, report) in now {
        let before = said.get(about);
        if before == Some(report) {
            continue;
        }
        if report.has_status() {
            if !write(writer, about, report).await {
                failed = true;
                continue;
            }
        } else if before
            .is_none_or(|before| before.uid != report.uid || before.faults != report.faults)
        {
            tell(recorder, about, report);
        }
        said.insert(about.clone(), report.clone());
    }
    failed
}

/// Whether the status is as it should be.
async fn write(writer: &Writer, (subject, key): &About, report: &Report) -> bool {
    let Some(status) = report.status(Timestamp::now()) else {
        return true;
    };
    let target = Target::one(resource(*subject), None, &key.name);
    match writer.patch_status(target, &status).await {
        Ok(_) => true,
        Err(error) if error.is_not_found() => true,
        Err(error) => {
            let (name, message) = (&key.name, error.message());
            tracing::warn!(name, %error, message, "the status of an announcement was not written");
            false
        }
    }
}

fn tell(recorder: &Recorder, (subject, key): &About, report: &Report) {
    let Some((reason, message)) = report.fault() else {
        return;
    };
    let resource = resource(*subject);
    let about = Regarding {
        api_version: format!("{}/{}", resource.group, resource.version),
        kind: resource.kind.to_string(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        uid: report.uid.clone(),
        field_path: String::new(),
    };
    recorder.tell(&about, Severity::Warning, reason, &message);
}

/// Where objects of a kind are.
fn resource(subject: Subject) -> &'static Resource {
    match subject {
        Subject::L2Announcement => &at::L2_ANNOUNCEMENTS,
        Subject::L2Advertisement => &at::L2_ADVERTISEMENTS,
        Subject::BgpAnnouncement => &at::BGP_ANNOUNCEMENTS,
        Subject::BgpAdvertisement => &at::BGP_ADVERTISEMENTS,
        Subject::BgpPeer => &at::BGP_PEERS,
        Subject::MetalBgpPeer => &at::METALLB_BGP_PEERS,
        Subject::Community => &at::COMMUNITIES,
        Subject::BfdProfile => &at::BFD_PROFILES,
    }
}
