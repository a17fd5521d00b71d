//! Pages that a browser shows: what they may ask of a server that asks nobody who they are.
//!
//! Such a server listens on loopback, where every program of its user may call. A page from elsewhere is not one of these,
//! but its browser is: it sends what a page asks for to any address, and tells where the page came from (`Origin`,
//! `Sec-Fetch-Site`; WHATWG Fetch). By a name that is made to point to loopback a page even reads the answers, so that the
//! name by which the server is called must be one of loopback's too. The same holds for gRPC: what a page may send without
//! asking is a whole call of it to who looks at the bytes alone.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use tonic::{Code, Status};

use crate::status::Refusal;

/// Names besides `localhost` that files of hosts give to loopback. Programs call by them; to a page's browser they may be
/// anybody's, where the file of its host has no such name.
const OF_HOSTS_FILES: [&str; 7] = [
    "ip6-localhost",
    "ip6-loopback",
    "localhost4",
    "localhost6",
    "localhost.localdomain",
    "localhost4.localdomain4",
    "localhost6.localdomain6",
];

/// Whether the page or the program that asks over HTTP is of this machine.
///
/// # Errors
/// `PERMISSION_DENIED` with what to do, where it is not.
pub(crate) fn check(uri: &Uri, headers: &HeaderMap) -> Result<(), Status> {
    check_called(uri, headers, is_loopback)
}

/// The same of a call of gRPC, which comes by HTTP/2: no browser speaks that in plain text, and by TLS no page is where the
/// certificate has another name. So a program may call by every name that files of hosts give to loopback.
///
/// # Errors
/// The same.
pub(crate) fn check_grpc(uri: &Uri, headers: &HeaderMap) -> Result<(), Status> {
    check_called(uri, headers, |called| {
        let of_file = |host: String| OF_HOSTS_FILES.contains(&host.to_ascii_lowercase().as_str());
        is_loopback(called) || host_of(called).is_some_and(of_file)
    })
}

fn check_called(
    uri: &Uri,
    headers: &HeaderMap,
    is_ours: impl Fn(&str) -> bool,
) -> Result<(), Status> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str());
    let called = match uri.authority() {
        Some(authority) => Some(Ok(authority.as_str())),
        None => text(header::HOST),
    };
    let is_called_rightly = called.is_none_or(|name| name.is_ok_and(is_ours));
    let of_page = text(header::ORIGIN).is_none_or(|page| {
        let host = page.ok().and_then(|page| page.split_once("://"));
        host.is_some_and(|(_, host)| is_loopback(host))
    });
    let site = text(HeaderName::from_static("sec-fetch-site"));
    // Whoever types an address, or follows a bookmark, is `none`.
    let of_site = site.is_none_or(|site| matches!(site, Ok("same-origin" | "none")));
    // A page of another port of this machine is of another site to the browser only by its name.
    let has_origin = headers.contains_key(header::ORIGIN);
    if is_called_rightly && of_page && (of_site || has_origin) {
        return Ok(());
    }
    let refusal = Refusal::new(
        Code::PermissionDenied,
        "ANOTHER_SITE",
        "this server asks nobody who they are, so it answers this machine alone and no page or name of another one",
    );
    Err(refusal
        .hint(
            "call it by 127.0.0.1 or localhost, or have it ask for tokens (`--access-token-file`)",
        )
        .into())
}

/// Whether a host, with or without a port, is loopback by an address or by the names that are nobody else's (RFC 6761).
fn is_loopback(host: &str) -> bool {
    host_of(host).is_some_and(|host| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.strip_suffix('.').unwrap_or(host);
        host.eq_ignore_ascii_case("localhost")
            || host
                .parse()
                .is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
    })
}

fn host_of(authority: &str) -> Option<String> {
    let authority = authority.parse::<Authority>().ok()?;
    Some(authority.host().to_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use axum::http::request::Parts;

    use super::*;

    fn may(headers: &[(&str, &str)]) -> bool {
        let parts = asked("/v1/jobs", headers);
        let may = check(&parts.uri, &parts.headers).is_ok();
        let may_by_grpc = check_grpc(&parts.uri, &parts.headers).is_ok();
        assert_eq!(may, may_by_grpc, "{headers:?}");
        may
    }

    fn asked(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn programs_and_pages_of_this_machine_may_ask() {
        for headers in [
            &[][..],
            &[("host", "127.0.0.1:7070")],
            &[("host", "LocalHost:7070")],
            &[("host", "[::1]:7070")],
            &[("host", "127.8.0.1")],
            &[("host", "[::ffff:127.0.0.1]:7070")],
            &[("host", "localhost.:7070")],
            &[
                ("host", "127.0.0.1:7070"),
                ("origin", "http://localhost:3000"),
            ],
            &[
                ("host", "localhost"),
                ("origin", "http://127.0.0.1:8000"),
                ("sec-fetch-site", "cross-site"),
            ],
            &[("host", "localhost"), ("sec-fetch-site", "none")],
            &[("host", "localhost"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(may(headers), "{headers:?}");
        }
    }

    #[test]
    fn pages_and_names_of_others_may_not() {
        for headers in [
            &[("host", "evil.example")][..],
            &[("host", "127.0.0.1.evil.example:7070")],
            &[("host", "localhost.evil.example")],
            &[("host", "192.168.1.5:7070")],
            &[
                ("host", "127.0.0.1:7070"),
                ("origin", "https://evil.example"),
            ],
            &[("host", "127.0.0.1:7070"), ("origin", "null")],
            &[
                ("host", "127.0.0.1:7070"),
                ("origin", "http://localhost.evil.example"),
            ],
            &[("host", "127.0.0.1:7070"), ("sec-fetch-site", "cross-site")],
            &[("host", "127.0.0.1:7070"), ("sec-fetch-site", "same-site")],
        ] {
            assert!(!may(headers), "{headers:?}");
        }
        let parts = asked("http://evil.example/v1/jobs", &[]);
        assert!(check(&parts.uri, &parts.headers).is_err(), "by HTTP/2");
        assert!(check_grpc(&parts.uri, &parts.headers).is_err());
    }

    #[test]
    fn programs_call_by_every_name_of_a_file_of_hosts_and_pages_do_not() {
        for name in OF_HOSTS_FILES {
            let parts = asked(&format!("http://{name}:7070/stepcast.v1.X/Y"), &[]);
            assert!(check_grpc(&parts.uri, &parts.headers).is_ok(), "{name}");
            assert!(check(&parts.uri, &parts.headers).is_err(), "{name}");
            let page = [("origin", &*format!("http://{name}:7070"))];
            let parts = asked("http://127.0.0.1:7070/stepcast.v1.X/Y", &page);
            assert!(check_grpc(&parts.uri, &parts.headers).is_err(), "{name}");
        }
    }
}
