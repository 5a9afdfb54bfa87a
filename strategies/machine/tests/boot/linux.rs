//! bzImages: placement, machine state and zero page.

use crate::images::{LINUX_CODE, Linux, bzimage};
use crate::{bytes, dword, machine, refusal, source, text};
use machine::boot::{BootSource, Module, load};
use machine::cpu::{Cr0, SegmentRegister, register};
use machine::{Machine, MachineConfig};

const ZERO_PAGE: u32 = 0x9_0000;

fn initrd(bytes: &[u8]) -> Vec<Module> {
    vec![Module { command_line: String::new(), bytes: bytes.to_vec() }]
}

fn usual() -> BootSource {
    source(bzimage(Linux::USUAL))
}

/// Loads into 4 MiB.
fn booted(source: &BootSource) -> Machine {
    let mut machine = machine(4);
    load(&mut machine, source).unwrap();
    machine
}

#[test]
fn the_kernel_is_entered_as_the_32_bit_protocol_says() {
    let machine = booted(&usual());
    let cpu = &machine.cpu;
    assert_eq!((cpu.eip, cpu.registers[register::ESI]), (0x10_0000, ZERO_PAGE));
    for name in [register::EBP, register::EDI, register::EBX] {
        assert_eq!(cpu.registers[name], 0);
    }
    assert_eq!((cpu.cr0, cpu.flags.bits()), (Cr0::PE | Cr0::ET, 2));
    assert_eq!(cpu.segment(SegmentRegister::Cs).selector, 0x10);
    for name in [SegmentRegister::Ds, SegmentRegister::Es, SegmentRegister::Ss] {
        assert_eq!(cpu.segment(name).selector, 0x18);
        assert!(cpu.segment(name).is_flat());
    }
    assert_eq!(bytes(&machine, cpu.gdtr.base + 0x10, 8), 0x00cf_9b00_0000_ffffu64.to_le_bytes());
    assert_eq!(bytes(&machine, cpu.gdtr.base + 0x18, 8), 0x00cf_9300_0000_ffffu64.to_le_bytes());
    let image = bzimage(Linux::USUAL);
    assert_eq!(bytes(&machine, 0x10_0000, LINUX_CODE), image[0x600..]);
}

#[test]
fn the_zero_page_holds_the_setup_header_and_what_the_loader_fills_in() {
    let machine = booted(&usual());
    let page = bytes(&machine, ZERO_PAGE, 4096);
    let image = bzimage(Linux::USUAL);
    assert_eq!(page[0x1f1..0x210], image[0x1f1..0x210]);
    assert_eq!(page[0x22c..0x26c], image[0x22c..0x26c]);
    assert_eq!(page[0x210], 0xff, "type_of_loader");
    assert_eq!(page[0x211], 1, "loadflags: LOADED_HIGH kept, KEEP_SEGMENTS cleared");
    assert_eq!(page[0x1ef], 0, "sentinel");
    assert!(page[0x26c..0x2d0].iter().all(|&byte| byte == 0));
}

#[test]
fn the_screen_is_in_vga_text_mode() {
    let page = bytes(&booted(&usual()), ZERO_PAGE, 0x40);
    assert_eq!((page[6], page[7], page[0xe], page[0xf]), (3, 80, 25, 1));
    assert_eq!((page[0xa], page[0x10], page[0x11]), (3, 16, 0));
}

#[test]
fn memory_is_described_three_times() {
    let machine = booted(&usual());
    assert_eq!(dword(&machine, ZERO_PAGE + 2) & 0xffff, 3 * 1024, "ext_mem_k");
    assert_eq!(dword(&machine, ZERO_PAGE + 0x1e0), 3 * 1024, "alt_mem_k");
    assert_eq!(bytes(&machine, ZERO_PAGE + 0x1e8, 1), [4], "e820_entries");
    let entry = |index: u32| {
        [0, 4, 8, 12, 16].map(|at| dword(&machine, ZERO_PAGE + 0x2d0 + index * 20 + at))
    };
    assert_eq!(entry(0), [0, 0, 0x9_fc00, 0, 1]);
    assert_eq!(entry(1), [0x9_fc00, 0, 0x400, 0, 2]);
    assert_eq!(entry(2), [0xf_0000, 0, 0x1_0000, 0, 2]);
    assert_eq!(entry(3), [0x10_0000, 0, 0x30_0000, 0, 1]);
}

#[test]
fn a_large_machine_does_not_overflow_the_old_size() {
    let mut machine = machine(256);
    load(&mut machine, &usual()).unwrap();
    assert_eq!(dword(&machine, ZERO_PAGE + 2) & 0xffff, 0xfc00);
    assert_eq!(dword(&machine, ZERO_PAGE + 0x1e0), 255 * 1024);
}

#[test]
fn a_rom_shows_in_the_memory_map() {
    let config = MachineConfig { rom: vec![0; 0x1_0000], ..MachineConfig::default() };
    let mut machine = Machine::new(&config).unwrap();
    load(&mut machine, &usual()).unwrap();
    assert_eq!(bytes(&machine, ZERO_PAGE + 0x1e8, 1), [5]);
    let last = [0, 4, 8, 12, 16].map(|at| dword(&machine, ZERO_PAGE + 0x2d0 + 4 * 20 + at));
    assert_eq!(last, [0xffff_0000, 0, 0x1_0000, 0, 2]);
}

