//! `/livez`, `/readyz` and `/healthz`, in the form that `kubectl get --raw
//! '/readyz?verbose'` shows.

use http::StatusCode;
use http::request::Parts;

use crate::answer::{self, Answer};

/// What is looked at. The server is opened before it listens, so a server
/// that answers at all has its state loaded.
const CHECKS: &[&str] = &["ping", "log", "state"];
/// Fails while the server ends, so that balancers stop sending.
const SHUTDOWN: &str = "shutdown";

/// The answer for a path such as `/readyz` or `/livez/ping`.
pub(crate) fn answer(parts: &Parts, ending: bool) -> Answer {
    let path = parts.uri.path().trim_matches('/');
    let (endpoint, check) = path.split_once('/').unwrap_or((path, ""));
    let mut checks: Vec<(&str, bool)> = CHECKS.iter().map(|name| (*name, true)).collect();
    if endpoint == "readyz" {
        checks.push((SHUTDOWN, !ending));
    }
    if !check.is_empty() {
        return match checks.iter().find(|(name, _)| *name == check) {
            Some((_, true)) => answer::text(StatusCode::OK, "ok"),
            Some((_, false)) => failed(format!("internal server error: {check} failed")),
            None => answer::text(StatusCode::NOT_FOUND, "404 page not found\n"),
        };
    }
    let well = checks.iter().all(|(_, well)| *well);
    let query = parts.uri.query().unwrap_or_default();
    let verbose = query.split('&').any(|word| word.starts_with("verbose"));
    if well && !verbose {
        return answer::text(StatusCode::OK, "ok");
    }
    let mut page = String::new();
    for (name, well) in &checks {
        page.push_str(&match well {
            true => format!("[+]{name} ok\n"),
            false => format!("[-]{name} failed: reason withheld\n"),
        });
    }
    if well {
        page.push_str(&format!("{endpoint} check passed\n"));
        answer::text(StatusCode::OK, page)
    } else {
        page.push_str(&format!("{endpoint} check failed\n"));
        failed(page)
    }
}

fn failed(text: String) -> Answer {
    answer::text(StatusCode::INTERNAL_SERVER_ERROR, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    async fn get(path: &str, ending: bool) -> (u16, String) {
        let request = http::Request::get(path).body(()).unwrap();
        let answer = answer(&request.into_parts().0, ending);
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn health_in_kubernetes_words() {
        assert_eq!(get("/livez", true).await, (200, "ok".to_owned()));
        assert_eq!(get("/livez/ping", false).await.0, 200);
        assert_eq!(get("/livez/other", false).await.0, 404);
        let (code, page) = get("/readyz?verbose", false).await;
        assert_eq!(code, 200);
        assert!(page.starts_with("[+]ping ok\n") && page.ends_with("readyz check passed\n"));
        let (code, page) = get("/readyz", true).await;
        assert_eq!(code, 500);
        assert!(page.contains("[-]shutdown failed"), "{page}");
    }
}
