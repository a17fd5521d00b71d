//! Where the tables lie: a folder, a bucket of any S3-like store with conditional writes, or memory.

mod counted;
mod folder;
mod patient;
mod requests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ClientConfigKey, ObjectStore, RetryConfig};
use std::time::Duration;
use url::Url;

use crate::error::Error;
use counted::Counted;
use folder::Folder;
pub(crate) use folder::remove_unfinished;
use patient::Patient;
pub use requests::Requests;

/// A request that takes longer is given up; a healthy store answers small requests in well under a second.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// A request that puts a large object is given up after so long: the largest that a compaction makes gets through at two
/// megabits a second.
const LARGE_TIMEOUT: Duration = Duration::from_secs(300);
/// A store that does not accept a connection by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request is tried so often before the caller hears of it; the caller has its own, slower, retry.
const REQUEST_RETRIES: usize = 3;

/// How the store's client lets an operator write yes.
const YES: [&str; 5] = ["true", "1", "on", "yes", "y"];

/// Where the tables lie and how to reach them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// `file:///folder`, a plain path, `s3://bucket/prefix`, or `memory:///` for tests.
    pub location: String,
    /// Only read for `s3://`.
    pub s3: S3Options,
}

/// How to reach an S3-like store. What is absent is taken from the usual `AWS_*` environment.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct S3Options {
    /// The address of the store, such as `https://<account>.r2.cloudflarestorage.com`.
    pub endpoint: Option<String>,
    /// The region; `auto` for R2.
    pub region: Option<String>,
    /// The public half of the credential.
    pub access_key_id: Option<String>,
    /// The secret half of the credential.
    pub secret_access_key: Option<String>,
    /// The token of a temporary credential.
    pub session_token: Option<String>,
    /// Whether `http://` is allowed. Only for a store on the same machine.
    pub allow_http: bool,
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "hidden");
        f.debug_struct("S3Options")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("access_key_id", &hidden(&self.access_key_id))
            .field("secret_access_key", &hidden(&self.secret_access_key))
            .field("session_token", &hidden(&self.session_token))
            .field("allow_http", &self.allow_http)
            .finish()
    }
}

impl StoreConfig {
    /// Tables in this folder.
    #[must_use]
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self::at(path.into().to_string_lossy())
    }

    /// Tables in the memory of this process, gone with it.
    #[must_use]
    pub fn memory() -> Self {
        Self::at("memory:///")
    }

    /// Tables at a location, with what the environment says about how to reach it.
    pub fn at(location: impl Into<String>) -> Self {
        Self {
            location: location.into(),
            s3: S3Options::default(),
        }
    }

    /// The store that the location names, for what others keep in one beside the tables, and the prefix in it.
    ///
    /// # Errors
    /// [`Error::Config`] when the location or an option is wrong.
    pub fn object_store(&self) -> Result<(Arc<dyn ObjectStore>, Path), Error> {
        let (store, url) = self.open()?;
        let prefix = Path::from_url_path(url.path());
        let prefix = prefix
            .map_err(|error| Error::Config(format!("the store's location is wrong: {error}")))?;
        Ok((store, prefix))
    }

    /// The store, rooted where its addresses are, and the address of the prefix with a slash at its end.
    pub(crate) fn open(&self) -> Result<(Arc<dyn ObjectStore>, Url), Error> {
        let url = self.url()?;
        let store: Arc<dyn ObjectStore> = match url.scheme() {
            "file" => {
                let no_host = |()| Error::Config("a file location has no host".into());
                url.to_file_path().map_err(no_host)?;
                // Folders are made by the first write, so a disk that is not there yet is no reason not to start.
                Arc::<Folder>::default()
            }
            "memory" => Arc::new(InMemory::new()),
            "s3" => {
                let [usual, patient] = [REQUEST_TIMEOUT, LARGE_TIMEOUT]
                    .map(|wait| self.s3_store(&url, wait).map(|store| Arc::new(store) as _));
                Arc::new(Patient::new(usual?, patient?))
            }
            other => {
                return Err(Error::Config(format!(
                    "a store is file://, s3:// or memory://, not {other}://"
                )));
            }
        };
        let store: Arc<dyn ObjectStore> = Counted::new(store, Requests::of_process());
        Ok((store, url))
    }

    fn url(&self) -> Result<Url, Error> {
        let wrong = |what: String| Error::Config(format!("the store's location is wrong: {what}"));
        let mut url = if self.location.contains("://") {
            Url::parse(&self.location).map_err(|error| wrong(error.to_string()))?
        } else {
            let path = std::path::absolute(&self.location);
            let path = path.map_err(|error| wrong(error.to_string()))?;
            Url::from_directory_path(path).map_err(|()| wrong("not a path".into()))?
        };
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        // The library of the tables' log decodes an address once more than it was encoded.
        let hexadecimal = |rest: &str| {
            let two = rest.as_bytes().get(..2);
            two.is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
        };
        if url.path().split("%25").skip(1).any(hexadecimal) {
            return Err(wrong(
                "a `%` with two hexadecimal digits behind it cannot be told from a letter that is written so: choose another name"
                    .into(),
            ));
        }
        Ok(url)
    }

    fn s3_store(&self, url: &Url, wait: Duration) -> Result<impl ObjectStore + use<>, Error> {
        let bucket = url.host_str();
        let bucket = bucket.ok_or_else(|| Error::Config("write s3://bucket/prefix".into()))?;
        let bounded = |key, wait: Duration| {
            (
                AmazonS3ConfigKey::Client(key),
                format!("{} seconds", wait.as_secs()),
            )
        };
        // One by one, so that what the environment says about the client, such as a proxy, stays.
        let waits = [
            bounded(ClientConfigKey::Timeout, wait),
            bounded(ClientConfigKey::ConnectTimeout, CONNECT_TIMEOUT),
        ];
        let builder = waits
            .into_iter()
            .fold(AmazonS3Builder::from_env(), |builder, (key, wait)| {
                builder.with_config(key, wait)
            });
        let mut builder = builder
            .with_bucket_name(bucket)
            .with_retry(RetryConfig {
                max_retries: REQUEST_RETRIES,
                retry_timeout: REQUEST_TIMEOUT,
                ..RetryConfig::default()
            })
            .with_conditional_put(S3ConditionalPut::ETagMatch);
        let S3Options {
            endpoint, region, ..
        } = &self.s3;
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = region {
            builder = builder.with_region(region);
        }
        if let Some(key) = &self.s3.access_key_id {
            builder = builder.with_access_key_id(key);
        }
        if let Some(secret) = &self.s3.secret_access_key {
            builder = builder.with_secret_access_key(secret);
        }
        if let Some(token) = &self.s3.session_token {
            builder = builder.with_token(token);
        }
        if self.s3.allow_http {
            builder = builder.with_allow_http(true);
        }
        check_encrypted(&builder)?;
        let wrong = |error| Error::Config(format!("the store's options are wrong: {error}"));
        builder.build().map_err(wrong)
    }
}

