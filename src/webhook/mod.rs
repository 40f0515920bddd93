//! The way in: limits, signature, replay window, and Buildkite's JSON.

pub mod payload;
pub mod secrets;
pub mod signature;
