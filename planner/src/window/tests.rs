//! Windows swept over heap pages in miniature.

use super::*;
use crate::page::{LINE_POINTER, Row};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A heap page in miniature: rows of one size, filled in place where they fit, pruned between passes.
#[derive(Debug, Clone)]
struct Model {
    unfilled: Vec<u16>,
    size: usize,
    growth: usize,
    free: usize,
    dead: usize,
    pointers: usize,
}

impl Model {
    fn look(&self) -> Page {
        Page {
            free: self.free,
            line_pointers: self.pointers,
            rows: self
                .unfilled
                .iter()
                .map(|&offset| Row {
                    offset,
                    size: self.size,
                    filled_size: self.size + self.growth,
                })
                .collect(),
            busy: vec![],
            absent: 0,
        }
    }

    /// Fills a row; returns whether it could stay on its page.
    fn fill(&mut self, offset: u16) -> bool {
        self.unfilled.retain(|&o| o != offset);
        self.dead += self.size;
        let needed = self.size + self.growth + LINE_POINTER;
        let stays = needed <= self.free && self.pointers > 0;
        if stays {
            self.free -= needed;
            self.pointers -= 1;
        }
        stays
    }

    fn prune(&mut self) {
        self.free += self.dead;
        self.dead = 0;
    }
}

fn any_model() -> impl Strategy<Value = Model> {
    (1u16..200, 3usize..30, 0usize..30, 0usize..2000, 0usize..100).prop_map(
        |(rows, size, growth, free, pointers)| Model {
            unfilled: (1..=rows).collect(),
            size: size * 8,
            growth: growth * 8,
            free,
            dead: 0,
            pointers,
        },
    )
}

/// Sweeps the models to the end; returns how often each row was filled, and how many passes that took.
fn sweep(pages: &mut [Model], sweep: Sweep) -> (BTreeMap<Tid, u32>, u32) {
    let mut filled = BTreeMap::new();
    let mut passes = 0;
    let mut window = Window::new(0..pages.len() as u32, sweep);
    loop {
        passes += 1;
        while let Some(block) = window.next_block() {
            window.choose(block, pages[block as usize].look());
            fill(pages, &mut window, &mut filled);
        }
        fill(pages, &mut window, &mut filled);
        pages.iter_mut().for_each(Model::prune);
        if !window.next_pass() {
            return (filled, passes);
        }
    }
}

fn fill(pages: &mut [Model], window: &mut Window, filled: &mut BTreeMap<Tid, u32>) {
    let tids = window.next_rows(usize::MAX);
    for tid in &tids {
        pages[tid.block as usize].fill(tid.offset);
        *filled.entry(*tid).or_insert(0) += 1;
    }
    window.tried(&tids);
}

proptest! {
    #[test]
    fn takes_every_row_exactly_once(
        mut pages in prop::collection::vec(any_model(), 1..6),
    ) {
        let rows: usize = pages.iter().map(|p| p.unfilled.len()).sum();
        let (filled, passes) = sweep(&mut pages, Sweep::Recycle);
        prop_assert_eq!(filled.len(), rows);
        prop_assert!(filled.values().all(|&times| times == 1));
        prop_assert!(pages.iter().all(|p| p.unfilled.is_empty()));
        prop_assert!(passes <= MOST_PASSES + 1);
    }

    #[test]
    fn one_pass_is_one_pass(mut pages in prop::collection::vec(any_model(), 1..6)) {
        let (_, passes) = sweep(&mut pages, Sweep::OnePass);
        prop_assert_eq!(passes, 1);
    }

    #[test]
    fn a_window_of_rows_is_about_these_alone(
        mut pages in prop::collection::vec(any_model(), 1..6),
        chosen in prop::collection::btree_set((0u32..6, 1u16..200), 0..40),
    ) {
        let is_there = |tid: &Tid| {
            pages.get(tid.block as usize).is_some_and(|page| page.unfilled.contains(&tid.offset))
        };
        let rows: Vec<Tid> = chosen
            .into_iter()
            .map(|(block, offset)| Tid { block, offset })
            .filter(is_there)
            .collect();
        let mut filled = BTreeMap::new();
        let mut window = Window::of_rows(&rows);
        while let Some(block) = window.next_block() {
            window.choose(block, pages[block as usize].look());
        }
        fill(&mut pages, &mut window, &mut filled);
        prop_assert!(!window.next_pass());
        prop_assert_eq!(filled.into_keys().collect::<Vec<_>>(), rows);
    }

    #[test]
    fn refusing_rows_do_not_loop(rows in 1u16..200) {
        let look = Model {
            unfilled: (1..=rows).collect(), size: 40, growth: 8, free: 0, dead: 0, pointers: 50,
        }.look();
        let mut window = Window::new(7..8, Sweep::Recycle);
        let mut asked = 0;
        loop {
            while let Some(block) = window.next_block() {
                window.choose(block, look.clone());
            }
            let tids = window.next_rows(usize::MAX);
            asked += tids.len();
            window.tried(&tids);
            if !window.next_pass() { break }
        }
        prop_assert_eq!(asked, usize::from(rows));
    }
}

