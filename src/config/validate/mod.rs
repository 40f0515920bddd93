//! What the types cannot say: ranges, contradictions, and what is possible but unwise.

mod counting;
mod door;
mod policy;
mod push;

use std::fmt::Display;
use std::time::Duration;

use super::scalar::duration;
use super::{Config, Policy, Problem, Warning};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Everything that must be mended before a start.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut found = Findings::default();
    door::server(config, &mut found);
    door::admin(&config.admin, &mut found);
    door::auth(&config.auth, &mut found);
    counting::state(config, &mut found);
    counting::labels(config, &mut found);
    counting::families(config, &mut found);
    push::push(&config.push, &mut found);
    if config.policy == Policy::Strict {
        for unwise in policy::unwise(config) {
            found.add(unwise.key, format!("{}; policy strict refuses it: {}", unwise.what, unwise.instead));
        }
    }
    found.0
}

/// What a start only mentions.
pub(super) fn warnings(config: &Config) -> Vec<Warning> {
    let mut found = Findings::default();
    door::warnings(config, &mut found);
    counting::warnings(config, &mut found);
    push::warnings(&config.push, &mut found);
    if config.policy == Policy::Relaxed {
        for unwise in policy::unwise(config) {
            found.add(unwise.key, format!("{}; {}", unwise.what, unwise.instead));
        }
    }
    found.0
}

/// Problems, or warnings, as they are found.
#[derive(Default)]
struct Findings(Vec<Problem>);

impl Findings {
    fn add(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem::new(key, message));
    }

    fn duration(&mut self, key: &str, value: Duration, least: Duration, most: Duration) {
        if value < least {
            self.add(key, format!("must be at least {}, is {}", duration(least), duration(value)));
        } else if value > most {
            self.add(key, format!("must be at most {}, is {}", duration(most), duration(value)));
        }
    }

    fn number<T: PartialOrd + Display>(&mut self, key: &str, value: T, least: T, most: T) {
        if value < least {
            self.add(key, format!("must be at least {least}, is {value}"));
        } else if value > most {
            self.add(key, format!("must be at most {most}, is {value}"));
        }
    }

    /// A text that becomes part of a request or of a label.
    fn text(&mut self, key: &str, value: &str, most_bytes: usize) {
        if value.is_empty() {
            self.add(key, "must not be empty");
        } else if value.chars().any(char::is_control) {
            self.add(key, "must not contain control characters");
        } else if value.len() > most_bytes {
            self.add(key, format!("must be at most {most_bytes} bytes, is {}", value.len()));
        }
    }

    /// At most one of two, and at least one when `required`.
    fn one_of(&mut self, section: &str, required: Required, [(a, has_a), (b, has_b)]: [(&str, bool); 2]) {
        if has_a && has_b {
            self.add(format!("{section}.{b}"), format!("excludes {section}.{a}; keep one of them"));
        } else if !has_a && !has_b && required == Required::Yes {
            self.add(format!("{section}.{b}"), format!("is missing; set it, or {section}.{a}"));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Required {
    Yes,
    No,
}
