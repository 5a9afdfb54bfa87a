//! The instructions, by topic.

pub(crate) mod arithmetic;
pub(crate) mod branch;
pub(crate) mod control;
pub(crate) mod decimal;
pub(crate) mod far;
pub(crate) mod flags;
pub(crate) mod identify;
pub(crate) mod inspect;
pub(crate) mod interrupts;
pub(crate) mod io;
pub(crate) mod moves;
pub(crate) mod segments;
pub(crate) mod shifts;
pub(crate) mod stack;
pub(crate) mod status;
pub(crate) mod strings;
pub(crate) mod tables;
