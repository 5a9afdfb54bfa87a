//! Unprivileged integer instructions.

use super::Lowered;
use crate::handlers::arithmetic::{self as arith, Binary, Unary};
use crate::handlers::shifts::{self, BitTest, Shift};
use crate::handlers::{branch, decimal, moves, stack, status, strings};
use crate::op::Handler;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

/// The size in bytes of operand `number`: 1, 2 or 4.
fn size(i: &Instruction, number: u32) -> usize {
    match i.op_kind(number) {
        OpKind::Register => i.op_register(number).size(),
        OpKind::Memory => i.memory_size().size(),
        _ => 4,
    }
}

fn in_register(i: &Instruction, number: u32) -> bool {
    i.op_kind(number) == OpKind::Register
}

fn in_memory(i: &Instruction, number: u32) -> bool {
    i.op_kind(number) == OpKind::Memory
}

/// Chooses `$f::<$t.., u8 | u16 | u32>` by size.
macro_rules! sized {
    ($size:expr, $($f:ident)::+ $(, $t:ty)*) => {
        match $size {
            1 => $($f)::+::<$($t,)* u8> as Handler,
            2 => $($f)::+::<$($t,)* u16>,
            _ => $($f)::+::<$($t,)* u32>,
        }
    };
}

/// Chooses `$f::<$t.., u16 | u32>` by size.
macro_rules! wide {
    ($size:expr, $($f:ident)::+ $(, $t:ty)*) => {
        match $size {
            2 => $($f)::+::<$($t,)* u16> as Handler,
            _ => $($f)::+::<$($t,)* u32>,
        }
    };
}

fn binary<O: Binary>(i: &Instruction) -> Handler {
    let bytes = size(i, 0);
    match (in_register(i, 0), i.op_kind(1)) {
        (true, OpKind::Register) => sized!(bytes, arith::register_register, O),
        (true, OpKind::Memory) => sized!(bytes, arith::register_memory, O),
        (true, _) => sized!(bytes, arith::register_immediate, O),
        (false, OpKind::Register) => sized!(bytes, arith::memory_register, O),
        (false, _) => sized!(bytes, arith::memory_immediate, O),
    }
}

fn unary<O: Unary>(i: &Instruction) -> Handler {
    if in_register(i, 0) {
        sized!(size(i, 0), arith::unary_register, O)
    } else {
        sized!(size(i, 0), arith::unary_memory, O)
    }
}

fn shift<O: Shift>(i: &Instruction) -> Handler {
    let by_cl = in_register(i, 1);
    let bytes = size(i, 0);
    match (in_register(i, 0), by_cl) {
        (true, true) => sized!(bytes, shifts::register_by_cl, O),
        (true, false) => sized!(bytes, shifts::register_by_immediate, O),
        (false, true) => sized!(bytes, shifts::memory_by_cl, O),
        (false, false) => sized!(bytes, shifts::memory_by_immediate, O),
    }
}

fn bit<O: BitTest>(i: &Instruction) -> Handler {
    wide!(size(i, 0), shifts::bit, O)
}

fn mov(i: &Instruction) -> Option<Handler> {
    let system = |r: Register| r.is_segment_register() || r.is_cr() || r.is_dr() || r.is_tr();
    if (0..2).any(|number| in_register(i, number) && system(i.op_register(number))) {
        return None;
    }
    let bytes = size(i, 0);
    Some(match (in_register(i, 0), i.op_kind(1)) {
        (true, OpKind::Register) => sized!(bytes, moves::register_register),
        (true, OpKind::Memory) => sized!(bytes, moves::register_memory),
        (true, _) => sized!(bytes, moves::register_immediate),
        (false, OpKind::Register) => sized!(bytes, moves::memory_register),
        (false, _) => sized!(bytes, moves::memory_immediate),
    })
}

fn extend<const SIGNED: bool>(i: &Instruction) -> Handler {
    match (in_register(i, 1), size(i, 1), size(i, 0)) {
        (true, 1, 2) => moves::extend_register::<u8, u16, SIGNED>,
        (true, 1, _) => moves::extend_register::<u8, u32, SIGNED>,
        (true, _, 2) => moves::extend_register::<u16, u16, SIGNED>,
        (true, _, _) => moves::extend_register::<u16, u32, SIGNED>,
        (false, 1, 2) => moves::extend_memory::<u8, u16, SIGNED>,
        (false, 1, _) => moves::extend_memory::<u8, u32, SIGNED>,
        (false, _, 2) => moves::extend_memory::<u16, u16, SIGNED>,
        (false, _, _) => moves::extend_memory::<u16, u32, SIGNED>,
    }
}

