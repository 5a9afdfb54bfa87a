//! Views: found or made, examined, shown, and followed when the guest writes to them.

use super::{Patches, SLOTS};
use crate::area::TRAP;
use crate::sites::{Became, Obstacle};
use crate::view::{Key, PAGE, View};
use crate::{Mode, place};
use direct_execution::{CodePage, Shadow};
use machine::{LinearAddress, Machine, PhysicalAddress};

impl Patches {
    /// The view for code at `linear`, whose page is readable and executable for the guest now.
    pub(crate) fn find(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        key: Key,
    ) -> Result<usize, host::Error> {
        let bytes = self.read(m, &key);
        if let Some(&slot) = self.by_key.get(&key) {
            let doubtful = std::mem::take(&mut self.unverified[slot]);
            let view = self.views[slot].as_mut();
            let holds = !doubtful || view.is_some_and(|view| view.refresh(&bytes));
            if holds {
                if doubtful {
                    self.write_unexamined(slot);
                }
                self.watch(m, shadow, key.offset)?;
                let behind = self.view(slot).and_then(|view| view.next);
                behind.map_or(Ok(()), |behind| self.watch(m, shadow, behind))?;
                return Ok(slot);
            }
            self.drop_view(m, shadow, slot)?;
        }
        if self.free.is_empty() && self.views.len() == SLOTS {
            self.forget(m, shadow)?;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.views.push(None);
            self.unverified.push(false);
            self.views.len() - 1
        });
        self.unverified[slot] = false;
        let fill = match self.options.mode {
            Mode::Prescan => vec![TRAP; PAGE],
            Mode::OnTrap => bytes[..PAGE].to_vec(),
        };
        self.pages.write(slot * PAGE, &fill);
        self.views[slot] = Some(View::new(key, bytes));
        self.by_key.insert(key, slot);
        self.rest_on(m, shadow, slot, key.offset)?;
        Ok(slot)
    }

    /// The page's bytes, and the first of the page behind it if that is there.
    pub(super) fn read(&self, m: &mut Machine, key: &Key) -> Vec<u8> {
        let mut bytes = place::read_page(m, key.linear);
        let behind = LinearAddress(key.linear.wrapping_add(PAGE as u32));
        if let Some(found) = place::ram(m, behind) {
            let mut first = [0; crate::view::LONGEST];
            if m.memory.read(PhysicalAddress(found), &mut first) {
                bytes.extend(first);
            }
        }
        bytes
    }

    /// The view that is known already and holds, if there is one.
    pub(crate) fn known(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        key: &Key,
    ) -> Result<Option<usize>, host::Error> {
        if self.by_key.contains_key(key) { self.find(m, shadow, *key).map(Some) } else { Ok(None) }
    }

    /// Notes that a view rests on a page of guest memory, and watches that.
    pub(super) fn rest_on(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        slot: usize,
        page: u64,
    ) -> Result<(), host::Error> {
        let slots = self.by_page.entry(page).or_default();
        if !slots.contains(&slot) {
            slots.push(slot);
        }
        self.watch(m, shadow, page)
    }

    pub(super) fn watch(
        &self,
        m: &mut Machine,
        shadow: &mut Shadow,
        page: u64,
    ) -> Result<(), host::Error> {
        if m.memory.watch_code(PhysicalAddress(page)) {
            if let Some(host) = m.memory.host_page(PhysicalAddress(page)) {
                m.tlb.withhold_writes(host);
            }
            shadow.withhold_writes(page)?;
        }
        Ok(())
    }

    /// Shows a view where it belongs. False where that cannot be.
    pub(crate) fn show(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        slot: usize,
    ) -> Result<bool, host::Error> {
        let Some(view) = self.view(slot) else { return Ok(false) };
        let code = CodePage { offset: view.key.offset, behind: view.next, copy: slot * PAGE };
        let linear = view.key.linear;
        shadow.show_code(m, linear, code, self.pages.file())
    }

    /// Examines what is reached from an EIP in a view, and patches what was found.
    pub(crate) fn examine(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        slot: usize,
        eip: u32,
    ) -> Result<(), host::Error> {
        let Some(view) = self.views[slot].as_mut() else { return Ok(()) };
        let Some(entry) = view.offset_of(eip) else { return Ok(()) };
        let found = view.examine(entry);
        for &given_up in &found.given_up {
            self.dissolve_at(slot, given_up);
            self.write_plain(slot, given_up);
            self.found(slot, given_up, Became::TrapByte(Obstacle::NotWanted));
        }
        let mut sites = Vec::new();
        for &new in &found.new {
            if self.is_site(slot, new) {
                sites.push(new);
                self.found(slot, new, Became::Left);
            }
            self.write_plain(slot, new);
        }
        if self.options.mode == Mode::Prescan {
            for site in sites {
                self.patch(m, shadow, slot, site)?;
            }
        }
        Ok(())
    }

    /// Notes a site.
    pub(super) fn found(&mut self, slot: usize, offset: u16, became: Became) {
        if let Some(view) = &self.views[slot] {
            self.records.found(view, offset);
            self.records.became(view, offset, became);
        }
    }

    /// Whether an instruction cannot stay as it is.
    pub(super) fn is_site(&self, slot: usize, offset: u16) -> bool {
        self.view(slot).is_some_and(|view| view.is_site(offset))
    }

    /// Writes an instruction that is in no stub to the executable copy: its own bytes, or one that traps.
    pub(super) fn write_plain(&mut self, slot: usize, offset: u16) {
        let is_site = self.is_site(slot, offset) && self.options.mode == Mode::Prescan;
        let Some(view) = self.views[slot].as_ref() else { return };
        let at = slot * PAGE + usize::from(offset);
        if is_site {
            self.pages.write(at, &[TRAP]);
        } else {
            let room = PAGE - usize::from(offset);
            let bytes = view.bytes_of(offset);
            self.pages.write(at, &bytes[..bytes.len().min(room)]);
        }
    }

    /// On-trap mode: writes the guest's bytes to the copy where no instruction was examined.
    pub(super) fn write_unexamined(&mut self, slot: usize) {
        let Some(view) = self.views[slot].as_ref() else { return };
        if self.options.mode == Mode::Prescan {
            return;
        }
        let is_guests = |at: &u16| !view.is_code(*at) && view.window_at(*at).is_none();
        for at in (0..PAGE as u16).filter(is_guests) {
            self.pages.write(slot * PAGE + usize::from(at), &[view.byte(at)]);
        }
    }

    pub(crate) fn drop_view(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
        slot: usize,
    ) -> Result<(), host::Error> {
        let Some(view) = self.views[slot].take() else { return Ok(()) };
        shadow.hide_code(|_, code| code.copy == slot * PAGE)?;
        self.by_key.remove(&view.key);
        for page in [Some(view.key.offset), view.next].into_iter().flatten() {
            let slots = self.by_page.entry(page).or_default();
            slots.retain(|&other| other != slot);
            if slots.is_empty() {
                self.by_page.remove(&page);
                m.memory.unwatch_code(PhysicalAddress(page));
            }
        }
        for window in view.windows.values() {
            self.remove_stub(window.stub);
        }
        if self.options.mode == Mode::OnTrap {
            // What is there next has not trapped yet.
            self.traps.retain(|&eip, _| view.offset_of(eip).is_none());
        }
        self.free.push(slot);
        Ok(())
    }

    /// The guest has written to watched pages.
    pub(crate) fn take_writes(
        &mut self,
        m: &mut Machine,
        shadow: &mut Shadow,
    ) -> Result<(), host::Error> {
        for write in m.memory.take_code_writes() {
            m.counters.code_writes += 1;
            let page = write.address.0 & !(PAGE as u64 - 1);
            let start = write.address.page_offset() as usize;
            let written = start..(start + write.length as usize).min(PAGE);
            let slots = self.by_page.get(&page).cloned().unwrap_or_default();
            let mut now = vec![0; PAGE];
            m.memory.read(PhysicalAddress(page), &mut now);
            for slot in slots {
                if !self.take_write(slot, page, &written, &now) {
                    self.drop_view(m, shadow, slot)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a view holds although the guest has written to one of its pages.
    pub(super) fn take_write(
        &mut self,
        slot: usize,
        page: u64,
        written: &std::ops::Range<usize>,
        now: &[u8],
    ) -> bool {
        let Some(view) = self.views[slot].as_mut() else { return true };
        if view.key.offset != page {
            return written.start >= crate::view::LONGEST;
        }
        if !view.take_write(written.clone(), now) {
            return false;
        }
        if self.options.mode != Mode::Prescan {
            let patched = written.clone().any(|at| view.window_at(at as u16).is_some());
            if !patched {
                self.pages.write(slot * PAGE + written.start, &now[written.clone()]);
            }
            return !patched;
        }
        true
    }
}
