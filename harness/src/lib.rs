//! The harness: experiments and VMs from TOML, the strategies and peers that run them, and the
//! records, statistics, plots and report that come out.
//!
//! Data flows one way: configuration, then guests (each in a process of its own), then
//! `samples.csv`, and from the files everything else. Plotting never runs a guest.

pub mod audit;
pub mod bench;
pub mod check;
pub mod cli;
pub mod compare;
pub mod config;
pub mod doctor;
pub mod expectations;
pub mod guest;
pub mod host_info;
pub mod interrupt;
pub mod list;
pub mod lockstep;
pub mod patches;
pub mod peers;
pub mod plot;
pub mod process;
mod received;
pub mod records;
pub mod report;
pub mod run;
pub mod stats;
pub mod strategies;
pub mod translate;
pub mod worker;

pub use cli::main;
