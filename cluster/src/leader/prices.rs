//! Has the state go by what the operator's book of prices says now: from one day to another, after an import, after a start
//! with another book, and under another leader.

use std::sync::Arc;
use std::time::Duration;

use stepcast_scheduler::Command;
use stepcast_scheduler::model::Prices;

use super::context::Leader;

/// How often the book is looked at: a price that is imported here is that of jobs as soon after, and a look costs less than a
/// millisecond.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Between two tries to write down what the book says, before anything is placed.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// The format of the log that knows the operator's prices.
const SINCE_FORMAT: u16 = 3;

/// Looks at the book until the leadership ends.
pub(crate) async fn run(leader: Arc<Leader>) {
    loop {
        leader.runtime.sleep(LOOK_EVERY).await;
        // What is not taken now is found by the next look.
        let _ = follow(&leader).await;
    }
}

/// Returns once the state goes by the book, if anything is known of it: what is placed before would run at another price, or
/// for nothing.
pub(crate) async fn settle(leader: &Leader) {
    while !follow(leader).await {
        leader.runtime.sleep(TRY_AGAIN).await;
    }
}

/// Proposes what the book says if that is news; whether the state goes by it now.
async fn follow(leader: &Leader) -> bool {
    let Some(prices) = news(leader) else {
        return true;
    };
    let count = prices.len();
    let proposed = leader.proposer.propose(Command::SetPrices { prices }, None);
    match proposed.await {
        Ok(_) => {
            tracing::info!(count, "the operator's prices are others");
            true
        }
        // It is tried again at once, and what keeps it from being taken keeps all else from it and is told there.
        Err(error) => {
            tracing::debug!(%error, "it was not written down what the operator's prices are");
            false
        }
    }
}

/// What the book says, where the state goes by something else and can go by it.
fn news(leader: &Leader) -> Option<Prices> {
    let prices = leader.ports.prices.prices(leader.proposer.now_ms())?;
    let is_news = leader
        .replicated
        .read(|state| state.format() >= SINCE_FORMAT && *state.prices() != prices);
    is_news.then_some(prices)
}
