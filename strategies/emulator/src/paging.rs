//! Linear to physical addresses: the page walk and the TLB that it fills
//! (Intel SDM volume 3, chapter 4).

use crate::exception::Exception;
use machine::cpu::{Cr0, Cr4};
use machine::memory::PageKind;
use machine::tlb::Allow;
use machine::{LinearAddress, Machine, PhysicalAddress};

/// The kind of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Access {
    write: bool,
    user: bool,
    /// Whether accessed and dirty bits are set.
    marks: bool,
}

impl Access {
    /// A data access by an instruction at this privilege level.
    pub(crate) fn data(cpl: u8, write: bool) -> Access {
        Access { write, user: cpl == 3, marks: true }
    }

    /// An instruction fetch. Without NX it needs what a read needs.
    pub(crate) fn fetch(cpl: u8) -> Access {
        Access { write: false, user: cpl == 3, marks: true }
    }

    /// The CPU's own access to descriptor tables and task state: supervisor rights at any CPL.
    pub(crate) fn system(write: bool) -> Access {
        Access { write, user: false, marks: true }
    }

    /// Whether this is a write.
    pub(crate) fn is_write(self) -> bool {
        self.write
    }
}

/// What a page walk found.
struct Walk {
    physical: PhysicalAddress,
    user: bool,
    writable: bool,
    accessed: bool,
    dirty: bool,
}

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
/// Bits of a PAE entry above the 36 physical address bits must be zero.
const PAE_RESERVED: u64 = !((1 << 36) - 1);
/// Bits 17 to 21 of a 4 MiB page's entry; those below are address bits 32 to 35 (PSE-36).
const LARGE_RESERVED: u64 = 0x1f << 17;
const PAE_ADDRESS: u64 = (1 << 36) - 0x1000;

/// Error-code bits of #PF (Intel SDM volume 3, 4.7).
mod code {
    pub(super) const PROTECTION: u16 = 1 << 0;
    pub(super) const WRITE: u16 = 1 << 1;
    pub(super) const USER: u16 = 1 << 2;
    pub(super) const RESERVED: u16 = 1 << 3;
}

/// The physical address behind a linear one; sets accessed and dirty bits, fills the TLB, raises
/// #PF with CR2 set.
pub(crate) fn translate(
    m: &mut Machine,
    linear: LinearAddress,
    access: Access,
) -> Result<PhysicalAddress, Exception> {
    let found = if m.cpu.paging() {
        walk(m, linear, access).inspect_err(|_| m.cpu.cr2 = linear.0)?
    } else {
        let physical = PhysicalAddress(u64::from(linear.0));
        Walk { physical, user: true, writable: true, accessed: true, dirty: true }
    };
    fill(m, linear, &found, access);
    Ok(found.physical)
}

/// Raises what [`translate`] would raise, but sets no accessed or dirty bit.
pub(crate) fn check(
    m: &mut Machine,
    linear: LinearAddress,
    access: Access,
) -> Result<(), Exception> {
    if m.cpu.paging() {
        walk(m, linear, Access { marks: false, ..access }).inspect_err(|_| m.cpu.cr2 = linear.0)?;
    }
    Ok(())
}

/// A page as the guest's page tables map it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The physical address that was asked for, or the one behind the linear one.
    pub physical: PhysicalAddress,
    /// Whether user accesses are allowed.
    pub user: bool,
    /// Whether writes are allowed; CR0.WP clear allows the supervisor's in any case.
    pub writable: bool,
    /// Whether the accessed bit is set.
    pub accessed: bool,
    /// Whether the dirty bit is set.
    pub dirty: bool,
}

impl From<Walk> for Mapping {
    fn from(walk: Walk) -> Mapping {
        let Walk { physical, user, writable, accessed, dirty } = walk;
        Mapping { physical, user, writable, accessed, dirty }
    }
}

/// What the guest's page tables say about `linear` now, without any effect; nothing if it is not
/// mapped. With paging off everything is mapped onto itself.
pub fn mapping(m: &mut Machine, linear: LinearAddress) -> Option<Mapping> {
    look(m, linear, Access { write: false, user: false, marks: false })
}

