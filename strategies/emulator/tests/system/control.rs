//! Control, debug and model-specific registers, flags, CPUID.

use crate::guest::{CODE, Guest, STACK0, STACK3};
use emulator::Outcome;
use machine::cpu::{Cr0, Cr4, Dr6, Eflags, InterruptShadow, register::*};

const IF: u32 = Eflags::IF.bits();

/// MOV CRn, EAX.
fn to_control(number: u8) -> [u8; 3] {
    [0x0f, 0x22, 0xc0 | number << 3]
}

/// MOV EAX, CRn.
fn from_control(number: u8) -> [u8; 3] {
    [0x0f, 0x20, 0xc0 | number << 3]
}

fn with_eax(value: u32) -> Guest {
    let mut guest = Guest::new();
    guest.set(EAX, value);
    guest
}

#[test]
fn cr0_refuses_what_makes_no_sense() {
    with_eax(0x8000_0000).protects(&to_control(0), 0);
    with_eax(0x2000_0001).protects(&to_control(0), 0);
    let mut guest = with_eax(0x6000_ffc1);
    guest.execute(&to_control(0));
    assert_eq!(guest.cpu.cr0, Cr0::PE | Cr0::ET | Cr0::CD | Cr0::NW);
    guest.execute(&from_control(0));
    assert_eq!(guest.get(EAX), 0x6000_0011);
    assert_eq!(guest.counters.control_register_writes, 1);
}

#[test]
fn control_registers_that_do_not_exist_are_undefined_in_any_ring() {
    for number in [1, 5, 6, 7] {
        Guest::new().faults(&to_control(number), 6, None);
        Guest::in_ring3().faults(&from_control(number), 6, None);
    }
    for number in [0, 2, 3, 4] {
        Guest::in_ring3().protects(&to_control(number), 0);
        Guest::in_ring3().protects(&from_control(number), 0);
    }
}

#[test]
fn cr4_has_the_bits_of_the_model() {
    let mut guest = Guest::new();
    let mask = guest.cpu.model.cr4_mask();
    guest.set(EAX, mask.bits());
    guest.execute(&to_control(4));
    assert_eq!(guest.cpu.cr4, mask);
    with_eax(Cr4::VME.bits()).protects(&to_control(4), 0);
    with_eax(1 << 20).protects(&to_control(4), 0);
}

#[test]
fn a_new_page_directory_takes_effect_at_once() {
    let mut guest = Guest::new();
    guest.enable_paging();
    guest.write_u32(0x3_0000, 0x3_1007);
    for page in 0..1024 {
        guest.write_u32(0x3_1000 + page * 4, page << 12 | 7);
    }
    guest.write_u32(0x3_1000 + 0x18 * 4, 0x1_9007);
    guest.write(0x1_8000, &[1]);
    guest.write(0x1_9000, &[2]);
    guest.execute(&[0xa0, 0x00, 0x80, 0x01, 0x00]);
    assert_eq!(guest.get(EAX) & 0xff, 1);
    guest.set(EAX, 0x3_0000);
    guest.execute(&to_control(3));
    guest.execute(&[0xa0, 0x00, 0x80, 0x01, 0x00]);
    assert_eq!((guest.get(EAX) & 0xff, guest.counters.tlb_flushes), (2, 1));
}

#[test]
fn invlpg_forgets_one_translation() {
    let mut guest = Guest::new();
    guest.enable_paging();
    guest.write(0x1_8000, &[1]);
    guest.write(0x1_9000, &[2]);
    guest.execute(&[0xa0, 0x00, 0x80, 0x01, 0x00]);
    guest.write_u32(0x2_1000 + 0x18 * 4, 0x1_9007);
    guest.execute(&[0x0f, 0x01, 0x3d, 0x00, 0x80, 0x01, 0x00]);
    guest.execute(&[0xa0, 0x00, 0x80, 0x01, 0x00]);
    assert_eq!((guest.get(EAX) & 0xff, guest.counters.tlb_invalidations), (2, 1));
    Guest::in_ring3().protects(&[0x0f, 0x01, 0x3d, 0, 0, 0, 0], 0);
}

#[test]
fn page_directory_pointers_with_reserved_bits_are_refused() {
    let mut guest = Guest::new();
    guest.cpu.cr4 = Cr4::PAE;
    guest.write_u32(0x3_0000, 0x3_1003);
    guest.cpu.cr3 = 0x3_0000;
    guest.set(EAX, 0x8000_0011);
    guest.protects(&to_control(0), 0);
    assert!(!guest.cpu.paging());
}

#[test]
fn lmsw_sets_pe_and_never_clears_it() {
    let mut guest = with_eax(0xfffe);
    guest.execute(&[0x0f, 0x01, 0xf0]);
    assert_eq!(guest.cpu.cr0, Cr0::PE | Cr0::MP | Cr0::EM | Cr0::TS | Cr0::ET | Cr0::NE);
    guest.execute(&[0x0f, 0x06]); // clts
    assert!(!guest.cpu.cr0.contains(Cr0::TS));
    let mut guest = Guest::in_real_mode();
    guest.set(EAX, 1);
    guest.execute(&[0x0f, 0x01, 0xf0]);
    assert!(guest.cpu.in_protected_mode());
    assert_eq!(guest.cpu.cpl, 0);
}

#[test]
fn smsw_works_in_ring_3() {
    let mut guest = Guest::in_ring3();
    guest.cpu.cr0 |= Cr0::WP;
    guest.execute(&[0x0f, 0x01, 0xe0]);
    assert_eq!(guest.get(EAX), 0x0001_0031);
    guest.set(EAX, 0);
    guest.execute(&[0x66, 0x0f, 0x01, 0xe0]);
    assert_eq!(guest.get(EAX), 0x31);
}

