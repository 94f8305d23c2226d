//! The one way to commit.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::messages::{self, Reason, Wait};
use crate::pg::call::Call;
use crate::pg::failure::Failure;
use crate::pg::standby::Unconfirmed;
use crate::pg::transaction::{self, Way};
use crate::pg::tx::Tx;
use crate::pg::{server, settings, spi};
use crate::run::confirmation;
use crate::run::supervision::{Doing, Order, Supervision};

/// PostgreSQL adds what a backend has counted to its statistics once in a second at most.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(1);

/// How often last words are tried. One cancellation can interrupt both the work and them: before version 18, PostgreSQL
/// sends a signal to the process and another one to its process group (`signal_child` in `postmaster.c`).
const LAST_WORDS_TRIES: u32 = 2;

/// Runs transactions, one after the other, in the way of whatever the run was started by.
///
/// Whoever has one may commit; there is none in a transaction block, on a standby or in a read-only transaction.
pub struct Driver {
    way: Way,
    in_transaction: Cell<bool>,
    /// The last commit that synchronous standbys are to confirm and have not been waited for.
    unconfirmed: Cell<Option<Unconfirmed>>,
    reported_at: Cell<Instant>,
    /// What the run waits for, and since when.
    waits: RefCell<Option<(Wait, Instant)>>,
    /// When that was last told.
    noted_at: Cell<Instant>,
    /// The reasons that the user was told of.
    told: RefCell<HashSet<Reason>>,
    /// What the run does could not be told.
    is_unnoted: Cell<bool>,
    paused: Cell<Duration>,
    supervision: RefCell<Option<Rc<dyn Supervision>>>,
    ordered_at: Cell<Option<Instant>>,
}

impl Driver {
    /// The driver of a CALL, which may commit and write.
    ///
    /// # Errors
    /// [`Error::TransactionBlock`], [`Error::HotStandby`], [`Error::ReadOnly`], [`Error::Encoding`].
    pub fn of_call(call: &Call) -> Result<Self, Error> {
        let procedure = call.procedure;
        spi::free_orphans();
        if call.is_atomic() && !server::is_standby() {
            return Err(Error::TransactionBlock { procedure });
        }
        require_writable(procedure)?;
        Ok(Self::new(Way::Call(call.oid())))
    }

    /// The driver of a background worker, which is in no transaction.
    pub fn of_worker() -> Self {
        Self::new(Way::Worker)
    }

    fn new(way: Way) -> Self {
        Driver {
            way,
            in_transaction: Cell::new(false),
            unconfirmed: Cell::new(None),
            reported_at: Cell::new(Instant::now()),
            waits: RefCell::default(),
            noted_at: Cell::new(Instant::now()),
            told: RefCell::default(),
            is_unnoted: Cell::new(false),
            paused: Cell::default(),
            supervision: RefCell::new(None),
            ordered_at: Cell::new(None),
        }
    }

    /// [`Driver::commit`], and then [`Driver::settle`].
    ///
    /// # Errors
    /// Those of both.
    pub fn transaction<T, E: From<Error>>(
        &self,
        work: impl FnOnce(&Tx) -> Result<T, E>,
    ) -> Result<T, E> {
        let result = self.commit(work)?;
        self.settle()?;
        Ok(result)
    }

    /// Runs `work` in a transaction and commits it on this server. Nothing of the transaction can outlive it. Whoever
    /// commits anything that others rely on calls [`Driver::settle`] as soon as it is counted.
    ///
    /// # Errors
    /// Those of `work`; then nothing of the transaction is left.
    pub fn commit<T, E>(&self, work: impl FnOnce(&Tx) -> Result<T, E>) -> Result<T, E> {
        if self.in_transaction.replace(true) {
            pgrx::error!("a transaction was begun within another one");
        }
        let committed = self.way.commit(work);
        self.in_transaction.set(false);
        let (result, unconfirmed) = committed?;
        if unconfirmed.is_some() {
            self.unconfirmed.set(unconfirmed);
        }
        Ok(result)
    }

    /// Whether the last commit took another transaction ID, to be confirmed.
    pub fn took_id(&self) -> bool {
        self.unconfirmed
            .get()
            .is_some_and(|unconfirmed| unconfirmed.took_id)
    }

    /// Waits until synchronous standbys have what was committed, as far as the session asks.
    ///
    /// # Errors
    /// Those of the run's supervision when it is cancelled; PostgreSQL's 57014 and 57P01. What was committed stays.
    pub fn settle(&self) -> Result<(), Error> {
        if let Some(unconfirmed) = self.unconfirmed.take() {
            confirmation::wait(self, unconfirmed)?;
        }
        self.report_statistics();
        Ok(())
    }

    /// Lets autovacuum and others see what was done, while the run goes on.
    fn report_statistics(&self) {
        if self.reported_at.get().elapsed() >= STATISTICS_INTERVAL {
            self.reported_at.set(Instant::now());
            self.way.report_statistics();
        }
    }

