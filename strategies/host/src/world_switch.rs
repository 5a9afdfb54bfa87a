//! The world switch: from the monitor's 64-bit code into compatibility mode at CPL 3 and, by way
//! of a signal, back.
//!
//! In: the host's callee-saved registers go to its stack, the guest's x87, MMX and SSE state and
//! its segment and general registers are loaded, and one IRETQ loads CS:EIP, SS:ESP and EFLAGS,
//! TF included. Out: the kernel delivers a signal on the alternate stack; [`signal_entry`] repairs
//! what the guest may have done to FS and GS (thread-local storage!) before any Rust code runs,
//! the handler copies the interrupted state, and makes the signal's return go to
//! `ringside_world_leave`, which returns to the caller of [`enter`]. The other way out, which code
//! of ours in the guest takes by itself, is a [`crossing`](crate::crossing).
//!
//! Between the two labels of the *window* the code is 64-bit, but segment registers are the
//! guest's already: a signal there counts as one that interrupts the guest.
//!
//! A stack segment of 16 bits does not get the high half of ESP from IRETQ (Intel SDM volume 2,
//! IRET): it keeps that of the frame's own address, which [`high_half`](crate::high_half) chooses.

use machine::cpu::FxArea;
use std::mem::offset_of;
use std::sync::atomic::{AtomicBool, AtomicU32};

/// Bytes of the alternate stack. An AVX-512 frame has some 3 KiB; the rest is for handlers that
/// were there before and get what is not ours.
const STACK_BYTES: usize = 64 << 10;

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
    host_rsp: u64,
    pub(crate) host_fs_base: u64,
    pub(crate) host_gs_base: u64,
    pub(crate) stack: [u8; STACK_BYTES],
}

impl SwitchArea {
    pub(crate) const HOST_RSP: usize = offset_of!(SwitchArea, host_rsp);

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

    /// The host's stack pointer, to be restored when the guest is left.
    pub(crate) fn host_stack(&self) -> u64 {
        self.host_rsp
    }
}

unsafe extern "C" {
    /// Enters the guest described by `area` and returns when a signal has ended it.
    ///
    /// # Safety
    /// The calling thread's alternate signal stack must be `area.stack`, [`signal_entry`] must
    /// handle every signal that the thread does not block, `host_fs_base` and `host_gs_base` must
    /// be the thread's, `fpu` must be valid with no reserved bit in MXCSR, `entry_frame` must point
    /// to a copy of `frame`, and what the code at CS:EIP can reach must not be memory that Rust code
    /// owns.
    #[link_name = "ringside_world_enter"]
    pub(crate) fn enter(area: *mut SwitchArea);

    /// The handler to install; with SA_SIGINFO and SA_ONSTACK.
    #[link_name = "ringside_signal_entry"]
    pub(crate) fn signal_entry(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    );

    /// Where the handler makes a signal return to, with RDI the area and RSP its `host_rsp`.
    #[link_name = "ringside_world_leave"]
    pub(crate) fn leave();
}

pub(crate) const fn saved_register(index: libc::c_int) -> usize {
    offset_of!(libc::ucontext_t, uc_mcontext)
        + offset_of!(libc::mcontext_t, gregs)
        + 8 * index as usize
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
    "2:  cmp dword ptr [rdi + {kicked}], 0",
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
    "3:",
    // The end of a stay: RDI is the area, RSP the host's stack, x87 and SSE still the guest's.
    ".globl ringside_world_leave",
    ".hidden ringside_world_leave",
    "ringside_world_leave:",
    "    mov rax, [rdi + {fpu}]",
    "    fxsave [rax]",
    "    fninit",
    "    fldcw [rdi + {host_fcw}]",
    "    ldmxcsr [rdi + {host_mxcsr}]",
    "    xor eax, eax",
    "    mov ds, eax",
    "    mov es, eax",
    "    pop r15",
    "    pop r14",
    "    pop r13",
    "    pop r12",
    "    pop rbp",
    "    pop rbx",
    "    ret",
    // A signal: RDI its number, RSI its siginfo, RDX its ucontext.
    ".globl ringside_signal_entry",
    ".hidden ringside_signal_entry",
    "ringside_signal_entry:",
    "    cmp word ptr [rdx + {saved_cs}], {host_code}",
    "    jne 4f",
    "    mov rax, [rdx + {saved_rip}]",
    "    lea rcx, [rip + 2b]",
    "    cmp rax, rcx",
    "    jb 5f",
    "    lea rcx, [rip + 3b]",
    "    cmp rax, rcx",
    "    jb 4f",
    // Within a crossing?
    "5:  mov rcx, rax",
    "    shr rcx, 32",
    "    jz 6f",
    "    lea rcx, [rip + ringside_crossing]",
    "    cmp rax, rcx",
    "    jb {host_signal}",
    "    lea rcx, [rip + ringside_crossing_end]",
    "    cmp rax, rcx",
    "    jae {host_signal}",
    "    mov rcx, [rdx + {saved_stack}]",
    "    sub rcx, {stack}",
    "    jmp ringside_signal_between",
    "6:  mov rcx, [rdx + {saved_stack}]",
    "    sub rcx, {stack}",
    "    cmp eax, [rcx + {pads}]",
    "    jb {host_signal}",
    "    cmp eax, [rcx + {pads} + 4]",
    "    jae {host_signal}",
    "    jmp ringside_signal_between",
    // The guest's flags are still there: AC would make unaligned accesses of ours fault.
    "4:  push 2",
    "    popfq",
    "    mov rcx, [rdx + {saved_stack}]",
    "    sub rcx, {stack}",
    "    mov word ptr [rcx + {at_signal} + 0], ds",
    "    mov word ptr [rcx + {at_signal} + 4], es",
    "    mov word ptr [rcx + {at_signal} + 8], fs",
    "    mov word ptr [rcx + {at_signal} + 12], gs",
    "    xor eax, eax",
    "    mov fs, eax",
    "    mov gs, eax",
    "    mov rax, [rcx + {host_fs_base}]",
    "    wrfsbase rax",
    "    mov rax, [rcx + {host_gs_base}]",
    "    wrgsbase rax",
    "    jmp {guest_signal}",
    ".popsection",
    fpu = const offset_of!(SwitchArea, fpu),
    registers = const offset_of!(SwitchArea, registers),
    entry_frame = const offset_of!(SwitchArea, entry_frame),
    selectors = const offset_of!(SwitchArea, selectors),
    at_signal = const offset_of!(SwitchArea, selectors_at_signal),
    pads = const offset_of!(SwitchArea, pads),
    kicked = const offset_of!(SwitchArea, kicked),
    host_mxcsr = const offset_of!(SwitchArea, host_mxcsr),
    host_fcw = const offset_of!(SwitchArea, host_fcw),
    host_rsp = const offset_of!(SwitchArea, host_rsp),
    host_fs_base = const offset_of!(SwitchArea, host_fs_base),
    host_gs_base = const offset_of!(SwitchArea, host_gs_base),
    stack = const offset_of!(SwitchArea, stack),
    saved_cs = const saved_register(libc::REG_CSGSFS),
    saved_rip = const saved_register(libc::REG_RIP),
    saved_stack = const offset_of!(libc::ucontext_t, uc_stack) + offset_of!(libc::stack_t, ss_sp),
    host_code = const HOST_CODE,
    host_signal = sym crate::signals::host_signal,
    guest_signal = sym crate::signals::guest_signal,
);
