//! Refusals: a Status where the API server decides, plain text where on a
//! cluster the kubelet answers.

use http::StatusCode;
use http::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use portolan_api::Status;

use crate::answer::{self, Answer, Failure};

/// An answer instead of a connection; boxed, since it is large and rare.
#[derive(Debug)]
pub(super) struct Refused(Box<Answer>);

impl Refused {
    /// As the kubelet and its libraries answer.
    pub(super) fn text(code: StatusCode, message: &str) -> Self {
        let mut answer = answer::text(code, format!("{message}\n"));
        answer
            .headers_mut()
            .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Self(Box::new(answer))
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Status::bad_request(message).into()
    }

    pub(super) fn into_answer(self) -> Answer {
        *self.0
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self(Box::new(answer::status(&status)))
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        (*failure).into()
    }
}

impl From<Answer> for Refused {
    fn from(answer: Answer) -> Self {
        Self(Box::new(answer))
    }
}
