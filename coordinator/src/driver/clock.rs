//! The farm's time: it follows the system's clock, but neither stands still nor leaps when that is set anew.
//!
//! Leases, waits and ages are all held against it. A system clock that steps back by two hours would keep a dead node's
//! frames for as long, and one that leaps ahead would end every lease at once.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::farm::Timestamp;

/// Between these, a system clock can be right: 2024 and 2100.
const EARLIEST: Duration = Duration::from_secs(1_704_067_200);
const LATEST: Duration = Duration::from_secs(4_102_444_800);

/// The farm's time runs at least at half and at most at one and a half times the pace of real time.
const SLACK: u32 = 2;

/// A clock of this process, from its start on.
#[derive(Debug)]
pub struct Clock {
    /// Since the Unix epoch, when it was last read.
    time: Duration,
    read: Instant,
}

/// The system's clock cannot be right.
#[derive(Debug, thiserror::Error)]
#[error(
    "this host's clock says {} s since 1970, which is not between 2024 and 2100; set it, and let a time service keep it",
    since.as_secs()
)]
pub struct ClockError {
    since: Duration,
}

impl Clock {
    /// # Errors
    /// When the system's clock cannot be right.
    pub fn start() -> Result<Self, ClockError> {
        let since = system();
        if is_plausible(since) {
            Ok(Self { time: since, read: Instant::now() })
        } else {
            Err(ClockError { since })
        }
    }

    pub(super) fn now(&mut self) -> Timestamp {
        let read = Instant::now();
        self.advance(read.duration_since(self.read), system());
        self.read = read;
        Timestamp(self.time.as_millis() as u64)
    }

    /// So much real time has passed, and the system's clock says `system`.
    fn advance(&mut self, passed: Duration, system: Duration) {
        let (least, expected) = (self.time + passed / SLACK, self.time + passed);
        let most = expected + passed / SLACK;
        self.time = if is_plausible(system) { system.clamp(least, most) } else { expected };
    }
}

fn is_plausible(since: Duration) -> bool {
    (EARLIEST..LATEST).contains(&since)
}

fn system() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const START: Duration = Duration::from_secs(1_800_000_000);

    #[test]
    fn a_clock_that_is_set_anew_is_followed_without_a_leap() {
        let mut clock = Clock { time: START, read: Instant::now() };
        let second = Duration::from_secs(1);
        clock.advance(second, START + second);
        assert_eq!(clock.time, START + second);
        // Two hours ahead: everything that waits comes at most half as much sooner.
        let mut system = START + second + 2 * HOUR;
        for _ in 0..20 {
            system += second;
            let before = clock.time;
            clock.advance(second, system);
            assert_eq!(clock.time, before + second * 3 / 2);
        }
        // Two hours back, and on.
        system -= 4 * HOUR;
        let before = clock.time;
        clock.advance(second, system);
        assert_eq!(clock.time, before + second / 2);
        // In the end both agree.
        for _ in 0..5 * 3_600 {
            system += second;
            clock.advance(second, system);
        }
        assert_eq!(clock.time, system);
    }

    #[test]
    fn a_clock_that_cannot_be_right_is_not_followed() {
        let mut clock = Clock { time: START, read: Instant::now() };
        for system in [Duration::ZERO, LATEST, START * 1_000] {
            let before = clock.time;
            clock.advance(HOUR, system);
            assert_eq!(clock.time, before + HOUR);
        }
    }
}
