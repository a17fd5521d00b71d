//! What an hour on each GPU costs: looked at, and added to.

use stepcast_estimator::{Day, PriceFile};
use stepcast_proto::v1;
use stepcast_scheduler::accounts::{Action, Actor};
use tonic::Status;

use super::estimates::Estimates;
use crate::status;

/// Bytes of an imported file: some ten thousand lines, as many as a book may have.
pub(crate) const CSV_BYTES_MAX: usize = 1 << 20;

impl Estimates {
    /// Prices on a day.
    pub(crate) fn prices(
        &self,
        request: &v1::ListPricesRequest,
    ) -> Result<v1::ListPricesResponse, Status> {
        let day = match request.date.as_str() {
            "" => Day::today(),
            text => text.parse().map_err(|_| {
                status::bad_field("date", "write a day as 2026-10-01, from 1970 on")
            })?,
        };
        let book = self.0.estimator.prices();
        let lines = book.prices().iter().map(|price| {
            let counting = book.price(price.gpu, day);
            let counts = counting.is_some_and(|counting| std::ptr::eq(counting, price));
            v1::Price {
                hardware: price.gpu.slug().to_owned(),
                hardware_title: price.gpu.name().to_owned(),
                per_gpu_hour_usd_micros: price.usd_per_gpu_hour.0,
                valid_from: price.valid_from.to_string(),
                valid_until: price
                    .valid_until
                    .map_or_else(String::new, |day| day.to_string()),
                source: price.source.clone(),
                counts,
            }
        });
        Ok(v1::ListPricesResponse {
            prices: lines.filter(|line| request.all || line.counts).collect(),
            date: day.to_string(),
            version: self.0.estimator.prices_version(),
        })
    }

    /// Adds prices, in somebody's name.
    pub(crate) async fn import_prices(
        &self,
        actor: Option<Actor>,
        request: v1::ImportPricesRequest,
    ) -> Result<v1::ImportPricesResponse, Status> {
        if request.csv.len() > CSV_BYTES_MAX {
            return Err(status::bad_field(
                "csv",
                "a file of prices has at most 1 MiB",
            ));
        }
        self.0.note(actor, Action::ChangeRules, "prices").await?;
        let file = PriceFile {
            source: &request.source,
            csv: &request.csv,
            provider: &request.provider,
            spot: request.spot,
        };
        let imported = self.0.estimator.import_prices(&file).await;
        let imported = imported.map_err(|error| status::records(&error))?;
        let refused = imported.read.refusals.iter();
        let refused = refused.map(|refusal| v1::RefusedPrice {
            line: refusal.line,
            reason: refusal.reason.to_owned(),
            cell: refusal.cell.clone(),
        });
        Ok(v1::ImportPricesResponse {
            lines: imported.read.lines as u64,
            prices_stored: imported.read.stored as u64,
            prices_known: imported.read.known as u64,
            lines_refused: imported.read.refused() as u64,
            refused: refused.collect(),
            version: imported.version,
        })
    }
}
