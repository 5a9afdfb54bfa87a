//! Crossings: a way from 32-bit code back into the monitor without a signal.
//!
//! Code that knows of the monitor (a stub that a strategy put there) makes a far jump through the
//! host's 64-bit code selector to a *pad*, a few bytes of 64-bit code below 4 GiB:
//!
//! ```text
//! guest:  ea 00 50 00 f0 33 00    ljmp 0x33:0xf0005000
//! pad:    41 b9 07 00 00 00       mov r9d, 7        the crossing's number
//!         41 ff e6                jmp r14
//! ```
//!
//! R14 and R15 hold `ringside_crossing` and the area since the guest was entered: 32-bit code cannot
//! change them (Intel SDM volume 1, 3.4.1.1), and a pad holds no address of the host's. The routine
//! saves what a signal's frame would have, and ends the stay as a signal does.
//!
//! From the far jump until FS and GS are the host's again no Rust code may run. A timer's signal
//! that comes then only leaves a mark, and a single step is put off; `ringside_signal_between` does
//! both, for the addresses that [`allow_crossings`] named and for the routine itself.
//!
//! [`allow_crossings`]: crate::compatibility::CompatibilityMode::allow_crossings

use crate::world_switch::{HOST_DATA, InterruptFrame, SignalReport, SwitchArea, saved_register};
use std::mem::offset_of;

/// The selector for the far jump to a pad (Linux: `__USER_CS`).
pub const CODE_SELECTOR: u16 = crate::world_switch::HOST_CODE;
/// Bytes of a pad.
pub const PAD_BYTES: usize = 9;

/// The pad of the crossing with a number. It may lie anywhere below 4 GiB, in a page that need not be
/// readable.
#[must_use]
pub const fn pad(number: u32) -> [u8; PAD_BYTES] {
    let [a, b, c, d] = number.to_le_bytes();
    [0x41, 0xb9, a, b, c, d, 0x41, 0xff, 0xe6]
}

/// The flags that host code must not have: TF, DF, NT, AC.
const UNWANTED_FLAGS: u32 = 1 << 8 | 1 << 10 | 1 << 14 | 1 << 18;
const TRAP_FLAG: u32 = 1 << 8;
/// The vector of a single step.
const DEBUG: u32 = 1;

core::arch::global_asm!(
    ".pushsection .text.ringside_world_switch, \"ax\", @progbits",
    // From a pad: R9D is the number, R14 this address, R15 the area, all else the guest's.
    ".globl ringside_crossing",
    ".hidden ringside_crossing",
    "ringside_crossing:",
    "    mov [r15 + {registers} + 0], eax",
    "    mov [r15 + {registers} + 4], ecx",
    "    mov [r15 + {registers} + 8], edx",
    "    mov [r15 + {registers} + 12], ebx",
    "    mov [r15 + {registers} + 16], esp",
    "    mov [r15 + {registers} + 20], ebp",
    "    mov [r15 + {registers} + 24], esi",
    "    mov [r15 + {registers} + 28], edi",
    "    mov rsp, [r15 + {host_rsp}]",
    "    pushfq",
    "    pop rax",
    "    test eax, {unwanted}",
    "    jz 2f",
    "    push 2",
    "    popfq",
    "2:  or eax, [r15 + {put_off}]",
    "    mov [r15 + {rflags}], rax",
    "    mov [r15 + {number}], r9d",
    "    mov byte ptr [r15 + {crossed}], 1",
    "    mov word ptr [r15 + {selectors} + 0], ds",
    "    mov word ptr [r15 + {selectors} + 4], es",
    "    mov word ptr [r15 + {selectors} + 8], fs",
    "    mov word ptr [r15 + {selectors} + 12], gs",
    "    mov word ptr [r15 + {ss}], ss",
    "    mov eax, {host_data}",
    "    mov ss, eax",
    "    xor eax, eax",
    "    mov fs, eax",
    "    mov gs, eax",
    "    mov rax, [r15 + {host_fs_base}]",
    "    wrfsbase rax",
    "    mov rax, [r15 + {host_gs_base}]",
    "    wrgsbase rax",
    ".globl ringside_crossing_end",
    ".hidden ringside_crossing_end",
    "ringside_crossing_end:",
    "    mov rdi, r15",
    "    jmp ringside_world_leave",
    // A signal between the far jump and there: EDI its number, RDX its ucontext, RCX the area.
    ".globl ringside_signal_between",
    ".hidden ringside_signal_between",
    "ringside_signal_between:",
    "    cmp edi, {sigalrm}",
    "    jne 2f",
    "    mov dword ptr [rcx + {kicked}], 1",
    "    ret",
    "2:  cmp edi, {sigtrap}",
    "    jne {host_signal}",
    "    cmp dword ptr [rdx + {saved_trap}], {debug}",
    "    jne {host_signal}",
    "    and dword ptr [rdx + {saved_flags}], {not_trap_flag}",
    "    mov dword ptr [rcx + {put_off}], {trap_flag}",
    "    ret",
    ".popsection",
    registers = const offset_of!(SwitchArea, registers),
    selectors = const offset_of!(SwitchArea, selectors),
    rflags = const offset_of!(SwitchArea, frame) + offset_of!(InterruptFrame, rflags),
    ss = const offset_of!(SwitchArea, frame) + offset_of!(InterruptFrame, ss),
    number = const offset_of!(SwitchArea, report) + offset_of!(SignalReport, crossing),
    crossed = const offset_of!(SwitchArea, report) + offset_of!(SignalReport, crossed),
    put_off = const offset_of!(SwitchArea, put_off_flags),
    host_rsp = const SwitchArea::HOST_RSP,
    host_fs_base = const offset_of!(SwitchArea, host_fs_base),
    host_gs_base = const offset_of!(SwitchArea, host_gs_base),
    host_data = const HOST_DATA,
    kicked = const offset_of!(SwitchArea, kicked),
    saved_flags = const saved_register(libc::REG_EFL),
    saved_trap = const saved_register(libc::REG_TRAPNO),
    unwanted = const UNWANTED_FLAGS,
    trap_flag = const TRAP_FLAG,
    not_trap_flag = const !TRAP_FLAG as i32,
    debug = const DEBUG,
    sigalrm = const libc::SIGALRM,
    sigtrap = const libc::SIGTRAP,
    host_signal = sym crate::signals::host_signal,
);