/// The number of the condition code, if the instruction has one.
fn condition(i: &Instruction) -> Option<u8> {
    (i.condition_code() as u8).checked_sub(1)
}

/// A table of the sixteen instances of a handler with a condition.
macro_rules! sixteen {
    ($($f:ident)::+ $(, $t:ty)*) => {[
        $($f)::+::<$($t,)* 0> as Handler, $($f)::+::<$($t,)* 1>, $($f)::+::<$($t,)* 2>, $($f)::+::<$($t,)* 3>,
        $($f)::+::<$($t,)* 4>, $($f)::+::<$($t,)* 5>, $($f)::+::<$($t,)* 6>, $($f)::+::<$($t,)* 7>,
        $($f)::+::<$($t,)* 8>, $($f)::+::<$($t,)* 9>, $($f)::+::<$($t,)* 10>, $($f)::+::<$($t,)* 11>,
        $($f)::+::<$($t,)* 12>, $($f)::+::<$($t,)* 13>, $($f)::+::<$($t,)* 14>, $($f)::+::<$($t,)* 15>,
    ]};
}

fn conditional(i: &Instruction) -> Option<Lowered> {
    let number = usize::from(condition(i)?);
    if i.is_jcc_short_or_near() {
        let narrow = i.op_kind(0) == OpKind::NearBranch16;
        let table =
            if narrow { sixteen!(branch::jump_if, u16) } else { sixteen!(branch::jump_if, u32) };
        return Some(Lowered::jump(table[number]));
    }
    match i.op_count() {
        1 => Some(Lowered::next(sixteen!(moves::set_condition)[number])),
        2 if size(i, 0) == 2 => Some(Lowered::next(sixteen!(moves::conditional, u16)[number])),
        2 => Some(Lowered::next(sixteen!(moves::conditional, u32)[number])),
        _ => None,
    }
}

/// Near transfers of control.
fn branches(i: &Instruction) -> Option<Lowered> {
    use Mnemonic::*;
    let narrow = matches!(i.op_kind(0), OpKind::NearBranch16);
    let direct = if narrow { 2 } else { 4 };
    let handler = match i.mnemonic() {
        Jmp if i.is_jmp_short_or_near() => wide!(direct, branch::jump),
        Call if i.is_call_near() => wide!(direct, branch::call),
        Jmp if i.is_jmp_near_indirect() => wide!(size(i, 0), branch::jump_indirect),
        Call if i.is_call_near_indirect() => wide!(size(i, 0), branch::call_indirect),
        Ret if matches!(i.code(), Code::Retnw | Code::Retnw_imm16) => branch::ret::<u16>,
        Ret => branch::ret::<u32>,
        Loop | Loope | Loopne => wide!(direct, branch::loop_while),
        Jcxz | Jecxz => wide!(direct, branch::jump_if_counter_zero),
        _ => return None,
    };
    Some(Lowered::jump(handler))
}

fn stack_instructions(i: &Instruction) -> Option<Handler> {
    use Mnemonic::*;
    let segment = in_register(i, 0) && i.op0_register().is_segment_register();
    Some(match i.mnemonic() {
        Push | Pop if segment => return None,
        Push => match i.op_kind(0) {
            OpKind::Register => wide!(size(i, 0), stack::push_register),
            OpKind::Memory => wide!(size(i, 0), stack::push_memory),
            // The code, not the immediate, tells the operand size.
            _ => wide!(
                if matches!(i.code(), Code::Push_imm16 | Code::Pushw_imm8) { 2 } else { 4 },
                stack::push_immediate
            ),
        },
        Pop if in_register(i, 0) => wide!(size(i, 0), stack::pop_register),
        Pop => wide!(size(i, 0), stack::pop_memory),
        Pusha => stack::pusha::<u16>,
        Pushad => stack::pusha::<u32>,
        Popa => stack::popa::<u16>,
        Popad => stack::popa::<u32>,
        Enter if i.code() == Code::Enterw_imm16_imm8 => stack::enter::<u16>,
        Enter => stack::enter::<u32>,
        Leave if i.code() == Code::Leavew => stack::leave::<u16>,
        Leave => stack::leave::<u32>,
        Bound => wide!(size(i, 0), stack::bound),
        _ => return None,
    })
}

