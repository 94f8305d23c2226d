//! What a batch waits for: that others keep up.
//!
//! Nothing is held while it waits: no transaction, no snapshot, no lock but the one that keeps a second run off the column.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use planner::rest::Rest;
use planner::standby::{Standby, WalClock};

use crate::catalog::backlog;
use crate::error::Error;
use crate::messages::{self, Reason, Wait};
use crate::pg::deadline::{self, Undone};
use crate::pg::{parse, standby, usage};
use crate::run::driver::Driver;
use crate::run::gate;
use crate::settings::{self, ArchiveLagAction};

/// How often the catalogs are asked, and `hold_while`.
const SHORT_INTERVAL: Duration = Duration::from_secs(1);
/// How often the directory of WAL is looked at.
const LONG_INTERVAL: Duration = Duration::from_secs(5);
/// How long a wait lasts before it is looked again.
const POLL: Duration = Duration::from_millis(50);
/// A rest between two batches that takes longer is told.
const WORTH_TELLING: Duration = Duration::from_secs(1);
/// Longest time that `hold_while` may take.
const HOLD_WHILE_TIME: Duration = Duration::from_secs(1);

/// What a batch is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// It writes.
    Filling,
    /// It only reads.
    Looking,
}

/// Holds batches back while others do not keep up.
pub struct Throttle {
    /// The role that owns the extension, which may see all of the server's statistics.
    owner: pg_sys::Oid,
    /// How many processes share what the run may write.
    of: u32,
    batch_began: Instant,
    wal_then: u64,
    clock: WalClock,
    standbys: HashMap<i32, Standby>,
    /// Those that are connected, their names by process.
    connected: Vec<backlog::Standby>,
    hold: Option<Wait>,
    asked_at: Option<Instant>,
    wal_hold: Option<Wait>,
    wal_asked_at: Option<Instant>,
    has_warned: bool,
}

impl Throttle {
    /// For one of so many processes of a run that begins; `owner` is the role that owns the extension.
    pub fn new(owner: pg_sys::Oid, of: u32) -> Self {
        Throttle {
            owner,
            of,
            batch_began: Instant::now(),
            wal_then: usage::wal_bytes(),
            clock: WalClock::default(),
            standbys: HashMap::new(),
            connected: vec![],
            hold: None,
            asked_at: None,
            wal_hold: None,
            wal_asked_at: None,
            has_warned: false,
        }
    }

    /// Tells that the other processes of the run have ended.
    pub fn is_alone(&mut self) {
        self.of = 1;
    }

    /// Waits until the next batch on `table` may begin, and passes the gate. Returns whether it has waited for others. Call
    /// it between transactions.
    ///
    /// # Errors
    /// Those of [`gate::pass`]; [`Error::HoldWhile`].
    pub fn admit(
        &mut self,
        driver: &Driver,
        table: pg_sys::Oid,
        work: Work,
    ) -> Result<bool, Error> {
        gate::pass(driver)?;
        if work == Work::Filling {
            self.rest(driver)?;
        }
        let mut waits: Option<Wait> = None;
        while let Some(wait) = self.reason(driver, table, work)? {
            if waits.as_ref().map(|wait| wait.reason) != Some(wait.reason) {
                driver.waits_for(&wait)?;
                waits = Some(wait);
            }
            gate::rest(driver, POLL)?;
        }
        driver.has_waited(|reason| matches!(reason, Reason::Setting(_)))?;
        self.batch_began = Instant::now();
        self.wal_then = usage::wal_bytes();
        Ok(waits.is_some())
    }

    /// The time between two batches, as `pause` and `max_wal_rate` want it; they may change meanwhile.
    fn rest(&mut self, driver: &Driver) -> Result<(), Error> {
        let rest = Rest {
            began: self.batch_began,
            ended: Instant::now(),
            wal: usage::wal_bytes().saturating_sub(self.wal_then),
        };
        let of = self.of;
        let left = || {
            let rate = settings::max_wal_rate().map(|rate| (rate / u64::from(of)).max(1));
            rest.is_over_at(settings::pause(), rate)
                .saturating_duration_since(Instant::now())
        };
        if rest.wal == 0 {
            return Ok(());
        }
        let mut told = false;
        while !left().is_zero() {
            if !told && left() >= WORTH_TELLING {
                told = true;
                let by_pause = rest.is_over_at(settings::pause(), None);
                let setting = match by_pause.saturating_duration_since(Instant::now()) < left() / 2
                {
                    true => "max_wal_rate",
                    false => "pause",
                };
                driver.waits_for(&Wait::between_batches(setting, left()))?;
            }
            gate::rest(driver, left().min(POLL))?;
        }
        driver.has_waited(|reason| matches!(reason, Reason::Setting(_)))
    }

    /// What the batch has to wait for now.
    fn reason(
        &mut self,
        driver: &Driver,
        table: pg_sys::Oid,
        work: Work,
    ) -> Result<Option<Wait>, Error> {
        if is_due(&mut self.asked_at, SHORT_INTERVAL) {
            self.hold = self.ask(driver, table, work)?;
            // The answer may have taken long.
            self.asked_at = Some(Instant::now());
        }
        if work == Work::Filling && is_due(&mut self.wal_asked_at, LONG_INTERVAL) {
            self.wal_hold = self.ask_of_wal(driver)?;
        }
        let lag = match settings::max_replica_lag() {
            Some(limit) if work == Work::Filling => self.lagging(limit),
            _ => None,
        };
        Ok(lag.or_else(|| self.hold.clone()).or_else(|| match work {
            Work::Filling => self.wal_hold.clone(),
            Work::Looking => None,
        }))
    }

