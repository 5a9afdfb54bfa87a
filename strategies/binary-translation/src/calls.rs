//! What translated code calls without being left: IN, OUT and LLDT of the kernel.
//!
//! An exit stores everything and gives the run loop a look at the machine; these need neither. The
//! stub around a call keeps what the host's calling convention does not; the guest's floating-point
//! registers are not among it, so that while they are loaded these instructions take the exit.

use crate::context::{Context, at};
use crate::emit::{Address, Alu, Emitter, Reg, condition, context};
use crate::emit::{R8, R9, R10, R11, R12, R13, R15, RAX, RCX, RDI, RDX, RSI};
use machine::{Machine, Selector};

const RSP: Reg = Reg(4);
/// What a function finds in its registers: guest registers that it may change otherwise.
const CHANGED: [Reg; 4] = [RCX, RDX, RSI, RDI];

/// A function that translated code calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    /// IN and OUT; the argument is made by [`port`].
    Port,
    /// LLDT; the argument is the selector.
    LocalTable,
}

impl Call {
    /// All of them.
    pub(crate) const ALL: [Call; 2] = [Call::Port, Call::LocalTable];
}

/// How many there are.
pub(crate) const CALLS: usize = Call::ALL.len();

/// The machine has to be looked at behind the instruction.
const DUE: u64 = 1 << 32;
/// The instruction was not executed: it is the emulator's.
const DECLINED: u64 = 1 << 33;

/// Gets the argument and EAX; returns EAX, and one of the bits above.
type Function = unsafe extern "sysv64" fn(*mut Context, u32, u32) -> u64;

/// The functions, as the context has them.
pub(crate) fn functions() -> [u64; CALLS] {
    [access_port as Function, load_local_table as Function].map(|function| function as usize as u64)
}

/// Which port is accessed how, but for the port's number in the low 16 bits.
pub(crate) fn port(size: u32, write: bool) -> u32 {
    size << 16 | u32::from(write) << 24
}

/// # Safety
/// Called by a stub: the context and its machine are live, and nobody else uses them meanwhile.
unsafe extern "sysv64" fn access_port(context: *mut Context, what: u32, eax: u32) -> u64 {
    // SAFETY: as promised.
    let (context, m) = unsafe { parts(context) };
    if !m.bus.tap.is_off() {
        return DECLINED;
    }
    let (port, size) = (what as u16, what >> 16 & 7);
    let mask = u32::MAX >> (32 - 8 * size);
    let value = if what >> 24 == 0 {
        eax & !mask | m.bus.port_read(port, size as usize) & mask
    } else {
        m.bus.port_write(port, size as usize, eax & mask);
        eax
    };
    m.counters.port_io += 1;
    m.counters.instructions += 1;
    m.clock().retire(1);
    context.called += 1;
    context.pending = u32::from(m.interrupt_requested());
    let due = m.signals().attention() || context.pending != 0 && context.interrupt_flag != 0;
    u64::from(value) | if due { DUE } else { 0 }
}

/// # Safety
/// As [`access_port`].
unsafe extern "sysv64" fn load_local_table(context: *mut Context, selector: u32, eax: u32) -> u64 {
    // SAFETY: as promised.
    let (context, m) = unsafe { parts(context) };
    if !emulator::load_local_table(m, Selector(selector as u16)) {
        return DECLINED;
    }
    m.counters.instructions += 1;
    m.clock().retire(1);
    context.called += 1;
    u64::from(eax)
}

/// # Safety
/// The context and its machine are live, and nobody else uses them meanwhile.
unsafe fn parts<'a>(context: *mut Context) -> (&'a mut Context, &'a mut Machine) {
    // SAFETY: as promised.
    unsafe { (&mut *context, &mut *((*context).machine as *mut Machine)) }
}

/// Emits the stub for one function. It gets the argument in R8, EIP behind the instruction in R9, and
/// in R10 where to go if the instruction is not executed. `lookup_exit` leaves for the EIP in R8.
pub(crate) fn stub(e: &mut Emitter, call: Call, lookup_exit: u64) {
    e.set_flags_aside();
    e.alu_memory_constant(Alu::Cmp, context(at::FPU_LIVE), 0);
    let live = e.jump_if(condition::NOT_ZERO);
    e.store(context(at::EXIT_EIP), R9);
    e.store(context(at::FLAGS), R11);
    e.store64(context(at::RESUME), R10);
    for (register, place) in CHANGED.into_iter().zip((at::KEPT..).step_by(4)) {
        e.store(context(place), register);
    }
    e.raw(&[0xfc]); // cld
    e.store64(context(at::STACK), RSP);
    e.load64(RSP, context(at::HOST_STACK));
    e.lea64(RSP, Address::new(RSP, -8));
    e.copy64(RDI, R13);
    e.copy(RSI, R8);
    e.copy(RDX, R12);
    e.call_through(context(at::FUNCTIONS + 8 * call as i32));
    // A kick may have come while it ran.
    e.load64(R15, context(at::POLL));
    e.load64(RSP, context(at::STACK));
    e.copy64(R8, RAX);
    e.load(RCX, context(at::DIRECTION));
    let upward = e.short(&[0xe3]);
    e.raw(&[0xfd]); // std
    e.land_short(upward);
    for (register, place) in CHANGED.into_iter().zip((at::KEPT..).step_by(4)) {
        e.load(register, context(place));
    }
    e.load(R11, context(at::FLAGS));
    e.rotate64(R9, R8, 32);
    e.test(R9, (DUE | DECLINED).wrapping_shr(32) as u32);
    let unusual = e.jump_if(condition::NOT_ZERO);
    e.copy(R12, R8);
    e.take_flags_back();
    e.raw(&[0xc3]);

    e.land(unusual);
    e.test(R9, (DECLINED >> 32) as u32);
    let declined = e.jump_if(condition::NOT_ZERO);
    e.copy(R12, R8);
    e.take_flags_back();
    e.lea64(RSP, Address::new(RSP, 8));
    e.load(R8, context(at::EXIT_EIP));
    let hole = e.jump();
    e.aim(hole, lookup_exit);

    e.land(declined);
    e.load64(R10, context(at::RESUME));
    e.land(live);
    e.take_flags_back();
    e.lea64(RSP, Address::new(RSP, 8));
    e.raw(&[0x41, 0xff, 0xe2]); // jmp r10
}