/// The same for an access at the current privilege level: accessed and dirty bits are set; nothing
/// if the access is not allowed (the guest is to get a page fault).
pub fn access(m: &mut Machine, linear: LinearAddress, write: bool) -> Option<Mapping> {
    let access = Access::data(m.cpu.cpl, write);
    let found = look(m, linear, access)?;
    Some(Mapping { accessed: true, dirty: found.dirty || write, ..found })
}

fn look(m: &mut Machine, linear: LinearAddress, access: Access) -> Option<Mapping> {
    if !m.cpu.paging() {
        let physical = PhysicalAddress(u64::from(linear.0));
        return Some(Mapping { physical, user: true, writable: true, accessed: true, dirty: true });
    }
    walk(m, linear, access).ok().map(Mapping::from)
}

fn fill(m: &mut Machine, linear: LinearAddress, found: &Walk, access: Access) {
    let page = PhysicalAddress(found.physical.0 & !0xfff);
    let ram = matches!(m.memory.page_kind(page), PageKind::Ram(_));
    let Some(host) = m.memory.host_page(page) else { return };
    let permitted = found.writable || (!access.user && !m.cpu.cr0.contains(Cr0::WP));
    let mut write = ram && permitted && found.dirty && !m.memory.is_watched(page);
    if write && m.memory.has_journal() {
        // A page that is only read is not to be kept.
        write = access.write;
        if write {
            m.memory.keep_page(page);
        }
    }
    m.counters.tlb_fills += 1;
    m.tlb.insert(access.user, linear, host, Allow { read: true, write, execute: true });
}

fn walk(m: &mut Machine, linear: LinearAddress, access: Access) -> Result<Walk, Exception> {
    if m.cpu.cr4.contains(Cr4::PAE) {
        walk_pae(m, linear, access)
    } else {
        walk_legacy(m, linear, access)
    }
}

fn fault(access: Access, bits: u16) -> Exception {
    let write = if access.write { code::WRITE } else { 0 };
    let user = if access.user { code::USER } else { 0 };
    Exception::page_fault(bits | write | user)
}

/// Raises #PF if rights that the walk found do not allow the access (Intel SDM volume 3, 4.6).
fn check_rights(m: &Machine, rights: u64, access: Access) -> Result<(), Exception> {
    let user_ok = !access.user || rights & USER != 0;
    let write_ok =
        !access.write || rights & WRITABLE != 0 || (!access.user && !m.cpu.cr0.contains(Cr0::WP));
    if user_ok && write_ok { Ok(()) } else { Err(fault(access, code::PROTECTION)) }
}

/// Two levels of 32-bit entries; with CR4.PSE, 4 MiB pages (and PSE-36 address bits, which must be
/// zero here beyond 36 bits).
fn walk_legacy(m: &mut Machine, linear: LinearAddress, access: Access) -> Result<Walk, Exception> {
    let directory = u64::from(m.cpu.cr3 & !0xfff) + u64::from(linear.0 >> 22) * 4;
    let pde = u64::from(m.memory.read_u32(PhysicalAddress(directory)));
    if pde & PRESENT == 0 {
        return Err(fault(access, 0));
    }
    if pde & LARGE != 0 && m.cpu.cr4.contains(Cr4::PSE) {
        if pde & LARGE_RESERVED != 0 {
            return Err(fault(access, code::PROTECTION | code::RESERVED));
        }
        check_rights(m, pde, access)?;
        m.tlb.note_large_page(linear);
        let dirty = mark32(m, directory, pde, access, access.write);
        let base = pde & 0xffc0_0000 | (pde >> 13 & 0xf) << 32;
        return Ok(found(base | u64::from(linear.0 & 0x3f_ffff), pde, dirty));
    }
    let table = (pde & 0xffff_f000) + u64::from(linear.0 >> 12 & 0x3ff) * 4;
    let pte = u64::from(m.memory.read_u32(PhysicalAddress(table)));
    if pte & PRESENT == 0 {
        return Err(fault(access, 0));
    }
    let rights = pde & pte;
    check_rights(m, rights, access)?;
    mark32(m, directory, pde, access, false);
    let dirty = mark32(m, table, pte, access, access.write);
    Ok(found(pte & 0xffff_f000 | u64::from(linear.page_offset()), rights, dirty))
}

