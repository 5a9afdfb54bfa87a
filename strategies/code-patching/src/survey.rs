//! What would become of code that nobody runs: the same examination, page by page, over an image.
//!
//! A run examines what is reached as it is reached, and in it indirect branches show where they lead.
//! Here everything that direct branches and calls lead to is examined first, and then patched. Code is
//! taken for flat guest ring 0's, and addresses for stubs as there to be had.

use crate::class::Flow;
use crate::patches::{jump, parts};
use crate::plan::{self, Plan};
use crate::records::{need, unwanted};
use crate::sites::{Became, Runs, Site};
use crate::stub::{self, Level, Setting};
use crate::view::{Key, LONGEST, PAGE, View, Window};
use machine::cpu::CpuModel;
use std::collections::BTreeMap;
use std::ops::Range;

/// An address's offset in its page.
const OFFSET: u32 = PAGE as u32 - 1;

/// An address for what has none here. The lengths of stubs do not depend on it.
const SOMEWHERE: u32 = 0xff80_0000;

/// Bytes that nobody executes, between functions: NOP, INT3, and what was never written.
const BETWEEN: [u8; 3] = [0x90, 0xcc, 0];

/// The sites in the 32-bit code that is reached from `entries`, by address, with what they would
/// become in prescan mode. `read` gives a byte of code. What lies in the ranges `swept` is code as well,
/// whether it is reached or not.
#[must_use]
pub fn survey(
    entries: &[u32],
    swept: &[Range<u32>],
    read: impl Fn(u32) -> Option<u8>,
) -> Vec<Site> {
    let mut survey = Survey { views: BTreeMap::new(), read };
    entries.iter().for_each(|&entry| survey.follow(entry));
    for address in swept.iter().cloned().flatten() {
        if (survey.read)(address).is_some_and(|byte| !BETWEEN.contains(&byte))
            && !survey.is_code(address)
        {
            survey.follow(address);
        }
    }
    survey.views.values_mut().flat_map(patched).collect()
}

/// Pages by their addresses.
struct Survey<R> {
    views: BTreeMap<u32, View>,
    read: R,
}

impl<R: Fn(u32) -> Option<u8>> Survey<R> {
    fn is_code(&self, address: u32) -> bool {
        let view = self.views.get(&(address & !OFFSET));
        view.is_some_and(|view| view.is_code((address & OFFSET) as u16))
    }

    /// Examines what is reached from a place.
    fn follow(&mut self, entry: u32) {
        let mut pending = vec![entry];
        while let Some(address) = pending.pop() {
            if (self.read)(address).is_none() {
                continue;
            }
            let (page, offset) = (address & !OFFSET, (address & OFFSET) as u16);
            let view = self.views.entry(page).or_insert_with(|| view(page, &self.read));
            if view.is_examined(offset) {
                view.note_target(offset);
            } else {
                for new in view.examine(offset).new {
                    pending.extend(elsewhere(view, new));
                }
            }
        }
    }
}

fn view(page: u32, read: &impl Fn(u32) -> Option<u8>) -> View {
    let bytes = (0..PAGE + LONGEST).map(|at| page.checked_add(at as u32).and_then(read));
    let bytes = bytes.map(Option::unwrap_or_default).collect();
    let (level, is_32bit) = (Level::Virtual, true);
    View::new(
        Key { linear: page, offset: page.into(), level, is_32bit, base: 0, splits_gs: false },
        bytes,
    )
}

/// Where control goes from an instruction in other pages.
fn elsewhere(view: &View, offset: u16) -> impl Iterator<Item = u32> + use<> {
    let known = view.instructions.get(&offset).copied();
    let next = known.map(|known| known.instruction.next_ip32());
    let (next, target) = match known.map(|known| known.flow) {
        Some(Flow::Next | Flow::IndirectCall) => (next, None),
        Some(Flow::Jump(target)) => (None, Some(target)),
        Some(Flow::Branch(target) | Flow::ShortBranch(target) | Flow::Call(target)) => {
            (next, Some(target))
        }
        Some(Flow::Ends) | None => (None, None),
    };
    let page = view.key.linear;
    let is_elsewhere = move |to: &u32| to & !OFFSET != page;
    next.into_iter().chain(target).filter(is_elsewhere)
}

/// The sites of a page in which everything has been examined.
fn patched(view: &mut View) -> Vec<Site> {
    let offsets = view.instructions.keys().copied().filter(|&offset| view.is_site(offset));
    let offsets: Vec<u16> = offsets.collect();
    let mut became = BTreeMap::new();
    for &offset in &offsets {
        if view.window_at(offset).is_some() {
            continue;
        }
        let need = view.instructions.get(&offset).map(|known| need(known.treatment));
        let planned = match need {
            Some(crate::sites::Need::Trap) => Err(unwanted(true)),
            _ => plan::plan(view, offset),
        };
        match planned {
            Ok(plan) => {
                let stub_bytes = patch(view, &plan);
                for &start in plan.starts.iter().filter(|&&start| view.is_site(start)) {
                    let jump = jump(view, &plan, start, stub_bytes);
                    became.insert(start, Became::Stub(jump));
                }
            }
            Err(obstacle) => {
                became.insert(offset, Became::TrapByte(obstacle));
            }
        }
    }
    let site = |offset: u16| {
        let known = view.instructions.get(&offset)?;
        Some(Site {
            address: view.key.linear.wrapping_add(offset.into()),
            bytes: view.guest_bytes_of(offset).to_vec(),
            is_32bit: view.key.is_32bit,
            need: need(known.treatment),
            became: *became.get(&offset)?,
            runs: Runs::default(),
        })
    };
    offsets.into_iter().filter_map(site).collect()
}

