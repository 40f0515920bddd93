//! How deliveries really arrive: mostly in order, sometimes twice, sometimes late.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Indices of `count` deliveries in the order of their arrival; each at least once.
pub(super) fn disorder(count: usize, seed: u64) -> Vec<usize> {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x6b69_7465);
    let end = count as f64;
    let mut arrivals: Vec<(f64, usize)> = Vec::with_capacity(count + count / 8);
    for index in 0..count {
        let due = index as f64;
        let delay = match rng.random_range(0..100) {
            // A retry of a whole region's webhooks, at the end of the day.
            0..2 => end,
            2..5 => rng.random_range(0.0..end.max(1.0)),
            5..35 => rng.random_range(0.0..25.0),
            _ => 0.0,
        };
        arrivals.push((due + delay, index));
        let repeats = match rng.random_range(0..100) {
            0..8 => 1,
            8..9 => 2,
            _ => 0,
        };
        for _ in 0..repeats {
            let later = if rng.random() { rng.random_range(0.0..3.0) } else { rng.random_range(0.0..end.max(1.0)) };
            arrivals.push((due + delay + later, index));
        }
    }
    arrivals.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    arrivals.into_iter().map(|(_, index)| index).collect()
}
