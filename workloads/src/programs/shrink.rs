//! Making a program smaller as long as it does what it is wanted for.
//!
//! What is tried is less in one way at a time: fewer instructions, fewer tables, or something usual in
//! place of something special. Nothing is tried twice: what has been no good once is not asked for again
//! when all is gone through once more.

use super::{Block, Item, Mode, Paging, Program, layout};
use iced_x86::{Decoder, DecoderOptions};
use std::collections::HashSet;

/// Makes `program` smaller as long as `still` says that it does what it is wanted for.
///
/// Whole parts go first: blocks, instructions, then what surrounds them; and all over again until nothing
/// more can go. `still` is asked some hundred times, and never twice about the same program.
pub fn shrink(program: &Program, still: impl FnMut(&Program) -> bool) -> Program {
    let mut best = program.clone();
    best.blocks.iter_mut().for_each(Block::split_items);
    let mut search = Search { tried: HashSet::from([best.clone()]), best, still };
    loop {
        let before = search.best.clone();
        search.keep_if(|program| program.rounds = 1);
        search.drop_parts(|program| &mut program.blocks);
        for number in 0..search.best.blocks.len() {
            search.drop_items(number);
        }
        search.drop_parts(|program| &mut program.pages);
        search.drop_parts(|program| &mut program.descriptors);
        search.drop_parts(|program| &mut program.gates);
        search.drop_parts(|program| &mut program.handlers);
        search.simplify();
        if search.best == before {
            return search.best;
        }
    }
}

impl Program {
    /// How many instructions its blocks have.
    #[must_use]
    pub fn instructions(&self) -> usize {
        let of = |block: &Block| -> usize {
            let bits = block.mode.bits();
            block.code.iter().map(|item| decoder(bits, &item.bytes).into_iter().count()).sum()
        };
        self.blocks.iter().map(of).sum()
    }

    /// The program that ends its block behind the instruction at a linear address: so it is seen at once
    /// what that has done. Nothing if there is none in its blocks, or nothing behind it.
    #[must_use]
    pub fn cut_behind(&self, address: u32) -> Option<Program> {
        let mut cut = self.clone();
        cut.blocks.iter_mut().for_each(Block::split_items);
        let places = cut.places().ok()?;
        let found =
            cut.blocks.iter().zip(places).enumerate().find_map(|(number, (block, place))| {
                let starts = block.boundaries(place);
                let ends = starts
                    .iter()
                    .zip(&block.code)
                    .map(|(start, item)| start + item.bytes.len() as u32);
                let item = starts
                    .iter()
                    .zip(ends)
                    .position(|(&start, end)| (start..end).contains(&address));
                Some((number, item?))
            });
        let (number, item) = found?;
        let count = cut.blocks[number].code.len();
        cut.blocks[number].drop_items(item + 1, count);
        (item + 1 < count).then_some(cut)
    }
}

fn decoder(bits: u32, bytes: &[u8]) -> Decoder<'_> {
    Decoder::new(bits, bytes, DecoderOptions::NONE)
}

/// A program that becomes smaller.
struct Search<F> {
    best: Program,
    /// What need not be asked for any more.
    tried: HashSet<Program>,
    still: F,
}

impl<F: FnMut(&Program) -> bool> Search<F> {
    /// Changes the program if it still does what it is wanted for then.
    fn keep_if(&mut self, change: impl FnOnce(&mut Program)) -> bool {
        let mut candidate = self.best.clone();
        change(&mut candidate);
        let better = self.tried.insert(candidate.clone()) && (self.still)(&candidate);
        if better {
            self.best = candidate;
        }
        better
    }

    /// Drops as many elements of a list as can go, many at a time at first (Zeller & Hildebrandt 2002).
    fn drop_parts<T>(&mut self, list: impl Fn(&mut Program) -> &mut Vec<T>) {
        let mut part = list(&mut self.best).len();
        while part > 0 {
            let mut at = 0;
            while at < list(&mut self.best).len() {
                let end = (at + part).min(list(&mut self.best).len());
                if !self.keep_if(|program| drop(list(program).drain(at..end))) {
                    at = end;
                }
            }
            part /= 2;
        }
    }

    fn drop_items(&mut self, number: usize) {
        let mut part = self.best.blocks[number].code.len();
        while part > 0 {
            let mut at = 0;
            while at < self.best.blocks[number].code.len() {
                let end = (at + part).min(self.best.blocks[number].code.len());
                if !self.keep_if(|program| program.blocks[number].drop_items(at, end)) {
                    at = end;
                }
            }
            part /= 2;
        }
    }

