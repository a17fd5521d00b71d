//! How to reach the tests' S3 server, or the proxy before it that fails.

use crate::StoreConfig;

/// The bucket of the tests.
pub(crate) const BUCKET: &str = "bench";

/// Tables under `s3://bench/records` at a server on this port.
pub(crate) fn config(port: u16) -> StoreConfig {
    let mut config = StoreConfig::at("s3://bench/records");
    config.s3.endpoint = Some(format!("http://127.0.0.1:{port}"));
    config.s3.region = Some("us-east-1".into());
    config.s3.access_key_id = Some("testing".into());
    config.s3.secret_access_key = Some("testing".into());
    config.s3.allow_http = true;
    config
}
