//! Jobs as they are stored, so that the same CALL goes on where the last one stopped.

pub mod assignment;
pub mod column_lock;
pub mod control;
pub mod home;
pub mod method;
pub mod part;
pub mod recipe;
pub mod recorder;
pub mod steering;
pub mod step;
pub mod store;
pub mod stored;
pub mod taking;
