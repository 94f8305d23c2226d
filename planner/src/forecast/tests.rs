use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::page::Growth;
use crate::window::WINDOW;

const GROWTH: Growth = Growth { bytes: 7, align: 1 };

/// A page of `rows` rows of this length, `due` of which are to be filled.
fn page(rows: usize, due: usize, length: usize) -> Sampled {
    let size = GROWTH.row(1, length).size;
    let used = 24 + rows * (size + 4);
    Sampled {
        page: Page {
            absent: 0,
            free: PAGE.saturating_sub(used + 4),
            line_pointers: 291 - rows,
            rows: (1..=due)
                .map(|offset| GROWTH.row(offset as u16, length))
                .collect(),
            busy: vec![],
        },
        live: rows,
        ..Sampled::default()
    }
}

fn btree(free: usize) -> Index {
    Index {
        kind: Kind::BTree {
            leaves: vec![Leaf {
                free,
                rows: 366,
                is_imaged: false,
            }],
            pages: 1000.0,
            empty: 0.0,
            entry: 16,
            deduplicates: true,
            shares_keys: false,
        },
        bytes: 1000.0 * PAGE as f64,
        share: 1.0,
        order: Order::Rows,
        has_column: false,
    }
}

fn survey(pages: Vec<Sampled>, scale: u32) -> Survey {
    Survey {
        blocks: pages.len() as u32 * scale,
        pages,
        allows_hot: true,
        least_blocks: 32,
        kept_free: 0,
        horizon: Horizon::Moves,
        indexes: vec![],
        value_bytes: 7,
        logging: Logging {
            is_logged: true,
            full_page_writes: true,
            image_share: 1.0,
            checkpoint_bytes: 1e12,
            whole_rows: false,
            old_rows: false,
        },
        batch_size: 10_000,
        batch_time: Duration::from_millis(25),
        most_in_flight: 16 * WINDOW,
        patience: 1.5,
        speed: Speed {
            row: 1e-6,
            entry: 2e-6,
            wal_byte: 2e-9,
            block: 1e-5,
        },
    }
}

fn full() -> Vec<Sampled> {
    vec![page(75, 75, 98); 2048]
}

fn any_page() -> impl Strategy<Value = Sampled> {
    (
        0usize..75,
        0.0..=1.0f64,
        24usize..100,
        0usize..2000,
        0usize..8000,
    )
        .prop_map(|(rows, due, length, prunable, recorded)| {
            let mut page = page(rows, (rows as f64 * due) as usize, length);
            page.prunable = prunable.min(page.page.free);
            page.page.free -= page.prunable;
            page.recorded = recorded;
            page
        })
}

#[test]
fn pages_are_recycled() {
    let mut survey = survey(full(), 10);
    survey.indexes = vec![btree(812)];
    let forecast = Forecast::of(&survey);
    let share = forecast.hot / forecast.rows;
    assert!((0.87..0.90).contains(&share), "{share}");
    let heap = forecast.heap_bytes / (f64::from(survey.blocks) * PAGE as f64);
    assert!((0.07..0.13).contains(&heap), "{heap}");
    // The leaves have room for those that move.
    assert!(
        forecast.index_bytes[0] < 0.01 * 1000.0 * PAGE as f64,
        "{forecast:?}"
    );
}

#[test]
fn indexes_double_where_every_row_moves() {
    let mut survey = survey(full(), 1);
    survey.allows_hot = false;
    survey.indexes = vec![
        btree(812),
        Index {
            has_column: true,
            ..btree(812)
        },
    ];
    survey.indexes[1].order = Order::Keys(1);
    let forecast = Forecast::of(&survey);
    assert_eq!(forecast.hot, 0.0);
    let growth = forecast.index_bytes[0] / survey.indexes[0].bytes;
    assert!((0.8..1.2).contains(&growth), "{growth}");
    assert!(forecast.index_bytes[1] > 0.0);
}

/// Of another kind, it grows by the part of the rows that move, also if there is but one page.
#[test]
fn another_kind_grows_like_its_entries() {
    for count in [1, 2, 50] {
        let mut survey = survey(vec![page(60, 60, 100); count], 1);
        survey.allows_hot = false;
        survey.indexes = vec![Index {
            kind: Kind::Other,
            ..btree(0)
        }];
        let before = survey.indexes[0].bytes;
        let forecast = Forecast::of(&survey);
        let grown = forecast.index_bytes[0] / before;
        assert!((0.99..=1.01).contains(&grown), "{count} pages: {grown}");
    }
}

