//! The two ways out of the guest: a signal, and a [`crossing`](crate::crossing).
//!
//! A signal: the kernel delivers it on the alternate stack. [`signal_entry`] repairs what the guest
//! may have done to FS and GS (thread-local storage!) before any Rust code runs, the handler copies
//! the interrupted state, and the stay ends without a return from the signal. Nothing is left that a
//! return would have to restore: the handler blocks no further signals, and the kernel takes a stack
//! for in use by RSP alone. PKRU is then what the kernel gives to handlers, as it does to new threads:
//! a monitor that wants another value must write it after each stay.
//!
//! A crossing saves what a signal's frame would have.
//!
//! From `ringside_way_out` to `ringside_way_out_end`, and in the pads, the code is the host's but FS
//! and GS are the guest's. A timer's signal that comes there only leaves a mark, and a single step is
//! put off; `ringside_signal_between` does both.

use crate::world_switch::{
    HOST_CODE, HOST_DATA, InterruptFrame, STACK_BYTES, SignalReport, SwitchArea,
};
use std::mem::offset_of;

/// The flags that host code must not have: TF, DF, NT, AC.
const UNWANTED_FLAGS: u32 = 1 << 8 | 1 << 10 | 1 << 14 | 1 << 18;
const TRAP_FLAG: u32 = 1 << 8;
/// The vector of a single step.
const DEBUG: u32 = 1;

unsafe extern "C" {
    /// The handler to install; with SA_SIGINFO, SA_ONSTACK and SA_NODEFER, and an empty mask.
    #[link_name = "ringside_signal_entry"]
    pub(crate) fn signal_entry(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    );
}

const fn saved_register(index: libc::c_int) -> usize {
    offset_of!(libc::ucontext_t, uc_mcontext)
        + offset_of!(libc::mcontext_t, gregs)
        + 8 * index as usize
}

const SAVED_STACK: usize = offset_of!(libc::ucontext_t, uc_stack);

