//! Why a call has failed, in words for people. Whoever calls another process may ask.

use std::error::Error;

use tonic::Status;

/// What the other side said, or what the connection met, or the code when there is nothing else.
pub fn reason(status: &Status) -> String {
    match status.source() {
        Some(error) => cause(error).to_string(),
        None if status.message().is_empty() => status.code().to_string(),
        None => status.message().to_owned(),
    }
}

/// The innermost cause: the outer ones say only "transport error" or "http2 error".
pub fn cause<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut innermost = error;
    while let Some(inner) = innermost.source() {
        innermost = inner;
    }
    innermost
}
