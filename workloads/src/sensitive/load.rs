//! LGDT, LIDT, LLDT and LTR: that the table loaded is the one that is used.

use super::trap::{Ring, Trap, VARIABLES};
use crate::runtime::prelude::*;
use crate::runtime::segment;

/// Two pages, and what their first words hold.
const PAGES: [u32; 2] = [layout::HEAP, layout::HEAP + 0x1000];
const CONTENTS: [u32; 2] = [0x1357_9BDF, 0x0246_8ACE];
/// The second table, or the second TSS.
const SECOND: u32 = layout::HEAP + 0x2000;
/// The top of a second stack for interrupts.
const SECOND_STACK: u32 = layout::HEAP + 0x5000;
/// The segment that is a page of its own in each table.
const SEGMENT: u16 = layout::FREE_SELECTOR | 3;

fn page_segment(page: u32) -> u64 {
    segment(page, 0xFFF, 0xF3, 4)
}

fn guest(name: &'static str) -> Guest {
    let mut g = Guest::for_probes(name);
    for (page, content) in PAGES.into_iter().zip(CONTENTS) {
        x86!(g ; mov DWORD [page as i32], content as i32);
    }
    g
}

/// An operand of LGDT or LIDT.
fn table_register(g: &mut Guest, base: u32, bytes: u32) -> i32 {
    let mut register = [0; 8];
    register[..2].copy_from_slice(&(bytes as u16 - 1).to_le_bytes());
    register[2..6].copy_from_slice(&base.to_le_bytes());
    g.data(&register) as i32
}

/// What the segment `selector` shows, to EAX, by way of FS.
fn read_segment(g: &mut Guest, selector: u16) {
    g.load_segment(Segment::Fs, selector);
    x86!(g ; .bytes [0x64, 0xA1] ; .u32 0); // mov eax, fs:[0]
}

/// Reports what [`read_segment`] gives.
fn probe_segment(g: &mut Guest, name: &str, selector: u16, content: u32) {
    g.guarded(|g| read_segment(g, selector));
    g.probe(name, content);
}

/// MOV FS, AX.
fn load_fs(g: &mut Guest) {
    x86!(g ; .bytes [0x8E, 0xE0]);
}

/// The content shown after so many changes of tables, beginning with the first.
fn shown_after(changes: u32) -> u32 {
    CONTENTS[changes as usize % 2]
}

pub(super) fn lgdt(iterations: u32) -> Result<Image, Error> {
    const BYTES: u32 = layout::GDT_ENTRIES * 8;
    let mut g = guest("lgdt");
    g.descriptor(SEGMENT, page_segment(PAGES[0]));
    g.copy(layout::GDT, SECOND, BYTES / 4);
    g.descriptor_in(SECOND, SEGMENT, page_segment(PAGES[1]));
    let registers = [layout::GDT, SECOND].map(|base| table_register(&mut g, base, BYTES));
    let short = table_register(&mut g, layout::GDT, u32::from(SEGMENT & !7));
    probe_segment(&mut g, "ring0-first", SEGMENT, CONTENTS[0]);
    x86!(g ; lgdt [registers[1]]);
    probe_segment(&mut g, "ring0-second", SEGMENT, CONTENTS[1]);
    x86!(g ; lgdt [short] ; mov eax, i32::from(SEGMENT));
    g.probe_trap(Ring::Zero, "ring0-limit", Trap::gp(SEGMENT & !3), load_fs);
    x86!(g ; lgdt [registers[0]]);
    g.probe_trap(Ring::USER, "ring3", Trap::GP0, |g| x86!(g ; lgdt [registers[1]]));
    measure_tables(&mut g, iterations, registers, |g| x86!(g ; lgdt [esi]));
    x86!(g ; mov ebx, eax);
    read_segment(&mut g, SEGMENT);
    x86!(g ; add eax, ebx);
    g.finish(iterations.wrapping_add(shown_after(iterations)))
}

