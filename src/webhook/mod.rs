//! The way in: limits, signature, replay window, and Buildkite's JSON.

pub mod body;
pub mod claim;
pub mod door;
pub mod handler;
pub mod payload;
pub mod reasons;
pub mod refusal;
pub mod secrets;
pub mod signature;
