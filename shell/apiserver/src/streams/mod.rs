//! Requests that become connections: exec, attach and port-forward of pods, and
//! /proxy of pods, Services and nodes.
//!
//! What a client may speak, and where it is read:
//!
//! ```text
//!  exec, attach   SPDY/3.1 (POST, older kubectl)     spdy ─┐
//!                 WebSocket v4, v5.channel.k8s.io    websocket ─┴► bridge ─► Process
//!  port-forward   SPDY/3.1 portforward.k8s.io        spdy ─┐
//!                 the same inside WebSocket messages tunnel ┴► forward ─► Connection
//!                 WebSocket v4.channel.k8s.io        websocket ► channels ─► Connection
//!  proxy          HTTP, and any upgrade              proxy ─► Connection
//! ```
//!
//! On a cluster the API server passes such connections on to a kubelet; here it
//! is both, so answers are worded as each of the two words them.
//!
//! A session is one task that owns everything of it: when the client leaves, the
//! server ends or nothing moves for [`IDLE_TIMEOUT`], the task is dropped and
//! with it sockets, processes and connections. Every queue is bounded, so a slow
//! reader slows its writer down instead of filling memory. How many sessions one
//! client may have is counted with its watches, in `limits`.

mod bridge;
mod channels;
mod forward;
mod idle;
mod pod;
mod proxy;
mod refused;
mod remote;
mod spdy;
mod status;
mod tunnel;
mod upgrade;
mod websocket;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use hyper::body::Incoming;
use portolan_api::Status;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use pod::container;

use crate::answer::{self, Answer};
use crate::context::Context;
use crate::limits::Place;
use crate::request::{Asked, Verb};
use refused::Refused;

/// A session on which nothing moves for so long is over; the kubelet's default.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 3600);
/// How long a client may take to open the streams that its request needs; the
/// kubelet's default.
const STREAM_CREATION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to read the rest of the output after the process
/// has ended: some megabytes in socket buffers, over a slow line.
const FINISH_TIMEOUT: Duration = Duration::from_secs(300);
/// One piece of output: what a pipe holds is read in two.
const PIECE_BYTES: usize = 32 * 1024;
/// Pieces of output on their way to the client.
const OUTPUT_PIECES: usize = 16;
/// Pieces of input that wait for a process or connection to read them.
const INPUT_PIECES: usize = 32;

/// A request for a connection, with all that a session has to hold.
pub(crate) struct Request {
    pub(crate) context: Arc<Context>,
    /// Ends the session with the server.
    pub(crate) ending: CancellationToken,
    pub(crate) asked: Asked,
    pub(crate) parts: Parts,
    /// None once it has been passed on.
    pub(crate) body: Option<Incoming>,
    pub(crate) session: Session,
}

/// What outlives the request.
#[derive(Clone)]
pub(crate) struct Session {
    /// The server waits for these when it ends.
    pub(crate) tasks: TaskTracker,
    /// The place of the request among those of its user.
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) place: Arc<Place>,
    /// The place of the connection among those of the server.
    #[expect(dead_code, reason = "held for its drop")]
    pub(crate) seat: Arc<OwnedSemaphorePermit>,
    /// Who is on the other side.
    pub(crate) peer: Option<IpAddr>,
}

/// Whether a request is for a connection: its body and its end are not those
/// of other requests.
pub(crate) fn takes(asked: &Asked) -> bool {
    let kind = &asked.resource.kind;
    kind.group.is_empty()
        && match (kind.kind, asked.subresource.as_str()) {
            ("Pod", "exec" | "attach" | "portforward" | "proxy") => true,
            (kind, "proxy") => matches!(kind, "Service" | "Node"),
            _ => false,
        }
}

/// Answer a request for a connection.
pub(crate) async fn handle(request: Request) -> Answer {
    let upgrades = request.asked.subresource != "proxy";
    // Browsers can begin a WebSocket only with GET.
    if upgrades && !matches!(request.asked.verb, Verb::Get | Verb::Create) {
        return answer::status(&Status::method_not_allowed());
    }
    let answered = match request.asked.subresource.as_str() {
        "exec" => remote::exec(request).await,
        "attach" => remote::attach(request).await,
        "portforward" => forward::handle(request),
        _ => proxy::handle(request).await,
    };
    answered.unwrap_or_else(Refused::into_answer)
}
