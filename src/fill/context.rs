//! What a run works with, for all leaves.

use std::cell::RefCell;
use std::rc::Rc;

use crate::fill::request::Request;
use crate::job::store::Job;
use crate::run::driver::Driver;
use crate::run::membership::Membership;
use crate::run::throttle::Throttle;

/// One run, from its first transaction to its last, in one of the processes that work on it.
pub struct Run<'a> {
    /// Commits the transactions of the run.
    pub driver: &'a Driver,
    /// What was asked for.
    pub request: &'a Request,
    /// Makes batches wait while others are behind.
    pub throttle: RefCell<Throttle>,
    /// Where progress is stored.
    pub job: Rc<Job>,
    /// The place of this process among those that work on the run.
    pub membership: Rc<Membership>,
}
