//! `grpc.health.v1.Health/Check`, asked without more of gRPC than it needs: one
//! message each way, each with five bytes before it.

use std::{net::SocketAddr, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::Answer;

/// `HealthCheckResponse.ServingStatus` by number.
const STATUS: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
/// A method that is not there.
const UNIMPLEMENTED: &str = "12";
/// An answer is a handful of bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Asks on an open connection; the errors are kubelet's.
pub(super) async fn ask(
    stream: TcpStream,
    at: SocketAddr,
    service: &str,
    timeout: Duration,
) -> Answer {
    match tokio::time::timeout(timeout, check(stream, at, service)).await {
        Ok(Ok(status)) if status == STATUS[1] => Answer::Success,
        Ok(Ok(status)) => Answer::Failure(format!("service unhealthy (responded with {status:?})")),
        Ok(Err(message)) => Answer::Failure(message),
        Err(_late) => late(at, timeout),
    }
}

/// Nobody answered in time, or at all.
pub(super) fn late(at: SocketAddr, timeout: Duration) -> Answer {
    Answer::Failure(format!(
        "timeout: failed to connect service {:?} within {timeout:?}: context deadline exceeded",
        at.to_string()
    ))
}

async fn check(stream: TcpStream, at: SocketAddr, service: &str) -> Result<String, String> {
    let failed = |what: &dyn std::fmt::Display| format!("error: health rpc probe failed: {what}");
    let (mut sender, driver) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|e| failed(&e))?;
    let driver = tokio::spawn(driver);
    let request = Request::post(format!("http://{at}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37 grpc-go")
        .body(Full::new(message(service)))
        .map_err(|e| failed(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| failed(&e));
    let answered = async {
        let (head, body) = answer?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|e| failed(&e))?;
        let trailer = |name: &str| {
            let own = body.trailers().and_then(|trailers| trailers.get(name));
            let value = own.or_else(|| head.headers.get(name))?;
            Some(value.to_str().unwrap_or_default().to_owned())
        };
        match trailer("grpc-status").as_deref() {
            Some("0") => Ok(()),
            Some(UNIMPLEMENTED) => Err(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                trailer("grpc-message").unwrap_or_default()
            )),
            Some(code) => {
                let text = trailer("grpc-message").unwrap_or_default();
                Err(failed(&format!("rpc error: code = {code} desc = {text}")))
            }
            None => Err(failed(&format!("unexpected HTTP status code {}", head.status))),
        }?;
        Ok(status_in(&body.to_bytes()))
    }
    .await;
    driver.abort();
    answered
}

/// `HealthCheckRequest{service}`, framed.
fn message(service: &str) -> Bytes {
    let mut own = BytesMut::new();
    if !service.is_empty() {
        own.put_u8(0x0a);
        let mut left = service.len();
        while left >= 0x80 {
            own.put_u8(u8::try_from(left & 0x7f).unwrap_or_default() | 0x80);
            left >>= 7;
        }
        own.put_u8(u8::try_from(left).unwrap_or_default());
        own.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(own.len()).unwrap_or_default());
    framed.put_slice(&own);
    framed.freeze()
}

/// The status in a framed `HealthCheckResponse`; field 1 is all that it has.
fn status_in(framed: &[u8]) -> String {
    let number = match framed.get(5..) {
        Some([0x08, number, ..]) => *number,
        Some(_) | None => 0,
    };
    let name = STATUS.get(usize::from(number));
    name.map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, Response};
    use http_body_util::{StreamBody, combinators::BoxBody};
    use hyper::{body::Frame, body::Incoming, server::conn::http2, service::service_fn};
    use std::convert::Infallible;

    type Body = BoxBody<Bytes, Infallible>;

    /// A server that knows the service `shop` (up), `bar` (down) and no others.
    async fn serve(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        let (status, code) = match asked.get(7..).unwrap_or_default() {
            b"" | b"shop" => (1, "0"),
            b"bar" => (2, "0"),
            b"old" => (0, "12"),
            _ => (0, "5"),
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(code));
        trailers.insert("grpc-message", HeaderValue::from_static("so it is"));
        let frames = [
            Ok(Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]))),
            Ok(Frame::trailers(trailers)),
        ];
        let body = StreamBody::new(futures::stream::iter(frames));
        Ok(Response::new(BodyExt::boxed(body)))
    }

    #[tokio::test]
    async fn c16_grpc_health_is_asked_as_kubelet_does() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service_fn(serve)));
            }
        });
        for (service, expected) in [
            ("", None),
            ("shop", None),
            (
                "bar",
                Some("service unhealthy (responded with \"NOT_SERVING\")"),
            ),
            (
                "old",
                Some(
                    "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): so it is",
                ),
            ),
            (
                "else",
                Some("error: health rpc probe failed: rpc error: code = 5 desc = so it is"),
            ),
        ] {
            let stream = TcpStream::connect(at).await.unwrap();
            let answer = ask(stream, at, service, Duration::from_secs(10)).await;
            let expected = match expected {
                None => Answer::Success,
                Some(message) => Answer::Failure(message.to_owned()),
            };
            assert_eq!(answer, expected, "{service}");
        }
    }

    #[test]
    fn long_names_have_long_lengths() {
        let framed = message(&"a".repeat(200));
        assert_eq!(framed[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
    }
}