/// Refuses an endpoint to which no request would go, which is otherwise found out only by the first of them.
fn check_encrypted(builder: &AmazonS3Builder) -> Result<(), Error> {
    let endpoints = [AmazonS3ConfigKey::Endpoint, AmazonS3ConfigKey::S3Endpoint];
    let plain = endpoints.iter().any(|key| {
        let endpoint = builder.get_config_value(key);
        endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
    });
    let allowed = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
    let allowed = builder.get_config_value(&allowed).unwrap_or_default();
    if plain && !YES.contains(&allowed.to_ascii_lowercase().as_str()) {
        return Err(Error::Config(
            "the store's endpoint is plain http://; use https://, or set AWS_ALLOW_HTTP=true where nobody listens in"
                .into(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_become_addresses_with_a_slash() {
        let url = |location: &str| StoreConfig::at(location).url().map(|url| url.to_string());
        assert_eq!(url("s3://bench").expect("url"), "s3://bench/");
        assert_eq!(url("s3://bench/a/b").expect("url"), "s3://bench/a/b/");
        assert_eq!(url("file:///var/lib/x").expect("url"), "file:///var/lib/x/");
        assert_eq!(url("/var/lib/x y").expect("url"), "file:///var/lib/x%20y/");
        assert!(url("s3://bad host/").is_err());
        assert_eq!(url("/x/50%off").expect("url"), "file:///x/50%25off/");
        for twice in ["/x/b%20c", "/x/%2F", "s3://bench/a%2520b"] {
            let refused = url(twice).expect_err(twice).to_string();
            assert!(refused.contains("choose another name"), "{refused}");
        }
    }

    #[test]
    fn other_stores_are_refused_in_words() {
        let error = StoreConfig::at("ftp://host/x").open().expect_err("refused");
        assert_eq!(
            error.to_string(),
            "a store is file://, s3:// or memory://, not ftp://"
        );
    }

    #[test]
    fn a_plain_endpoint_must_be_allowed() {
        let mut config = StoreConfig::at("s3://bench");
        config.s3.endpoint = Some("http://127.0.0.1:1".into());
        let error = config.open().expect_err("refused").to_string();
        assert!(error.contains("AWS_ALLOW_HTTP=true"), "{error}");
        config.s3.allow_http = true;
        config.open().expect("allowed");
    }

    #[test]
    fn secrets_are_not_shown() {
        let options = S3Options {
            access_key_id: Some("canary-id".into()),
            secret_access_key: Some("canary-secret".into()),
            session_token: Some("canary-token".into()),
            ..S3Options::default()
        };
        let config = StoreConfig {
            location: "s3://bench".into(),
            s3: options,
        };
        assert!(!format!("{config:?}").contains("canary"), "{config:?}");
    }
}
