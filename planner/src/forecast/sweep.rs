//! The sweep of the sampled pages, as `src/fill/sweep.rs` and `src/fill/passes.rs` do it with those of a table.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::flight::{Flight, Next, Situation};
use crate::forecast::clock::Work;
use crate::forecast::heap::{Heap, Went};
use crate::forecast::index::Grown;
use crate::forecast::wal::Wal;
use crate::forecast::{Forecast, Horizon, PAGE, Survey};
use crate::recycling::Recycling;
use crate::window::{Sweep, WINDOW, Window};

/// Blocks of a window of the small table, at least. Fewer would move fractions of rows.
const SMALLEST_WINDOW: f64 = 64.0;
/// Rows of a statement.
const STATEMENT: usize = 100;
/// How long the horizon is waited for at a time.
const NAP: Duration = Duration::from_millis(50);
/// Each block is read once more, to verify that no row was missed.
const READINGS: f64 = 2.0;

struct InFlight {
    blocks: Range<u32>,
    window: Window,
    /// When its last pass ended.
    ended: Duration,
}

/// A sweep under way.
pub(super) struct Sweeping<'a> {
    survey: &'a Survey,
    /// How many times the real table is as large.
    scale: f64,
    /// Blocks of a window.
    blocks: u32,
    next: u32,
    heap: Heap,
    indexes: Vec<Grown<'a>>,
    wal: Wal,
    flight: Flight,
    recycling: Recycling,
    in_flight: VecDeque<InFlight>,
    /// Blocks of the window that was passed over since it was last decided what to do next.
    passed: u32,
    last: Option<Range<u32>>,
    waited: Duration,
    /// What was done before the batch that is under way.
    settled: Work,
    rows: usize,
    hot: usize,
    moved: usize,
    batches: f64,
}

impl<'a> Sweeping<'a> {
    pub fn new(survey: &'a Survey) -> Self {
        let pages = survey.pages.len() as f64;
        let scale = f64::from(survey.blocks) / pages;
        let blocks = (f64::from(WINDOW) / scale).max(SMALLEST_WINDOW).min(pages);
        Sweeping {
            scale,
            blocks: (blocks as u32).max(1),
            next: 0,
            heap: Heap::new(survey),
            indexes: survey
                .indexes
                .iter()
                .map(|index| Grown::new(index, survey))
                .collect(),
            wal: Wal::new(survey.logging, scale),
            flight: Flight::new(survey.most_in_flight),
            recycling: Recycling::default(),
            in_flight: VecDeque::new(),
            passed: 0,
            last: None,
            waited: Duration::ZERO,
            settled: Work::default(),
            rows: 0,
            hot: 0,
            moved: 0,
            batches: 0.0,
            survey,
        }
    }

    pub fn run(mut self) -> Forecast {
        loop {
            let situation = self.situation();
            self.passed = 0;
            let Some(next) = self.flight.next(situation) else {
                break;
            };
            let window = match next {
                Next::Pass => self.in_flight.pop_front(),
                Next::Begin => self.begin(None),
                Next::FillAtOnce => self.begin(Some(Sweep::OnePass)),
                Next::GiveUp => self.give_up(),
                Next::Wait => {
                    self.waited += NAP;
                    continue;
                }
            };
            let Some(window) = window else { break };
            self.pass(window);
        }
        self.end_window(None);
        self.forecast()
    }

    fn situation(&mut self) -> Situation {
        let elapsed = self.elapsed();
        let first = self.in_flight.front();
        let really = |blocks: usize| (blocks as f64 * self.scale) as u32;
        let in_flight = self.in_flight.iter().map(|window| window.blocks.len());
        Situation {
            in_flight: really(in_flight.sum()),
            passed: really(self.passed as usize),
            is_due: self.survey.horizon == Horizon::Moves,
            age: first.map_or(Duration::ZERO, |first| elapsed.saturating_sub(first.ended)),
            passes: first.map_or(0, |first| first.window.passes_left()),
            more: really(self.survey.pages.len() - self.next as usize),
            elapsed,
            all: self.survey.blocks.max(1),
            patience: self.survey.patience,
        }
    }

    fn give_up(&mut self) -> Option<InFlight> {
        let mut first = self.in_flight.pop_front();
        if let Some(first) = &mut first {
            first.window.give_up_recycling();
        }
        first
    }

    fn elapsed(&self) -> Duration {
        self.survey.speed.time(self.work()) + self.waited
    }

    fn begin(&mut self, sweep: Option<Sweep>) -> Option<InFlight> {
        let allows = self.survey.allows_hot && self.survey.blocks >= self.survey.least_blocks;
        let pays = self.recycling.next_window();
        let sweep = sweep.unwrap_or(match allows && pays {
            true => Sweep::Recycle,
            false => Sweep::OnePass,
        });
        let size = match sweep {
            Sweep::Recycle => self.blocks,
            Sweep::OnePass => (self.blocks / 2).max(1),
        };
        let end = (self.next + size).min(self.survey.pages.len() as u32);
        let blocks = self.next..end;
        self.next = end;
        (!blocks.is_empty()).then(|| InFlight {
            window: Window::new(blocks.clone(), sweep),
            blocks,
            ended: Duration::ZERO,
        })
    }

