//! Hostile guests: whatever they do, they end under the translator as under interpretation, and
//! never with the host.
//!
//! Each body is written once. It sets up a guest, which then runs on machines of its own under
//! interpretation, under the translator, and under the translator with all accesses guilty; stop,
//! CPU and memory are compared.

mod code;
mod devices;
mod faults;
mod guest;
mod paging;
mod pointers;
mod transfers;
