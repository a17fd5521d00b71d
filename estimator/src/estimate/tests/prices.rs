//! Whose price an estimate is at.

use super::*;

#[test]
fn a_worker_that_says_no_price_is_at_the_operators_and_only_then_at_the_list() {
    let own = "hardware,usd_per_gpu_hour,valid_from,valid_until,source\n\
               rtx4090,0.50,2026-01-01,2026-10-31,contract\n";
    let own = PriceBook::from_csv(own).expect("book");
    let (index, shipped) = (index(&example_records()), PriceBook::shipped());
    let book = own.or(shipped.clone());
    let (dear, cheap) = (offer("rtx4090", "1.08"), offer("rtx4090", "0.40"));
    let silent = Offer {
        price_per_hour: None,
        ..dear
    };
    let at = |offers: &[Offer], day: &str| {
        let ask = Ask {
            workload: &example(),
            hardware: &[hardware("rtx4090")],
            offers,
            day: day.parse().expect("day"),
        };
        let estimates = Evidence::new(&index, &book).estimate(&ask);
        estimates.expect("estimates")[0].price_usd_micros_per_hour
    };
    let (said, after) = ("2026-10-02", "2026-11-02");
    assert_eq!(at(&[dear, silent], said), Some(500_000));
    assert_eq!(at(&[cheap, silent], said), Some(400_000));
    assert_eq!(at(&[dear], said), Some(1_080_000), "its own word counts");
    assert_eq!(at(&[], said), Some(500_000));
    // Nobody has said anything of that day, and nobody has asked for the list's price.
    assert_eq!(at(&[dear, silent], after), Some(1_080_000));
    let listed = shipped.price(silent.hardware.gpu, after.parse().expect("day"));
    let listed = listed.map(|price| price.usd_per_gpu_hour.0);
    assert!(listed.is_some());
    assert_eq!(at(&[silent], after), listed);
}
