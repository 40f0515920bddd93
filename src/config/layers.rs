//! Defaults ← YAML file ← environment.

/// What the `config` crate says of a value from an environment variable.
pub(super) const ENVIRONMENT: &str = "the environment";