core::arch::global_asm!(
    ".pushsection .text.ringside_world_switch, \"ax\", @progbits",
    "ringside_way_out:",
    // A signal: RDI its number, RSI its siginfo, RDX its ucontext.
    ".globl ringside_signal_entry",
    ".hidden ringside_signal_entry",
    "ringside_signal_entry:",
    "    cmp word ptr [rdx + {saved_cs}], {host_code}",
    "    jne 4f",
    "    mov rax, [rdx + {saved_rip}]",
    "    lea rcx, [rip + ringside_way_out]",
    "    cmp rax, rcx",
    "    jb 2f",
    "    lea rcx, [rip + ringside_way_out_end]",
    "    cmp rax, rcx",
    "    jb ringside_signal_between",
    "2:  lea rcx, [rip + ringside_window]",
    "    cmp rax, rcx",
    "    jb 3f",
    "    lea rcx, [rip + ringside_window_end]",
    "    cmp rax, rcx",
    "    jb 4f",
    "3:  mov rcx, rax",
    "    shr rcx, 32",
    "    jz ringside_signal_between",
    "    jmp {host_signal}",
    // The guest's flags are still there: AC would make unaligned accesses of ours fault.
    "4:  push 2",
    "    popfq",
    "    mov rbx, [rdx + {saved_stack}]",
    "    sub rbx, {stack}",
    "    mov word ptr [rbx + {at_signal} + 0], ds",
    "    mov word ptr [rbx + {at_signal} + 4], es",
    "    mov word ptr [rbx + {at_signal} + 8], fs",
    "    mov word ptr [rbx + {at_signal} + 12], gs",
    "    xor eax, eax",
    "    mov fs, eax",
    "    mov gs, eax",
    "    mov rax, [rbx + {host_fs_base}]",
    "    wrfsbase rax",
    "    mov rax, [rbx + {host_gs_base}]",
    "    wrgsbase rax",
    "    jmp 5f",
    // A crossing, from a pad: R9D is its number, R14 this address, R15 the area, all else the guest's.
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
    // FS and GS keep the guest's selectors, whose loads take long: only their bases matter here, and
    // the kernel keeps both across a change of threads (FSGSBASE).
    "    mov rax, [r15 + {host_fs_base}]",
    "    wrfsbase rax",
    "    mov rax, [r15 + {host_gs_base}]",
    "    wrgsbase rax",
    "    mov rdi, r15",
    "    jmp ringside_world_leave",
    "ringside_way_out_end:",
    // The host's FS and GS are back. The kernel has aligned the stack for a function's first
    // instruction, and this is none.
    "5:  mov rcx, rbx",
    "    and rsp, -16",
    "    call {guest_signal}",
    "    mov rdi, rbx",
    "    mov rsp, [rbx + {host_rsp}]",
    "    jmp ringside_world_left",
    // A signal on the way out: EDI its number, RDX its ucontext. Only if it came on an area's stack
    // is the area there.
    "ringside_signal_between:",
    "    cmp qword ptr [rdx + {saved_stack_size}], {stack_bytes}",
    "    jne {host_signal}",
    "    mov rcx, [rdx + {saved_stack}]",
    "    sub rcx, {stack}",
    "    shr rax, 32",
    "    jnz 6f",
    "    mov eax, [rdx + {saved_rip}]",
    "    cmp eax, [rcx + {pads}]",
    "    jb {host_signal}",
    "    cmp eax, [rcx + {pads} + 4]",
    "    jae {host_signal}",
    "6:  cmp edi, {sigalrm}",
    "    jne 7f",
    "    mov dword ptr [rcx + {kicked}], 1",
    "    ret",
    "7:  cmp edi, {sigtrap}",
    "    jne {host_signal}",
    "    cmp dword ptr [rdx + {saved_trap}], {debug}",
    "    jne {host_signal}",
    "    and dword ptr [rdx + {saved_flags}], {not_trap_flag}",
    "    mov dword ptr [rcx + {put_off}], {trap_flag}",
    "    ret",
    ".popsection",
    registers = const offset_of!(SwitchArea, registers),
    selectors = const offset_of!(SwitchArea, selectors),
    at_signal = const offset_of!(SwitchArea, selectors_at_signal),
    rflags = const offset_of!(SwitchArea, frame) + offset_of!(InterruptFrame, rflags),
    ss = const offset_of!(SwitchArea, frame) + offset_of!(InterruptFrame, ss),
    number = const offset_of!(SwitchArea, report) + offset_of!(SignalReport, crossing),
    crossed = const offset_of!(SwitchArea, report) + offset_of!(SignalReport, crossed),
    put_off = const offset_of!(SwitchArea, put_off_flags),
    pads = const offset_of!(SwitchArea, pads),
    kicked = const offset_of!(SwitchArea, kicked),
    host_rsp = const offset_of!(SwitchArea, host_rsp),
    host_fs_base = const offset_of!(SwitchArea, host_fs_base),
    host_gs_base = const offset_of!(SwitchArea, host_gs_base),
    stack = const offset_of!(SwitchArea, stack),
    stack_bytes = const STACK_BYTES,
    saved_cs = const saved_register(libc::REG_CSGSFS),
    saved_rip = const saved_register(libc::REG_RIP),
    saved_flags = const saved_register(libc::REG_EFL),
    saved_trap = const saved_register(libc::REG_TRAPNO),
    saved_stack = const SAVED_STACK + offset_of!(libc::stack_t, ss_sp),
    saved_stack_size = const SAVED_STACK + offset_of!(libc::stack_t, ss_size),
    host_code = const HOST_CODE,
    host_data = const HOST_DATA,
    unwanted = const UNWANTED_FLAGS,
    trap_flag = const TRAP_FLAG,
    not_trap_flag = const !TRAP_FLAG as i32,
    debug = const DEBUG,
    sigalrm = const libc::SIGALRM,
    sigtrap = const libc::SIGTRAP,
    host_signal = sym crate::signals::host_signal,
    guest_signal = sym crate::signals::guest_signal,
);
