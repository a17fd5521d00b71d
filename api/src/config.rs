//! What an operator may choose about the front door.

use std::path::PathBuf;

use crate::auth::AccessToken;

/// How the front door is opened. [`ApiConfig::default`] is for one machine alone: loopback, without TLS or a token.
#[derive(Debug, Clone, Default)]
pub struct ApiConfig {
    /// What people must show. Without it the server listens on loopback only.
    pub access_token: Option<AccessToken>,
    /// The certificate to answer with. Without it the server listens on loopback only.
    pub tls: Option<Tls>,
    /// Whether plain text is allowed on an address that others can reach, for a server behind a proxy that speaks TLS.
    pub allow_plaintext: bool,
    /// Whose contributions the records hold.
    pub privacy_mode: PrivacyMode,
    /// Where every node of the cluster keeps the benchmark tables; empty for a folder of this node alone.
    pub store: String,
    /// The same of the files of jobs.
    pub staging: String,
}

/// A certificate and its key, each in a PEM file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Tls {
    /// Whether a server can show them, before anything else is begun.
    ///
    /// # Errors
    /// Which file cannot be read, or that they are no pair.
    pub fn check(&self) -> Result<(), crate::server::Error> {
        crate::certificate::server(self, &[]).map(drop)
    }
}

/// Whose contributions the records hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PrivacyMode {
    /// One organisation's: each contribution is stored at once.
    #[default]
    SingleTenant,
}

impl PrivacyMode {
    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SingleTenant => "single_tenant",
        }
    }
}