    /// The standby that does not keep up.
    fn lagging(&mut self, limit: Duration) -> Option<Wait> {
        if self.connected.is_empty() {
            return None;
        }
        let (now, end) = (Instant::now(), standby::wal_end());
        self.clock.observe(now, end);
        let (clock, standbys) = (&self.clock, &mut self.standbys);
        let late = self.connected.iter().filter_map(|connected| {
            let replayed = standby::replayed(connected.pid)?;
            let standby = standbys.entry(connected.pid).or_default();
            standby.observe(now, replayed, end);
            let (behind, age) = (end.saturating_sub(replayed), clock.age(now, replayed));
            (!standby.keeps_up(behind, age, limit))
                .then(|| Wait::standby(&connected.name, connected.pid, behind, age))
        });
        late.last()
    }

    /// Asks the catalogs, and `hold_while`.
    fn ask(
        &mut self,
        driver: &Driver,
        table: pg_sys::Oid,
        work: Work,
    ) -> Result<Option<Wait>, Error> {
        let owner = self.owner;
        let (mut connected, mut slot, mut autovacuum) = (vec![], None, None);
        let watches = settings::max_replica_lag().is_some() && standby::is_any_connected();
        let slot_limit = settings::max_slot_lag().filter(|_| work == Work::Filling);
        if watches || slot_limit.is_some() || settings::hold_for_autovacuum() {
            driver.transaction(|tx| {
                if watches {
                    connected = backlog::standbys(tx, owner, &settings::ignored_standbys());
                }
                if slot_limit.is_some() {
                    slot = backlog::slot(tx, owner);
                }
                if settings::hold_for_autovacuum() {
                    autovacuum = backlog::autovacuum(tx, owner, table);
                }
                Ok::<_, Error>(())
            })?;
        }
        self.connected = connected;
        let late = slot.filter(|slot| slot_limit.is_some_and(|limit| slot.bytes > limit));
        Ok(late
            .map(|slot| Wait::slot(&slot.slot, slot.active, slot.bytes))
            .or_else(|| autovacuum.map(Wait::autovacuum))
            .or(hold_while(driver)?))
    }

    fn ask_of_wal(&mut self, driver: &Driver) -> Result<Option<Wait>, Error> {
        let (archive, size) = (settings::max_archive_lag(), settings::max_pg_wal_size());
        if archive.is_none() && size.is_none() {
            return Ok(None);
        }
        let owner = self.owner;
        let (archiving, pg_wal) = driver.transaction(|tx| {
            let archiving = archive.and_then(|_| backlog::archiving(tx, owner));
            let pg_wal = size.and_then(|_| backlog::pg_wal_size(tx, owner));
            Ok::<_, Error>((archiving, pg_wal))
        })?;
        let behind = archiving
            .filter(|now| now.failing || archive.is_some_and(|limit| now.bytes > limit))
            .map(|now| Wait::archiver(now.bytes, now.failing));
        let large = pg_wal
            .filter(|bytes| size.is_some_and(|limit| *bytes > limit))
            .map(Wait::pg_wal);
        if settings::archive_lag_action() == ArchiveLagAction::Wait {
            return Ok(behind.or(large));
        }
        if let Some(behind) = behind
            && driver.tells()
            && !std::mem::replace(&mut self.has_warned, true)
        {
            messages::warn_of_backlog(&behind);
        }
        Ok(large)
    }
}

/// Whether so much time has gone since; then it is now.
fn is_due(last: &mut Option<Instant>, interval: Duration) -> bool {
    let due = last.is_none_or(|last| last.elapsed() >= interval);
    if due {
        *last = Some(Instant::now());
    }
    due
}

/// Asks the query that the user has given.
fn hold_while(driver: &Driver) -> Result<Option<Wait>, Error> {
    let Some(query) = settings::hold_while() else {
        return Ok(None);
    };
    let holds = driver.transaction(|tx| {
        tx.set_read_only();
        let answer = deadline::within(tx, HOLD_WHILE_TIME, || {
            if !parse::is_query(tx, &query) {
                return Err(Error::HoldWhile {
                    reason: "It is not one query.".into(),
                });
            }
            let rows = tx.execute(&query, &[]);
            match rows.first() {
                None => Ok(false),
                Some(row) if row.is_boolean(1) => Ok(row.get(1).unwrap_or(false)),
                Some(_) => Err(Error::HoldWhile {
                    reason: "Its first column is not a boolean.".into(),
                }),
            }
        });
        match answer {
            Ok(answer) => answer,
            // A server that cannot answer in time has enough to do.
            Err(Undone::Late) => Ok(true),
            Err(Undone::Failed(failure)) => Err(Error::HoldWhile {
                reason: format!("It failed: {}.", failure.message),
            }),
        }
    })?;
    Ok(holds.then(Wait::hold_while))
}
