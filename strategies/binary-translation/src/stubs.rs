//! The code cache's fixed parts: the way in, the way out, and what all units share.
//!
//! In: the host's callee-saved registers go to its stack, RSP becomes the stack of return addresses,
//! guest registers and flags are loaded, and a jump leads into a unit. Out: every exit stores EIP and
//! a reason and jumps to the common exit, which does the reverse. The guest's floating-point state
//! is loaded when a unit first needs it and stored on the way out if it was.

use crate::calls::{self, CALLS, Call};
use crate::context::{Context, Exit, TARGETS, Target, at, cpu};
use crate::emit::{
    Address, Emitter, R8, R9, R11, R12, R13, R15, RAX, RCX, Reg, condition, context, guest,
};

const RSP: Reg = Reg(4);
const RDI: Reg = Reg(7);
const RSI: Reg = Reg(6);

/// Host addresses of the fixed parts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stubs {
    pub(crate) exit: u64,
    /// `extern "sysv64" fn(*mut Context, unit: u64)`.
    pub(crate) enter: u64,
    /// From here on R15 is what polls read by, until [`exit`](Self::exit).
    pub(crate) polling: u64,
    /// Where a signal's return goes.
    pub(crate) fault: u64,
    pub(crate) lookup: u64,
    /// Leaves with [`Exit::Lookup`] and the target in R8.
    pub(crate) lookup_exit: u64,
    /// The same with the flags held.
    pub(crate) lookup_missed: u64,
    pub(crate) fpu_load: u64,
    pub(crate) fpu_ready: u64,
    /// Loads the guest's floating-point state and goes to the context's `resume`.
    pub(crate) fpu_resume: u64,
    /// What a RET without its CALL returns to.
    pub(crate) return_missed: u64,
    /// Where a RET goes on that came to another CALL's return site; with the flags held.
    pub(crate) return_strayed: u64,
    /// What translated code calls.
    pub(crate) calls: [u64; CALLS],
}

/// Bytes of the x87 instruction and data pointers in the FXSAVE area, kept from the host's.
const FX_POINTERS: [i32; 2] = [8, 16];

/// Emits the fixed parts.
pub(crate) fn emit(e: &mut Emitter) -> Stubs {
    let mut stubs = Stubs { exit: e.here(), ..Stubs::default() };
    let fpu_hole = exit(e);
    stubs.enter = e.here();
    stubs.polling = enter(e);
    stubs.fpu_ready = e.here();
    e.raw(&[0xc3]);
    stubs.fpu_load = e.here();
    e.aim(fpu_hole, stubs.fpu_load);
    fpu_load(e, stubs.fpu_ready);
    stubs.fpu_resume = e.here();
    e.call_through(context(at::FPU_ENSURE));
    e.jump_through(context(at::RESUME));
    stubs.fault = e.here();
    e.store_constant(context(at::REASON), Exit::Fault as u32);
    e.store64(context(at::BORROWED), R12);
    e.store64(context(at::BORROWED + 8), R11);
    // A poll in a lookup has its target there.
    e.store(context(at::EXIT_EIP), R8);
    let hole = e.jump();
    e.aim(hole, stubs.exit);
    stubs.lookup_missed = e.here();
    e.release_flags();
    stubs.lookup_exit = e.here();
    e.store(context(at::EXIT_EIP), R8);
    e.store_constant(context(at::REASON), Exit::Lookup as u32);
    let hole = e.jump();
    e.aim(hole, stubs.exit);
    stubs.return_strayed = e.here();
    e.release_flags();
    stubs.lookup = e.here();
    lookup(e, stubs.lookup_missed);
    stubs.return_missed = e.here();
    // RSP is above the sentinel that was popped.
    e.lea64(RSP, Address::new(RSP, -8));
    let hole = e.jump();
    e.aim(hole, stubs.lookup);
    for (call, stub) in Call::ALL.into_iter().zip(&mut stubs.calls) {
        *stub = e.here();
        calls::stub(e, call, stubs.lookup_exit);
    }
    stubs
}

/// Returns where R15 has been set.
fn enter(e: &mut Emitter) -> u64 {
    for register in [0x53, 0x55] {
        e.raw(&[register]);
    }
    for register in [0x54, 0x55, 0x56, 0x57] {
        e.raw(&[0x41, register]);
    }
    e.copy64(R13, RDI);
    e.load64(R15, context(at::POLL));
    let polling = e.here();
    e.copy64(R11, RSI);
    e.store64(context(at::HOST_STACK), RSP);
    e.load64(RSP, context(at::STACK));
    e.load(RCX, context(at::DIRECTION));
    let upward = e.short(&[0xe3]);
    e.raw(&[0xfd]); // std
    e.land_short(upward);
    e.load(RAX, context(at::FLAGS));
    e.raw(&[0x04, 0x7f, 0x9e]); // add al, 127; sahf
    e.load64(R9, context(at::CPU));
    for number in 0..8 {
        e.load(guest(number), Address::new(R9, cpu::REGISTERS + 4 * i32::from(number)));
    }
    // jmp r11
    e.raw(&[0x41, 0xff, 0xe3]);
    polling
}

