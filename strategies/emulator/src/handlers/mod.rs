//! The instructions, by topic.

pub(crate) mod arithmetic;
pub(crate) mod branch;
pub(crate) mod decimal;
pub(crate) mod moves;
pub(crate) mod shifts;
pub(crate) mod stack;
pub(crate) mod status;
pub(crate) mod strings;