#[test]
fn debug_registers_4_and_5_are_aliases_until_cr4_de() {
    let mut guest = with_eax(0xffff_ffff);
    guest.execute(&[0x0f, 0x23, 0xe0]); // mov dr4, eax
    assert_eq!(guest.cpu.debug[6], Dr6::RESET | 0xe00f);
    guest.set(EAX, 0);
    guest.execute(&[0x0f, 0x23, 0xe8]); // mov dr5, eax
    assert_eq!(guest.cpu.debug[7], 0x400);
    guest.cpu.cr4 |= Cr4::DE;
    guest.faults(&[0x0f, 0x21, 0xe0], 6, None);
    Guest::in_ring3().protects(&[0x0f, 0x21, 0xc0], 0);
}

#[test]
fn cli_and_sti_need_iopl() {
    Guest::in_ring3().protects(&[0xfa], 0);
    Guest::in_ring3().protects(&[0xfb], 0);
    let mut guest = Guest::in_ring3();
    guest.set_flags(Eflags::IOPL.bits());
    guest.execute(&[0xfb]);
    assert_eq!((guest.flags() & IF, guest.cpu.interrupt_shadow), (IF, InterruptShadow::Sti));
    guest.execute(&[0xfb]);
    assert_eq!(guest.cpu.interrupt_shadow, InterruptShadow::None);
    guest.execute(&[0xfa]);
    assert_eq!(guest.flags() & IF, 0);
}

#[test]
fn popf_in_ring_3_silently_keeps_if_and_iopl() {
    let mut guest = Guest::in_ring3();
    guest.set_flags(IF);
    guest.set(ESP, STACK3 - 4);
    guest.write_u32(STACK3 - 4, 0x3041);
    guest.execute(&[0x9d]);
    assert_eq!((guest.flags(), guest.get(ESP)), (IF | 0x43, STACK3));
    let mut guest = Guest::new();
    guest.set(ESP, STACK0 - 4);
    guest.write_u32(STACK0 - 4, !Eflags::TF.bits());
    guest.execute(&[0x9d]);
    let writable = Eflags::WRITABLE - Eflags::TF;
    assert_eq!(guest.flags(), writable.bits() | 2, "VM, RF, VIF and VIP stay clear");
}

#[test]
fn pushf_hides_vm_and_rf() {
    let mut guest = Guest::new();
    guest.set_flags((Eflags::RF | Eflags::AC | Eflags::CF).bits());
    guest.execute(&[0x9c]);
    assert_eq!(guest.stack(0), (Eflags::AC | Eflags::CF).bits() | 2);
}

#[test]
fn hlt_waits_and_needs_ring_0() {
    let mut guest = Guest::new();
    guest.code(&[0xf4]);
    assert_eq!(guest.step(), Outcome::Halted);
    assert_eq!((guest.cpu.eip, guest.cpu.halted), (CODE + 1, true));
    Guest::in_ring3().protects(&[0xf4], 0);
}

#[test]
fn msrs_that_do_not_exist_and_bad_values_are_refused() {
    let mut guest = Guest::new();
    guest.set(ECX, 0xc000_0080);
    guest.protects(&[0x0f, 0x32], 0);
    let mut guest = Guest::new();
    guest.set(ECX, 0x277);
    guest.set(EAX, 0x0007_0402);
    guest.protects(&[0x0f, 0x30], 0);
    let mut guest = Guest::new();
    guest.set(ECX, 0x277);
    guest.set(EAX, 0x0007_0401);
    guest.set(EDX, 0x0506_0100);
    guest.execute(&[0x0f, 0x30]);
    assert_eq!(guest.cpu.msrs.pat, 0x0506_0100_0007_0401);
    guest.set(ECX, 0x175);
    guest.set(EAX, 0x1234);
    guest.execute(&[0x0f, 0x30]);
    guest.set(EAX, 0);
    guest.execute(&[0x0f, 0x32]);
    assert_eq!((guest.get(EAX), guest.get(EDX)), (0x1234, 0));
    Guest::in_ring3().protects(&[0x0f, 0x32], 0);
}

#[test]
fn rdtsc_in_ring_3_is_up_to_cr4_tsd() {
    let mut guest = Guest::in_ring3();
    guest.execute(&[0x0f, 0x31]);
    guest.cpu.cr4 |= Cr4::TSD;
    guest.protects(&[0x0f, 0x31], 0);
}

#[test]
fn cpuid_shows_the_model() {
    let mut guest = with_eax(1);
    guest.execute(&[0x0f, 0xa2]);
    let model = guest.cpu.model;
    assert_eq!(guest.get(EAX), model.signature());
    assert_eq!(guest.get(EDX), model.features().bits());
}

#[test]
fn what_no_model_announces_is_undefined() {
    for bytes in [
        &[0x0f, 0x34][..], // SYSENTER
        &[0x0f, 0x35],     // SYSEXIT
        &[0x0f, 0x05],     // SYSCALL
        &[0x0f, 0x07],     // SYSRET
        &[0x0f, 0xaa],     // RSM
        &[0x0f, 0xff, 0xc0],
        &[0x0f, 0xb9, 0xc0],
        &[0x0f, 0x0b],
        &[0x0f, 0x01, 0xf9],       // RDTSCP
        &[0xf0, 0x0f, 0x22, 0xc0], // MOV CR8 of AMD
    ] {
        Guest::new().faults(bytes, 6, None);
    }
}
