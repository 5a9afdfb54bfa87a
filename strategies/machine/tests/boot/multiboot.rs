//! Multiboot images: placement, machine state and information structure.

use crate::images::{
    Addresses, DATA, DATA_ADDRESS, DATA_MEMORY, ENTRY, STRINGS, TEXT, TEXT_ADDRESS, by_addresses,
    elf, elf_with_flags,
};
use crate::{bytes, dword, machine, refusal, source, text};
use machine::boot::{BootSource, Module, load};
use machine::cpu::{Cr0, SegmentRegister, register};
use machine::{Machine, PhysicalAddress};

/// Loads into 4 MiB and returns the information structure's address.
fn booted(source: &BootSource) -> (Machine, u32) {
    let mut machine = machine(4);
    load(&mut machine, source).unwrap();
    let info = machine.cpu.registers[register::EBX];
    (machine, info)
}

fn module(command_line: &str, bytes: &[u8]) -> Module {
    Module { command_line: command_line.to_owned(), bytes: bytes.to_vec() }
}

#[test]
fn elf_segments_go_to_their_physical_addresses() {
    let mut machine = machine(4);
    let dirt = vec![0xaa; DATA_MEMORY as usize + 4];
    assert!(machine.memory.write(PhysicalAddress(DATA_ADDRESS.into()), &dirt));
    load(&mut machine, &source(elf())).unwrap();
    assert_eq!(bytes(&machine, TEXT_ADDRESS + 48, TEXT.len()), TEXT);
    assert_eq!(bytes(&machine, DATA_ADDRESS, DATA.len()), DATA);
    let bss = bytes(&machine, DATA_ADDRESS, DATA_MEMORY as usize);
    assert!(bss[DATA.len()..].iter().all(|&byte| byte == 0));
    assert_eq!(bytes(&machine, DATA_ADDRESS + DATA_MEMORY, 4), [0xaa; 4]);
}

#[test]
fn the_machine_state_is_the_one_of_the_specification() {
    let (machine, _) = booted(&source(elf()));
    let cpu = &machine.cpu;
    assert_eq!(cpu.registers[register::EAX], 0x2bad_b002);
    assert_eq!(cpu.eip, ENTRY, "the linear entry becomes a physical one");
    assert_eq!((cpu.cr0, cpu.cr3, cpu.cpl), (Cr0::PE | Cr0::ET, 0, 0));
    assert_eq!(cpu.flags.bits(), 2);
    for name in SegmentRegister::ALL {
        let segment = cpu.segment(name);
        assert!(segment.is_flat() && segment.is_32bit(), "{name:?}");
        let selector = if name == SegmentRegister::Cs { 8 } else { 0x10 };
        assert_eq!(segment.selector, selector, "{name:?}");
    }
    assert_eq!(bytes(&machine, cpu.gdtr.base + 8, 8), 0x00cf_9b00_0000_ffffu64.to_le_bytes());
    assert_eq!(bytes(&machine, cpu.gdtr.base + 16, 8), 0x00cf_9300_0000_ffffu64.to_le_bytes());
    assert_eq!(cpu.gdtr.limit, 0x17);
}

#[test]
fn memory_sizes_and_map_describe_the_machine() {
    let (machine, info) = booted(&source(elf()));
    assert_eq!(info, 0x9000);
    assert_eq!((dword(&machine, info + 4), dword(&machine, info + 8)), (639, 3 * 1024));
    let (length, map) = (dword(&machine, info + 44), dword(&machine, info + 48));
    assert_eq!(length, 4 * 24);
    let entries: Vec<_> = (0..length)
        .step_by(24)
        .map(|at| [0, 4, 8, 12, 16, 20].map(|field| dword(&machine, map + at + field)))
        .collect();
    let expected = [
        [20, 0, 0, 0x9_fc00, 0, 1],
        [20, 0x9_fc00, 0, 0x400, 0, 2],
        [20, 0xf_0000, 0, 0x1_0000, 0, 2],
        [20, 0x10_0000, 0, 0x30_0000, 0, 1],
    ];
    assert_eq!(entries, expected);
}

