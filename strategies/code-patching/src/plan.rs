//! Room for a jump: which instructions move into the stub of a sensitive one.
//!
//! The jump takes five bytes. Where the sensitive instruction is shorter, its neighbours behind it
//! and, if those are not enough, before it move along. Control must not be known to come to any but
//! the first, and only the last may send it elsewhere. That no unknown branch comes there is not taken
//! for granted: the bytes of the jump that stand where moved instructions began are chosen so that
//! they trap (see `area`).
//!
//! Behind the run there may be sites without room of their own, because something branches to them.
//! The stub goes on with copies of those: whoever comes through it does not meet their trap bytes.

use crate::class::{Flow, Treatment, Work};
use crate::sites::Obstacle;
use crate::view::{Examined, PAGE, View};

/// Bytes of `jmp rel32`.
pub(crate) const JUMP: u16 = 5;
/// The most instructions that one stub takes in.
const MOST: usize = 12;
/// The most that one has in its tail.
const MOST_TAIL: usize = 3;
/// NOP and INT3, with which compilers fill up behind what does not go on.
const PADDING: [u8; 2] = [0x90, 0xcc];

/// A run of instructions that is to move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    /// Where each begins.
    pub(crate) starts: Vec<u16>,
    /// Instructions behind them that stay, and are in the stub as well.
    pub(crate) tail: Vec<u16>,
    /// Behind the last that moves, padding included.
    pub(crate) end: u16,
    /// Windows that it replaces, by their starts.
    pub(crate) replaces: Vec<u16>,
}

impl Plan {
    /// Where within the jump instructions began: distances from its first byte.
    pub(crate) fn boundaries(&self) -> impl Iterator<Item = u16> + '_ {
        let first = self.starts[0];
        self.starts[1..].iter().map(move |start| start - first).filter(|&within| within < JUMP)
    }
}

/// The run for the sensitive instruction at `site`, or what is in its way where it begins there.
pub(crate) fn plan(view: &View, site: u16) -> Result<Plan, Obstacle> {
    let mut plan = room(view, site)?;
    plan.tail = tail(view, &plan);
    Ok(plan)
}

/// The instructions with which the stub goes on.
fn tail(view: &View, plan: &Plan) -> Vec<u16> {
    let mut tail = Vec::new();
    let mut last = plan.starts[plan.starts.len() - 1];
    while let Some(known) = view.instructions.get(&last).filter(|known| known.flow == Flow::Next)
        && tail.len() < MOST_TAIL
    {
        let next = last + known.instruction.len() as u16;
        let wanted = is_sti(known) || view.is_site(next) && room(view, next).is_err();
        if !can_be_copied(view, next) || !wanted {
            break;
        }
        tail.push(next);
        last = next;
    }
    // Without the one instruction that it shields, STI is no use here: its own byte traps.
    while tail.last().is_some_and(|last| view.instructions.get(last).is_some_and(is_sti)) {
        tail.pop();
    }
    tail
}

fn is_sti(known: &Examined) -> bool {
    known.treatment == Treatment::Stub(Work::Sti)
}

/// Whether an instruction that stays can be in a stub, too.
fn can_be_copied(view: &View, at: u16) -> bool {
    usize::from(at) < PAGE
        && view.is_examined(at)
        && view.window_at(at).is_none()
        && !view.leaves_page(at)
        && can_move(view, at)
        && view.instructions.get(&at).is_some_and(|known| known.treatment != Treatment::Trap)
}

/// The run without what follows it.
fn room(view: &View, site: u16) -> Result<Plan, Obstacle> {
    let mut first = site;
    let mut in_the_way = None;
    for _ in 0..JUMP {
        match run(view, first, site) {
            Ok(plan) => return Ok(plan),
            Err(obstacle) => in_the_way = in_the_way.or(Some(obstacle)),
        }
        match view.before(first) {
            Some(before) => first = before,
            None => break,
        }
    }
    Err(in_the_way.unwrap_or(Obstacle::Unknown))
}

/// The run from `first` over `site` up to where there are five bytes. Windows that it meets become
/// part of it.
fn run(view: &View, first: u16, site: u16) -> Result<Plan, Obstacle> {
    let first = view.window_at(first).map_or(first, |(start, _)| start);
    let mut plan = Plan { starts: Vec::new(), tail: Vec::new(), end: first, replaces: Vec::new() };
    let mut least = site.max(first + JUMP - 1);
    let mut at = first;
    while at <= least {
        if let Some((start, window)) = view.window_at(at) {
            least = least.max(window.end - 1);
            if !plan.replaces.contains(&start) {
                plan.replaces.push(start);
            }
        }
        let known = view.instructions.get(&at).filter(|_| view.is_examined(at));
        let known = known.ok_or(Obstacle::Unknown)?;
        if at != first && view.is_target(at) {
            return Err(Obstacle::Target);
        }
        if plan.starts.len() == MOST || !can_move(view, at) {
            return Err(Obstacle::Immovable);
        }
        plan.starts.push(at);
        let next = usize::from(at) + known.instruction.len();
        let within = at + 1..next.min(PAGE) as u16;
        if within.into_iter().any(|at| view.is_examined(at)) {
            // Control may come to what begins there.
            return Err(Obstacle::Target);
        }
        // What goes on into the page behind is the run's last.
        let is_last = known.flow != Flow::Next || next >= PAGE;
        let next = next.min(PAGE) as u16;
        plan.end = next;
        if is_sti(known) && !can_be_copied(view, next) {
            // The one instruction before an interrupt is in the stub too, which knows of that.
            least = least.max(next);
        }
        if is_last {
            let end = least + 1;
            if next < end {
                let obstacle = if next >= PAGE as u16 { Obstacle::Page } else { Obstacle::End };
                is_padding(view, next, end).then_some(()).ok_or(obstacle)?;
                plan.end = end;
            }
            break;
        }
        at = next;
    }
    if plan.end >= first + JUMP && plan.end > site { Ok(plan) } else { Err(Obstacle::End) }
}

