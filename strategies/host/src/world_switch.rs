//! The world switch: from the monitor's 64-bit code into compatibility mode at CPL 3, and back.
//!
//! In: the host's callee-saved registers go to its stack, the guest's x87, MMX and SSE state and
//! its segment and general registers are loaded, and one IRETQ loads CS:EIP, SS:ESP and EFLAGS,
//! TF included. Out: by [a signal or a crossing](crate::ways_out), both of which end in
//! `ringside_world_leave`, which returns to the caller of [`enter`].
//!
//! From `ringside_window` to `ringside_window_end` the code is 64-bit, but segment registers are the
//! guest's already: a signal there counts as one that interrupts the guest.
//!
//! A stack segment of 16 bits does not get the high half of ESP from IRETQ (Intel SDM volume 2,
//! IRET): it keeps that of the frame's own address, which [`high_half`](crate::high_half) chooses.

use machine::cpu::FxArea;
use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, AtomicU32};

/// Bytes of the alternate stack. An AVX-512 frame has some 3 KiB; the rest is for handlers that
/// were there before and get what is not ours. No other stack has this size: it is known by that.
pub(crate) const STACK_BYTES: usize = (64 << 10) + 64;

/// The selector of the host's 64-bit code segment (Linux: `__USER_CS`).
pub(crate) const HOST_CODE: u16 = 0x33;
/// The selector of the host's flat data segment (Linux: `__USER_DS`).
pub(crate) const HOST_DATA: u16 = 0x2b;

/// What IRETQ pops.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct InterruptFrame {
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
}

/// DS, ES, FS and GS.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct DataSelectors {
    pub(crate) ds: u32,
    pub(crate) es: u32,
    pub(crate) fs: u32,
    pub(crate) gs: u32,
}

/// What the signal handler saw.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct SignalReport {
    pub(crate) signal: i32,
    pub(crate) trap: u32,
    pub(crate) error_code: u32,
    pub(crate) address: u32,
    /// Whether EFLAGS.TF is what raised it.
    pub(crate) single_step: bool,
    /// Whether guest code was interrupted, rather than the window around it.
    pub(crate) from_guest: bool,
    /// Whether it was no signal but a crossing, and which.
    pub(crate) crossed: bool,
    pub(crate) crossing: u32,
}

/// One thread's world switch: the state on both sides, and the stack for signals. The assembly
/// finds it from the alternate stack's address, which the kernel puts into every signal frame.
#[repr(C, align(64))]
pub(crate) struct SwitchArea {
    /// Guest x87, MMX and SSE state, in and out: FXSAVE's 512 bytes, aligned to 16.
    pub(crate) fpu: *mut FxArea,
    /// Guest general registers, in and out; ESP is in the frame.
    pub(crate) registers: [u32; 8],
    /// Guest CS:EIP, SS:ESP and EFLAGS, in and out.
    pub(crate) frame: InterruptFrame,
    /// Where IRETQ finds the frame on the way in.
    pub(crate) entry_frame: *const InterruptFrame,
    /// Guest data selectors, in.
    pub(crate) selectors: DataSelectors,
    /// Data selectors at the signal.
    pub(crate) selectors_at_signal: DataSelectors,
    pub(crate) report: SignalReport,
    /// Nonzero when the guest is not to be entered: a signal meant to stop it came before it ran.
    pub(crate) kicked: AtomicU32,
    /// Linear addresses of pads: 64-bit code there is ours.
    pub(crate) pads: [u32; 2],
    /// TF, where a crossing was single-stepped.
    pub(crate) put_off_flags: u32,
    /// Whether RDTSC raises a signal on this thread now, the monitor's own included.
    pub(crate) tsc_traps: AtomicBool,
    host_mxcsr: u32,
    host_fcw: u32,
    /// The host's stack pointer while the guest runs.
    pub(crate) host_rsp: u64,
    pub(crate) host_fs_base: u64,
    pub(crate) host_gs_base: u64,
    pub(crate) stack: [u8; STACK_BYTES],
}

