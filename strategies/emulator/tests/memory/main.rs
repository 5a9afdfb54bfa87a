//! Memory as instructions see it: paging, the cache of decoded blocks, string instructions.

mod blocks;
mod breakpoints;
mod code_writes;
mod guest;
mod pae;
mod paging;
mod split;
mod strings;
mod strings_stopped;
