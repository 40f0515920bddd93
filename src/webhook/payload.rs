//! Buildkite's JSON → [`Event`].

use crate::event::{Event, ExtraSource};

/// What a configuration asks for beyond the fields that every event has.
#[derive(Clone, Debug, Default)]
pub struct Extract {
    /// `meta_data.<key>` and `env.<KEY>` sources.
    pub extra: Vec<ExtraSource>,
}

/// Why an authentic body is not an event.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Not JSON, or nested deeper than 128.
    #[error("{0}")]
    Body(String),
    /// JSON, but not a Buildkite event: the field's path and what is wrong with it.
    #[error("{path}: {message}")]
    Event {
        /// For example `build.id`.
        path: String,
        /// What is wrong and what to do.
        message: String,
    },
}

/// Parses a verified body.
///
/// # Errors
///
/// [`PayloadError`], with the path of the field.
pub fn parse(_body: &[u8], _extract: &Extract) -> Result<Event, PayloadError> {
    Err(PayloadError::Body("not yet".to_owned()))
}