impl SwitchArea {
    /// An area in which nothing is set up yet.
    pub(crate) fn new() -> Box<SwitchArea> {
        let layout = std::alloc::Layout::new::<SwitchArea>();
        // SAFETY: the layout is not empty.
        let area = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<SwitchArea>();
        if area.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        // SAFETY: allocated with this type's layout, and all-zero bytes are a value of each field.
        unsafe { Box::from_raw(area) }
    }
}

unsafe extern "C" {
    /// Enters the guest described by `area` and returns when it has been left.
    ///
    /// # Safety
    /// The calling thread's alternate signal stack must be `area.stack`,
    /// [`signal_entry`](crate::ways_out::signal_entry) must
    /// handle every signal that the thread does not block, `host_fs_base` and `host_gs_base` must
    /// be the thread's, `fpu` must be valid with no reserved bit in MXCSR, `entry_frame` must point
    /// to a copy of `frame`, and what the code at CS:EIP can reach must not be memory that Rust code
    /// owns.
    #[link_name = "ringside_world_enter"]
    pub(crate) fn enter(area: *mut SwitchArea);
}

core::arch::global_asm!(
    ".pushsection .text.ringside_world_switch, \"ax\", @progbits",
    ".globl ringside_world_enter",
    ".hidden ringside_world_enter",
    "ringside_world_enter:",
    "    push rbx",
    "    push rbp",
    "    push r12",
    "    push r13",
    "    push r14",
    "    push r15",
    "    mov [rdi + {host_rsp}], rsp",
    "    stmxcsr [rdi + {host_mxcsr}]",
    "    fnstcw [rdi + {host_fcw}]",
    "    mov rax, [rdi + {fpu}]",
    "    fxrstor [rax]",
    "    lea r14, [rip + ringside_crossing]",
    "    mov r15, rdi",
    // The window. A kick before it has set the flag; one within it, or later, leads out.
    ".globl ringside_window",
    ".hidden ringside_window",
    "ringside_window:",
    "    cmp dword ptr [rdi + {kicked}], 0",
    "    jne ringside_world_leave",
    "    mov ds, word ptr [rdi + {selectors} + 0]",
    "    mov es, word ptr [rdi + {selectors} + 4]",
    "    mov fs, word ptr [rdi + {selectors} + 8]",
    "    mov gs, word ptr [rdi + {selectors} + 12]",
    "    mov rsp, [rdi + {entry_frame}]",
    "    mov eax, [rdi + {registers} + 0]",
    "    mov ecx, [rdi + {registers} + 4]",
    "    mov edx, [rdi + {registers} + 8]",
    "    mov ebx, [rdi + {registers} + 12]",
    "    mov ebp, [rdi + {registers} + 20]",
    "    mov esi, [rdi + {registers} + 24]",
    "    mov edi, [rdi + {registers} + 28]",
    "    iretq",
    ".globl ringside_window_end",
    ".hidden ringside_window_end",
    "ringside_window_end:",
    // The end of a stay: RDI is the area, RSP the host's stack, x87 and SSE still the guest's.
    ".globl ringside_world_leave",
    ".hidden ringside_world_leave",
    "ringside_world_leave:",
    "    mov rax, [rdi + {fpu}]",
    "    fxsave [rax]",
    // The same where that has been done.
    ".globl ringside_world_left",
    ".hidden ringside_world_left",
    "ringside_world_left:",
    "    fninit",
    "    fldcw [rdi + {host_fcw}]",
    "    ldmxcsr [rdi + {host_mxcsr}]",
    // A null selector would take six times as long to load.
    "    mov eax, {host_data}",
    "    mov ds, eax",
    "    mov es, eax",
    "    pop r15",
    "    pop r14",
    "    pop r13",
    "    pop r12",
    "    pop rbp",
    "    pop rbx",
    "    ret",
    ".popsection",
    fpu = const offset_of!(SwitchArea, fpu),
    registers = const offset_of!(SwitchArea, registers),
    entry_frame = const offset_of!(SwitchArea, entry_frame),
    selectors = const offset_of!(SwitchArea, selectors),
    kicked = const offset_of!(SwitchArea, kicked),
    host_mxcsr = const offset_of!(SwitchArea, host_mxcsr),
    host_fcw = const offset_of!(SwitchArea, host_fcw),
    host_rsp = const offset_of!(SwitchArea, host_rsp),
    host_data = const HOST_DATA,
);
