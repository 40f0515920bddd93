//! A simulated CI day on real servers: what `kitepush demo` shows, and what the tests play.

pub mod history;
