//! A job in parts: each reads its own rows of every input, on any machine, and the join makes of what they leave the bytes of one
//! run.
//!
//! A part's record ([`crate::basis::part_file`]) says of which inputs it is: a plan that nothing can be read of comes back from it,
//! sums and digests of all parts are brought to where a pass over everything would have ended, and the ordinary end of the job
//! does the rest. A part that died is run again; nothing else is affected.

mod compress;
mod gram;
mod join;
mod options;
mod set;
mod undivided;

pub use compress::compress_part;
pub use gram::gram_part;
pub use join::{Joined, join};
pub use options::JoinOptions;
pub use set::{FoundPart, PartSet};
