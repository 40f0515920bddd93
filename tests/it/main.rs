//! What only real servers can show: Debian's Pushgateway and Prometheus, on free loopback ports.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod push;
mod push_credentials;
mod push_tls;
mod support;
