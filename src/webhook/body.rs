//! The raw body: read as a stream, under one limit while reading.

use actix_web::web::{Bytes, BytesMut, Payload};
use futures_util::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::refusal::Refusal;

/// Bytes that every request may hold: real bodies have 0.75 to 6 KB, and `max_connections` of this size are bearable.
const COMMON: usize = 64 << 10;
/// Bytes that all longer bodies may hold together, at least.
const SHARED: usize = 32 << 20;

/// Room for bodies longer than common. A sender of long ones waits for nobody and takes nothing from the short ones.
#[derive(Debug)]
pub struct Room {
    /// In KiB.
    shared: Semaphore,
    limit: usize,
}

impl Room {
    /// For bodies up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { shared: Semaphore::new(SHARED.max(2 * limit) >> 10), limit }
    }

    /// Reads a body to its end. `declared` is its `Content-Length`: what is longer than the limit is refused unread.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooLarge`], [`Refusal::Broken`], or [`Refusal::Overloaded`] when there is no room for another long one.
    pub async fn read(&self, mut payload: Payload, declared: Option<u64>) -> Result<Bytes, Refusal> {
        if declared.is_some_and(|length| length > self.limit as u64) {
            return Err(Refusal::TooLarge);
        }
        // Most bodies arrive in one piece, which then needs no copy.
        let Some(first) = next(&mut payload).await? else { return Ok(Bytes::new()) };
        let Some(second) = next(&mut payload).await? else { return self.fits(first.len()).map(|()| first) };
        // Grows with what arrives, not to what was declared: a promise must not cost memory.
        let mut body = BytesMut::with_capacity(first.len() + second.len());
        let mut taken = None;
        let mut piece = Some(first);
        let mut following = Some(second);
        while let Some(bytes) = piece {
            self.fits(body.len() + bytes.len())?;
            if taken.is_none() && body.len() + bytes.len() > COMMON {
                taken = Some(self.take()?);
            }
            body.extend_from_slice(&bytes);
            piece = match following.take() {
                Some(bytes) => Some(bytes),
                None => next(&mut payload).await?,
            };
        }
        drop(taken);
        Ok(body.freeze())
    }

    fn fits(&self, length: usize) -> Result<(), Refusal> {
        if length > self.limit { Err(Refusal::TooLarge) } else { Ok(()) }
    }

    /// Room for the longest body: nobody knows yet how long this one gets.
    fn take(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        let kibibytes = u32::try_from(self.limit >> 10).unwrap_or(u32::MAX);
        self.shared.try_acquire_many(kibibytes).map_err(|_| Refusal::Overloaded)
    }
}

async fn next(payload: &mut Payload) -> Result<Option<Bytes>, Refusal> {
    payload.next().await.transpose().map_err(|_| Refusal::Broken)
}
