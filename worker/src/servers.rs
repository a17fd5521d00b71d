//! The servers of a cluster as those who call them know them: which one is asked, which is the next, and whom to trust.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use tonic::transport::{Certificate, ClientTlsConfig, Uri};

/// Addresses remembered, told ones included: clusters have up to five nodes, and they move.
pub const SERVERS_MAX: usize = 16;

/// Where Linux distributions, macOS and OpenSSL keep the authorities that everybody trusts.
const SYSTEM_AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// The servers there are, each with what its caller needs to reach it. One of them is asked, and whoever is asked may say
/// where the leader is.
#[derive(Debug)]
pub struct Round<T> {
    servers: Vec<(String, T)>,
    /// The one that is asked.
    present: usize,
    /// Whose turn it was last. Hints do not move it: a server that points to one that is gone is not asked again and again
    /// while the others are not.
    turn: usize,
}

impl<T> Round<T> {
    /// These, of which the first is asked first; nothing if there are none.
    pub fn new(servers: Vec<(String, T)>) -> Option<Self> {
        (!servers.is_empty()).then_some(Self {
            servers,
            present: 0,
            turn: 0,
        })
    }

    /// What reaches the one that is asked.
    pub fn present(&self) -> &T {
        &self.servers[self.present].1
    }

    /// The address of the one that is asked.
    pub fn address(&self) -> &str {
        &self.servers[self.present].0
    }

    /// Every address that is known.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().map(|(address, _)| address.as_str())
    }

    /// How many are known, at least one.
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// This one is reached by this, and is asked from now on.
    pub fn found(&mut self, place: usize, reached_by: T) {
        if let Some((_, by)) = self.servers.get_mut(place) {
            *by = reached_by;
            (self.present, self.turn) = (place, place);
        }
    }

    /// Each is reached by what this makes for it; one for which it makes nothing, as before.
    pub fn renew(&mut self, reach: impl Fn(&str) -> Option<T>) {
        for (address, by) in &mut self.servers {
            if let Some(renewed) = reach(address) {
                *by = renewed;
            }
        }
    }

    /// Asks the next one in turn that is not the present one.
    pub fn go_round(&mut self) {
        for _ in 0..2 {
            self.turn = (self.turn + 1) % self.servers.len();
            if self.turn != self.present {
                break;
            }
        }
        self.present = self.turn;
    }

    /// Asks where the leader is said to be; the next one if that says nothing of use, or may not be called as is `spoken`
    /// ([`may_be_told`]); `reach` makes what reaches a server that was not known yet.
    pub fn follow(
        &mut self,
        hint: Option<&str>,
        spoken: Spoken,
        reach: impl FnOnce(&str) -> Option<T>,
    ) {
        let hint = hint.map(str::trim).filter(|hint| !hint.is_empty());
        let hint = hint.map(|hint| whole(hint, self.address()));
        let Some(address) = hint.filter(|hint| may_be_told(hint, self.address(), spoken)) else {
            return self.go_round();
        };
        let place = self.addresses().position(|known| known == address);
        match place {
            // The present one says that it leads and does not act like it: ask the others.
            Some(place) if place == self.present => self.go_round(),
            Some(place) => self.present = place,
            None if self.servers.len() < SERVERS_MAX => match reach(&address) {
                Some(by) => {
                    self.servers.push((address, by));
                    self.present = self.servers.len() - 1;
                }
                None => self.go_round(),
            },
            None => self.go_round(),
        }
    }
}

/// Whether this address is one that speaks TLS.
#[must_use]
pub fn is_encrypted(address: &str) -> bool {
    address.starts_with("https://")
}

/// Where servers may be called in plain text, in which secrets travel as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PlainText {
    /// On this host.
    #[default]
    ThisHost,
    /// Anywhere: something else encrypts.
    Anywhere,
}

impl PlainText {
    /// Whether a server may be called at this address.
    #[must_use]
    pub fn may_call(self, address: &str) -> bool {
        self == Self::Anywhere || is_encrypted(address) || is_this_host(address)
    }
}

/// How servers may be spoken with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spoken {
    /// Whether TLS can be: somebody is trusted.
    pub tls: bool,
    /// Where plain text may be.
    pub plain: PlainText,
}

/// Whether what is said to this address stays on this host.
fn is_this_host(address: &str) -> bool {
    let Ok(uri) = address.parse::<Uri>() else {
        return false;
    };
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip = host.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

/// An address as a person writes it, who may leave out its scheme: TLS is spoken beyond this host.
#[must_use]
pub fn named(address: &str) -> String {
    let plain = whole(address, "http://");
    match is_this_host(&plain) {
        true => plain,
        false => whole(address, "https://"),
    }
}

/// An address may leave out its scheme; it is then that of another one.
#[must_use]
pub fn whole(address: &str, like: &str) -> String {
    let address = address.trim().trim_end_matches('/');
    if address.contains("://") {
        return address.to_owned();
    }
    let scheme = if is_encrypted(like) { "https" } else { "http" };
    format!("{scheme}://{address}")
}

/// Whether a server may be called at an address that another one has told: never without encryption where that one is
/// called with it or where plain text may not be spoken, since every call carries a secret; and never with it where nobody is
/// trusted.
#[must_use]
pub fn may_be_told(address: &str, by: &str, spoken: Spoken) -> bool {
    if is_encrypted(address) {
        spoken.tls
    } else {
        !is_encrypted(by) && spoken.plain.may_call(address)
    }
}

/// Why no server's certificate can be checked.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// A file of certificates cannot be read.
    #[error("the certificate authorities in {0} cannot be read")]
    Unreadable(PathBuf, #[source] io::Error),
    /// Nobody is trusted.
    #[error(
        "no certificate authorities were found on this host; name the cluster's own (--ca-file)"
    )]
    Nobody,
}

