//! kitepush from outside: real files, real sockets, and Debian's Pushgateway and Prometheus on free loopback ports.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "tests")]

mod admin;
mod attack;
mod cardinality;
mod command_line;
mod crash;
mod disk_full;
mod docs;
mod door;
mod door_tls;
mod exactly_once;
mod fixtures;
mod gateway_away;
mod hostile;
mod label_bounds;
mod label_changes;
mod label_mistakes;
mod leaks;
mod leaks_out;
mod main_job;
mod nginx;
mod prometheus_truth;
mod push;
mod push_credentials;
mod push_tls;
mod recent_builds;
mod restore;
mod rotation;
mod stalled_disk;
mod state_file;
mod stop;
mod support;
mod terminate;
mod vector;