fn multiplications(i: &Instruction) -> Option<Handler> {
    use Mnemonic::*;
    Some(match (i.mnemonic(), i.op_count()) {
        (Mul, _) => sized!(size(i, 0), arith::mul),
        (Imul, 1) => sized!(size(i, 0), arith::imul),
        (Imul, 2) => wide!(size(i, 0), arith::imul_two),
        (Imul, _) => wide!(size(i, 0), arith::imul_three),
        (Div, _) => sized!(size(i, 0), arith::div),
        (Idiv, _) => sized!(size(i, 0), arith::idiv),
        _ => return None,
    })
}

/// Everything that neither transfers control nor has a table of its own above.
fn plain(i: &Instruction) -> Option<Handler> {
    use Mnemonic::*;
    Some(match i.mnemonic() {
        Add => binary::<arith::Add>(i),
        Or => binary::<arith::Or>(i),
        Adc => binary::<arith::Adc>(i),
        Sbb => binary::<arith::Sbb>(i),
        And => binary::<arith::And>(i),
        Sub => binary::<arith::Sub>(i),
        Xor => binary::<arith::Xor>(i),
        Cmp => binary::<arith::Cmp>(i),
        Test => binary::<arith::Test>(i),
        Inc => unary::<arith::Inc>(i),
        Dec => unary::<arith::Dec>(i),
        Neg => unary::<arith::Neg>(i),
        Not => unary::<arith::Not>(i),
        Xadd => sized!(size(i, 0), arith::xadd),
        Cmpxchg => sized!(size(i, 0), arith::cmpxchg),
        Cmpxchg8b => arith::cmpxchg8b,
        Shl | Sal => shift::<shifts::Shl>(i),
        Shr => shift::<shifts::Shr>(i),
        Sar => shift::<shifts::Sar>(i),
        Rol => shift::<shifts::Rol>(i),
        Ror => shift::<shifts::Ror>(i),
        Rcl => shift::<shifts::Rcl>(i),
        Rcr => shift::<shifts::Rcr>(i),
        Shld if size(i, 0) == 2 => shifts::double::<u16, true>,
        Shld => shifts::double::<u32, true>,
        Shrd if size(i, 0) == 2 => shifts::double::<u16, false>,
        Shrd => shifts::double::<u32, false>,
        Bsf if size(i, 0) == 2 => shifts::scan::<u16, true>,
        Bsf => shifts::scan::<u32, true>,
        Bsr if size(i, 0) == 2 => shifts::scan::<u16, false>,
        Bsr => shifts::scan::<u32, false>,
        Bt => bit::<shifts::Bt>(i),
        Bts => bit::<shifts::Bts>(i),
        Btr => bit::<shifts::Btr>(i),
        Btc => bit::<shifts::Btc>(i),
        Mov => mov(i)?,
        Movzx => extend::<false>(i),
        Movsx => extend::<true>(i),
        Lea => wide!(size(i, 0), moves::lea),
        Xchg if in_memory(i, 0) => sized!(size(i, 0), moves::exchange_memory),
        Xchg => sized!(size(i, 0), moves::exchange_registers),
        Bswap if size(i, 0) == 2 => moves::bswap16,
        Bswap => moves::bswap,
        Xlatb => moves::xlat,
        Cbw => moves::cbw,
        Cwde => moves::cwde,
        Cwd => moves::cwd,
        Cdq => moves::cdq,
        Lahf => moves::lahf,
        Sahf => moves::sahf,
        Salc => moves::salc,
        Nop | Pause | Prefetch | Prefetchw | Reservednop => moves::nothing,
        Prefetchnta | Prefetcht0 | Prefetcht1 | Prefetcht2 => moves::nothing,
        Daa => decimal::daa,
        Das => decimal::das,
        Aaa => decimal::aaa,
        Aas => decimal::aas,
        Aam => decimal::aam,
        Aad => decimal::aad,
        Clc => status::clc,
        Stc => status::stc,
        Cmc => status::cmc,
        Cld => status::cld,
        Std => status::std,
        _ => return None,
    })
}

/// The handler for `instruction`, if it is one of these.
pub(super) fn lower(i: &Instruction) -> Option<Lowered> {
    if i.is_string_instruction() {
        return strings::handler(i.mnemonic()).map(Lowered::jump);
    }
    let next = || plain(i).or_else(|| stack_instructions(i)).or_else(|| multiplications(i));
    if i.mnemonic() == Mnemonic::Enter {
        return stack_instructions(i).map(Lowered::fence);
    }
    branches(i).or_else(|| conditional(i)).or_else(|| next().map(Lowered::next))
}
