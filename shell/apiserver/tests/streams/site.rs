//! A web site in a pod: what /proxy finds at port 80.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsAcceptor;

type Body = BoxBody<Bytes, hyper::Error>;

pub(crate) async fn serve(io: DuplexStream) {
    serve_any(io).await;
}

pub(crate) async fn serve_tls(io: DuplexStream) {
    let key = rcgen::generate_simple_self_signed(vec!["pod".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into()),
        )
        .unwrap();
    let io = TlsAcceptor::from(Arc::new(config))
        .accept(io)
        .await
        .unwrap();
    serve_any(io).await;
}

async fn serve_any(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let serving = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(io), service_fn(answer))
        .with_upgrades();
    drop(serving.await);
}

fn text(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
        .map_err(|never| match never {})
        .boxed()
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let response = Response::builder();
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        "/redirect" => response
            .status(StatusCode::FOUND)
            .header("location", "/login?next=x")
            .header("access-control-allow-origin", "*")
            .body(text(""))
            .unwrap(),
        "/fail" => response
            .status(StatusCode::IM_A_TEAPOT)
            .body(text("no"))
            .unwrap(),
        // The body as it comes, piece by piece.
        "/echo" => Response::new(request.into_body().boxed()),
        "/endless" => {
            let pieces =
                futures::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(b"tick\n"))));
            let slowly = pieces.then(|piece| async {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                piece
            });
            Response::new(BodyExt::boxed(StreamBody::new(slowly)))
        }
        "/upgrade" => {
            tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
                let mut io = TokioIo::new(upgraded);
                let mut line = [0; 5];
                io.read_exact(&mut line).await.unwrap();
                io.write_all(b"got ").await.unwrap();
                io.write_all(&line).await.unwrap();
                io.shutdown().await.unwrap();
            });
            response
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "Upgrade")
                .header("upgrade", "lines")
                .body(text(""))
                .unwrap()
        }
        _ => {
            let headers: serde_json::Map<String, serde_json::Value> = request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
                .collect();
            let told = json!({
                "method": request.method().as_str(),
                "target": request.uri().to_string(),
                "headers": headers,
            });
            response
                .header("content-type", "application/json")
                .body(text(told.to_string()))
                .unwrap()
        }
    })
}
