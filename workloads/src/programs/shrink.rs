//! Making a program smaller as long as it does what it is wanted for.

use super::{Block, Item, Mode, Paging, Program, layout};

/// Makes `program` smaller as long as `still` says that it does what it is wanted for.
///
/// Whole parts go first: blocks, items, then what surrounds them; and all over again until nothing
/// more can go. `still` is asked some hundred times.
pub fn shrink(program: &Program, mut still: impl FnMut(&Program) -> bool) -> Program {
    let mut best = program.clone();
    loop {
        let before = best.clone();
        best.rounds_to_one(&mut still);
        drop_parts(&mut best, &mut still, |p| &mut p.blocks);
        for number in 0..best.blocks.len() {
            drop_items(&mut best, &mut still, number);
        }
        drop_parts(&mut best, &mut still, |p| &mut p.pages);
        drop_parts(&mut best, &mut still, |p| &mut p.descriptors);
        drop_parts(&mut best, &mut still, |p| &mut p.gates);
        drop_parts(&mut best, &mut still, |p| &mut p.handlers);
        simplify(&mut best, &mut still);
        if best == before {
            return best;
        }
    }
}

impl Program {
    fn rounds_to_one(&mut self, still: &mut impl FnMut(&Program) -> bool) {
        keep_if(self, still, |program| program.rounds = 1);
    }
}

/// Changes a program if it still does what it is wanted for then.
fn keep_if(
    best: &mut Program,
    still: &mut impl FnMut(&Program) -> bool,
    change: impl FnOnce(&mut Program),
) -> bool {
    let mut candidate = best.clone();
    change(&mut candidate);
    let better = candidate != *best && still(&candidate);
    if better {
        *best = candidate;
    }
    better
}

/// Drops as many elements of a list as can go, many at a time at first (Zeller & Hildebrandt 2002).
fn drop_parts<T>(
    best: &mut Program,
    still: &mut impl FnMut(&Program) -> bool,
    list: impl Fn(&mut Program) -> &mut Vec<T>,
) {
    let mut part = list(best).len();
    while part > 0 {
        let mut at = 0;
        while at < list(best).len() {
            let end = (at + part).min(list(best).len());
            if !keep_if(best, still, |program| drop(list(program).drain(at..end))) {
                at = end;
            }
        }
        part /= 2;
    }
}

fn drop_items(best: &mut Program, still: &mut impl FnMut(&Program) -> bool, number: usize) {
    let mut part = best.blocks[number].code.len();
    while part > 0 {
        let mut at = 0;
        while at < best.blocks[number].code.len() {
            let end = (at + part).min(best.blocks[number].code.len());
            if !keep_if(best, still, |program| program.blocks[number].drop_items(at, end)) {
                at = end;
            }
        }
        part /= 2;
    }
}

impl Block {
    /// Drops items `from` to `to`; links to them lead to what follows.
    fn drop_items(&mut self, from: usize, to: usize) {
        self.code.drain(from..to);
        for link in self.code.iter_mut().filter_map(|item: &mut Item| item.link.as_mut()) {
            if link.target >= to {
                link.target -= to - from;
            } else if link.target > from {
                link.target = from;
            }
        }
    }
}

/// Replaces what is special by what is usual, one thing at a time.
fn simplify(best: &mut Program, still: &mut impl FnMut(&Program) -> bool) {
    keep_if(best, still, |program| program.paging = Paging::Off);
    keep_if(best, still, |program| {
        if program.paging == Paging::Wide {
            program.paging = Paging::Plain;
        }
    });
    keep_if(best, still, |program| program.restores = false);
    keep_if(best, still, |program| program.data = 0);
    for bit in 0..32 {
        keep_if(best, still, |program| program.cr0 &= !(1 << bit));
        keep_if(best, still, |program| program.cr4 &= !(1 << bit));
    }
    for number in 0..best.blocks.len() {
        simplify_block(best, still, number);
    }
}

fn simplify_block(best: &mut Program, still: &mut impl FnMut(&Program) -> bool, number: usize) {
    keep_if(best, still, |program| program.blocks[number].directory = None);
    keep_if(best, still, |program| program.blocks[number].gap = 0);
    keep_if(best, still, |program| program.blocks[number].flags = 2);
    keep_if(best, still, |program| program.blocks[number].flags &= !0x200);
    if matches!(best.blocks[number].mode, Mode::Kernel | Mode::User) {
        keep_if(best, still, |program| program.blocks[number].data = [layout::USER_DATA; 4]);
    }
    for register in [0, 1, 2, 3, 5, 6, 7] {
        keep_if(best, still, |program| program.blocks[number].registers[register] = 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KeptOut, Link, LinkKind, Repertoire};
    use super::*;

    fn program() -> Program {
        Program::generate(7, &Repertoire { allows: &|_| true, kept_out: KeptOut::default() })
    }

    #[test]
    fn all_goes_that_is_not_needed() {
        let mut program = program();
        let wanted = Item::new(vec![0x0f, 0x0b, 0x90]);
        program.blocks[1].code.insert(0, wanted.clone());
        let small = shrink(&program, |candidate| {
            candidate.blocks.iter().any(|block| block.code.contains(&wanted))
        });
        assert_eq!(small.blocks.len(), 1);
        assert_eq!(small.blocks[0].code, [wanted]);
        assert!(small.pages.is_empty() && small.descriptors.is_empty() && small.rounds == 1);
        assert_eq!(small.paging, Paging::Off);
    }

    #[test]
    fn links_lead_to_the_same_items_as_before() {
        let mut block = program().blocks.remove(0);
        let link = |target| Item {
            bytes: vec![0xeb, 0],
            link: Some(Link { at: 1, size: 1, kind: LinkKind::Relative, target }),
        };
        block.code = vec![link(3), link(2), Item::new(vec![0x90]), Item::new(vec![0x40])];
        block.drop_items(2, 3);
        let targets = block.code.iter().filter_map(|item| item.link).map(|link| link.target);
        assert_eq!(targets.collect::<Vec<_>>(), [2, 2]);
    }
}
