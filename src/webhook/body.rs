//! The raw body: read as a stream, under one limit while reading.

use actix_web::web::{Bytes, Payload};
use futures_util::StreamExt;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::refusal::Refusal;

/// Bytes that every request may hold: real bodies have 0.75 to 6 KB, and `max_connections` of this size are bearable.
const COMMON: usize = 16 << 10;
/// Bytes that all bodies may hold beyond that together, at least.
const SHARED: usize = 32 << 20;
/// A body grows in steps of so many bytes, and pays for each before it takes it.
const STEP: usize = 16 << 10;

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
        // Grows with what arrives, not to what was declared: a promise must not cost memory, nor take it from others.
        let mut body = Vec::new();
        let mut taken = None;
        let mut pieces = [Some(first), Some(second)].into_iter().flatten();
        let mut piece = pieces.next();
        while let Some(bytes) = piece {
            let length = body.len() + bytes.len();
            self.fits(length)?;
            if length > body.capacity() {
                let capacity = length.next_multiple_of(STEP);
                self.take(capacity, &mut taken)?;
                body.reserve_exact(capacity - body.len());
            }
            body.extend_from_slice(&bytes);
            piece = match pieces.next() {
                Some(bytes) => Some(bytes),
                None => next(&mut payload).await?,
            };
        }
        drop(taken);
        Ok(body.into())
    }

    fn fits(&self, length: usize) -> Result<(), Refusal> {
        if length > self.limit { Err(Refusal::TooLarge) } else { Ok(()) }
    }

    /// Room for a body of `capacity` bytes, beside what was `taken` for it before.
    fn take<'r>(&'r self, capacity: usize, taken: &mut Option<SemaphorePermit<'r>>) -> Result<(), Refusal> {
        let held = taken.as_ref().map_or(0, SemaphorePermit::num_permits);
        let missing = (capacity.saturating_sub(COMMON) >> 10).saturating_sub(held);
        if missing > 0 {
            let missing = u32::try_from(missing).unwrap_or(u32::MAX);
            let more = self.shared.try_acquire_many(missing).map_err(|_| Refusal::Overloaded)?;
            match taken {
                Some(taken) => taken.merge(more),
                None => *taken = Some(more),
            }
        }
        Ok(())
    }
}

async fn next(payload: &mut Payload) -> Result<Option<Bytes>, Refusal> {
    payload.next().await.transpose().map_err(|_| Refusal::Broken)
}