/// Puts a run's window into the view, and gives the length of its stub.
fn patch(view: &mut View, plan: &Plan) -> u32 {
    let setting =
        Setting { level: Level::Virtual, page: SOMEWHERE, shift: 0, model: CpuModel::default() };
    let uncounted = vec![None; plan.starts.len()];
    let made = stub::assemble(&parts(view, plan, &uncounted), SOMEWHERE, &setting);
    for start in &plan.replaces {
        view.windows.remove(start);
    }
    let parts = plan.starts.iter().zip(&made.parts);
    let parts = parts.map(|(&start, &(_, offset))| (start, SOMEWHERE.wrapping_add(offset)));
    let window = Window { end: plan.end, stub: SOMEWHERE, parts: parts.collect() };
    view.windows.insert(plan.starts[0], window);
    made.code.len() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sites::{Need, Obstacle, Way};

    const BASE: u32 = 0x10_0000;

    fn of(code: &[u8]) -> Vec<Site> {
        survey(&[BASE], &[], |address| code.get(address.checked_sub(BASE)? as usize).copied())
    }

    #[test]
    fn each_site_says_what_it_became() {
        // cli; push eax; mov eax, ebx; in al, dx; jz to the start; ud2
        let sites = of(&[0xfa, 0x50, 0x89, 0xd8, 0xec, 0x74, 0xf9, 0x0f, 0x0b]);
        let words: Vec<_> = sites.iter().map(|site| (site.address - BASE, site.need)).collect();
        assert_eq!(words, [(0, Need::Stub), (4, Need::Monitor), (7, Need::Trap)]);
        let jumps = [0, 1].map(|index| match sites[index].became {
            Became::Stub(jump) => jump,
            other => panic!("{other:?}"),
        });
        assert_eq!((jumps[0].way, jumps[1].way), (Way::Virtual, Way::Crossing));
        assert_eq!((jumps[0].address, jumps[0].covers, jumps[0].moved), (BASE, 5, 3));
        assert_eq!(jumps[0].padding, 0);
        assert_eq!(sites[2].became, Became::TrapByte(Obstacle::NotWanted));
    }

    #[test]
    fn where_there_is_no_room_it_is_said_why() {
        let reason = |code: &[u8]| match of(code)[0].became {
            Became::TrapByte(obstacle) => obstacle,
            other => panic!("{other:?}"),
        };
        // cli; nop; dec eax; jnz to the nop; ret
        assert_eq!(reason(&[0xfa, 0x90, 0x48, 0x75, 0xfc, 0xc3]), Obstacle::Target);
        // cli; ret; push ebp
        assert_eq!(reason(&[0xfa, 0xc3, 0x55]), Obstacle::End);
        // cli; loop to the start; ret
        assert_eq!(reason(&[0xfa, 0xe2, 0xfd, 0xc3]), Obstacle::Immovable);
    }

    #[test]
    fn control_is_followed_into_other_pages() {
        let mut code = vec![0; 3 * PAGE];
        // call 0x101000; cli; ret; and there: sti, with three neighbours; ret
        code[..7].copy_from_slice(&[0xe8, 0xfb, 0x0f, 0, 0, 0xfa, 0xc3]);
        code[PAGE..PAGE + 6].copy_from_slice(&[0xfb, 0x90, 0x90, 0x90, 0x90, 0xc3]);
        let sites = of(&code);
        let addresses: Vec<u32> = sites.iter().map(|site| site.address).collect();
        assert_eq!(addresses, [BASE + 5, BASE + PAGE as u32]);
    }

    #[test]
    fn what_is_swept_need_not_be_reached() {
        // ret; padding; cli; ret with padding; hlt
        let code = [0xc3, 0xcc, 0xfa, 0xc3, 0x90, 0x90, 0x90, 0xf4];
        let read = |address: u32| code.get(address.checked_sub(BASE)? as usize).copied();
        assert!(survey(&[BASE], &[], read).is_empty());
        let sites = survey(&[BASE], std::slice::from_ref(&(BASE..BASE + 8)), read);
        assert_eq!(sites.iter().map(|site| site.address - BASE).collect::<Vec<_>>(), [2, 7]);
        assert!(matches!(sites[0].became, Became::Stub(jump) if jump.padding == 3));
    }

    #[test]
    fn what_ordinary_code_has_to_leave_its_page_is_a_site() {
        let mut code = vec![0x90; 2 * PAGE];
        // mov eax, 1: two bytes in the first page; ret
        code[PAGE - 2..PAGE + 4].copy_from_slice(&[0xb8, 1, 0, 0, 0, 0xc3]);
        let sites = of(&code);
        assert_eq!((sites[0].need, sites[0].bytes.len()), (Need::TwoPages, 5));
        assert!(matches!(sites[0].became, Became::Stub(jump) if jump.way == Way::Copy));
    }
}