/// Returns where the address of what loads the floating-point state goes.
fn exit(e: &mut Emitter) -> usize {
    e.load64(R9, context(at::CPU));
    for number in 0..8 {
        e.store(Address::new(R9, cpu::REGISTERS + 4 * i32::from(number)), guest(number));
    }
    e.raw(&[0x9f, 0x0f, 0x90, 0xc0, 0xfc]); // lahf; seto al; cld
    e.store(context(at::FLAGS), RAX);
    e.store64(context(at::STACK), RSP);
    e.load(RCX, context(at::FPU_LIVE));
    let without = e.short(&[0xe3]);
    e.load64(RAX, context(at::FX));
    // The pointers are the guest's as the emulator left them: the host's say nothing to it.
    e.load64(R8, Address::new(RAX, FX_POINTERS[0]));
    e.load64(R9, Address::new(RAX, FX_POINTERS[1]));
    e.raw(&[0x0f, 0xae, 0x00]); // fxsave [rax]
    e.store64(Address::new(RAX, FX_POINTERS[0]), R8);
    e.store64(Address::new(RAX, FX_POINTERS[1]), R9);
    e.raw(&[0xdb, 0xe3]); // fninit
    e.raw(&[0x41, 0x0f, 0xae, 0x95]); // ldmxcsr [r13 + …]
    e.raw(&at::HOST_MXCSR.to_le_bytes());
    e.store_constant(context(at::FPU_LIVE), 0);
    e.store_constant(context(at::FPU_STORED), 1);
    let fpu_load = e.lea_here(RAX);
    e.store64(context(at::FPU_ENSURE), RAX);
    e.land_short(without);
    e.load64(RSP, context(at::HOST_STACK));
    for register in [0x5f, 0x5e, 0x5d, 0x5c] {
        e.raw(&[0x41, register]);
    }
    e.raw(&[0x5d, 0x5b, 0xc3]);
    fpu_load
}

/// Loads the guest's floating-point state.
fn fpu_load(e: &mut Emitter, fpu_ready: u64) {
    e.load64(R12, context(at::FX));
    e.raw(&[0x41, 0x0f, 0xae, 0x0c, 0x24]); // fxrstor [r12]
    e.store_constant(context(at::FPU_LIVE), 1);
    let hole = e.lea_here(R12);
    e.aim(hole, fpu_ready);
    e.store64(context(at::FPU_ENSURE), R12);
    e.raw(&[0xc3]);
}

/// Jumps to the unit for the EIP in R8, by the table of targets; to `missed`, with the flags held, if it
/// is not there.
///
/// The jump that is taken as a rule is the last one only: what else is taken dilutes the history by
/// which the host's CPU foretells the guest's own jumps.
pub(crate) fn lookup(e: &mut Emitter, missed: u64) {
    e.copy16(R9, R8);
    e.lea64(R9, Address::indexed(R9, R9, 1, 0));
    e.load64(R11, context(at::EPOCH));
    e.lea64(R11, Address::indexed(R11, R8, 1, 0));
    e.hold_flags();
    e.compare64(R11, Address::indexed(R13, R9, 8, at::TARGETS));
    let hole = e.jump_if(condition::NOT_ZERO);
    e.aim(hole, missed);
    e.release_flags();
    e.jump_through(Address::indexed(R13, R9, 8, at::TARGETS + 8));
}

const _: () = assert!(TARGETS == 1 << 16 && size_of::<Target>() == 16);

/// Enters translated code at `unit`.
///
/// # Safety
/// `enter` is [`Stubs::enter`] of a live code cache that `unit` lies in, the context is loaded, GS's
/// base and the context's window are those of a window that lives on, and this thread is set up for
/// that cache.
pub(crate) unsafe fn call(enter: u64, context: *mut Context, unit: u64) {
    // SAFETY: the stub has this type, and keeps what the calling convention says.
    unsafe {
        let enter: extern "sysv64" fn(*mut Context, u64) =
            std::mem::transmute::<usize, _>(enter as usize);
        enter(context, unit);
    }
}
