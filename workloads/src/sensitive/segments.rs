//! Reading CS, and loading segment registers and reading them back. A deprivileged kernel sees
//! ring 3 in its selectors.

use super::trap::{Ring, Trap};
use crate::runtime::prelude::*;
use crate::runtime::segment;

pub(super) fn mov_cs(iterations: u32) -> Result<Image, Error> {
    read_cs("mov-cs", iterations, |g| x86!(g ; .bytes [0x8C, 0xC8])) // mov eax, cs
}

pub(super) fn push_cs(iterations: u32) -> Result<Image, Error> {
    read_cs("push-cs", iterations, |g| x86!(g ; push cs ; pop eax))
}

/// `read` brings CS to AX; what is above depends on the processor (Intel SDM vol. 2, MOV and PUSH).
fn read_cs(name: &'static str, iterations: u32, read: fn(&mut Guest)) -> Result<Image, Error> {
    let mut g = Guest::for_probes(name);
    for (ring, name, selector) in
        [(Ring::Zero, "ring0", layout::KERNEL_CODE), (Ring::USER, "ring3", layout::USER_CODE)]
    {
        g.inside(ring, read);
        x86!(g ; and eax, 0xFFFF);
        g.probe(name, u32::from(selector));
    }
    g.measure(iterations, |g| {
        read(g);
        x86!(g ; and eax, 0xFFFF ; add ebx, eax);
    });
    g.finish(iterations.wrapping_mul(u32::from(layout::KERNEL_CODE)))
}

/// A ring-3 data segment over one page, not yet accessed.
const SMALL: u16 = layout::FREE_SELECTOR | 3;
const SMALL_BYTES: u32 = 0x1000;
const DATA_NOT_ACCESSED: u8 = 0xF2;
/// A segment that is not present.
const ABSENT: u16 = layout::FREE_SELECTOR + 8;
/// Beyond the GDT's limit.
const BEYOND: u16 = 0x100;
/// Two pages, and what their first words hold.
const PAGES: [u32; 2] = [layout::HEAP, layout::HEAP + SMALL_BYTES];
const CONTENTS: [u32; 2] = [0x1357_9BDF, 0x0246_8ACE];
/// The access byte of [`SMALL`]'s descriptor.
const ACCESS_BYTE: i32 = (layout::GDT + (SMALL & !7) as u32 + 5) as i32;

/// How a segment register is loaded.
struct Load {
    /// Brings the selector in EAX to where the instruction takes it from.
    prepare: fn(&mut Guest),
    /// Loads FS.
    fs: fn(&mut Guest),
    /// Loads SS.
    ss: fn(&mut Guest),
}

pub(super) fn mov_seg(iterations: u32) -> Result<Image, Error> {
    let load = Load {
        prepare: |_| {},
        fs: |g| x86!(g ; .bytes [0x8E, 0xE0]), // mov fs, ax
        ss: |g| x86!(g ; .bytes [0x8E, 0xD0]), // mov ss, ax
    };
    load_and_read("mov-seg", iterations, &load)
}

pub(super) fn pop_seg(iterations: u32) -> Result<Image, Error> {
    let load = Load {
        prepare: |g| x86!(g ; push eax),
        fs: |g| x86!(g ; pop fs),
        ss: |g| x86!(g ; pop ss),
    };
    load_and_read("pop-seg", iterations, &load)
}

fn load_and_read(name: &'static str, iterations: u32, load: &Load) -> Result<Image, Error> {
    let mut g = Guest::for_probes(name);
    for (page, content) in PAGES.into_iter().zip(CONTENTS) {
        x86!(g ; mov DWORD [page as i32], content as i32);
    }
    g.descriptor(SMALL, segment(PAGES[0], SMALL_BYTES - 1, DATA_NOT_ACCESSED, 4));
    g.descriptor(ABSENT, segment(0, 0xFFFF, 0x72, 0));
    probe_reading(&mut g, load);
    probe_hidden_part(&mut g, load);
    probe_faults(&mut g, load);
    x86!(g ; mov ecx, i32::from(SMALL));
    g.measure(iterations, |g| {
        x86!(g ; mov eax, ecx);
        (load.prepare)(g);
        (load.fs)(g);
        read_fs(g);
        x86!(g ; add ebx, eax);
    });
    g.finish(iterations.wrapping_mul(u32::from(SMALL)))
}

