//! What an operator may choose about the front door.

use std::sync::Arc;
use std::time::Duration;

use stepcast_proto::certificate::Shown;

use crate::auth::AccessToken;

/// How the front door is opened. [`ApiConfig::default`] is for one machine alone: loopback, without TLS or a token.
#[derive(Debug, Clone, Default)]
pub struct ApiConfig {
    /// What people must show. Without it the server listens on loopback only.
    pub access_token: Option<AccessToken>,
    /// The certificate to answer with. Without it the server listens on loopback only.
    pub tls: Option<Arc<Shown>>,
    /// Whether plain text is allowed on an address that others can reach, for a server behind a proxy that speaks TLS.
    pub allow_plaintext: bool,
    /// Whose contributions the records hold.
    pub privacy_mode: PrivacyMode,
    /// Where every node of the cluster keeps the benchmark tables; empty for a folder of this node alone.
    pub store: String,
    /// The same of the files of jobs.
    pub staging: String,
    /// How many connections there may be.
    pub connections: Connections,
}

/// How many connections people and workers may have, and for how long those that show no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// All at once. People and workers have one each; what is beyond waits in the kernel until another ends.
    pub at_once: usize,
    /// Those of one address, or network of IPv6 with 64 bits, on which no good token was shown yet. Many people and workers
    /// may come by one; the eldest is closed for the next.
    pub of_address: usize,
    /// One on which no token was shown ends so long after the last call that was let in, or after it came.
    pub stranger_within: Duration,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            at_once: 16_384,
            of_address: 4_096,
            stranger_within: Duration::from_secs(60),
        }
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