/// Measures `load` of one operand and the other by turns, at ESI; the count is in EAX.
fn measure_tables(g: &mut Guest, iterations: u32, registers: [i32; 2], load: fn(&mut Guest)) {
    x86!(g ; mov esi, registers[0]);
    g.measure(iterations, |g| {
        x86!(g ; xor esi, registers[0] ^ registers[1]);
        load(g);
        x86!(g ; inc ebx);
    });
}

pub(super) fn lidt(iterations: u32) -> Result<Image, Error> {
    /// The vector whose handlers differ, and the error code of a fault over its gate.
    const VECTOR: u8 = 0x82;
    const ERROR: u16 = VECTOR as u16 * 8 + 2;
    const BYTES: u32 = 256 * 8;
    let mut g = guest("lidt");
    let handlers = [g.label(), g.label()];
    x86!(g ; jmp >over);
    for (handler, content) in handlers.into_iter().zip(CONTENTS) {
        x86!(g ; =>handler ; mov eax, content as i32 ; iretd);
    }
    x86!(g ; over:);
    g.gate(VECTOR, Gate::Interrupt, handlers[0]);
    g.copy(layout::IDT, SECOND, BYTES / 4);
    // The gate of the other handler, which is less than 64 KiB away: the low half differs.
    let gate = (SECOND + u32::from(VECTOR) * 8) as i32;
    x86!(g ; lea eax, [=>handlers[1]] ; mov [gate], ax);
    let registers = [layout::IDT, SECOND].map(|base| table_register(&mut g, base, BYTES));
    let short = table_register(&mut g, layout::IDT, u32::from(VECTOR) * 8);
    for (name, number) in [("ring0-first", 0), ("ring0-second", 1)] {
        x86!(g ; lidt [registers[number]] ; int VECTOR as i8);
        g.probe(name, CONTENTS[number]);
    }
    x86!(g ; lidt [short]);
    g.probe_trap(Ring::Zero, "ring0-limit", Trap::gp(ERROR), |g| x86!(g ; int VECTOR as i8));
    x86!(g ; lidt [registers[0]]);
    g.probe_trap(Ring::USER, "ring3", Trap::GP0, |g| x86!(g ; lidt [registers[1]]));
    measure_tables(&mut g, iterations, registers, |g| x86!(g ; lidt [esi]));
    x86!(g ; mov ebx, eax ; int VECTOR as i8 ; add eax, ebx);
    g.finish(iterations.wrapping_add(shown_after(iterations)))
}

/// An LDT that is not present.
const ABSENT: u16 = layout::FREE_SELECTOR + 8;

pub(super) fn lldt(iterations: u32) -> Result<Image, Error> {
    const SELECTORS: [u16; 2] = [layout::LDT_SELECTOR, layout::FREE_SELECTOR];
    const TABLES: [u32; 2] = [SECOND, SECOND + 0x1000];
    /// Entry 1 of the LDT, RPL 3.
    const LOCAL: u16 = 8 | 4 | 3;
    let mut g = guest("lldt");
    for number in [0, 1] {
        g.descriptor(SELECTORS[number], segment(TABLES[number], 0xF, 0x82, 0));
        g.descriptor_in(TABLES[number], LOCAL, page_segment(PAGES[number]));
    }
    g.descriptor(ABSENT, segment(TABLES[0], 0xF, 0x02, 0));
    for (name, number) in [("ring0-first", 0), ("ring0-second", 1)] {
        x86!(g ; mov eax, i32::from(SELECTORS[number]) ; lldt ax);
        probe_segment(&mut g, name, LOCAL, CONTENTS[number]);
    }
    x86!(g ; mov eax, 0x10 | 4);
    g.probe_trap(Ring::Zero, "ring0-limit", Trap::gp(0x10 | 4), load_fs);
    x86!(g ; xor eax, eax ; lldt ax ; mov eax, i32::from(LOCAL));
    g.probe_trap(Ring::Zero, "ring0-null", Trap::gp(LOCAL & !3), load_fs);
    for (ring, name, selector, trap) in [
        (Ring::Zero, "ring0-type", layout::KERNEL_DATA, Trap::gp(layout::KERNEL_DATA)),
        (Ring::Zero, "ring0-absent", ABSENT, Trap::np(ABSENT)),
        (Ring::USER, "ring3", SELECTORS[0], Trap::GP0),
    ] {
        x86!(g ; mov eax, i32::from(selector));
        g.probe_trap(ring, name, trap, |g| x86!(g ; lldt ax));
    }
    x86!(g ; mov ecx, i32::from(SELECTORS[0]));
    g.measure(iterations, |g| {
        x86!(g ; xor ecx, i32::from(SELECTORS[0] ^ SELECTORS[1]) ; lldt cx ; inc ebx);
    });
    x86!(g ; mov ebx, eax);
    read_segment(&mut g, LOCAL);
    x86!(g ; add eax, ebx);
    g.finish(iterations.wrapping_add(shown_after(iterations)))
}

