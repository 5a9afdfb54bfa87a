//! Address spaces for the run loop: the current one, and what the guest flushed.

use super::{Engine, MOST_SPACES, failure};
use crate::mode::Mode;
use crate::space::{Space, SpaceKey};
use machine::{LinearAddress, Machine};
use strategy::Error;

impl Engine {
    pub(super) fn epoch(&mut self, mode: Mode) -> u32 {
        let epochs = &mut self.epochs;
        let epoch = self.spaces[self.current].epoch(mode, || {
            *epochs += 1;
            *epochs
        });
        self.context.set_epoch(epoch);
        epoch
    }

    /// Brings the windows up to date with what the guest flushed.
    pub(super) fn follow(&mut self, m: &mut Machine) -> Result<(), Error> {
        if m.tlb.generation() == self.generation {
            return Ok(());
        }
        if m.tlb.forgotten().all {
            return self.activate(m);
        }
        self.follow_pages(m).map(|_| ())
    }

    /// Follows INVLPG. False where more than that was flushed, which is still to be followed, or
    /// code was executed from a page.
    pub(super) fn follow_pages(&mut self, m: &mut Machine) -> Result<bool, Error> {
        if m.tlb.generation() == self.generation {
            return Ok(true);
        }
        if m.tlb.forgotten().all {
            return Ok(false);
        }
        m.tlb.exchange_forgotten(&mut self.forgotten);
        self.generation = m.tlb.generation();
        if let Some(direct) = &mut self.direct {
            direct.forget(&self.forgotten);
        }
        let mut without_code = true;
        for address in &self.forgotten.pages {
            let space = &mut self.spaces[self.current];
            let pages = space.invalidate(address.0).map_err(failure)?;
            for page in pages.step_by(0x1000) {
                self.context.soft.iter_mut().for_each(|soft| soft.clear_page(page as u32));
                if space.take_code(page as u32) {
                    without_code = false;
                    space.end_epochs();
                    self.cache.uncross((page >> 12) as u32);
                }
            }
        }
        Ok(without_code)
    }

    /// Makes the CPU's address space the current one and brings it up to date.
    pub(super) fn activate(&mut self, m: &mut Machine) -> Result<(), Error> {
        m.tlb.take_forgotten();
        self.generation = m.tlb.generation();
        if let Some(direct) = &mut self.direct {
            direct.forget_all();
        }
        self.context.soft.iter_mut().for_each(|soft| soft.clear());
        let key = SpaceKey::of(m);
        self.current = self.space(m, key)?;
        self.clock += 1;
        self.cache.statistics.revalidations += 1;
        let space = &mut self.spaces[self.current];
        space.used = self.clock;
        if space.revalidate(m).map_err(failure)?.code {
            space.end_epochs();
            space.verified = 0;
        }
        let verified = std::mem::replace(&mut space.verified, self.cache.crossed());
        self.cache.check_crossings(verified, |page| {
            emulator::mapping(m, LinearAddress(page << 12)).map(|found| found.physical.page())
        });
        Ok(())
    }

    fn space(&mut self, m: &Machine, key: SpaceKey) -> Result<usize, Error> {
        if let Some(index) = self.spaces.iter().position(|space| space.key == key) {
            return Ok(index);
        }
        if self.spaces.len() >= MOST_SPACES {
            let oldest = (0..self.spaces.len()).min_by_key(|&index| self.spaces[index].used);
            let oldest = oldest.unwrap_or(0);
            self.spaces[oldest].turn_into(m, key).map_err(failure)?;
            return Ok(oldest);
        }
        self.spaces.push(Space::new(key).map_err(failure)?);
        Ok(self.spaces.len() - 1)
    }
}
