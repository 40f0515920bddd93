//! kitepush receives Buildkite's signed webhooks, counts what happened and pushes the counts to a Prometheus
//! Pushgateway, so that nothing ever has to scrape a CI host.
//!
//! # A map of the code
//!
//! Data moves one way:
//!
//! ```text
//! Buildkite ── POST /webhook ─▶ webhook ─ Event ─▶ ledger ─ Delta ─▶ metrics ─ MetricFamily ─▶ push, admin
//! ```
//!
//! | room | owns | knows |
//! |---|---|---|
//! | [`event`] | what happened, in our own types | nothing of ours |
//! | [`config`] | every key: loading, defaults, validation, redacted printing | nothing of ours |
//! | [`listener`] | sockets in: accept, TLS, bounds and deadlines around every connection | HTTP, nothing of webhooks |
//! | [`webhook`] | the door's guards, signature, replay window, Buildkite's JSON → [`event::Event`] | HTTP and Buildkite, nothing of metrics |
//! | [`ledger`] | each delivery counts once, whatever the order; the writer and its store | events, no HTTP |
//! | [`metrics`] | the catalogue, labels, series, encoding | deltas, no HTTP |
//! | [`push`] | the loop, the Pushgateway, the HTTP client and its credentials | HTTP and the Pushgateway, nothing of Buildkite |
//! | [`admin`] | `/metrics`, `/healthz`, `/readyz` | what the others say of themselves |
//! | [`tls`], [`reload`] | the listeners' certificates; files that change while the process runs | files |
//! | [`app`] | wiring, start, and stop in order under one deadline | everything |
//! | [`cli`] | the commands | [`app`] and what it wires |
//! | [`demo`] | a simulated CI day on real servers | only what a user could: HTTP |
//!
//! Invariants: a `200` means committed; the ledger's rules do no I/O and take `now` as an argument; a pushed total is a
//! committed total; one TLS provider; no label value reaches a series without passing the one gate in [`metrics`].
//!
//! Absent on purpose: several replicas on one ledger, remote write, backfill through Buildkite's REST API.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod event;
pub mod health;
pub mod ledger;
pub mod listener;
pub mod metrics;
pub mod push;
pub mod reload;
pub mod telemetry;
pub mod tls;
pub mod webhook;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The revision that this build was made of, from `KITEPUSH_REVISION` at compile time.
pub const REVISION: &str = match option_env!("KITEPUSH_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};