/// The second TSS, and the access byte of its descriptor: LTR makes it busy.
const TASK: u16 = layout::FREE_SELECTOR;
const TASK_ACCESS: i32 = (layout::GDT + TASK as u32 + 5) as i32;
const AVAILABLE: u8 = 0x89;
const BUSY: u8 = 0x8B;
const SEEN_ESP: i32 = VARIABLES;

pub(super) fn ltr(iterations: u32) -> Result<Image, Error> {
    const VECTOR: u8 = 0x82;
    let mut g = guest("ltr");
    let handler = g.label();
    x86!(g ; jmp >over ; =>handler ; mov [SEEN_ESP], esp ; iretd ; over:);
    g.gate(VECTOR, Gate::UserInterrupt, handler);
    g.copy(layout::TSS, SECOND, 104 / 4);
    x86!(g ; mov DWORD [SECOND as i32 + 4], SECOND_STACK as i32); // ESP0
    g.descriptor(TASK, segment(SECOND, 103, AVAILABLE, 0));
    g.descriptor(ABSENT, segment(SECOND, 103, AVAILABLE & 0x7F, 0));
    g.ring3(|g| x86!(g ; int VECTOR as i8));
    g.probe_variable("ring0-first", SEEN_ESP, u32::MAX, layout::INTERRUPT_STACK - 20);
    x86!(g ; mov eax, i32::from(TASK) ; ltr ax ; movzx eax, BYTE [TASK_ACCESS]);
    g.probe("ring0-busy", u32::from(BUSY));
    g.ring3(|g| x86!(g ; int VECTOR as i8));
    g.probe_variable("ring0-second", SEEN_ESP, u32::MAX, SECOND_STACK - 20);
    for (ring, name, selector, trap) in [
        (Ring::Zero, "ring0-busy-again", TASK, Trap::gp(TASK)),
        (Ring::Zero, "ring0-type", layout::KERNEL_DATA, Trap::gp(layout::KERNEL_DATA)),
        (Ring::Zero, "ring0-absent", ABSENT, Trap::np(ABSENT)),
        (Ring::USER, "ring3", TASK, Trap::GP0),
        // Last: where it is accepted, there is no way to ring 3 and back until the next LTR.
        (Ring::Zero, "ring0-null", 0, Trap::GP0),
    ] {
        x86!(g ; mov eax, i32::from(selector));
        g.probe_trap(ring, name, trap, |g| x86!(g ; ltr ax));
    }
    x86!(g ; mov ecx, i32::from(TASK));
    g.measure(iterations, |g| {
        x86!(g
            ; mov BYTE [TASK_ACCESS], AVAILABLE as i8
            ; ltr cx
            ; movzx eax, BYTE [TASK_ACCESS]
            ; add ebx, eax
        );
    });
    g.finish(iterations.wrapping_mul(u32::from(BUSY)))
}
