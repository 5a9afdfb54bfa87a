//! What a case runs in beside its code and registers: ring, pages, segments, flags of CR0.

use crate::layout::{CODE, DATA, PAGE, STACK};
use crate::random::Random;

/// The linear address of the arena.
pub(crate) const ARENA: u32 = 0x2000_0000;
/// Pages of the arena.
pub(crate) const ARENA_PAGES: usize = 16;

/// Bits of page-table entries.
const PRESENT: u32 = 1;
const WRITABLE: u32 = 2;
const USER: u32 = 4;
const ACCESSED: u32 = 0x20;
const DIRTY: u32 = 0x40;

/// How FS or GS is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extra {
    /// A null selector.
    Null,
    /// As DS.
    Flat,
    /// 4 GiB from a base on.
    Based,
    /// A base and a limit that ends in the arena.
    Limited,
}

/// The surroundings of a case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Scene {
    pub(crate) ring0: bool,
    pub(crate) write_protect: bool,
    pub(crate) io_privilege: u32,
    pub(crate) fs: Extra,
    pub(crate) gs: Extra,
    /// Page number in the arena and rights of each of its pages.
    pub(crate) pages: [u32; ARENA_PAGES],
    /// Whether the pages are touched before the case begins.
    pub(crate) warm: bool,
}

impl Scene {
    /// The surroundings for a seed. Pages stay the same for some seeds: windows outlive cases.
    pub(crate) fn new(seed: u64) -> Scene {
        let random = &mut Random::new(seed ^ 0x5c3e_5c3e);
        let extra = [Extra::Null, Extra::Flat, Extra::Based, Extra::Based, Extra::Limited];
        let epoch = &mut Random::new(seed >> 5 ^ 0x7a6e);
        Scene {
            ring0: random.chance(25),
            write_protect: epoch.chance(70),
            io_privilege: if random.chance(10) { 3 } else { 0 },
            fs: random.pick(&extra),
            gs: random.pick(&extra),
            pages: pages(epoch),
            warm: random.chance(60),
        }
    }
}

fn pages(random: &mut Random) -> [u32; ARENA_PAGES] {
    let used = PRESENT | ACCESSED | DIRTY;
    let mut pages = [0; ARENA_PAGES];
    let own = |page: u32| page << 12;
    for page in 0..ARENA_PAGES as u32 {
        pages[page as usize] = match random.below(12) {
            0 => own(page) | used | USER,
            1 => own(page) | used | WRITABLE,
            2 => own(page) | used,
            3 => own(page) | used | USER | WRITABLE,
            4 => own(page) | PRESENT | USER | WRITABLE,
            5 => own(page) | PRESENT | ACCESSED | USER | WRITABLE,
            6 => CODE | used | USER | WRITABLE,
            7 => DATA | used | USER | WRITABLE,
            _ => 0,
        };
    }
    let code_rights = if random.chance(35) { WRITABLE } else { 0 };
    pages[(CODE / PAGE) as usize] = CODE | used | USER | code_rights;
    for at in [DATA, DATA + PAGE, STACK] {
        let rights = match random.below(8) {
            0 => PRESENT | USER | WRITABLE,
            1 => PRESENT | ACCESSED | USER | WRITABLE,
            _ => used | USER | WRITABLE,
        };
        pages[(at / PAGE) as usize] = at | rights;
    }
    if random.chance(10) {
        let page = (DATA / PAGE) as usize + 1;
        pages[page] = random.pick(&[0, own(4) | used | USER, own(4) | used | WRITABLE]);
    }
    pages
}
