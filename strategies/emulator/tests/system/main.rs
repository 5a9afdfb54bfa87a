//! The system half of IA-32: privilege, segments, interrupts, tasks, virtual-8086 mode, I/O.
//!
//! Each test runs single instructions, given as bytes, on a small guest in flat protected mode and
//! compares what the Intel SDM says with the registers, tables and stacks it finds.

mod control;
mod gates;
mod guest;
mod hostile;
mod inspect;
mod interrupts;
mod ports;
mod segments;
mod tables;
mod tasks;
mod virtual_8086;