    fn pass(&mut self, mut in_flight: InFlight) {
        self.passed = in_flight.blocks.len() as u32;
        let before = self.work();
        let is_recycled = in_flight.window.is_recycled();
        let window = &mut in_flight.window;
        let has_made_room = window.has_made_room();
        let (rows, hot) = (self.rows, self.hot);
        loop {
            while window.queued() < STATEMENT
                && let Some(block) = window.next_block()
            {
                let page = self.heap.read(block, &mut self.wal);
                window.choose(block, page);
            }
            let tids = window.next_rows(STATEMENT);
            if tids.is_empty() {
                break;
            }
            for &tid in &tids {
                let went = self.heap.update(tid, &mut self.wal);
                let (is_hot, new) = match went {
                    Some(Went::Stayed(new)) => (self.survey.allows_hot, new),
                    Some(Went::Moved(new)) => (false, new),
                    None => continue,
                };
                self.rows += 1;
                self.hot += usize::from(is_hot);
                self.moved += usize::from(matches!(went, Some(Went::Moved(_))));
                if !is_hot {
                    for index in &mut self.indexes {
                        index.insert(tid, new, &mut self.wal);
                    }
                }
            }
            window.tried(&tids);
            self.settle();
        }
        let (rows, hot) = (self.rows - rows, self.hot - hot);
        if has_made_room && !self.recycling.pays(rows as u64, hot as u64) {
            in_flight.window.give_up_recycling();
        }
        self.count_batches(rows, in_flight.blocks.len(), before);
        if !in_flight.window.next_pass() {
            self.end_window(Some(in_flight.blocks));
        } else if is_recycled {
            in_flight.ended = self.elapsed();
            self.in_flight.push_back(in_flight);
        } else {
            self.pass(in_flight);
        }
    }

    /// When a batch has been committed, its old row versions are dead to everyone.
    fn settle(&mut self) {
        let work = self.work();
        let since = Work {
            rows: work.rows - self.settled.rows,
            entries: work.entries - self.settled.entries,
            wal_bytes: work.wal_bytes - self.settled.wal_bytes,
            blocks: 0.0,
        };
        let is_batch = since.rows >= self.survey.batch_size as f64
            || self.survey.speed.time(since) >= self.survey.batch_time;
        if is_batch && self.survey.horizon == Horizon::Moves {
            self.settled = work;
            self.indexes.iter_mut().for_each(Grown::settle);
        }
    }

    /// Each pass over a window of the real table ends a batch.
    fn count_batches(&mut self, rows: usize, blocks: usize, before: Work) {
        let after = self.work();
        let work = Work {
            rows: after.rows - before.rows,
            entries: after.entries - before.entries,
            wal_bytes: after.wal_bytes - before.wal_bytes,
            blocks: 0.0,
        };
        let most = self.survey.speed.rows_in(self.survey.batch_time, work);
        let most = most.clamp(1, self.survey.batch_size) as f64;
        let windows = (blocks as f64 * self.scale / f64::from(WINDOW)).max(1.0);
        let batches = (rows as f64 * self.scale / windows / most).ceil() * windows;
        self.batches += batches;
        self.wal.commits(batches);
    }

    /// Free space is recorded of the window before the last.
    fn end_window(&mut self, blocks: Option<Range<u32>>) {
        for block in std::mem::replace(&mut self.last, blocks)
            .into_iter()
            .flatten()
        {
            self.heap.record(block, &mut self.wal);
        }
    }

    /// What was done up to now, on the real table.
    fn work(&self) -> Work {
        Work {
            rows: self.rows as f64 * self.scale,
            entries: self.indexes.iter().map(Grown::added).sum::<usize>() as f64 * self.scale,
            wal_bytes: self.wal.bytes * self.scale,
            blocks: f64::from(self.next) * self.scale,
        }
    }

    fn forecast(self) -> Forecast {
        let work = Work {
            blocks: f64::from(self.survey.blocks) * READINGS,
            ..self.work()
        };
        Forecast {
            rows: work.rows,
            hot: self.hot as f64 * self.scale,
            moved: self.moved as f64 * self.scale,
            heap_bytes: (self.heap.added() * PAGE) as f64 * self.scale,
            index_bytes: self
                .indexes
                .iter()
                .map(|index| index.growth(self.scale))
                .collect(),
            wal_bytes: work.wal_bytes,
            image_bytes: self.wal.images * self.scale,
            batches: self.batches,
            seconds: self.survey.speed.seconds(work) + self.waited.as_secs_f64(),
        }
    }
}