/// Loads FS with `selector`.
fn load_fs(g: &mut Guest, load: &Load, selector: u16) {
    g.guarded(|g| {
        x86!(g ; mov eax, i32::from(selector));
        (load.prepare)(g);
        (load.fs)(g);
    });
}

/// MOV EAX, FS and nothing above 16 bits.
fn read_fs(g: &mut Guest) {
    x86!(g ; .bytes [0x8C, 0xE0] ; and eax, 0xFFFF);
}

/// Reads the doubleword at `offset` in FS into EAX.
fn read_through_fs(g: &mut Guest, offset: u32) {
    x86!(g ; .bytes [0x64, 0xA1] ; .u32 offset);
}

/// Reports what the first doubleword of FS is.
fn probe_content(g: &mut Guest, name: &str, content: u32) {
    x86!(g ; xor eax, eax);
    g.guarded(|g| read_through_fs(g, 0));
    g.probe(name, content);
}

fn probe_reading(g: &mut Guest, load: &Load) {
    for (ring, name, selector) in [
        (Ring::Zero, "ring0", SMALL),
        (Ring::Zero, "ring0-kernel", layout::KERNEL_DATA),
        (Ring::Zero, "ring0-null", 0),
        (Ring::USER, "ring3", SMALL),
        (Ring::USER, "ring3-null", 3),
    ] {
        g.inside(ring, |g| {
            load_fs(g, load, selector);
            read_fs(g);
        });
        g.probe(name, u32::from(selector));
    }
    x86!(g ; movzx eax, BYTE [ACCESS_BYTE]);
    g.probe("ring0-accessed", u32::from(DATA_NOT_ACCESSED | 1));
}

/// The descriptor is read when the selector is loaded, and not again: a change in memory shows only
/// after the next load.
fn probe_hidden_part(g: &mut Guest, load: &Load) {
    load_fs(g, load, SMALL);
    probe_content(g, "ring0-base", CONTENTS[0]);
    g.descriptor(SMALL, segment(PAGES[1], SMALL_BYTES - 1, DATA_NOT_ACCESSED, 4));
    probe_content(g, "ring0-hidden", CONTENTS[0]);
    load_fs(g, load, SMALL);
    probe_content(g, "ring0-reloaded", CONTENTS[1]);
}

fn probe_faults(g: &mut Guest, load: &Load) {
    g.probe_trap(Ring::Zero, "ring0-limit", Trap::GP0, |g| read_through_fs(g, SMALL_BYTES));
    load_fs(g, load, 0);
    g.probe_trap(Ring::Zero, "ring0-through-null", Trap::GP0, |g| read_through_fs(g, 0));
    for (ring, name, selector, trap) in [
        (Ring::Zero, "ring0-absent", ABSENT, Trap::np(ABSENT)),
        (Ring::Zero, "ring0-beyond", BEYOND, Trap::gp(BEYOND)),
        (Ring::Zero, "ring0-system", layout::TSS_SELECTOR, Trap::gp(layout::TSS_SELECTOR)),
        (Ring::USER, "ring3-kernel", layout::KERNEL_DATA, Trap::gp(layout::KERNEL_DATA)),
    ] {
        let selected = |g: &mut Guest| {
            x86!(g ; mov eax, i32::from(selector));
            (load.prepare)(g);
        };
        g.probe_trap_after(ring, name, trap, selected, load.fs);
    }
    // The stack's segment must be of the ring that runs.
    let user_stack = |g: &mut Guest| {
        x86!(g ; mov eax, i32::from(layout::USER_DATA));
        (load.prepare)(g);
    };
    let refused = Trap::gp(layout::USER_DATA & !3);
    g.probe_trap_after(Ring::Zero, "ring0-ss", refused, user_stack, load.ss);
    g.load_segment(Segment::Fs, layout::USER_DATA);
}
