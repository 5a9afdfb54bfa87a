//! What is known of each site: what it became, and how often it ran.
//!
//! Crossings and traps are counted by the monitor, which has the time. What stubs do by themselves is
//! counted in them, where the run is to be looked at (`count`).

use crate::class::Treatment;
use crate::count;
use crate::history::History;
use crate::sites::{Became, Moment, Need, Obstacle, Runs, Site};
use crate::view::View;
use machine::host_time;
use machine::{LinearAddress, Machine};
use rustc_hash::FxHashMap;
use std::time::Duration;

/// Sites that are remembered at most: processes come and go for as long as a guest runs.
const MOST: usize = 1 << 18;

/// Counters in stubs, of 32 bits, are taken over so often.
const COLLECTION: Duration = Duration::from_millis(500);

/// A site, with how often it ran so far.
#[derive(Debug)]
struct Record {
    address: u32,
    bytes: Vec<u8>,
    is_32bit: bool,
    need: Need,
    became: Became,
    crossings: u64,
    traps: u64,
    /// Runs in its stub that were collected.
    in_stub: u64,
    /// Whether its stub counts.
    is_counted: bool,
}

/// All sites.
#[derive(Debug, Default)]
pub(crate) struct Records {
    sites: Vec<Record>,
    /// By linear address and page of guest memory.
    by_place: FxHashMap<(u32, u64), usize>,
    /// The last that was found at a linear address.
    by_address: FxHashMap<u32, usize>,
    /// Whether stubs count, and moments are noted.
    is_watched: bool,
    traps: u64,
    crossings: u64,
    history: History,
    /// When counters were taken over last.
    collected: Duration,
    /// When the first run began, in the host's nanoseconds.
    begun: Option<u64>,
}

impl Records {
    /// None yet; `watched` if stubs are to count, and moments to be noted.
    pub(crate) fn new(watched: bool) -> Records {
        Records { is_watched: watched, ..Records::default() }
    }

    /// Whether stubs count.
    pub(crate) fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// Notes an instruction that was examined and cannot stay as it is.
    pub(crate) fn found(&mut self, view: &View, offset: u16) {
        let Some(known) = view.instructions.get(&offset) else { return };
        let address = view.key.linear.wrapping_add(offset.into());
        let record = Record {
            bytes: view.guest_bytes_of(offset).to_vec(),
            is_32bit: view.key.is_32bit,
            need: need(known.treatment),
            ..Record::new(address)
        };
        self.enter((address, view.key.offset), record);
    }

    /// Takes over what is known of a site; how often it ran stays, if it is the same instruction.
    fn enter(&mut self, place: (u32, u64), record: Record) {
        match self.by_place.get(&place) {
            Some(&index) => {
                let old = &mut self.sites[index];
                (old.is_32bit, old.need) = (record.is_32bit, record.need);
                old.became = record.became;
                if old.bytes != record.bytes {
                    (old.crossings, old.traps, old.in_stub) = (0, 0, 0);
                    old.bytes = record.bytes;
                }
            }
            None if self.sites.len() < MOST => {
                self.by_place.insert(place, self.sites.len());
                self.by_address.insert(record.address, self.sites.len());
                self.sites.push(record);
            }
            None => {}
        }
    }

    fn index(&self, view: &View, offset: u16) -> Option<usize> {
        let address = view.key.linear.wrapping_add(offset.into());
        self.by_place.get(&(address, view.key.offset)).copied()
    }

    /// Notes what became of a site.
    pub(crate) fn became(&mut self, view: &View, offset: u16, became: Became) {
        if let Some(index) = self.index(view, offset) {
            let need = view.instructions.get(&offset).map(|known| need(known.treatment));
            self.sites[index].became = became;
            self.sites[index].need = need.unwrap_or(Need::Trap);
        }
    }

    /// The number of the counter of a site's stub, if that is to count.
    pub(crate) fn counter(&mut self, view: &View, offset: u16) -> Option<usize> {
        let index =
            self.index(view, offset).filter(|&index| self.is_watched && index < count::COUNTERS)?;
        self.sites[index].is_counted = true;
        Some(index)
    }

