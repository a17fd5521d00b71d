//! Pages that a browser shows: what they may ask of a server that asks nobody who they are.
//!
//! Such a server listens on loopback, where every program of its user may call. A page from elsewhere is not one of these,
//! but its browser is: it sends what a page asks for to any address, and tells where the page came from (`Origin`,
//! `Sec-Fetch-Site`; WHATWG Fetch). By a name that is made to point to loopback a page even reads the answers, so that the
//! name by which the server is called must be one of loopback's too.

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderName, header};
use tonic::{Code, Status};

use crate::status::Refusal;

/// Whether the page or the program that asks is of this machine.
///
/// # Errors
/// `PERMISSION_DENIED` with what to do, where it is not.
pub(crate) fn check(parts: &Parts) -> Result<(), Status> {
    let text = |name: HeaderName| parts.headers.get(name).map(|value| value.to_str());
    let called = match parts.uri.authority() {
        Some(authority) => Some(Ok(authority.as_str())),
        None => text(header::HOST),
    };
    let is_called_rightly = called.is_none_or(|name| name.is_ok_and(is_loopback));
    let of_page = text(header::ORIGIN).is_none_or(|page| {
        let host = page.ok().and_then(|page| page.split_once("://"));
        host.is_some_and(|(_, host)| is_loopback(host))
    });
    let site = text(HeaderName::from_static("sec-fetch-site"));
    // Whoever types an address, or follows a bookmark, is `none`.
    let of_site = site.is_none_or(|site| matches!(site, Ok("same-origin" | "none")));
    // A page of another port of this machine is of another site to the browser only by its name.
    let has_origin = parts.headers.contains_key(header::ORIGIN);
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

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn may(headers: &[(&str, &str)]) -> bool {
        let mut request = Request::get("/v1/jobs");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        check(&parts).is_ok()
    }

    #[test]
    fn programs_and_pages_of_this_machine_may_ask() {
        for headers in [
            &[][..],
            &[("host", "127.0.0.1:7070")],
            &[("host", "LocalHost:7070")],
            &[("host", "[::1]:7070")],
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
        let uri = "http://evil.example/v1/jobs";
        let (parts, ()) = Request::get(uri).body(()).expect("a request").into_parts();
        assert!(check(&parts).is_err(), "by HTTP/2");
    }
}