/// Who may sign a server's certificate: the authorities that this host trusts (`SSL_CERT_FILE` names others), and the one
/// in `ca_file`.
///
/// # Errors
/// When a file cannot be read, or there is none.
pub fn trust(ca_file: Option<&Path>) -> Result<ClientTlsConfig, Untrusted> {
    let own = ca_file.map(authorities).transpose()?;
    trust_also(own.as_deref())
}

/// What a file of authorities says now.
pub fn authorities(file: &Path) -> Result<Vec<u8>, Untrusted> {
    std::fs::read(file).map_err(|error| Untrusted::Unreadable(file.to_owned(), error))
}

/// Trusts the authorities of the system and these of one's own, as a file has them.
pub fn trust_also(own: Option<&[u8]>) -> Result<ClientTlsConfig, Untrusted> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let system = SYSTEM_AUTHORITIES.map(PathBuf::from).into_iter();
    let system = named.into_iter().chain(system).find(|path| path.is_file());
    if system.is_none() && own.is_none() {
        return Err(Untrusted::Nobody);
    }
    let system = system.as_deref().map(authorities).transpose()?;
    let all = system.into_iter().chain(own.map(<[u8]>::to_vec));
    Ok(all.fold(ClientTlsConfig::new(), |tls, pem| {
        tls.ca_certificate(Certificate::from_pem(pem))
    }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const PLAIN: Spoken = Spoken {
        tls: false,
        plain: PlainText::Anywhere,
    };

    const TLS: Spoken = Spoken { tls: true, ..PLAIN };

    fn round(addresses: &[&str]) -> Round<()> {
        let servers = addresses.iter().map(|address| (whole(address, ""), ()));
        Round::new(servers.collect()).unwrap()
    }

    #[test]
    fn hints_are_followed_and_the_others_are_asked_in_turn() {
        let mut round = round(&["http://a:1/", "b:1"]);
        assert_eq!(round.address(), "http://a:1");
        let mut follow = |hint: Option<&str>| {
            round.follow(hint, PLAIN, |_| Some(()));
            round.address().to_owned()
        };
        assert_eq!(follow(Some("http://b:1/")), "http://b:1");
        assert_eq!(follow(Some("c:1")), "http://c:1");
        let disowned = follow(Some("http://c:1"));
        assert_eq!(disowned, "http://b:1", "it says it leads, and does not");
        assert_eq!(follow(None), "http://c:1");
        assert_eq!(follow(Some(" ")), "http://a:1");
        for number in 0..100 {
            follow(Some(&format!("http://n{number}:1")));
        }
        assert_eq!(round.count(), SERVERS_MAX);
    }

    #[test]
    fn one_alone_is_asked_again() {
        let mut round = round(&["a:1"]);
        round.go_round();
        round.follow(Some("a:1"), PLAIN, |_| None);
        round.follow(Some("b:1"), PLAIN, |_| None);
        assert_eq!(round.address(), "http://a:1");
    }

    #[test]
    fn a_hint_never_takes_a_secret_out_of_encryption() {
        let mut safe = round(&["https://a:1", "https://b:1"]);
        safe.follow(Some("http://c:1"), TLS, |_| Some(()));
        assert_eq!(safe.address(), "https://b:1");
        safe.follow(Some("d:1"), TLS, |_| Some(()));
        assert_eq!(safe.address(), "https://d:1");
        let mut plain = round(&["http://a:1", "http://b:1"]);
        plain.follow(Some("https://c:1"), PLAIN, |_| Some(()));
        assert_eq!(plain.address(), "http://b:1", "nobody is trusted");
    }

    #[test]
    fn plain_text_stays_on_this_host_unless_it_is_asked_for() {
        for here in [
            "http://127.0.0.1:1",
            "http://127.8.8.8",
            "http://[::1]:1",
            "http://LocalHost:1",
        ] {
            assert!(PlainText::ThisHost.may_call(here), "{here}");
        }
        for beyond in [
            "http://10.0.0.1:1",
            "http://n1:1",
            "http://localhost.example.org:1",
            "http://[fd00::1]:1",
            "http://127.0.0.1@10.0.0.1:1",
            "nonsense",
        ] {
            assert!(!PlainText::ThisHost.may_call(beyond), "{beyond}");
            assert!(PlainText::Anywhere.may_call(beyond), "{beyond}");
        }
        assert!(PlainText::ThisHost.may_call("https://10.0.0.1:1"));
        let names = [
            ("n1:1", "https://n1:1"),
            ("10.0.0.1:1/", "https://10.0.0.1:1"),
            ("[::1]:1", "http://[::1]:1"),
            ("http://n1:1", "http://n1:1"),
        ];
        for (written, meant) in names {
            assert_eq!(named(written), meant);
        }
        let mut here = round(&["http://127.0.0.1:1", "http://127.0.0.1:2"]);
        let spoken = Spoken {
            tls: false,
            plain: PlainText::ThisHost,
        };
        here.follow(Some("http://10.0.0.1:1"), spoken, |_| Some(()));
        assert_eq!(here.address(), "http://127.0.0.1:2");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let error = trust(Some(Path::new("/nowhere/authority.pem"))).unwrap_err();
        assert!(error.to_string().contains("/nowhere/authority.pem"));
    }
}