    /// An instruction has trapped that nobody has examined: in on-trap mode, that is how one is found.
    pub(crate) fn trapped_unexamined(&mut self, m: &mut Machine, linear: u32) {
        if self.by_address.contains_key(&linear) {
            return;
        }
        let Some(instruction) = emulator::instruction(m) else { return };
        let Some(found) = emulator::mapping(m, LinearAddress(linear)) else { return };
        let mut bytes = vec![0; instruction.len()];
        m.memory.read(found.physical, &mut bytes);
        let is_32bit = instruction.code_size() == iced_x86::CodeSize::Code32;
        let need = need(crate::class::treatment(&instruction));
        let record = Record { bytes, is_32bit, need, ..Record::new(linear) };
        self.enter((linear, found.physical.0 & !0xfff), record);
    }

    /// Counts an instruction that trapped, whatever was done about it.
    pub(crate) fn count_trap(&mut self) {
        self.traps += 1;
    }

    /// Counts a crossing.
    pub(crate) fn count_crossing(&mut self) {
        self.crossings += 1;
    }

    /// The monitor has executed the instruction at a linear address; `page` of guest memory is shown
    /// there as code.
    pub(crate) fn executed(&mut self, linear: u32, page: Option<u64>, crossed: bool) {
        let Some(&last) = self.by_address.get(&linear) else { return };
        let of_page = page.and_then(|page| self.by_place.get(&(linear, page)).copied());
        let record = &mut self.sites[of_page.unwrap_or(last)];
        match crossed {
            true => record.crossings += 1,
            false => record.traps += 1,
        }
    }

    /// Whether a moment is to be noted, and which; the last always is.
    pub(crate) fn due(&mut self, is_last: bool) -> Option<Duration> {
        if !self.is_watched {
            return None;
        }
        let now = host_time::nanos();
        let begun = *self.begun.get_or_insert(now);
        let at = Duration::from_nanos(now.saturating_sub(begun));
        (is_last || self.history.is_due(at)).then_some(at)
    }

    /// Whether counters in stubs are to be taken over, before they run over.
    pub(crate) fn are_counters_full(&mut self, at: Duration, is_last: bool) -> bool {
        let due = is_last || at >= self.collected + COLLECTION;
        if due {
            self.collected = at;
        }
        due
    }

    /// Notes a moment at which so many stubs had been made.
    pub(crate) fn note(&mut self, at: Duration, patches: u64) {
        let (traps, crossings, sites) = (self.traps, self.crossings, self.sites.len() as u64);
        self.history.note(Moment { at, traps, crossings, patches, sites });
    }

    /// Moments so far.
    pub(crate) fn moments(&self) -> &[Moment] {
        self.history.moments()
    }

    /// How many counters are in use.
    pub(crate) fn counters(&self) -> usize {
        self.sites.len().min(count::COUNTERS)
    }

    /// Takes over what stubs have counted since the last time.
    pub(crate) fn collect(&mut self, counts: impl Iterator<Item = u32>) {
        for (record, count) in self.sites.iter_mut().zip(counts) {
            record.in_stub += u64::from(count);
        }
    }

    /// All sites, by address.
    pub(crate) fn sites(&self) -> Vec<Site> {
        let mut sites: Vec<Site> = self.sites.iter().map(Record::site).collect();
        sites.sort_by_key(|site| site.address);
        sites
    }
}

impl Record {
    fn new(address: u32) -> Record {
        Record {
            address,
            bytes: Vec::new(),
            is_32bit: true,
            need: Need::Trap,
            became: Became::Left,
            crossings: 0,
            traps: 0,
            in_stub: 0,
            is_counted: false,
        }
    }

    fn site(&self) -> Site {
        Site {
            address: self.address,
            bytes: self.bytes.clone(),
            is_32bit: self.is_32bit,
            need: self.need,
            became: self.became,
            runs: Runs {
                in_stub: self.is_counted.then_some(self.in_stub),
                crossings: self.crossings,
                traps: self.traps,
            },
        }
    }
}

/// What an examined instruction needs.
pub(crate) fn need(treatment: Treatment) -> Need {
    match treatment {
        // Why else would it be a site?
        Treatment::Native => Need::TwoPages,
        Treatment::Stub(_) => Need::Stub,
        Treatment::Monitor => Need::Monitor,
        Treatment::Trap => Need::Trap,
    }
}

/// Why nobody tries to find room for a stub.
pub(crate) fn unwanted(traps: bool) -> Obstacle {
    if traps { Obstacle::NotWanted } else { Obstacle::Segments }
}