    /// Runs `work`. If it fails, all that is not committed is rolled back, and `last_words` are run in a transaction of their
    /// own before the failure goes on its way. No standby is waited for then: that may be what was cancelled. They are run
    /// once more where they are cancelled, and dropped where they fail otherwise, and where a CALL is part of another statement.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn with_last_words<T>(
        &self,
        work: impl FnOnce() -> Result<T, Error>,
        last_words: impl Fn(&Tx, &Failure) -> Result<(), Error>,
    ) -> Result<T, Error> {
        let say = |failure: &Failure| {
            for _ in 0..LAST_WORDS_TRIES {
                if !self.roll_back() {
                    return;
                }
                match self.try_last_words(|tx| last_words(tx, failure)) {
                    Ok(()) => return,
                    Err(failure) if failure.is_intervention() => {}
                    Err(_) => break,
                }
            }
            self.roll_back();
        };
        let result = transaction::watch(work, |failure| {
            say(failure);
            self.supervision()?.explain(failure)
        });
        if let Err(error) = &result {
            say(&error.as_failure());
        }
        result
    }

    /// Runs `last_words` and commits them. After a failure, whoever calls this rolls back.
    fn try_last_words(
        &self,
        last_words: impl FnOnce(&Tx) -> Result<(), Error>,
    ) -> Result<(), Failure> {
        let said = transaction::catch(|| {
            self.commit(|tx| {
                settings::set_local_commit_to_local(tx);
                last_words(tx)
            })
        });
        said?.map_err(|error| error.as_failure())
    }

    /// Rolls back what is not committed, after an error; `false` as in [`Way::roll_back`].
    fn roll_back(&self) -> bool {
        self.in_transaction.set(false);
        self.way.roll_back()
    }
}

impl Driver {
    /// Has the run take its orders from there.
    pub fn is_supervised_by(&self, supervision: Option<Rc<dyn Supervision>>) {
        self.supervision.replace(supervision);
    }

    /// Where the run takes its orders from.
    pub fn supervision(&self) -> Option<Rc<dyn Supervision>> {
        self.supervision.borrow().clone()
    }

    /// Whether so much time has gone since the run last asked for its orders; it will do so now.
    pub fn is_order_due(&self, interval: Duration) -> bool {
        let asked = self.ordered_at.get();
        let is_due = asked.is_none_or(|asked| asked.elapsed() >= interval);
        if is_due {
            self.ordered_at.set(Some(Instant::now()));
        }
        is_due
    }

    /// The order that stands; `None` if nobody can be asked now. Call it between transactions.
    ///
    /// # Errors
    /// Those of the run's supervision when it is cancelled.
    pub fn order(&self) -> Result<Option<Order>, Error> {
        match self.supervision() {
            Some(supervision) => self.commit(|tx| supervision.order(tx)),
            None => Ok(Some(Order::Go)),
        }
    }

    /// Tells the supervision what the run does from now on. Call it between transactions. No standby needs to confirm it.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn note(&self, doing: Doing<'_>) -> Result<(), Error> {
        let Some(supervision) = self.supervision() else {
            return Ok(());
        };
        let unconfirmed = self.unconfirmed.get();
        let noted = self.commit(|tx| supervision.note(tx, doing));
        self.unconfirmed.set(unconfirmed);
        self.is_unnoted.set(!noted?);
        Ok(())
    }

    /// Tells again what the run does, if that could not be told. Call it between transactions.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn note_again(&self) -> Result<(), Error> {
        match self.is_unnoted.get() {
            true => self.note_waiting(),
            false => Ok(()),
        }
    }

    fn note_waiting(&self) -> Result<(), Error> {
        let waits = self.waits.borrow().clone();
        match waits {
            Some((wait, since)) => self.note(Doing::WaitFor(&wait.to_string(), since.elapsed())),
            None => self.note(Doing::Work),
        }
    }

    /// Lets others see what the run waits for. The first wait for each reason is a NOTICE. Call it between transactions.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn waits_for(&self, wait: &Wait) -> Result<(), Error> {
        let before = self.waits.take();
        let same = before.filter(|(before, _)| before.reason == wait.reason);
        let since = same.map_or_else(Instant::now, |(_, since)| since);
        self.waits.replace(Some((wait.clone(), since)));
        self.noted_at.set(Instant::now());
        if self.told.borrow_mut().insert(wait.reason) && self.tells() {
            messages::say_waiting(wait);
        }
        self.note_waiting()
    }

    /// Whether others see that the run waits for this reason, as it was not longer ago than `age`.
    pub fn has_told(&self, reason: Reason, age: Duration) -> bool {
        let waits = self.waits.borrow();
        let is_told = waits
            .as_ref()
            .is_some_and(|(wait, _)| wait.reason == reason);
        is_told && self.noted_at.get().elapsed() < age
    }

    /// Lets others see that the run works again, if they saw that it waits for such a reason.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    pub fn has_waited(&self, is_over: impl FnOnce(Reason) -> bool) -> Result<(), Error> {
        let reason = self.waits.borrow().as_ref().map(|(wait, _)| wait.reason);
        if !reason.is_some_and(is_over) {
            return Ok(());
        }
        self.waits.take();
        self.note(Doing::Work)
    }

    /// Whether the user is told what the run waits for.
    pub fn tells(&self) -> bool {
        self.supervision()
            .is_none_or(|supervision| supervision.tells())
    }

    /// Lets others see that the run is paused while `wait` lasts, and then again what it does otherwise.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`], and those of `wait`.
    pub fn pause(&self, wait: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let began = Instant::now();
        self.note(Doing::WaitFor("safe_backfill_resume", Duration::ZERO))?;
        let waited = wait();
        self.paused.set(self.paused.get() + began.elapsed());
        waited?;
        self.note_waiting()
    }

    /// For how long the run was paused.
    pub fn time_paused(&self) -> Duration {
        self.paused.get()
    }
}

/// Fails where nothing can be written, or a value not be read.
///
/// # Errors
/// [`Error::HotStandby`], [`Error::ReadOnly`], [`Error::Encoding`].
pub fn require_writable(procedure: &'static str) -> Result<(), Error> {
    match () {
        () if server::is_standby() => Err(Error::HotStandby { procedure }),
        () if server::is_read_only() => Err(Error::ReadOnly { procedure }),
        () if !server::is_utf8() => Err(Error::Encoding { procedure }),
        () => Ok(()),
    }
}
