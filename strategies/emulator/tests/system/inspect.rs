//! LAR, LSL, VERR, VERW, ARPL.

use crate::guest::{CODE, DATA, FREE, Guest, PRESENT, descriptor};
use machine::cpu::{Eflags, register::*};

const LAR_EAX_ECX: [u8; 3] = [0x0f, 0x02, 0xc1];
const LSL_EAX_ECX: [u8; 3] = [0x0f, 0x03, 0xc1];
const VERR_CX: [u8; 3] = [0x0f, 0x00, 0xe1];
const VERW_CX: [u8; 3] = [0x0f, 0x00, 0xe9];
const UNTOUCHED: u32 = 0x5555_5555;

/// Runs an instruction on selector `FREE` with RPL `rpl`; EAX if ZF was set.
fn look(guest: &mut Guest, bytes: &[u8], access: u8, rpl: u16) -> Option<u32> {
    guest.set_descriptor(FREE, descriptor(0x12_3456, 0xa_bcde, access, 0x8));
    guest.set(EAX, UNTOUCHED);
    guest.set(ECX, 0xffff_0000 | u32::from(FREE | rpl));
    guest.cpu.eip = CODE;
    guest.execute(bytes);
    let zero = guest.cpu.flags.contains(Eflags::ZF);
    assert!(zero || guest.get(EAX) == UNTOUCHED);
    zero.then(|| guest.get(EAX))
}

fn at(cpl: u8) -> Guest {
    if cpl == 0 { Guest::new() } else { Guest::in_ring3() }
}

#[test]
fn lar_and_lsl_accept_what_the_manual_lists() {
    let lar = [1, 2, 3, 4, 5, 9, 11, 12];
    let lsl = [1, 2, 3, 9, 11];
    let mut guest = Guest::new();
    for kind in 0..16u8 {
        let access = PRESENT | kind;
        let rights = 0x8a_0000 | u32::from(access) << 8;
        let expected = lar.contains(&kind).then_some(rights);
        assert_eq!(look(&mut guest, &LAR_EAX_ECX, access, 0), expected, "LAR {kind}");
        let expected = lsl.contains(&kind).then_some(0xabcd_efff);
        assert_eq!(look(&mut guest, &LSL_EAX_ECX, access, 0), expected, "LSL {kind}");
    }
}

#[test]
fn privilege_hides_all_but_conforming_code() {
    for cpl in [0, 3] {
        for rpl in 0..4u16 {
            for dpl in 0..4u8 {
                for kind in 0..16u8 {
                    let mut guest = at(cpl);
                    let access = 0x10 | kind | dpl << 5;
                    let reachable = dpl >= cpl && u16::from(dpl) >= rpl;
                    let conforming = kind & 12 == 12;
                    let code = kind & 8 != 0;
                    let visible = reachable || conforming;
                    let lar = look(&mut guest, &LAR_EAX_ECX, access, rpl);
                    assert_eq!(lar.is_some(), visible);
                    let readable = visible && (!code || kind & 2 != 0);
                    let verr = look(&mut guest, &VERR_CX, access, rpl);
                    assert_eq!(verr.is_some(), readable, "VERR {access:#x} from {cpl}, {rpl}");
                    let writable = reachable && !code && kind & 2 != 0;
                    let verw = look(&mut guest, &VERW_CX, access, rpl);
                    assert_eq!(verw.is_some(), writable, "VERW {access:#x} from {cpl}, {rpl}");
                }
            }
        }
    }
}

#[test]
fn null_selectors_and_those_beyond_the_table_clear_zf() {
    for selector in [0, 3, 0x100, 0xfffc] {
        for bytes in [LAR_EAX_ECX, LSL_EAX_ECX, VERR_CX, VERW_CX] {
            let mut guest = Guest::new();
            guest.cpu.ldtr = machine::cpu::Segment::null(0);
            guest.set_flags(Eflags::ZF.bits());
            guest.set(ECX, selector);
            guest.execute(&bytes);
            assert!(!guest.cpu.flags.zero());
        }
    }
}

#[test]
fn lar_with_16_bits_shows_the_low_half() {
    let mut guest = Guest::new();
    let seen = look(&mut guest, &[0x66, 0x0f, 0x02, 0xc1], 0xf3, 0);
    assert_eq!(seen, Some(0x5555_f300));
}

#[test]
fn arpl_raises_a_requested_privilege_level() {
    let mut guest = Guest::new();
    guest.write_u16(DATA, 0x40);
    guest.set(ECX, 0x1b);
    guest.execute(&[0x63, 0x0d, 0x00, 0x80, 0x01, 0x00]); // arpl [DATA], cx
    assert_eq!((guest.read_u16(DATA), guest.cpu.flags.zero()), (0x43, true));
    guest.set(ECX, 0x19);
    guest.execute(&[0x63, 0x0d, 0x00, 0x80, 0x01, 0x00]);
    assert_eq!((guest.read_u16(DATA), guest.cpu.flags.zero()), (0x43, false));
    guest.set(EAX, 0xffff_0008);
    guest.execute(&[0x63, 0xc8]); // arpl ax, cx
    assert_eq!((guest.get(EAX), guest.cpu.flags.zero()), (0xffff_0009, true));
}

#[test]
fn real_mode_does_not_know_them() {
    for bytes in [&LAR_EAX_ECX[..], &LSL_EAX_ECX, &VERR_CX, &VERW_CX, &[0x63, 0xc8]] {
        let mut guest = Guest::in_real_mode();
        guest.write_u32(6 * 4, 0x2000_0042);
        guest.execute(bytes);
        assert_eq!(guest.cpu.instruction_address().0, 0x2_0042, "{bytes:02x?}");
    }
}
