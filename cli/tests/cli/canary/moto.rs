//! A bucket of a local S3 server, read as anybody could who has its keys.

use stepcast_tests::moto::Moto;

use crate::support::http;

/// The bucket.
pub(super) struct Bucket(Moto);

impl Bucket {
    /// A new one, or a line that says that there is no such server.
    pub(super) fn start() -> Option<Self> {
        Moto::start("nest").map(Self)
    }

    /// How a server reaches it.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT", self.address()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "testing".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "testing".to_owned()),
        ]
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.0.port())
    }

    /// What all objects are called that begin so.
    pub(super) fn names(&self, prefix: &str) -> Vec<String> {
        let path = format!("/nest?list-type=2&prefix={prefix}");
        let (status, text) = http(&self.address(), "GET", &path, None, None);
        assert_eq!(status, 200, "{text}");
        assert!(
            text.contains("<IsTruncated>false"),
            "there are more than one page"
        );
        let keys = text.split("<Key>").skip(1);
        keys.filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned()))
            .collect()
    }

    /// The bytes of an object.
    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        http(&self.address(), "GET", &format!("/nest/{name}"), None, None)
            .1
            .into_bytes()
    }
}