/// Whether an instruction can be encoded in another place.
fn can_move(view: &View, at: u16) -> bool {
    let Some(known) = view.instructions.get(&at) else { return false };
    let instruction = &known.instruction;
    let is_16bit = instruction.near_branch_target() != 0
        && instruction.op0_kind() == iced_x86::OpKind::NearBranch16;
    let by_monitor = known.treatment != Treatment::Native;
    match known.flow {
        Flow::Next | Flow::Ends => true,
        Flow::Jump(_) | Flow::Branch(_) | Flow::Call(_) => !is_16bit,
        // A far call is the monitor's.
        Flow::IndirectCall => by_monitor,
        Flow::ShortBranch(_) => false,
    }
}

/// Whether there is only padding, to which control is not known to come.
fn is_padding(view: &View, from: u16, to: u16) -> bool {
    usize::from(to) <= PAGE
        && (from..to)
            .all(|at| PADDING.contains(&view.byte(at)) && !view.is_target(at) && !view.is_code(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::view;

    fn planned(code: &[u8], entry: u16, site: u16) -> Option<Plan> {
        let mut view = view(code);
        view.examine(entry);
        plan(&view, site).ok()
    }

    #[test]
    fn neighbours_behind_move_along() {
        // cli; push eax; mov eax, ebx; ret
        let plan = planned(&[0xfa, 0x50, 0x89, 0xd8, 0x40, 0xc3], 0, 0).unwrap();
        assert_eq!(plan.starts, [0, 1, 2, 4]);
        assert_eq!(plan.boundaries().collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(plan.end, 5);
    }

    #[test]
    fn neighbours_before_move_where_those_behind_do_not_suffice() {
        // mov eax, ebx; sti; ret; then another function
        let plan = planned(&[0x89, 0xd8, 0x40, 0xfb, 0xc3, 0x55], 0, 3).unwrap();
        assert_eq!((plan.starts, plan.end), (vec![0, 2, 3, 4], 5));
    }

    #[test]
    fn padding_is_room() {
        let plan = planned(&[0xfb, 0xc3, 0xcc, 0xcc, 0xcc], 0, 0).unwrap();
        assert_eq!((plan.starts, plan.end), (vec![0, 1], 5));
        assert_eq!(planned(&[0xfb, 0xc3, 0xcc, 0xcc, 0x55], 0, 0), None);
    }

    #[test]
    fn what_sti_shields_is_in_its_stub() {
        // mov ecx, ebx; mov eax, ebx; sti; hlt; nop
        let plan = planned(&[0x89, 0xd9, 0x89, 0xd8, 0xfb, 0xf4, 0x90, 0xc3], 0, 4).unwrap();
        assert_eq!(plan.starts, [2, 4, 5, 6], "STI, HLT, and what the jump needs");
    }

    #[test]
    fn sites_behind_that_are_branched_to_are_copied() {
        // jz to the IRET; smsw [0x1000]; iret
        let code = [0x74, 0x07, 0x0f, 0x01, 0x25, 0, 0x10, 0, 0, 0xcf];
        let plan = planned(&code, 0, 2).unwrap();
        assert_eq!((plan.starts, plan.tail, plan.end), (vec![2], vec![9], 9));
        // jz to the INC; mov eax, 1; sti; inc eax; ret
        let code = [0x74, 0x06, 0xb8, 1, 0, 0, 0, 0xfb, 0x40, 0xc3];
        let plan = planned(&code, 0, 7).unwrap();
        assert_eq!((plan.starts, plan.tail, plan.end), (vec![2, 7], vec![8], 8));
    }

    #[test]
    fn sti_is_in_no_tail_without_what_it_shields() {
        // jz to the STI; smsw [0x1000]; sti; loop
        let code = [0x74, 0x07, 0x0f, 0x01, 0x25, 0, 0x10, 0, 0, 0xfb, 0xe2, 0xfe, 0xc3];
        let plan = planned(&code, 0, 2).unwrap();
        assert_eq!((plan.starts, plan.tail), (vec![2], vec![]));
        // The same with an instruction that can be copied behind it.
        let code = [0x74, 0x07, 0x0f, 0x01, 0x25, 0, 0x10, 0, 0, 0xfb, 0x40, 0xe2, 0xfe, 0xc3];
        assert_eq!(planned(&code, 0, 2).unwrap().tail, [9, 10]);
    }

    #[test]
    fn what_is_jumped_to_stays() {
        // cli; nop; dec eax; jnz back to the nop
        assert_eq!(planned(&[0xfa, 0x90, 0x48, 0x75, 0xfc, 0xc3], 0, 0), None);
    }

    #[test]
    fn a_second_site_in_reach_shares_the_stub() {
        // pushf; pop eax; cli; mov [ebx], eax
        let plan = planned(&[0x9c, 0x58, 0xfa, 0x89, 0x03, 0xc3], 0, 0).unwrap();
        assert_eq!(plan.starts, [0, 1, 2, 3]);
    }

    #[test]
    fn the_jump_stays_in_its_page() {
        let mut code = vec![0x90; PAGE];
        code[PAGE - 3..].copy_from_slice(&[0xfa, 0x90, 0x90]);
        let plan = planned(&code, 4000, 4093).unwrap();
        assert_eq!((plan.starts[0], plan.end), (4091, 4096));
    }
}
