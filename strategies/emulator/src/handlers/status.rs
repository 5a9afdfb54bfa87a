//! CLC, STC, CMC, CLD, STD: single flags that any privilege may change.

use crate::exception::Exception;
use crate::op::Op;
use machine::Machine;
use machine::cpu::Eflags;

type Done = Result<(), Exception>;

pub(crate) fn clc(m: &mut Machine, _op: &Op) -> Done {
    m.cpu.flags.set(Eflags::CF, false);
    Ok(())
}

pub(crate) fn stc(m: &mut Machine, _op: &Op) -> Done {
    m.cpu.flags.set(Eflags::CF, true);
    Ok(())
}

pub(crate) fn cmc(m: &mut Machine, _op: &Op) -> Done {
    let carry = m.cpu.flags.carry();
    m.cpu.flags.set(Eflags::CF, !carry);
    Ok(())
}

pub(crate) fn cld(m: &mut Machine, _op: &Op) -> Done {
    m.cpu.flags.set(Eflags::DF, false);
    Ok(())
}

pub(crate) fn std(m: &mut Machine, _op: &Op) -> Done {
    m.cpu.flags.set(Eflags::DF, true);
    Ok(())
}
