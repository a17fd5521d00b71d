//! Tests of the price book: windows, ranks, exact amounts, and the shipped list.

use super::*;

fn gpu(name: &str) -> GpuModel {
    name.parse().expect("gpu")
}

fn day(text: &str) -> Day {
    text.parse().expect("day")
}

fn price(book: &PriceBook, name: &str, on: &str) -> Option<u64> {
    book.price(gpu(name), day(on))
        .map(|price| price.usd_per_gpu_hour.0)
}

#[test]
fn a_price_holds_from_its_first_to_its_last_day() {
    let book = PriceBook::from_toml(
        r#"
        [[price]]
        hardware = "rtx4090"
        usd_per_gpu_hour = "1.08"
        valid_from = 2026-01-01
        valid_until = "2026-06-30"
        source = "contract"

        [[price]]
        hardware = "RTX 4090"
        usd_per_gpu_hour = 0.9
        valid_from = "2026-06-01"
        source = "renewal"
        "#,
    )
    .expect("book");
    assert_eq!(price(&book, "rtx4090", "2025-12-31"), None);
    assert_eq!(price(&book, "rtx4090", "2026-01-01"), Some(1_080_000));
    assert_eq!(price(&book, "rtx4090", "2026-05-31"), Some(1_080_000));
    assert_eq!(
        price(&book, "rtx4090", "2026-06-01"),
        Some(900_000),
        "the newer line wins"
    );
    assert_eq!(
        price(&book, "rtx4090", "2030-01-01"),
        Some(900_000),
        "open ended"
    );
    assert_eq!(price(&book, "h100", "2026-06-01"), None);
}

#[test]
fn an_operators_book_wins_over_the_shipped_one() {
    let csv = |amount: &str, from: &str| {
        let text = format!(
            "hardware,usd_per_gpu_hour,valid_from,valid_until,source\nh100,{amount},{from},,x\n"
        );
        PriceBook::from_csv(&text).expect("book")
    };
    let book = csv("2.00", "2026-01-01")
        .or(csv("3.00", "2026-08-01"))
        .or(csv("4.00", "2025-01-01"));
    assert_eq!(price(&book, "h100", "2026-09-01"), Some(2_000_000));
    assert_eq!(
        price(&book, "h100", "2025-09-01"),
        Some(4_000_000),
        "what the first does not say"
    );
}

#[test]
fn a_wrong_line_is_named() {
    let line = |fields: &str| {
        let text = format!("hardware,usd_per_gpu_hour,valid_from,valid_until,source\n{fields}\n");
        PriceBook::from_csv(&text)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    for (fields, what) in [
        (
            "h900,1,2026-01-01,,x",
            "price 1: the hardware is not in the registry",
        ),
        (
            "h100,1e3,2026-01-01,,x",
            "price 1: write dollars such as 1.08",
        ),
        (
            "h100,-1,2026-01-01,,x",
            "price 1: write dollars such as 1.08",
        ),
        (
            "h100,2500000,2026-01-01,,x",
            "price 1: a GPU costs $1,000 an hour at most",
        ),
        (
            "h100,1,2026-1-1,,x",
            "price 1: write a day as 2026-10-01, from 1970 on",
        ),
        (
            "h100,1,2026-01-02,2026-01-01,x",
            "price 1: it ends before it begins",
        ),
    ] {
        assert_eq!(
            line(fields),
            Err(format!("the price book is wrong: {what}")),
            "{fields}"
        );
    }
    assert_eq!(line("h100,1000,2026-01-01,,x"), Ok(()));
    assert!(PriceBook::from_toml("[[price]]\nhardware = \"h100\"\ncolour = 1").is_err());
}

#[test]
fn the_shipped_book_is_whole() {
    let book = PriceBook::from_csv(SHIPPED).expect("the shipped list");
    let lines = |book: &PriceBook| book.prices().len();
    assert_eq!(lines(&PriceBook::shipped()), lines(&book));
    let said = PriceBook::shipped()
        .said("h100".parse().expect("GPU"), day("2026-12-31"))
        .is_some();
    assert!(!said, "nobody here has said what is shipped");
    let recent = day("2026-12-31");
    assert!(
        book.gpus(recent).count() >= 15,
        "{:?}",
        book.gpus(recent).collect::<Vec<_>>()
    );
    for price in book.prices() {
        let dollars = price.usd_per_gpu_hour.0 as f64 / 1e6;
        assert!((0.05..=12.0).contains(&dollars), "{price:?}");
        assert!(!price.source.is_empty(), "{price:?}");
        assert!(price.gpu.is_gpu(), "{price:?}");
    }
}
