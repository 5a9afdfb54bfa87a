//! Where everything lies: what is taken of the linear addresses that the guest does not use.

use super::{AREAS, FIRST_AREA, Patches, VIRTUAL_CPU};
use crate::area::{self, Area, Request};
use crate::view::PAGE;
use crate::{count, place};
use direct_execution::Shadow;
use host::low_memory::Protection;
use machine::Machine;
use std::ops::Range;

impl Patches {
    /// Takes the window's ranges again, after the window was another engine's.
    pub(crate) fn take_again(&self, shadow: &mut Shadow) -> Result<(), host::Error> {
        shadow.set_code_shift(self.shift)?;
        for area in &self.areas {
            if !shadow.is_taken_for_code(area.base()) {
                let from = (self.pages.file(), area.file_offset(area.base()));
                shadow.take(self.place_of(area), from, Protection::Execute, false)?;
            }
        }
        match self.virtual_page {
            Some(page) if !shadow.is_taken(page.into()) => self.take_virtual_page(shadow, page),
            _ => Ok(()),
        }
    }

    pub(super) fn take_virtual_page(
        &self,
        shadow: &mut Shadow,
        page: u32,
    ) -> Result<(), host::Error> {
        let range = self.virtual_range(page);
        shadow.take(range, (self.pages.file(), VIRTUAL_CPU), Protection::WriteData, true)
    }

    /// The virtual CPU's page, with the counters behind it.
    fn virtual_range(&self, page: u32) -> Range<u64> {
        let counters = if self.records.is_watched() { count::BYTES } else { 0 };
        u64::from(page)..u64::from(page) + (PAGE + counters) as u64
    }

    /// Sees to it that copies of code at `linear` have a place where the guest uses nothing. False if
    /// there is none.
    pub(crate) fn settle(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        linear: u32,
    ) -> Result<bool, host::Error> {
        let unit = place::unit(linear);
        if !self.moves_code || self.units.contains(&unit) {
            return Ok(true);
        }
        let fits = self.shift != 0 && self.is_place_for(m, unit) && !shadow.is_taken_for_code(unit);
        if !fits {
            let mut units = std::mem::take(&mut self.units);
            units.insert(unit);
            self.forget(m, shadow)?;
            let Some(shift) = place::for_code(m, shadow, units.iter().copied()) else {
                return Ok(false);
            };
            self.shift = shift;
            shadow.set_code_shift(shift)?;
            self.units = units;
        }
        self.units.insert(unit);
        Ok(true)
    }

    /// Whether the guest uses nothing where copies of code in a piece are shown.
    pub(super) fn is_place_for(&self, m: &Machine, unit: u32) -> bool {
        place::is_free(m, unit.wrapping_add(self.shift))
    }

    /// Where an area is shown.
    pub(super) fn place_of(&self, area: &Area) -> Range<u64> {
        let base = u64::from(area.base().wrapping_add(self.shift));
        base..base + (area.end() - u64::from(area.base()))
    }

    /// A place for a stub, in an area that is made if need be.
    pub(super) fn take_place(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        request: &Request,
    ) -> Result<Option<u32>, host::Error> {
        let ceiling = place::highest(m, shadow);
        for area in &mut self.areas {
            if area.serves(request.jump)
                && area.end() <= ceiling
                && let Some(place) = area.take(request)
            {
                return Ok(Some(place));
            }
        }
        let Some(base) = place::for_area(m, shadow, request.jump, ceiling) else { return Ok(None) };
        if self.areas.len() == AREAS {
            return Ok(None);
        }
        let file = FIRST_AREA + self.areas.len() * area::FILE_BYTES;
        let mut area = Area::new(base, file);
        shadow.take(self.place_of(&area), (self.pages.file(), file), Protection::Execute, false)?;
        let place = area.take(request);
        self.areas.push(area);
        Ok(place)
    }

    /// Where the virtual CPU lies, which is decided now if need be.
    pub(super) fn virtual_page(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
    ) -> Result<Option<u32>, host::Error> {
        if self.virtual_page.is_none()
            && let Some(page) = self.find_virtual_page(m, shadow)
        {
            self.take_virtual_page(shadow, page)?;
            self.loads.is_new = true;
            self.virtual_page = Some(page);
        }
        Ok(self.virtual_page)
    }

    pub(super) fn find_virtual_page(&self, m: &Machine, shadow: &Shadow) -> Option<u32> {
        place::for_page(m, |at| {
            let is_for_code =
                self.moves_code && self.units.contains(&place::unit(at).wrapping_sub(self.shift));
            shadow.is_taken(at.into()) || is_for_code
        })
    }

    /// Whether the guest has come to use what was taken of its address space.
    pub(crate) fn is_crowded(&self, m: &mut Machine) -> bool {
        self.virtual_page.is_some_and(|page| !place::is_free(m, page))
            || self.units.iter().any(|&unit| !self.is_place_for(m, unit))
            || self.areas.iter().any(|area| {
                let shown = area.base().wrapping_add(self.shift);
                !place::is_area_free(m, area.base()) || !place::is_area_free(m, shown)
            })
    }

    /// All linear addresses that are taken, or where copies of code are shown.
    pub(crate) fn taken(&self) -> Vec<Range<u64>> {
        // Code is fetched by the addresses before the shift, and all else read by those behind it.
        let areas = self.areas.iter().flat_map(|area| {
            let fetched = u64::from(area.base())..area.end();
            [fetched, self.place_of(area)]
        });
        let units = self.units.iter().filter(|_| self.shift != 0);
        let units = units.map(|&unit| place::around(unit.wrapping_add(self.shift)));
        let page = self.virtual_page.map(|page| self.virtual_range(page));
        areas.chain(units).chain(page).collect()
    }

    /// Where pads may be: from the first area to the last.
    pub(crate) fn pads(&self) -> Option<Range<u32>> {
        let first = self.areas.iter().map(|area| self.place_of(area).start as u32).min()?;
        let last = self.areas.iter().map(|area| self.place_of(area).end).max()?;
        Some(first..u32::try_from(last).unwrap_or(u32::MAX))
    }
}
