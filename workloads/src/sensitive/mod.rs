//! The sensitive instructions (Robin & Irvine 2000; Intel SDM vol. 3, 2.8 and 6.9), one workload
//! each.
//!
//! Each workload is a probe and a cost. The probes run the instruction in ring 0 and, where it
//! differs, in ring 3, and compare what the guest sees with what the architecture says it must see:
//! values shown, effects, and exceptions with error code and EIP. Then the instruction is measured
//! in a loop, in ring 0 unless the summary says otherwise, with a checksum of what it showed. A
//! probe that goes wrong is reported and does not stop the workload.
//!
//! `trap` has the means: a recorder of exceptions, and regions of code in which one may happen.

mod control;
mod debug;
mod far;
mod flags;
mod hlt;
mod identity;
mod interrupts;
mod load;
mod paging;
mod ports;
mod rights;
mod segments;
mod selectors;
mod tables;
mod trap;

use crate::runtime::layout;
use crate::{Assemble, Group, Workload};

/// Name, summary, function.
const TABLE: [(&str, &str, Assemble); 38] = [
    ("sgdt", "SGDT; an iteration is one", tables::sgdt),
    ("sidt", "SIDT; an iteration is one", tables::sidt),
    ("sldt", "SLDT; an iteration is one", selectors::sldt),
    ("smsw", "SMSW; an iteration is one", selectors::smsw),
    ("str", "STR; an iteration is one", selectors::str),
    ("pushf", "PUSHF with IF and IOPL; an iteration is one, with its POP", flags::pushf),
    ("popf", "POPF that changes IF; an iteration is two, set and clear", flags::popf),
    ("popf-iopl", "POPF that changes IOPL; an iteration is two, set and clear", flags::popf_iopl),
    ("lar", "LAR; an iteration is one", rights::lar),
    ("lsl", "LSL; an iteration is one", rights::lsl),
    ("verr", "VERR; an iteration is one", rights::verr),
    ("verw", "VERW; an iteration is one", rights::verw),
    ("mov-cs", "MOV from CS; an iteration is one", segments::mov_cs),
    ("push-cs", "PUSH CS; an iteration is one, with its POP", segments::push_cs),
    ("mov-seg", "MOV to FS and back; an iteration is both", segments::mov_seg),
    ("pop-seg", "POP FS and MOV from it; an iteration is both", segments::pop_seg),
    ("far-call", "far CALL; an iteration is one, with its RET", far::far_call),
    ("far-jmp", "far JMP; an iteration is one", far::far_jmp),
    ("far-ret", "far RET to ring 0; an iteration is one", far::far_ret),
    ("int", "INT n in ring 0; an iteration is one, with its IRET", interrupts::int),
    ("iret", "IRET to ring 0; an iteration is one", interrupts::iret),
    ("cpuid", "CPUID; an iteration is one", identity::cpuid),
    ("rdtsc", "RDTSC; an iteration is one", identity::rdtsc),
    ("cli-sti", "STI and CLI; an iteration is both", flags::cli_sti),
    ("hlt", "HLT until a timer of 50 µs; an iteration is one, timer programmed", hlt::hlt),
    ("lgdt", "LGDT of two tables by turns; an iteration is one", load::lgdt),
    ("lidt", "LIDT of two tables by turns; an iteration is one", load::lidt),
    ("lldt", "LLDT of two tables by turns; an iteration is one", load::lldt),
    ("ltr", "LTR; an iteration is one, with its descriptor made available", load::ltr),
    ("mov-cr0", "MOV to CR0 (TS by turns) and back; an iteration is both", control::mov_cr0),
    ("mov-cr2", "MOV to CR2 and back; an iteration is both", control::mov_cr2),
    ("mov-cr3", "MOV to CR3 of two address spaces by turns; an iteration is one", paging::mov_cr3),
    ("mov-cr4", "MOV to CR4 (TSD by turns) and back; an iteration is both", control::mov_cr4),
    ("mov-dr", "MOV to DR0 and back; an iteration is both", debug::mov_dr),
    ("clts", "CLTS; an iteration is one", control::clts),
    ("invlpg", "INVLPG; an iteration is one, with a read of the page", paging::invlpg),
    ("io-iopl", "IN in ring 3 with IOPL 3; an iteration is one", ports::io_iopl),
    ("io-bitmap", "IN in ring 3 by the I/O bitmap; an iteration is one", ports::io_bitmap),
];

/// The workloads of this group.
pub(crate) fn all() -> Vec<Workload> {
    TABLE
        .into_iter()
        .map(|(name, summary, assemble)| Workload {
            name,
            group: Group::Sensitive,
            summary,
            memory_bytes: u64::from(layout::MEMORY),
            first_iterations: if name == "hlt" { 5 } else { 100 },
            assemble,
        })
        .collect()
}
