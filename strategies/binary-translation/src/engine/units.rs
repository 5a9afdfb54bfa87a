//! Units for the run loop: found, translated, and dropped when their guest code is written.

use super::{Engine, MOST_BYTES, failure};
use crate::cache::{Key, UnitId};
use crate::mode::Mode;
use crate::translate::Request;
use machine::memory::PageKind;
use machine::{LinearAddress, Machine, PhysicalAddress};
use strategy::{Error, ExitKind};

impl Engine {
    /// The unit at EIP, translated if need be; nothing where there can be none. The table of targets
    /// has it afterwards.
    pub(super) fn find(
        &mut self,
        m: &mut Machine,
        mode: Mode,
        epoch: u32,
    ) -> Result<Option<UnitId>, Error> {
        self.cache.statistics.lookups += 1;
        let eip = m.cpu.eip;
        let Some(mapping) = emulator::access_page(m, LinearAddress(eip), false) else {
            return Ok(None);
        };
        let physical = mapping.physical;
        if !matches!(m.memory.page_kind(physical), PageKind::Ram(_)) {
            return Ok(None);
        }
        let key = Key { physical: physical.0, eip, mode };
        let unit = match self.cache.find(&key) {
            Some(unit) => unit,
            None => self.translate(m, key)?,
        };
        self.spaces[self.current].note_code(m, eip);
        let epoch = if self.dropped { self.epoch(mode) } else { epoch };
        self.context.set_target(eip, epoch, self.cache.unit(unit).host);
        Ok(Some(unit))
    }

    pub(super) fn translate(&mut self, m: &mut Machine, key: Key) -> Result<UnitId, Error> {
        if !self.cache.has_room() {
            self.forget(m);
        }
        let physical = PhysicalAddress(key.physical);
        if m.memory.watch_code(physical) {
            self.withhold_writes(m, physical)?;
        }
        let mut code = [0; MOST_BYTES];
        let length = (0x1000 - physical.page_offset() as usize).min(MOST_BYTES);
        m.memory.read(physical, &mut code[..length]);
        self.exits.count(ExitKind::Translation);
        let request =
            Request { code: &code[..length], eip: key.eip, physical: key.physical, mode: key.mode };
        Ok(self.cache.translate(request, &self.sites))
    }

    /// Nobody writes to this page unseen any more.
    pub(super) fn withhold_writes(
        &mut self,
        m: &mut Machine,
        page: PhysicalAddress,
    ) -> Result<(), Error> {
        let offset = page.0 & !0xfff;
        for space in &mut self.spaces {
            space.withhold(offset).map_err(failure)?;
        }
        if let Some(direct) = &mut self.direct {
            direct.withhold_writes(offset)?;
        }
        if let Some(host) = m.memory.host_page(page) {
            m.tlb.withhold_writes(host);
            self.context.soft.iter_mut().for_each(|soft| soft.withhold(host));
        }
        Ok(())
    }

    /// Drops the units whose guest code was written.
    pub(super) fn take_code_writes(&mut self, m: &mut Machine) {
        let mut writes = std::mem::take(&mut self.code_writes);
        m.memory.exchange_code_writes(&mut writes);
        for write in &writes {
            m.counters.code_writes += 1;
            if self.drop_written(m, write.address.0, write.length) {
                self.sites.forget(write.address.0..write.address.0 + u64::from(write.length));
            }
        }
        self.code_writes = writes;
    }

    /// Drops the units with any of these bytes; false where there was none.
    pub(super) fn drop_written(&mut self, m: &mut Machine, physical: u64, length: u32) -> bool {
        let (keys, is_empty) = self.cache.drop_written(physical, length);
        let any = !keys.is_empty();
        self.dropped |= any;
        for key in keys {
            // Whatever the epoch: the entry may be this unit's.
            self.context.forget_target(key.eip);
        }
        if is_empty {
            m.memory.unwatch_code(PhysicalAddress(physical));
        }
        any
    }
}
