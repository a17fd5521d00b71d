//! Endpoints on loopback that speak real TLS with each other.
