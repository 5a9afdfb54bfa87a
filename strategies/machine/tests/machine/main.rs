//! Whole machines without a CPU's strategy: hostile accesses, files, record and replay.

mod hostile;
mod hostile_guest;
mod snapshot;
mod tap;
