//! Small guests under trap-and-emulate: what traps comes out as the architecture has it, and what
//! does not trap is found by the watch.

#[macro_use]
mod guest;

mod float;
mod limits;
mod modes;
mod moving;
mod paging;
mod privilege;
mod random;
mod segments;
mod time;
mod traps;
mod watch;
