//! Far transfers and segment loads with every selector, from either ring.

use crate::guest::{CODE, CODE3, DATA, Guest, Sides, compare};
use machine::cpu::{SegmentRegister, register};

/// Selectors of the GDT, behind it, of the LDT that there is not; with each RPL.
fn selectors() -> impl Iterator<Item = u16> {
    (0..0x90).filter(|selector| selector & 4 == 0 && selector & 3 != 2).chain([0x0c, 0xfff8])
}

/// Code for a transfer to `selector`, CODE + 0x200, where INC EAX and INT3 lie.
fn transfers(guest: &mut Guest, selector: u16) -> [Vec<u8>; 6] {
    let target = CODE + 0x200;
    guest.write(target, &[0x40, 0x41, 0xcc]);
    guest.write_u32(DATA, target);
    guest.write(DATA + 4, &selector.to_le_bytes());
    let [low, high] = selector.to_le_bytes();
    let [a, b, c, d] = target.to_le_bytes();
    let push_selector = [0x68, low, high, 0, 0];
    let push_target = [0x68, a, b, c, d];
    [
        vec![0xea, a, b, c, d, low, high],
        vec![0x9a, a, b, c, d, low, high],
        vec![0xff, 0x2b],
        vec![0xff, 0x1b],
        [&push_selector[..], &push_target, &[0xcb]].concat(),
        [&[0x9c][..], &push_selector, &push_target, &[0xcf]].concat(),
    ]
}

#[test]
fn far_transfers_with_every_selector() {
    let Some(mut sides) = Sides::new() else { return };
    for ring in [0, 3] {
        for selector in selectors() {
            for kind in 0..6 {
                sides.compare(&format!("{kind} to {selector:#x} from ring {ring}"), |guest| {
                    guest.enter_ring(ring);
                    let code = transfers(guest, selector)[kind].clone();
                    guest.code(&[&[0x40], &code]);
                });
            }
        }
    }
}

#[test]
fn segment_loads_with_every_selector() {
    let Some(mut sides) = Sides::new() else { return };
    for selector in selectors() {
        // mov ds, es, ss, fs and gs; lds, lss, lfs.
        let loads: [&[u8]; 8] = [
            &[0x8e, 0xd8],
            &[0x8e, 0xc0],
            &[0x8e, 0xd0],
            &[0x8e, 0xe0],
            &[0x8e, 0xe8],
            &[0xc5, 0x13],
            &[0x0f, 0xb2, 0x23],
            &[0x0f, 0xb4, 0x13],
        ];
        for load in loads {
            sides.compare(&format!("{load:02x?} with {selector:#x}"), |guest| {
                transfers(guest, selector);
                guest.set(register::EAX, selector.into());
                // Then accesses through each segment.
                guest.code(&[
                    load,
                    &[0x89, 0x13, 0x64, 0x8b, 0x33, 0x65, 0x89, 0x73, 8, 0x51, 0x26, 0x8b, 0x03],
                ]);
            });
        }
    }
}

#[test]
fn accesses_through_segments_with_limits() {
    let Some(mut sides) = Sides::new() else { return };
    for selector in [0x40, 0x48, 0x50, 0x58, 0x60, 0x7b] {
        for register in [SegmentRegister::Ds, SegmentRegister::Fs, SegmentRegister::Ss] {
            for at in [0, 0xffd, 0x1000, DATA, 0xffff_fffe] {
                sides.compare(&format!("{register:?} {selector:#x} at {at:#x}"), |guest| {
                    guest.load(register, selector);
                    guest.point_to(at);
                    guest.code(&[&[
                        0x64, 0x8b, 0x03, 0x64, 0x89, 0x03, 0x8b, 0x0b, 0x55, 0x89, 0x55, 0,
                    ]]);
                });
            }
        }
    }
}

#[test]
fn rings_change_back_and_forth() {
    compare("system calls", |guest| {
        guest.count(0x80);
        guest.set(register::ECX, 500);
        // In ring 0: push SS, ESP, flags, CS, EIP of ring 3; iretd
        guest.code(&[
            &[0x6a, 0x23, 0x68, 0, 0x90, 0, 0, 0x6a, 2, 0x6a, CODE3 as u8],
            &[0x68, 0, 1, 1, 0, 0xcf],
        ]);
        // In ring 3: again: int 0x80; push ecx; pop edx; dec ecx; jnz again; cli
        guest.write(CODE + 0x100, &[0xcd, 0x80, 0x51, 0x5a, 0x49, 0x75, 0xf9, 0xfa]);
    });
}
