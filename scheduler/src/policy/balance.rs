//! How work is best spread over kinds of hardware: the linear program of the shortest time, solved by its prices.
//!
//! Each piece of work takes `hours[k]` if all of it runs on kind `k`, on `width` GPUs. With `y[k]` the hours it spends
//! there, the least `horizon` is sought for which every piece is done (`sum y[k] / hours[k] = 1`), none runs on two kinds
//! at once (`sum y[k] <= horizon`) and no kind is used beyond its GPUs (`sum width * y[k] <= capacity[k] * horizon`).
//!
//! There are few kinds and many pieces, so the pieces are left to themselves: given what a GPU hour of each kind costs,
//! every piece picks its cheapest way alone, and a small program over such picks (Dantzig and Wolfe's decomposition)
//! finds the next prices. What comes out are the horizon, the prices, and how the work is spread.
//!
//! The fairest shares are the same program: a piece that must be served `hours[k]` for one unit of service gets the most
//! units a unit of time, and so does the least served of all, when the horizon of one unit is the shortest.

use super::master::Master;

/// A piece of work.
#[derive(Debug, Clone, PartialEq)]
pub struct Work {
    /// GPUs it holds while it runs.
    pub width: f64,
    /// So many equal pieces.
    pub count: f64,
    /// What all of it takes on each kind; infinite where it cannot run.
    pub hours: Vec<f64>,
}

/// How work is best spread.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Balance {
    /// The shortest time in which all of it can be done.
    pub horizon: f64,
    /// What a GPU hour of each kind is worth; with the GPUs of each kind as weights they sum to 1.
    pub prices: Vec<f64>,
    /// The time that the fullest kind is in use: the horizon, or less if the longest piece is what bounds it.
    pub busy: f64,
    /// The hours of each piece on each kind; of several equal ones, of one of them on average.
    pub shares: Vec<Vec<f64>>,
}

/// How near the best the horizon comes, as a part of it.
pub const GAP: f64 = 1e-6;

/// Tries for the horizon of work that is bound by its longest piece. Each halves the interval at least.
const TRIES_MAX: usize = 40;

/// Looks for prices in one try. The gap closes long before; if not, what was found so far is good.
const PRICES_MAX: usize = 600;

/// The best way to spread work over kinds with so many GPUs each. Work that can run nowhere is left out: it has no share.
///
/// Neither work nor capacity gives a horizon of 0.
#[must_use]
pub fn balance(work: &[Work], capacity: &[f64]) -> Balance {
    let runnable = |work: &Work| {
        let mut kinds = work.hours.iter().zip(capacity);
        kinds.any(|(hours, gpus)| hours.is_finite() && *gpus >= work.width)
    };
    let pieces: Vec<Piece> = (0..)
        .zip(work)
        .filter(|(_, work)| runnable(work))
        .map(|(index, work)| Piece::of(index, work, capacity))
        .collect();
    let mut shares = vec![vec![0.0; capacity.len()]; work.len()];
    let longest = pieces.iter().map(Piece::fastest).fold(0.0, f64::max);
    if longest <= 0.0 {
        return Balance {
            horizon: 0.0,
            prices: even(capacity),
            busy: 0.0,
            shares,
        };
    }
    let mut spread = Spread::of(&pieces, capacity, longest, None);
    let mut horizon = longest;
    if spread.time > longest {
        // Longer pieces have more ways, so the time can only fall as the horizon grows: they meet in between.
        let (mut low, mut high) = (longest, spread.time);
        let mut best = Spread::of(&pieces, capacity, high, Some(&spread.prices));
        for _ in 0..TRIES_MAX {
            if high - low <= GAP * high {
                break;
            }
            // With the best time at the upper end near that end, it is the answer; else half the way.
            let middle = f64::midpoint(low, high).max(best.time.min(high));
            let middle = if high - middle <= GAP * high {
                f64::midpoint(low, high)
            } else {
                middle
            };
            if best.time >= high * (1.0 - GAP) {
                break;
            }
            let tried = Spread::of(&pieces, capacity, middle, Some(&best.prices));
            if tried.time > middle {
                low = middle;
                high = high.min(tried.time);
                if high < tried.time {
                    continue;
                }
                best = Spread::of(&pieces, capacity, high, Some(&tried.prices));
            } else {
                high = middle;
                best = tried;
            }
        }
        horizon = high;
        spread = best;
    }
    for (pick, part) in &spread.picks {
        for (piece, way) in pieces.iter().zip(pick) {
            for (kind, hours) in way.hours() {
                shares[piece.index][kind] += part * hours;
            }
        }
    }
    Balance {
        horizon,
        prices: spread.prices,
        busy: spread.time.min(horizon),
        shares,
    }
}

