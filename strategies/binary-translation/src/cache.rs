//! Units: found by physical address, EIP and mode; linked to each other; dropped when their guest
//! code is written.
//!
//! A unit is keyed by where its bytes lie, so it outlives page tables. A link is right as long as
//! the target's linear page is backed by the same physical page: within one page always, across
//! pages as long as [`Cache::crossings`] are checked at each change of address space.

use crate::memory::CodeMemory;
use crate::mode::Mode;
use crate::sites::Sites;
use crate::stubs::{self, Stubs};
use crate::translate::{self, Link, Place, PlaceKind, Request};
use crate::{context::at, emit::Emitter};
use host::Error;
use rustc_hash::FxHashMap as HashMap;

const PAGE: u64 = 4096;
/// Bytes of host code that a unit may have, at most: room that must be left.
const ROOM: u64 = 64 << 10;

/// What a unit is found by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    pub(crate) physical: u64,
    pub(crate) eip: u32,
    pub(crate) mode: Mode,
}

/// The number of a unit since the cache was last emptied.
pub(crate) type UnitId = u32;

/// A jump that leads to a unit, and where it led before: host addresses.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    site: u64,
    exit: u64,
}

/// A translated unit.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) key: Key,
    /// Bytes of guest code.
    pub(crate) length: u32,
    /// Host addresses.
    pub(crate) host: u64,
    host_end: u64,
    places: Vec<Place>,
    links: Vec<Link>,
    returns: Vec<u32>,
    incoming: Vec<Incoming>,
    alive: bool,
}

/// The jumps from other pages into one linear page.
#[derive(Debug)]
struct Crossing {
    /// The physical page that they take for granted.
    physical: u64,
    sites: Vec<Incoming>,
    /// Address spaces differ about it: it is not linked to again.
    contested: bool,
}

/// Numbers of the cache's work since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// Units translated.
    pub units: u64,
    /// Bytes of guest code in them.
    pub guest_bytes: u64,
    /// Bytes of host code.
    pub host_bytes: u64,
    /// Units dropped because their guest code was written, or an access in them was found guilty.
    pub dropped: u64,
    /// Times that the whole cache was emptied.
    pub emptied: u64,
    /// Jumps that were linked to their target.
    pub links: u64,
    /// Lookups that left the cache: the table of targets did not have the unit.
    pub lookups: u64,
    /// Faults in windows after which pages were shown.
    pub window_fills: u64,
    /// Times that an address space was compared with what its windows were filled from.
    pub revalidations: u64,
    /// Instructions found guilty of faulting again and again, and translated anew.
    pub guilty: u64,
}

/// The code cache.
#[derive(Debug)]
pub(crate) struct Cache {
    memory: CodeMemory,
    pub(crate) stubs: Stubs,
    units: Vec<Unit>,
    by_key: HashMap<Key, UnitId>,
    by_page: HashMap<u64, Vec<UnitId>>,
    crossings: HashMap<u32, Crossing>,
    /// The linear pages of `crossings`, in the order in which they came.
    crossed: Vec<u32>,
    pub(crate) statistics: Statistics,
}

impl Cache {
    pub(crate) fn new() -> Result<Cache, Error> {
        let mut memory = CodeMemory::new()?;
        let mut emitter = Emitter::new(memory.next());
        let stubs = stubs::emit(&mut emitter);
        memory.push(&emitter.bytes);
        memory.keep();
        memory.set_sentinel(stubs.return_missed);
        Ok(Cache {
            memory,
            stubs,
            units: Vec::new(),
            by_key: HashMap::default(),
            by_page: HashMap::default(),
            crossings: HashMap::default(),
            crossed: Vec::new(),
            statistics: Statistics::default(),
        })
    }

    pub(crate) fn memory(&self) -> &CodeMemory {
        &self.memory
    }

    pub(crate) fn find(&self, key: &Key) -> Option<UnitId> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn unit(&self, id: UnitId) -> &Unit {
        &self.units[id as usize]
    }

    /// Whether there is room for one more unit.
    pub(crate) fn has_room(&self) -> bool {
        self.memory.next() + ROOM < self.memory.range().end
    }

