//! The runtime that every workload stands on: a tiny kernel, emitted around the workload's own code.
//!
//! A workload is a short function that begins a [`Guest`], emits its code with [`x86!`](crate::x86),
//! and finishes with the checksum that the host computed for it. The code runs in line: what the
//! function emits first runs first, in ring 0, with everything set up.
//!
//! ```text
//! pub(crate) fn assemble(iterations: u32) -> Result<Image, Error> {
//!     let mut g = Guest::boot("callret", Setup::default());
//!     let function = g.label();
//!     x86!(g ; jmp >over ; =>function ; inc ebx ; ret ; over: ; xor ebx, ebx);
//!     g.begin();                                        // the mark on port 0xE9
//!     g.repeat(iterations, |g| x86!(g ; call =>function));
//!     g.end();
//!     x86!(g ; mov eax, ebx);                           // the checksum is reported from EAX
//!     g.finish(iterations)                              // and must equal this
//! }
//! ```
//!
//! What the guest finds when its code begins (see [`layout`] for addresses and selectors):
//!
//! - ring 0, interrupts off, direction flag clear, flat segments, [`layout::KERNEL_STACK`] in use;
//! - its own GDT, a TSS (ESP0 is [`layout::INTERRUPT_STACK`], an I/O bitmap that denies all ports),
//!   an IDT whose every vector leads to a handler that prints `fault …` and exits with 1;
//!   [`Guest::gate`] puts the workload's own handlers in;
//! - the FPU initialised (SSE with [`Setup::sse`]), numeric errors by #MF;
//! - the identity paging asked for in [`Setup::paging`].
//!
//! DS, ES, FS and GS hold the flat *user* data segment, in ring 0 too: so no handler need save, load
//! or restore them when it comes from ring 3. The runtime contains no instruction that ring 3 would
//! execute wrongly without a trap (SGDT, SIDT, SLDT, STR, SMSW, PUSHF, POPF, LAR, LSL, VERR, VERW,
//! PUSH or MOV from a segment register, INT from ring 0): a monitor that merely traps and emulates
//! runs it right. What does trap is used freely, with IRET, which always faults here because its
//! selectors are beyond what ring 3 of any host may load.
//!
//! Code, and data that is written, never share a page: [`Guest::data`] (initialised), [`layout::STATE`]
//! and [`layout::HEAP`] are for data; do not put written data into the text.
//!
//! The parts: [`layout`] says where things are, `descriptors` builds the GDT, TSS and IDT on the
//! host, `boot` is the multiboot header and the way to flat protected mode with paging, `ring3` goes
//! down and comes back, `interrupts` programs the 8259 and 8254, `report` prints, `guest` is the
//! builder that holds it together.

mod boot;
mod descriptors;
mod guest;
mod interrupts;
pub mod layout;
mod report;
mod ring3;

pub use boot::{Paging, Setup};
pub use descriptors::{Gate, segment};
pub use guest::{Asm, Guest, Segment};
pub use interrupts::PIT_HZ;

/// What a workload's file needs for its code: `use crate::runtime::prelude::*;`.
pub mod prelude {
    pub use super::layout;
    pub use super::{Asm, Gate, Guest, Paging, Segment, Setup};
    pub use crate::{Error, Image, x86};
    pub use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi};
}

/// Emits 32-bit code into a [`Guest`] or an [`Asm`]: `x86!(guest ; mov eax, 1 ; ret)`, in dynasm's
/// syntax.
///
/// Local labels (`name:`, `<name`, `>name`) may be used again and again; labels across closures are
/// [`Guest::label`]s (`=>label`); addresses of labels are taken with `lea eax, [=>label]`. Segment
/// registers are loaded with [`Guest::load_segment`], because dynasm encodes `mov ds, ax` wrongly.
#[macro_export]
macro_rules! x86 {
    ($assembler:ident $($code:tt)*) => {
        dynasmrt::dynasm!($assembler ; .arch x86 $($code)*)
    };
}