#[test]
fn most_rows_of_a_full_page_stay_on_it() {
    let rows = 70;
    let mut page = Model {
        unfilled: (1..=rows).collect(),
        size: 112,
        growth: 8,
        free: 48,
        dead: 0,
        pointers: 221,
    };
    let mut stayed = 0;
    let mut window = Window::new(0..1, Sweep::Recycle);
    loop {
        while let Some(block) = window.next_block() {
            window.choose(block, page.look());
        }
        for tid in window.next_rows(usize::MAX) {
            stayed += u32::from(page.fill(tid.offset));
        }
        page.prune();
        if !window.next_pass() {
            break;
        }
    }
    assert!(stayed >= 60, "{stayed} of {rows} rows stayed");
}

#[test]
fn pages_with_few_rows_take_turns() {
    let wide = || Model {
        unfilled: (1..=8).collect(),
        size: 1000,
        growth: 8,
        free: 100,
        dead: 0,
        pointers: 200,
    };
    let mut window = Window::new(0..100, Sweep::Recycle);
    while let Some(block) = window.next_block() {
        window.choose(block, wide().look());
        assert_eq!(window.queued(), 0);
    }
    let moving = window.next_rows(usize::MAX);
    assert!((80..100).contains(&moving.len()), "{} rows", moving.len());
    assert!(moving.windows(2).all(|pair| pair[0].block != pair[1].block));
}

#[test]
fn undone_rows_come_up_again() {
    let row = |offset| Row {
        offset,
        size: 40,
        filled_size: 48,
    };
    let look = Page {
        free: 5000,
        line_pointers: 100,
        rows: vec![row(3), row(4)],
        busy: vec![],
        absent: 0,
    };
    let mut window = Window::new(0..1, Sweep::Recycle);
    let block = window.next_block().expect("a block");
    window.choose(block, look.clone());
    let first = window.next_rows(10);
    window.undone(&first);
    assert!(window.next_pass());
    let block = window.next_block().expect("the block again");
    window.choose(block, look);
    assert_eq!(window.next_rows(10), first);
    window.undone(&first[..1]);
    assert!(!window.next_pass());
    assert_eq!(window.into_busy(), first[..1]);
}

#[test]
fn rows_that_are_put_back_come_next_and_in_their_order() {
    let look = Model {
        unfilled: (1..=5).collect(),
        size: 40,
        growth: 8,
        free: 0,
        dead: 0,
        pointers: 50,
    }
    .look();
    let mut window = Window::new(0..1, Sweep::OnePass);
    let block = window.next_block().expect("a block");
    window.choose(block, look);
    let first = window.next_rows(3);
    window.put_back(first.clone());
    assert_eq!(window.next_rows(3), first);
    assert_eq!(window.queued(), 2);
    window.changed(&first[..1]);
    assert_eq!(window.left(), 1);
}