#[test]
fn the_command_line_is_passed_by_pointer() {
    let command_line = "console=ttyS0 panic=-1".to_owned();
    let machine = booted(&BootSource { command_line: command_line.clone(), ..usual() });
    assert_eq!(text(&machine, dword(&machine, ZERO_PAGE + 0x228)), command_line);
}

#[test]
fn kernels_before_2_02_find_the_command_line_by_its_offset() {
    let image = bzimage(Linux { version: 0x201, ..Linux::USUAL });
    let machine = booted(&BootSource { command_line: "old".to_owned(), ..source(image) });
    let [magic, offset] = [0x20, 0x22].map(|at| dword(&machine, ZERO_PAGE + at) & 0xffff);
    assert_eq!(magic, 0xa33f);
    assert_eq!(text(&machine, 0x9_0000 + offset), "old");
    assert_eq!(dword(&machine, ZERO_PAGE + 0x228), 0);
}

#[test]
fn the_kernels_own_limit_for_the_command_line_holds() {
    let line = |length| BootSource { command_line: "x".repeat(length), ..usual() };
    assert!(load(&mut machine(4), &line(2047)).is_ok());
    let reason = refusal(&mut machine(4), &line(2048));
    assert_eq!(reason, "the command line has 2048 bytes, this kernel takes at most 2047");
    let old = source(bzimage(Linux { version: 0x205, ..Linux::USUAL }));
    let reason = refusal(&mut machine(4), &BootSource { command_line: "x".repeat(256), ..old });
    assert_eq!(reason, "the command line has 256 bytes, this kernel takes at most 255");
    let hostile = Linux { command_line_size: u32::MAX, ..Linux::USUAL };
    let command_line = "x".repeat(60_000);
    let hostile = BootSource { command_line, ..source(bzimage(hostile)) };
    let reason = refusal(&mut machine(4), &hostile);
    assert_eq!(reason, "the command line has 60000 bytes, this kernel takes at most 57343");
}

#[test]
fn the_initial_ram_disk_goes_to_the_top_of_what_the_kernel_reaches() {
    let disk = [7; 5000];
    let placed = |source: &BootSource| {
        let machine = booted(source);
        let [start, size] = [0x218, 0x21c].map(|at| dword(&machine, ZERO_PAGE + at));
        assert_eq!((start % 4096, size), (0, 5000));
        assert_eq!(bytes(&machine, start, 5000), disk);
        start
    };
    assert_eq!(placed(&BootSource { modules: initrd(&disk), ..usual() }), 0x3f_e000);
    let low = bzimage(Linux { initrd_last: 0x2f_ffff, ..Linux::USUAL });
    assert_eq!(placed(&BootSource { modules: initrd(&disk), ..source(low) }), 0x2f_e000);
}

#[test]
fn an_initial_ram_disk_that_would_reach_into_the_unpacked_kernel_is_refused() {
    let room = 0x40_0000 - (0x18_0000 + 0x4_0000);
    let fits = BootSource { modules: initrd(&vec![1; room]), ..usual() };
    assert!(load(&mut machine(4), &fits).is_ok());
    let reason =
        refusal(&mut machine(4), &BootSource { modules: initrd(&vec![1; room + 1]), ..usual() });
    assert_eq!(
        reason,
        "the initial RAM disk of 2359297 bytes finds no place between 0x1c0000 and 0x400000 \
         (exclusive): the machine's memory is too small"
    );
    let two = [initrd(&[1]), initrd(&[2])].concat();
    let reason = refusal(&mut machine(4), &BootSource { modules: two, ..usual() });
    assert_eq!(reason, "Linux takes one initial RAM disk, 2 modules were given");
}

#[test]
fn kernels_that_this_machine_cannot_run_are_refused_with_the_reason() {
    let usual = Linux::USUAL;
    for (linux, expected) in [
        (
            Linux { loadflags: 0, ..usual },
            "loadflags at offset 0x211 is 0x0: expected LOADED_HIGH (bit 0): a bzImage, not a \
             zImage",
        ),
        (
            Linux { xloadflags: 1, ..usual },
            "xloadflags at offset 0x236 is 0x1: expected XLF_KERNEL_64 (bit 0) clear: the machine \
             has a 32-bit CPU",
        ),
        (
            Linux { version: 0x1ff, ..usual },
            "the boot protocol's version at offset 0x206 is 0x1ff: expected at least 0x200",
        ),
        (
            Linux { init_size: 0x40_0000, ..usual },
            "the unpacked kernel goes to 0x180000 to 0x580000 (exclusive), which is not all RAM: \
             expected 0 to 0xa0000 or 0x100000 to 0x400000",
        ),
        (
            Linux { preferred: u64::MAX, relocatable: false, ..usual },
            "the unpacked kernel goes to 0xffffffffffffffff to 0xffffffffffffffff (exclusive), \
             which is not all RAM: expected 0 to 0xa0000 or 0x100000 to 0x400000",
        ),
    ] {
        assert_eq!(refusal(&mut machine(4), &source(bzimage(linux))), expected);
    }
}