#[test]
fn strings_and_flags_are_there() {
    let mut source = source(elf());
    source.command_line = "console=ttyS0 debug".to_owned();
    let (machine, info) = booted(&source);
    assert_eq!(dword(&machine, info), 0x26d, "memory, line, modules, sections, map, name");
    assert_eq!(text(&machine, dword(&machine, info + 16)), "kernel console=ttyS0 debug");
    assert_eq!(text(&machine, dword(&machine, info + 64)), "ringside");
    source.command_line.clear();
    let (machine, info) = booted(&source);
    assert_eq!(text(&machine, dword(&machine, info + 16)), "kernel");
}

#[test]
fn the_boot_device_is_named_where_there_is_one() {
    let (machine, info) = booted(&source(elf()));
    assert_eq!((dword(&machine, info) & 2, dword(&machine, info + 12)), (0, 0));
    let (machine, info) = booted(&BootSource { boot_disk: true, ..source(elf()) });
    assert_eq!((dword(&machine, info) & 2, dword(&machine, info + 12)), (2, 0x80ff_ffff));
    assert_eq!(bytes(&machine, 0x475, 1), [1]);
}

#[test]
fn modules_lie_on_pages_of_their_own_behind_the_kernel() {
    let modules = vec![module("first a b", &[1; 5000]), module("", &[]), module("third", &[3])];
    let (machine, info) = booted(&BootSource { modules, ..source(elf()) });
    assert_eq!(dword(&machine, info + 20), 3);
    let list = dword(&machine, info + 24);
    let module = |index: u32| [0, 4, 8, 12].map(|at| dword(&machine, list + index * 16 + at));
    let mut free = DATA_ADDRESS + DATA_MEMORY;
    for (index, (size, line)) in [(5000, "first a b"), (0, ""), (1, "third")].iter().enumerate() {
        let [start, end, string, zero] = module(index as u32);
        assert_eq!((start % 4096, end - start, zero), (0, *size, 0));
        assert!(start >= free);
        assert_eq!(text(&machine, string), *line);
        free = end;
    }
    assert_eq!(bytes(&machine, module(0)[0], 5000), [1; 5000]);
    assert_eq!(bytes(&machine, module(2)[0], 1), [3]);
}

#[test]
fn modules_that_do_not_fit_are_refused() {
    let modules = vec![module("huge", &vec![1; 3 << 20])];
    let reason = refusal(&mut machine(4), &BootSource { modules, ..source(elf()) });
    assert_eq!(
        reason,
        "a module of 3145728 bytes finds no place between 0x105004 and 0x400000 (exclusive): the \
         machine's memory is too small"
    );
}

#[test]
fn unloaded_elf_sections_are_handed_on() {
    let (machine, info) = booted(&source(elf()));
    let [count, size, table, names] = [28, 32, 36, 40].map(|at| dword(&machine, info + at));
    assert_eq!((count, size, names), (3, 40, 2));
    let section = |index: u32, field: u32| dword(&machine, table + index * 40 + field);
    assert_eq!(section(1, 12), TEXT_ADDRESS + 0xc000_0000, "loaded sections keep their address");
    assert_eq!(bytes(&machine, section(2, 12), STRINGS.len()), STRINGS);
}

#[test]
fn symbols_stay_away_where_memory_is_too_small() {
    let modules = vec![module("most", &vec![1; (4 << 20) - 0x10_6000])];
    let (machine, info) = booted(&BootSource { modules, ..source(elf()) });
    assert_eq!(dword(&machine, info) & (1 << 5), 0);
}

#[test]
fn the_address_fields_go_before_an_elf_header() {
    let mut machine = machine(4);
    assert!(machine.memory.write(PhysicalAddress(0x10_0000), &[0xaa; 0x2004]));
    let image = by_addresses(Addresses::USUAL);
    load(&mut machine, &source(image.clone())).unwrap();
    assert_eq!(machine.cpu.eip, 0x10_0040);
    assert_eq!(bytes(&machine, 0x10_0000, 0x80), image[0x10..0x90]);
    assert!(bytes(&machine, 0x10_0080, 0x1f80).iter().all(|&byte| byte == 0));
    assert_eq!(bytes(&machine, 0x10_2000, 4), [0xaa; 4]);
}

#[test]
fn without_an_end_the_whole_file_is_loaded() {
    let addresses = Addresses { load_end: 0, bss_end: 0, ..Addresses::USUAL };
    let image = by_addresses(addresses);
    let (machine, info) = booted(&source(image.clone()));
    assert_eq!(bytes(&machine, 0x10_0000, 0xf0), image[0x10..]);
    assert_eq!(dword(&machine, info) & (1 << 5), 0, "no sections");
}