/// A price for every kind, the same for all.
fn even(capacity: &[f64]) -> Vec<f64> {
    let gpus: f64 = capacity.iter().sum();
    vec![1.0 / gpus.max(1.0); capacity.len()]
}

/// Work that can run somewhere.
struct Piece {
    /// Where it stands among all work.
    index: usize,
    /// GPUs of all equal ones together.
    gpus: f64,
    /// The kinds it can run on, with what all of it takes there, the fastest first.
    kinds: Vec<(usize, f64)>,
}

/// One way to do a piece: on one kind, or on two of which the first is fast enough and the second is not.
#[derive(Clone, Copy)]
struct Way {
    first: (usize, f64),
    second: (usize, f64),
}

impl Way {
    fn hours(self) -> impl Iterator<Item = (usize, f64)> {
        [self.first, self.second].into_iter()
    }
}

impl Piece {
    fn of(index: usize, work: &Work, capacity: &[f64]) -> Self {
        let mut kinds: Vec<_> = (0..)
            .zip(work.hours.iter().copied().zip(capacity))
            .filter(|(_, (hours, gpus))| hours.is_finite() && **gpus >= work.width)
            .map(|(kind, (hours, _))| (kind, hours))
            .collect();
        kinds.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        Self {
            index,
            gpus: work.width * work.count,
            kinds,
        }
    }

    fn fastest(&self) -> f64 {
        self.kinds.first().map_or(0.0, |(_, hours)| *hours)
    }

    /// The cheapest way within a horizon.
    fn cheapest(&self, prices: &[f64], horizon: f64) -> (f64, Way) {
        let mut best = (f64::INFINITY, f64::INFINITY);
        let (kind, hours) = self.kinds[0];
        let mut way = Way {
            first: (kind, hours),
            second: (kind, 0.0),
        };
        let quick = self.kinds.iter().take_while(|(_, hours)| *hours <= horizon);
        let slow = |hours: f64| hours > horizon;
        for &(kind, hours) in quick {
            let cost = prices[kind] * hours;
            if (cost, hours) < best {
                best = (cost, hours);
                way = Way {
                    first: (kind, hours),
                    second: (kind, 0.0),
                };
            }
            for &(other, longer) in self.kinds.iter().filter(|(_, hours)| slow(*hours)) {
                // So much of it runs on the fast kind that the whole just ends in time.
                let part = (longer - horizon) / (longer - hours);
                let (here, there) = (part * hours, (1.0 - part) * longer);
                let cost = prices[kind] * here + prices[other] * there;
                if (cost, horizon) < best {
                    best = (cost, horizon);
                    way = Way {
                        first: (kind, here),
                        second: (other, there),
                    };
                }
            }
        }
        if best.0.is_infinite() {
            best.0 = prices[kind] * hours;
        }
        (best.0 * self.gpus, way)
    }
}

/// The best way to spread work so that no kind needs longer than `time`, if no piece runs longer than a horizon.
struct Spread {
    time: f64,
    prices: Vec<f64>,
    /// Ways for all pieces, each with its part.
    picks: Vec<(Vec<Way>, f64)>,
}

impl Spread {
    fn of(pieces: &[Piece], capacity: &[f64], horizon: f64, prices: Option<&[f64]>) -> Self {
        let start = prices.map_or_else(|| even(capacity), <[f64]>::to_vec);
        let (pick, load, _) = picked(pieces, &start, horizon, capacity.len());
        let mut master = Master::new(capacity, load);
        let mut picks = vec![pick];
        for _ in 0..PRICES_MAX {
            let Some((prices, time)) = master.solve() else {
                break;
            };
            let (pick, load, cost) = picked(pieces, &prices, horizon, capacity.len());
            // What the prices say can be had is a lower bound of the time.
            if cost >= time * (1.0 - GAP) {
                break;
            }
            let Some(left) = master.enter(load, picks.len()) else {
                break;
            };
            // Only what is in use is kept.
            match left {
                Some(left) => {
                    picks[left] = pick;
                    master.rename(picks.len(), left);
                }
                None => picks.push(pick),
            }
        }
        let (prices, time) = master.best();
        let parts = master.parts(picks.len());
        Self {
            time,
            prices,
            picks: picks.into_iter().zip(parts).collect(),
        }
    }
}

/// What every piece picks at prices: the ways, the GPU hours on each kind, and what it costs altogether.
fn picked(
    pieces: &[Piece],
    prices: &[f64],
    horizon: f64,
    kinds: usize,
) -> (Vec<Way>, Vec<f64>, f64) {
    let mut load = vec![0.0; kinds];
    let mut whole = 0.0;
    let mut ways = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let (cost, way) = piece.cheapest(prices, horizon);
        whole += cost;
        for (kind, hours) in way.hours() {
            load[kind] += piece.gpus * hours;
        }
        ways.push(way);
    }
    (ways, load, whole)
}

#[cfg(test)]
mod tests;