    /// Empties the cache.
    pub(crate) fn clear(&mut self) {
        self.memory.clear();
        self.units.clear();
        self.by_key.clear();
        self.by_page.clear();
        self.crossings.clear();
        self.crossed.clear();
        self.statistics.emptied += 1;
    }

    /// Translates a unit. There must be room.
    pub(crate) fn translate(&mut self, request: Request<'_>, sites: &Sites) -> UnitId {
        let host = self.memory.next();
        let made = translate::translate(request, sites, &self.stubs, host);
        self.memory.push(&made.bytes);
        let id = self.units.len() as UnitId;
        let key = Key { physical: request.physical, eip: request.eip, mode: request.mode };
        self.by_key.insert(key, id);
        self.by_page.entry(key.physical / PAGE).or_default().push(id);
        self.statistics.units += 1;
        self.statistics.guest_bytes += u64::from(made.length);
        self.statistics.host_bytes += made.bytes.len() as u64;
        self.units.push(Unit {
            key,
            length: made.length,
            host,
            host_end: host + made.bytes.len() as u64,
            places: made.places,
            links: made.links,
            returns: made.returns,
            incoming: Vec::new(),
            alive: true,
        });
        id
    }

    /// The unit that a host address lies in, dropped ones included.
    pub(crate) fn unit_at(&self, host: u64) -> Option<&Unit> {
        let after = self.units.partition_point(|unit| unit.host <= host);
        self.units[..after].last().filter(|unit| host < unit.host_end)
    }

    /// Lets the jump at `site` lead to `target`. `false` if it has to be looked up each time.
    pub(crate) fn link(&mut self, site: u64, target: UnitId) -> bool {
        let Some(unit) = self.unit_at(site).filter(|unit| unit.alive) else { return false };
        let offset = (site - unit.host) as u32;
        let Some(link) = unit.links.iter().find(|link| link.site == offset) else { return false };
        let incoming = Incoming { site, exit: unit.host + u64::from(link.exit) };
        let source_page = unit.key.eip / PAGE as u32;
        let to = self.unit(target);
        if unit.key.mode != to.key.mode {
            return false;
        }
        let eip = to.key.eip;
        let (page, physical, host) = (eip / PAGE as u32, to.key.physical / PAGE, to.host);
        if source_page != page && !self.cross(page, physical, incoming) {
            self.look_up_instead(incoming, eip);
            return false;
        }
        self.units[target as usize].incoming.push(incoming);
        self.aim(site, host);
        self.statistics.links += 1;
        true
    }

    /// Makes a jump's exit a lookup: it will never be linked.
    fn look_up_instead(&mut self, incoming: Incoming, eip: u32) {
        let mut emitter = Emitter::new(0);
        emitter.constant(crate::emit::R8, eip);
        emitter.jump_through(crate::emit::context(at::LOOKUP));
        self.memory.patch(incoming.exit, &emitter.bytes);
    }

    fn cross(&mut self, page: u32, physical: u64, incoming: Incoming) -> bool {
        let crossed = &mut self.crossed;
        let crossing = self.crossings.entry(page).or_insert_with(|| {
            crossed.push(page);
            Crossing { physical, sites: Vec::new(), contested: false }
        });
        if crossing.physical != physical {
            crossing.contested = true;
            let sites = std::mem::take(&mut crossing.sites);
            sites.into_iter().for_each(|incoming| self.aim(incoming.site, incoming.exit));
            return false;
        }
        if !crossing.contested {
            crossing.sites.push(incoming);
        }
        !crossing.contested
    }

    /// How many linear pages are jumped to from other pages.
    pub(crate) fn crossed(&self) -> usize {
        self.crossed.len()
    }

    /// Checks the jumps into linear pages, from the `from`-th on: where `physical_page` does not
    /// say what they take for granted, they are looked up from now on.
    pub(crate) fn check_crossings(
        &mut self,
        from: usize,
        mut physical_page: impl FnMut(u32) -> Option<u64>,
    ) {
        for index in from..self.crossed.len() {
            let page = self.crossed[index];
            let Some(crossing) = self.crossings.get_mut(&page) else { continue };
            if crossing.contested || physical_page(page) == Some(crossing.physical) {
                continue;
            }
            crossing.contested = true;
            let sites = std::mem::take(&mut crossing.sites);
            sites.into_iter().for_each(|incoming| self.aim(incoming.site, incoming.exit));
        }
    }

