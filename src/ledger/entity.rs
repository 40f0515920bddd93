//! What a record is about: a build, a job or an agent, by an id that is opaque to us.

use sha2::{Digest, Sha256};

/// Kind and id in 17 bytes.
///
/// Buildkite's ids are UUIDs, which are kept as they are; any other id is represented by its hash, so that a record
/// has the same size whatever was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entity(pub [u8; 17]);

/// What kind of thing an [`Entity`] is; the number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EntityKind {
    /// A build.
    Build = 1,
    /// A job.
    Job = 2,
    /// An agent.
    Agent = 3,
    /// A refused agent registration, by the hash of its body.
    Registration = 4,
}

impl EntityKind {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Job => "job",
            Self::Agent => "agent",
            Self::Registration => "registration",
        }
    }

    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Build, Self::Job, Self::Agent, Self::Registration];
}

impl Entity {
    /// From an id.
    pub fn new(kind: EntityKind, id: &str) -> Self {
        Self::from_bytes(kind, uuid_bytes(id).unwrap_or_else(|| first_half(&Sha256::digest(id).into())))
    }

    /// From the hash of a body.
    pub fn of_body(kind: EntityKind, body: &[u8; 32]) -> Self {
        Self::from_bytes(kind, first_half(body))
    }

    fn from_bytes(kind: EntityKind, id: [u8; 16]) -> Self {
        let mut bytes = [kind as u8; 17];
        bytes[1..].copy_from_slice(&id);
        Self(bytes)
    }

    /// What it is; `None` for a number that a later version stored.
    pub fn kind(&self) -> Option<EntityKind> {
        EntityKind::ALL.into_iter().find(|kind| *kind as u8 == self.0[0])
    }
}

fn first_half(hash: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    half
}

/// The 16 bytes of a UUID in its canonical form only: lower case, four hyphens. Any other spelling is another id.
fn uuid_bytes(id: &str) -> Option<[u8; 16]> {
    let text: &[u8; 36] = id.as_bytes().try_into().ok()?;
    let mut bytes = [0; 16];
    let mut digits = 0;
    for (at, byte) in text.iter().enumerate() {
        let digit = match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => continue,
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9') => byte - b'0',
            (_, b'a'..=b'f') => byte - b'a' + 10,
            _ => return None,
        };
        bytes[digits / 2] = (bytes[digits / 2] << 4) | digit;
        digits += 1;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_kept_and_any_other_spelling_is_another_id() {
        let id = "0190a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b";
        let entity = Entity::new(EntityKind::Job, id);
        assert_eq!(entity.0[..5], [2, 0x01, 0x90, 0xa1, 0xb2]);
        assert_ne!(entity, Entity::new(EntityKind::Build, id));
        assert_ne!(entity, Entity::new(EntityKind::Job, &id.to_uppercase()));
        assert_ne!(entity, Entity::new(EntityKind::Job, &id.replace('-', "0")));
        assert_eq!(Entity::new(EntityKind::Job, "x"), Entity::new(EntityKind::Job, "x"));
    }
}