#[test]
fn address_fields_that_contradict_each_other_are_refused() {
    let usual = Addresses::USUAL;
    for (addresses, expected) in [
        (
            Addresses { header: 0xf_ffff, ..usual },
            "the header's own address at offset 0x2c is 0xfffff: expected at least the load \
             address, 0x100000",
        ),
        (
            Addresses { header: 0x10_0021, ..usual },
            "the header's own address at offset 0x2c is 0x100021: expected at most 0x20 bytes \
             behind the load address",
        ),
        (
            Addresses { load_end: 0xf_0000, ..usual },
            "the end of the load at offset 0x34 is 0xf0000: expected at least its start, 0x100000",
        ),
        (
            Addresses { load_end: 0x10_00f1, ..usual },
            "truncated: what the multiboot header loads takes 241 bytes at offset 0x10, the file \
             has 256",
        ),
        (
            Addresses { bss_end: 0x10_007f, ..usual },
            "the end of the bss at offset 0x38 is 0x10007f: expected at least the end of the load, \
             0x100080",
        ),
        (
            Addresses { entry: 0x10_2000, ..usual },
            "the entry 0x102000 lies outside of what was loaded",
        ),
        (
            Addresses { bss_end: 0x40_0001, ..usual },
            "a segment goes to 0x100000 to 0x400001 (exclusive), which is not all RAM: expected 0 \
             to 0xa0000 or 0x100000 to 0x400000",
        ),
    ] {
        assert_eq!(refusal(&mut machine(4), &source(by_addresses(addresses))), expected);
    }
}

#[test]
fn the_information_avoids_a_kernel_in_low_memory() {
    let low = |address| address - 0x10_0000 + 0x9010;
    let usual = Addresses::USUAL;
    let addresses = Addresses {
        header: low(usual.header),
        load: low(usual.load),
        load_end: low(usual.load_end),
        bss_end: low(usual.bss_end),
        entry: low(usual.entry),
    };
    let (machine, info) = booted(&source(by_addresses(addresses)));
    assert_eq!(info, 0x9010 + 0x2000);
    assert_eq!(text(&machine, dword(&machine, info + 64)), "ringside");
    let image = by_addresses(addresses);
    assert_eq!(bytes(&machine, 0x9010, 0x80), image[0x10..0x90]);
}

#[test]
fn a_long_command_line_moves_the_information_to_extended_memory() {
    let command_line = "x".repeat(700_000);
    let (machine, info) = booted(&BootSource { command_line, ..source(elf()) });
    assert!(info >= 0x10_0000);
    assert_eq!(text(&machine, dword(&machine, info + 16)).len(), "kernel ".len() + 700_000);
}

#[test]
fn a_text_mode_request_is_answered_and_a_graphics_one_passed_over() {
    let request = |mode| source(elf_with_flags(7, &[0, 0, 0, 0, 0, mode, 80, 25, 0]));
    let (machine, info) = booted(&request(0));
    assert_eq!(dword(&machine, info) & (1 << 12), 0);
    let (machine, info) = booted(&request(1));
    assert_eq!(dword(&machine, info) & (1 << 12), 1 << 12);
    let fields = [88, 92, 96, 100, 104].map(|at| dword(&machine, info + at));
    assert_eq!(fields, [0xb_8000, 0, 160, 80, 25]);
    assert_eq!(bytes(&machine, info + 108, 2), [16, 2]);
}

#[test]
fn the_bios_data_area_is_there() {
    let (machine, _) = booted(&source(elf()));
    assert_eq!(bytes(&machine, 0x413, 2), 639u16.to_le_bytes());
    assert_eq!(bytes(&machine, 0x40e, 2), 0x9fc0u16.to_le_bytes());
}

#[test]
fn zero_bytes_in_strings_are_refused() {
    let command_line = "a\0b".to_owned();
    let reason = refusal(&mut machine(4), &BootSource { command_line, ..source(elf()) });
    assert_eq!(reason, "the command line contains a zero byte at 8");
    let modules = vec![module("\0", &[])];
    let reason = refusal(&mut machine(4), &BootSource { modules, ..source(elf()) });
    assert_eq!(reason, "a module's command line contains a zero byte at 0");
}