    /// Drops the jumps into one linear page, whose mapping the guest may have changed; they may be
    /// made again where it did not.
    pub(crate) fn uncross(&mut self, page: u32) {
        if let Some(crossing) = self.crossings.get_mut(&page) {
            let sites = std::mem::take(&mut crossing.sites);
            sites.into_iter().for_each(|incoming| self.aim(incoming.site, incoming.exit));
        }
    }

    /// Points the 32 bits at `site` to a host address.
    fn aim(&mut self, site: u64, target: u64) {
        let distance = target.wrapping_sub(site + 4) as u32;
        self.memory.patch(site, &distance.to_le_bytes());
    }

    /// Drops the units that contain any of `length` bytes at a physical address. Returns whether
    /// there were any, and whether the page has none now.
    pub(crate) fn drop_written(&mut self, physical: u64, length: u32) -> (Vec<Key>, bool) {
        let page = physical / PAGE;
        let end = physical + u64::from(length);
        let Some(ids) = self.by_page.get_mut(&page) else { return (Vec::new(), true) };
        let units = &self.units;
        let is_written = |id: &UnitId| {
            let unit = &units[*id as usize];
            unit.key.physical < end && physical < unit.key.physical + u64::from(unit.length.max(1))
        };
        if !ids.iter().any(is_written) {
            // Data beside code.
            return (Vec::new(), false);
        }
        let (written, kept): (Vec<UnitId>, Vec<UnitId>) = ids.iter().partition(|id| is_written(id));
        let is_empty = kept.is_empty();
        *ids = kept;
        if is_empty {
            self.by_page.remove(&page);
        }
        let keys = written.iter().map(|&id| self.units[id as usize].key).collect();
        written.into_iter().for_each(|id| self.bury(id));
        (keys, is_empty)
    }

    /// Takes a unit out of everything that leads to it.
    fn bury(&mut self, id: UnitId) {
        let unit = &mut self.units[id as usize];
        unit.alive = false;
        let (key, host) = (unit.key, unit.host);
        let incoming = std::mem::take(&mut unit.incoming);
        let returns = std::mem::take(&mut unit.returns);
        self.by_key.remove(&key);
        incoming.iter().for_each(|incoming| self.aim(incoming.site, incoming.exit));
        let mut emitter = Emitter::new(0);
        emitter.jump_through(crate::emit::context(at::LOOKUP));
        for offset in returns {
            self.memory.patch(host + u64::from(offset), &emitter.bytes);
        }
        self.statistics.dropped += 1;
    }
}

impl Unit {
    /// What is executed at a host address within the unit.
    pub(crate) fn place(&self, host: u64) -> Option<&Place> {
        let offset = (host - self.host) as u32;
        let after = self.places.partition_point(|place| place.offset <= offset);
        self.places[..after].last()
    }

    /// Where the instruction at a place begins.
    pub(crate) fn start_of(&self, place: &Place) -> u64 {
        let upto = self.places.partition_point(|other| other.offset <= place.offset);
        let is_start =
            |other: &&Place| other.kind == PlaceKind::Instruction && other.eip == place.eip;
        let start = self.places[..upto].iter().rev().find(is_start).unwrap_or(place);
        self.host + u64::from(start.offset)
    }

    /// Where the host code of the instruction at `eip` begins, if that is one behind `place`.
    pub(crate) fn after(&self, place: &Place, eip: u32) -> Option<u64> {
        let from = self.places.partition_point(|other| other.offset <= place.offset);
        let next = self.places[from..]
            .iter()
            .find(|other| other.kind == PlaceKind::Instruction && other.eip != place.eip)?;
        (next.eip == eip).then_some(self.host + u64::from(next.offset))
    }

    /// The physical address of the instruction at an EIP in it.
    pub(crate) fn physical_of(&self, eip: u32) -> u64 {
        self.key.physical + u64::from(eip.wrapping_sub(self.key.eip))
    }
}