/// Three levels of 64-bit entries, the first of which the CPU holds since CR3 was loaded; 2 MiB
/// pages at any CR4.PSE.
fn walk_pae(m: &mut Machine, linear: LinearAddress, access: Access) -> Result<Walk, Exception> {
    let pdpte = m.cpu.pdptes[(linear.0 >> 30) as usize];
    if pdpte & PRESENT == 0 {
        return Err(fault(access, 0));
    }
    let directory = (pdpte & PAE_ADDRESS) + u64::from(linear.0 >> 21 & 0x1ff) * 8;
    let pde = m.memory.read_u64(PhysicalAddress(directory));
    if pde & PRESENT == 0 {
        return Err(fault(access, 0));
    }
    let large = pde & LARGE != 0;
    let low_reserved = if large { 0x1f_e000 } else { 0 };
    if pde & (PAE_RESERVED | low_reserved) != 0 {
        return Err(fault(access, code::PROTECTION | code::RESERVED));
    }
    if large {
        check_rights(m, pde, access)?;
        m.tlb.note_large_page(linear);
        let dirty = mark64(m, directory, pde, access, access.write);
        let base = pde & PAE_ADDRESS & !0x1f_ffff;
        return Ok(found(base | u64::from(linear.0 & 0x1f_ffff), pde, dirty));
    }
    let table = (pde & PAE_ADDRESS) + u64::from(linear.0 >> 12 & 0x1ff) * 8;
    let pte = m.memory.read_u64(PhysicalAddress(table));
    if pte & PRESENT == 0 {
        return Err(fault(access, 0));
    }
    if pte & PAE_RESERVED != 0 {
        return Err(fault(access, code::PROTECTION | code::RESERVED));
    }
    let rights = pde & pte;
    check_rights(m, rights, access)?;
    mark64(m, directory, pde, access, false);
    let dirty = mark64(m, table, pte, access, access.write);
    Ok(found(pte & PAE_ADDRESS | u64::from(linear.page_offset()), rights, dirty))
}

fn found(physical: u64, rights: u64, dirty: bool) -> Walk {
    Walk {
        physical: PhysicalAddress(physical),
        user: rights & USER != 0,
        writable: rights & WRITABLE != 0,
        accessed: rights & ACCESSED != 0,
        dirty,
    }
}

/// Sets the accessed bit and, for a write, the dirty bit; returns whether the entry is dirty now.
fn mark32(m: &mut Machine, address: u64, entry: u64, access: Access, write: bool) -> bool {
    if !access.marks {
        return entry & DIRTY != 0;
    }
    let marked = entry | ACCESSED | if write { DIRTY } else { 0 };
    if marked != entry {
        crate::access::write_physical(m, PhysicalAddress(address), &(marked as u32).to_le_bytes());
    }
    marked & DIRTY != 0
}

fn mark64(m: &mut Machine, address: u64, entry: u64, access: Access, write: bool) -> bool {
    if !access.marks {
        return entry & DIRTY != 0;
    }
    let marked = entry | ACCESSED | if write { DIRTY } else { 0 };
    if marked != entry {
        crate::access::write_physical(m, PhysicalAddress(address), &marked.to_le_bytes());
    }
    marked & DIRTY != 0
}

/// Loads the four page-directory-pointer entries as MOV to CR3 does under PAE
/// (Intel SDM volume 3, 4.4.1); #GP when reserved bits are set, and then nothing is loaded.
pub(crate) fn load_pdptes(m: &Machine, cr3: u32) -> Result<[u64; 4], Exception> {
    let base = u64::from(cr3 & !0x1f);
    let entries = std::array::from_fn(|i| m.memory.read_u64(PhysicalAddress(base + i as u64 * 8)));
    let reserved = PAE_RESERVED | 0x1e6;
    if entries.iter().any(|entry| entry & PRESENT != 0 && entry & reserved != 0) {
        return Err(Exception::PROTECTION);
    }
    Ok(entries)
}
