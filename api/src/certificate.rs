//! The certificate that a server's ports show: its operator's, or one that vouches for itself.

mod own;

use stepcast_proto::certificate::{Error as ShowError, Shown};
use stepcast_records::metrics::{Exposition, Metric};

pub use self::own::{Own, own};
use crate::server::Error;

/// What a connection may be: HTTP/2, as gRPC is, or HTTP/1.1.
pub(crate) const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

const END: Metric = Metric::gauge(
    "stepcast_certificate_end_timestamp_seconds",
    "When the certificate that is shown ends, in seconds since 1970.",
);

impl From<ShowError> for Error {
    fn from(error: ShowError) -> Self {
        match error {
            ShowError::Unreadable { path, source } => Self::Certificate { path, source },
            ShowError::Unusable(error) => Self::Tls(error),
        }
    }
}

/// What is told of a certificate; nothing where it does not say when it ends.
pub(crate) fn metrics_text(shown: &Shown) -> String {
    let mut text = Exposition::default();
    if let Some(end) = shown.end() {
        text.one(&END, end.unix_seconds());
    }
    text.into_text()
}
