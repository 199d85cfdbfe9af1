//! The lab's handle on the broker.

use std::{
    collections::BTreeMap,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, send};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::{TcpListener, TcpStream, UdpSocket},
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;

use super::{
    DNS_PORT,
    wire::{MAX_MESSAGE, Reply, Request, STOP_ID, packet, parse},
};
use crate::sandbox::Seat;

/// Asks the broker for sockets of the host, and hears when the lab shall stop.
/// Clones share the line.
#[derive(Clone, Debug)]
pub struct Broker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    line: AsyncFd<OwnedFd>,
    next_id: AtomicU64,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Answer {
    reply: Reply,
    socket: Option<OwnedFd>,
}

/// Why the host did not give what the lab asked for.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The line cannot be used with this runtime.
    #[error("cannot attach to the broker")]
    Attach(#[source] io::Error),
    /// The broker is gone, and the lab is about to be.
    #[error("the broker does not answer the request {request}")]
    Gone {
        /// The request, as it was sent.
        request: String,
    },
    /// The host refused.
    #[error("the host refuses {request}")]
    Refused {
        /// The request, as it was sent.
        request: String,
        /// What the host's kernel said, such as "address in use".
        #[source]
        cause: io::Error,
    },
}

impl BrokerError {
    /// The kind of the host's refusal, if that is what this is.
    pub fn refusal(&self) -> Option<io::ErrorKind> {
        if let Self::Refused { cause, .. } = self {
            Some(cause.kind())
        } else {
            None
        }
    }
}

impl Broker {
    /// Takes the lab's seat. Must be called within a tokio runtime.
    pub fn attach(seat: Seat) -> Result<Self, BrokerError> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: an `OwnedFd` is open and stays the same until it is dropped.
        let line = unsafe { AsyncFd::register_with_interest(seat.line, interest) }
            .map_err(|error| BrokerError::Attach(error.into_parts().1))?;
        let shared = Arc::new(Shared {
            line,
            next_id: AtomicU64::new(STOP_ID + 1),
            waiting: Mutex::default(),
            stop: CancellationToken::new(),
        });
        // Somebody may also signal the lab itself instead of the broker.
        for kind in [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
        ] {
            let mut signals = signal(kind).map_err(BrokerError::Attach)?;
            let stop = shared.stop.clone();
            tokio::spawn(async move {
                signals.recv().await;
                stop.cancel();
            });
        }
        tokio::spawn(listen(Arc::clone(&shared)));
        Ok(Self { shared })
    }

    /// Cancelled when the user wants the lab to end.
    pub fn stop(&self) -> &CancellationToken {
        &self.shared.stop
    }

    /// A TCP listener on an address of the host.
    pub async fn listen_tcp(&self, at: SocketAddr) -> Result<TcpListener, BrokerError> {
        let request = Request::ListenTcp(at);
        let socket = self.socket(&request).await?;
        TcpListener::from_std(socket.into()).map_err(|cause| refused(&request, cause))
    }

    /// A UDP socket on an address of the host.
    pub async fn bind_udp(&self, at: SocketAddr) -> Result<UdpSocket, BrokerError> {
        let request = Request::BindUdp(at);
        let socket = self.socket(&request).await?;
        UdpSocket::from_std(socket.into()).map_err(|cause| refused(&request, cause))
    }

    /// A UDP socket connected to a resolver of the host.
    pub async fn udp_to_resolver(&self, resolver: IpAddr) -> Result<UdpSocket, BrokerError> {
        let request = Request::ConnectUdp(SocketAddr::new(resolver, DNS_PORT));
        let socket = self.socket(&request).await?;
        UdpSocket::from_std(socket.into()).map_err(|cause| refused(&request, cause))
    }

    /// A TCP connection to a resolver of the host.
    pub async fn tcp_to_resolver(&self, resolver: IpAddr) -> Result<TcpStream, BrokerError> {
        let request = Request::ConnectTcp(SocketAddr::new(resolver, DNS_PORT));
        let socket = self.socket(&request).await?;
        let connected = async {
            let stream = TcpStream::from_std(socket.into())?;
            stream.writable().await?;
            stream.take_error()?.map_or(Ok(stream), Err)
        };
        connected.await.map_err(|cause| refused(&request, cause))
    }

    /// The host's resolvers, in the order of its resolv.conf.
    pub async fn resolvers(&self) -> Result<Vec<IpAddr>, BrokerError> {
        let request = Request::Resolvers;
        match self.ask(&request).await?.reply {
            Reply::Done(ips) => Ok(ips),
            Reply::Failed(errno) => Err(refused(&request, io::Error::from_raw_os_error(errno))),
            Reply::Stop => Err(gone(&request)),
        }
    }

    async fn socket(&self, request: &Request) -> Result<OwnedFd, BrokerError> {
        let answer = self.ask(request).await?;
        match (answer.reply, answer.socket) {
            (Reply::Done(_), Some(socket)) => Ok(socket),
            (Reply::Failed(errno), _) => Err(refused(request, io::Error::from_raw_os_error(errno))),
            (Reply::Done(_) | Reply::Stop, _) => Err(gone(request)),
        }
    }

    async fn ask(&self, request: &Request) -> Result<Answer, BrokerError> {
        let shared = &self.shared;
        let id = shared.next_id.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        shared.with_waiting(|waiting| waiting.insert(id, tell));
        let packet = packet(id, request);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let sent = shared
            .line
            .async_io(Interest::WRITABLE, |line| {
                Ok(send(line.as_raw_fd(), &packet, flags)?)
            })
            .await;
        if sent.is_err() {
            shared.with_waiting(|waiting| waiting.remove(&id));
            return Err(gone(request));
        }
        told.await.map_err(|_line_is_closed| gone(request))
    }
}

impl Shared {
    fn with_waiting<T>(
        &self,
        change: impl FnOnce(&mut BTreeMap<u64, oneshot::Sender<Answer>>) -> T,
    ) -> T {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads answers until the broker hangs up; then nobody waits any longer.
async fn listen(shared: Arc<Shared>) {
    loop {
        let received = shared.line.async_io(Interest::READABLE, receive).await;
        let Ok(Some((packet, socket))) = received else {
            break;
        };
        let Ok((id, reply)) = parse::<Reply>(&packet) else {
            continue;
        };
        if reply == Reply::Stop {
            shared.stop.cancel();
        } else if let Some(tell) = shared.with_waiting(|waiting| waiting.remove(&id)) {
            // Whoever asked may have stopped waiting; the socket closes then.
            tell.send(Answer { reply, socket }).ok();
        }
    }
    shared.stop.cancel();
    shared.with_waiting(BTreeMap::clear);
}

/// One packet and the descriptor beside it; none at the end of the line.
fn receive(line: &OwnedFd) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let mut beside = nix::cmsg_space!([i32; 1]);
    let (length, socket) = {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(line.as_raw_fd(), &mut parts, Some(&mut beside), flags)?;
        let mut socket = None;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                for fd in fds {
                    // SAFETY: the kernel has just made this descriptor for us.
                    socket = Some(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
        (message.bytes, socket)
    };
    buffer.truncate(length);
    Ok(if length == 0 {
        None
    } else {
        Some((buffer, socket))
    })
}

fn refused(request: &Request, cause: io::Error) -> BrokerError {
    BrokerError::Refused {
        request: request.to_string(),
        cause,
    }
}

fn gone(request: &Request) -> BrokerError {
    BrokerError::Gone {
        request: request.to_string(),
    }
}
