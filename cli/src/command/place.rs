//! Where others reach the servers: what somebody on another host is told to call.

use super::cluster;
use crate::client::Client;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::output::shell::quoted;
use crate::output::style::{Mark, Tone};

/// Where somebody else reaches the servers.
pub(super) struct Place {
    /// Their addresses, separated by commas.
    servers: String,
    /// The certificate authority to trust, where the system knows none.
    ca_file: Option<String>,
    /// Whether nobody reaches them but from this host.
    here_only: bool,
}

impl Place {
    /// The addresses that the nodes tell people. One that listens everywhere and was not told its own may tell none, and not
    /// everybody may ask: then it is where this call went, with a word that stands for this host's name.
    pub(super) async fn of(context: &Context, client: &Client) -> Result<Self, Failure> {
        let used = context.address()?;
        let told = cluster::addresses(client).await.unwrap_or_default();
        let here_only = !told.is_empty() && told.iter().all(|url| is_here(url));
        let servers = if told.is_empty() {
            let urls = used.server.split(',').map(str::trim);
            let urls = urls.map(|url| match is_here(url) {
                true => elsewhere(url),
                false => url.to_owned(),
            });
            urls.collect::<Vec<_>>().join(",")
        } else {
            told.join(",")
        };
        Ok(Self {
            servers,
            ca_file: used.ca_file.map(|file| file.display().to_string()),
            here_only,
        })
    }

    /// The options that name the servers.
    pub(super) fn options(&self) -> String {
        let mut options = format!("--server {}", quoted(&self.servers));
        if let Some(file) = &self.ca_file {
            options += &format!(" --ca-file {}", quoted(file));
        }
        options
    }

    /// What is copied to the other host: the file with the token, and what the options name.
    pub(super) const fn copies(&self) -> &'static str {
        match &self.ca_file {
            Some(_) => "with copies of both files",
            None => "with a copy of the file",
        }
    }

    /// Says that another host does not reach them, where it is so.
    pub(super) fn tell_if_here_only(&self, output: &Output) {
        if self.here_only {
            output.marked(
                Mark::Look,
                Tone::Warn,
                format!(
                    "{} is reached from this host alone: for others start the server with `--listen 0.0.0.0:7070`",
                    self.servers
                ),
            );
        }
    }
}

/// Whether an address is of loopback.
fn is_here(url: &str) -> bool {
    let host = host(url);
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The same address with a word for the host, to be put in.
fn elsewhere(url: &str) -> String {
    let host = host(url);
    match host.contains(':') {
        true => url.replacen(&format!("[{host}]"), "HOST", 1),
        false => url.replacen(host, "HOST", 1),
    }
}

fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or(rest);
    match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(host, _)| host),
        None => rest.split_once(':').map_or(rest, |(host, _)| host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_put_in_a_name_for_an_address_of_this_host() {
        for (url, is, elsewhere_is) in [
            ("https://127.0.0.1:7070", true, "https://HOST:7070"),
            ("http://[::1]:7070", true, "http://HOST:7070"),
            ("https://localhost:7070/", true, "https://HOST:7070/"),
        ] {
            assert_eq!(is_here(url), is, "{url}");
            assert_eq!(elsewhere(url), elsewhere_is);
        }
        for url in [
            "https://n1.example.org:7070",
            "https://10.0.0.1:7070",
            "http://[fd00::1]:7070",
        ] {
            assert!(!is_here(url), "{url}");
        }
    }
}