    /// Replaces what is special by what is usual, one thing at a time.
    fn simplify(&mut self) {
        self.keep_if(|program| program.paging = Paging::Off);
        self.keep_if(|program| {
            if program.paging == Paging::Wide {
                program.paging = Paging::Plain;
            }
        });
        self.keep_if(|program| program.restores = false);
        self.keep_if(|program| program.data = 0);
        for bit in 0..32 {
            self.keep_if(|program| program.cr0 &= !(1 << bit));
            self.keep_if(|program| program.cr4 &= !(1 << bit));
        }
        for number in 0..self.best.blocks.len() {
            self.simplify_block(number);
        }
    }

    fn simplify_block(&mut self, number: usize) {
        self.keep_if(|program| program.blocks[number].directory = None);
        self.keep_if(|program| program.blocks[number].gap = 0);
        self.keep_if(|program| program.blocks[number].flags = 2);
        self.keep_if(|program| program.blocks[number].flags &= !0x200);
        if matches!(self.best.blocks[number].mode, Mode::Kernel | Mode::User) {
            self.keep_if(|program| program.blocks[number].data = [layout::USER_DATA; 4]);
        }
        for register in [0, 1, 2, 3, 5, 6, 7] {
            self.keep_if(|program| program.blocks[number].registers[register] = 0);
        }
    }
}

impl Block {
    /// Makes an item of each instruction, where nothing is filled in later: then each can go by itself.
    fn split_items(&mut self) {
        let bits = self.mode.bits();
        let old = std::mem::take(&mut self.code);
        // Where the items begin now, for links that lead to them.
        let mut begins = Vec::with_capacity(old.len());
        for item in old {
            begins.push(self.code.len());
            if item.link.is_some() {
                self.code.push(item);
                continue;
            }
            let mut rest = item.bytes.as_slice();
            while !rest.is_empty() {
                let instruction = decoder(bits, rest).decode();
                // Nobody knows how long an invalid one is.
                let length = if instruction.is_invalid() { rest.len() } else { instruction.len() };
                let (bytes, behind) = rest.split_at(length);
                self.code.push(Item::new(bytes.to_vec()));
                rest = behind;
            }
        }
        let end = self.code.len();
        for link in self.code.iter_mut().filter_map(|item| item.link.as_mut()) {
            link.target = begins.get(link.target).copied().unwrap_or(end);
        }
    }

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
        let wanted = Item::new(vec![0x0f, 0x0b]);
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
    fn nothing_is_tried_twice() {
        let mut tried = Vec::new();
        let small = shrink(&program(), |candidate| {
            tried.push(candidate.clone());
            candidate.blocks.iter().map(|block| block.code.len()).sum::<usize>() >= 3
        });
        assert_eq!(small.instructions(), 3);
        let distinct: HashSet<_> = tried.iter().collect();
        assert_eq!((distinct.len(), distinct.contains(&program())), (tried.len(), false));
    }

    #[test]
    fn a_block_can_end_behind_each_of_its_instructions() {
        let program = program();
        let place = program.places().unwrap()[0];
        let starts = program.blocks[0].boundaries(place);
        let cut = program.cut_behind(starts[0]).unwrap();
        let [whole, less] = [&program, &cut].map(Program::instructions);
        assert!(less < whole, "{less} of {whole}");
        let bytes = |program: &Program| {
            let code = program.blocks[0].code.iter();
            code.filter(|item| item.link.is_none())
                .flat_map(|item| item.bytes.clone())
                .collect::<Vec<_>>()
        };
        assert!(bytes(&program).starts_with(&bytes(&cut)));
        assert_eq!(program.cut_behind(layout::DATA), None);
    }

    #[test]
    fn instructions_of_one_item_can_go_by_themselves() {
        let mut block = program().blocks.remove(0);
        block.mode = Mode::Kernel;
        let link = Link { at: 1, size: 1, kind: LinkKind::Relative, target: 1 };
        let jump = Item { bytes: vec![0xeb, 0], link: Some(link) };
        block.code = vec![Item::new(vec![0x90, 0x40, 0xb0, 7]), Item::new(vec![0x0f]), jump];
        block.split_items();
        let bytes: Vec<_> = block.code.iter().map(|item| item.bytes.as_slice()).collect();
        assert_eq!(bytes, [&[0x90][..], &[0x40], &[0xb0, 7], &[0x0f], &[0xeb, 0]]);
        assert_eq!(block.code[4].link.map(|link| link.target), Some(3));
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