#[test]
fn an_index_that_summarizes_does_not_grow() {
    let mut survey = survey(full(), 1);
    let kinds = [Kind::Summary, Kind::Other];
    survey.indexes = kinds.map(|kind| Index { kind, ..btree(0) }).to_vec();
    let grown = Forecast::of(&survey).index_bytes;
    assert_eq!(grown[0], 0.0);
    let growth = grown[1] / survey.indexes[1].bytes;
    assert!((0.1..0.15).contains(&growth), "{growth}");
}

#[test]
fn dead_versions_that_cannot_be_removed_cost_space() {
    let mut survey = survey(full(), 10);
    let moves = Forecast::of(&survey);
    survey.horizon = Horizon::Held;
    let held = Forecast::of(&survey);
    assert_eq!(held.rows, moves.rows);
    assert!(held.heap_bytes > 5.0 * moves.heap_bytes, "{held:?}");
    assert!(held.hot < 0.1 * held.rows, "{held:?}");
}

#[test]
fn free_space_is_used_before_the_table_grows() {
    let mut pages = full();
    for page in pages.iter_mut().step_by(4) {
        *page = self::page(30, 30, 98);
        page.recorded = page.page.free;
    }
    let forecast = Forecast::of(&survey(pages, 10));
    assert_eq!(forecast.heap_bytes, 0.0);
}

#[test]
fn wal_follows_the_settings() {
    let wal = |logging: fn(&mut Logging)| {
        let mut survey = survey(full(), 10);
        logging(&mut survey.logging);
        Forecast::of(&survey).wal_bytes
    };
    let usual = wal(|_| {});
    assert_eq!(wal(|logging| logging.is_logged = false), 0.0);
    assert!(wal(|logging| logging.full_page_writes = false) < 0.6 * usual);
    assert!(wal(|logging| logging.image_share = 0.5) < 0.8 * usual);
    assert!(wal(|logging| logging.checkpoint_bytes = 1e7) > 1.2 * usual);
    let whole = wal(|logging| logging.whole_rows = true);
    assert!(whole > 1.2 * usual);
    assert!(wal(|logging| (logging.whole_rows, logging.old_rows) = (true, true)) > 1.2 * whole);
}

#[test]
fn nothing_costs_next_to_nothing() {
    let filled = Forecast::of(&survey(vec![page(75, 0, 98); 100], 10));
    assert_eq!(
        (filled.rows, filled.wal_bytes, filled.batches),
        (0.0, 0.0, 0.0)
    );
    assert_eq!(Forecast::of(&survey(vec![], 1)).rows, 0.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_row_is_filled_once(
        pages in prop::collection::vec(any_page(), 1..200),
        scale in 1u32..1000,
        allows_hot: bool,
        held: bool,
        order in 0usize..3,
        kept_free in 0usize..4000,
    ) {
        let due: usize = pages.iter().map(|page| page.page.rows.len()).sum();
        let mut survey = survey(pages, scale);
        survey.allows_hot = allows_hot;
        survey.kept_free = kept_free;
        survey.horizon = if held { Horizon::Held } else { Horizon::Moves };
        let order = [Order::Rows, Order::Random, Order::Keys(3)][order];
        survey.indexes = vec![Index { order, ..btree(812) }, Index { order, has_column: true, ..btree(100) }];
        let forecast = Forecast::of(&survey);
        let rows = due as f64 * f64::from(scale);
        prop_assert!((forecast.rows - rows).abs() < 1e-6 * rows + 1e-6);
        prop_assert!(forecast.hot + forecast.moved <= rows * (1.0 + 1e-9));
        prop_assert!(allows_hot || forecast.hot == 0.0);
        // New versions need room, if the old ones stay.
        prop_assert!(!held || forecast.heap_bytes <= rows * PAGE as f64);
        prop_assert!(forecast.wal_bytes >= rows * 50.0 && forecast.image_bytes <= forecast.wal_bytes);
        prop_assert!(forecast.batches >= (rows / 10_000.0).floor());
        prop_assert!(forecast.index_bytes.iter().all(|&bytes| bytes >= 0.0 && bytes.is_finite()));
        prop_assert_eq!(Forecast::of(&survey), forecast);
    }
}

#[test]
fn a_small_rest_of_the_rows_makes_no_small_leaves() {
    let mut survey = survey(full(), 10);
    let mut index = btree(812);
    index.order = Order::Keys(1);
    for rows in [366, 1001, 1300, 2047] {
        if let Kind::BTree {
            leaves,
            shares_keys,
            entry,
            ..
        } = &mut index.kind
        {
            (leaves[0].rows, *shares_keys, *entry) = (rows, true, 216);
        }
        survey.indexes = vec![index.clone()];
        let forecast = Forecast::of(&survey);
        let share = forecast.index_bytes[0] / index.bytes;
        assert!(share < 3.0, "{rows} rows in a leaf: {share}");
    }
}
