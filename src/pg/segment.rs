//! Memory that the processes of one run share: a segment of PostgreSQL's dynamic shared memory (`dsm.c`).

use planner::team::Team;

use pgrx::pg_sys;

use crate::pg::tx::Tx;

/// A segment with a [`Team`], and a text that does not change.
///
/// It outlives transactions, and goes when the last process that has it attached ends or drops it.
pub struct Segment(*mut pg_sys::dsm_segment);

/// What stands at the beginning of the segment; the text follows.
#[repr(C)]
struct Header {
    team: Team,
    length: usize,
}

impl Segment {
    /// Makes a segment. When this process lets go of it, in whatever way, the team is told that it is over.
    pub fn create(_tx: &Tx, text: &str) -> Self {
        let header = Header {
            team: Team::default(),
            length: text.len(),
        };
        // SAFETY: the segment is mapped at an address aligned to a page, and as large as the header and the text, which are
        // written before any other process knows its handle. Pinned, it stays mapped until it is detached.
        unsafe {
            let segment = pg_sys::dsm_create(size_of::<Header>() + text.len(), 0);
            pg_sys::dsm_pin_mapping(segment);
            let start = pg_sys::dsm_segment_address(segment).cast::<Header>();
            start.write(header);
            std::ptr::copy_nonoverlapping(text.as_ptr(), start.add(1).cast(), text.len());
            pg_sys::on_dsm_detach(segment, Some(end_team), pg_sys::Datum::from(0));
            Segment(segment)
        }
    }

    /// The segment with this handle; `None` if it is gone.
    pub fn attach(_tx: &Tx, handle: u32) -> Option<Self> {
        // SAFETY: a handle is only a number; what it leads to was made by `create`.
        unsafe {
            let segment = pg_sys::dsm_attach(handle);
            if segment.is_null() {
                return None;
            }
            pg_sys::dsm_pin_mapping(segment);
            Some(Segment(segment))
        }
    }

    /// What other processes find it by.
    pub fn handle(&self) -> u32 {
        // SAFETY: the segment is mapped as long as `self` lives.
        unsafe { pg_sys::dsm_segment_handle(self.0) }
    }

    /// The team.
    pub fn team(&self) -> &Team {
        &self.header().team
    }

    /// The text.
    pub fn text(&self) -> String {
        let header = self.header();
        // SAFETY: the text follows the header, has the length that stands there, and does not change.
        let bytes = unsafe {
            let start = std::ptr::from_ref(header).add(1).cast::<u8>();
            std::slice::from_raw_parts(start, header.length)
        };
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn header(&self) -> &Header {
        // SAFETY: the segment is mapped as long as `self` lives and begins with a header, of which only atomics change.
        unsafe { &*pg_sys::dsm_segment_address(self.0).cast() }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: mapped and pinned by `create` or `attach`, and detached once.
        unsafe { pg_sys::dsm_detach(self.0) };
    }
}

/// Runs when the process that made the segment detaches it, also when it exits.
unsafe extern "C-unwind" fn end_team(segment: *mut pg_sys::dsm_segment, _: pg_sys::Datum) {
    // SAFETY: PostgreSQL calls this while the segment is mapped still.
    unsafe {
        (*pg_sys::dsm_segment_address(segment).cast::<Header>())
            .team
            .end()
    };
}
