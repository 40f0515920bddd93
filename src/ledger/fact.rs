//! What has been counted, as rows that are only ever added: the memory of "exactly once".

use std::hash::{Hash, Hasher};

use super::entity::Entity;
use crate::event::Timestamp;

/// Counting rules that one row can stand for, as bits; the numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules(pub u16);

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $word:literal;)*) => {
        impl Rules {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            /// The rules of a row in words.
            pub fn words(self) -> impl Iterator<Item = &'static str> {
                [$((Self::$name, $word)),*].into_iter().filter(move |(rule, _)| self.contains(*rule)).map(|(_, word)| word)
            }
        }
    };
}

rules! {
    /// Counted as scheduled.
    SCHEDULED = 0, "scheduled";
    /// Counted as started; of builds once per `started_at`.
    STARTED = 1, "started";
    /// Counted as finished; of builds once per state and `finished_at`.
    FINISHED = 2, "finished";
    /// Counted as activated.
    ACTIVATED = 3, "activated";
    /// Counted as a promised exit status.
    PROMISED = 4, "promised";
    /// Wait observed; of builds once per `started_at`.
    WAIT = 5, "wait";
    /// Counted as a retry.
    RETRY = 6, "retry";
    /// Counted as a rebuild.
    REBUILT = 7, "rebuilt";
    /// Counted as skipped.
    SKIPPED = 8, "skipped";
    /// Counted as a start that never arrived; of builds once per `started_at`.
    MISSING = 9, "start missing";
    /// Counted as failing, once per `failing_at`.
    FAILING = 10, "failing";
    /// A finish without a `finished_at`: [`Fact::at`] is the newest time of its body instead.
    UNTIMED = 11, "without finished_at";
    /// Nothing new was counted, but the record's age starts anew.
    SEEN = 12, "seen again";
    /// Somebody unblocked the build at that time.
    UNBLOCKED = 13, "unblocked";
    /// Its end stands at that time: of a stale end, or because no end arrived until the entry expired.
    ENDED = 14, "taken as ended";
    /// An agent's transition or a refused registration, once per body.
    AGENT = 15, "agent event";
}

impl Rules {
    /// Whether all bits of `rule` are set.
    pub const fn contains(self, rule: Self) -> bool {
        self.0 & rule.0 == rule.0
    }

    /// Sets the bits of `rule`.
    pub const fn insert(&mut self, rule: Self) {
        self.0 |= rule.0;
    }

    /// Without the bits of `rule`.
    pub const fn without(self, rule: Self) -> Self {
        Self(self.0 & !rule.0)
    }

    /// Whether no bit is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// One row: what was counted for an entity by one event.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// Build, job or agent.
    pub entity: Entity,
    /// What was counted.
    pub rules: Rules,
    /// The time that the rules are keyed by: `started_at`, `failing_at`, `finished_at`, …
    pub at: Option<Timestamp>,
    /// Of a finish: the entity's `started_at`.
    pub started_at: Option<Timestamp>,
    /// The state that a finish was counted with, or the agent event and the hash of its body.
    pub word: Option<Box<str>>,
    /// Arrival.
    pub counted_at: Timestamp,
}

/// A key of a rule that can apply to one id more than once, in 64 bits. Two keys of the same id collide once in 2^64.
pub fn fingerprint(rule: Rules, at: Option<Timestamp>, word: &str) -> u64 {
    #[expect(deprecated, reason = "the same for the life of a process, and cheaper than a keyed one")]
    let mut hasher = std::hash::SipHasher::new();
    (rule, at, word).hash(&mut hasher);
    hasher.finish()
}
