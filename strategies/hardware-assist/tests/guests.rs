//! Small guests under KVM, as bytes. They run only where there is a KVM; where not, each test says
//! so and why.

use hardware_assist::{HardwareAssist, support};
use machine::cpu::{
    CpuModel, Cr0, Eflags, Segment, SegmentRegister, TableRegister, access, register,
};
use machine::{Machine, MachineConfig, PhysicalAddress};
use std::io::Write;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use strategy::{ExitKind, Limit, Stop, Strategy, Support};

const CODE: u32 = 0x1000;
const IDT: u32 = 0x2000;
const TSS: u32 = 0x3000;
const GDT: u32 = 0x4000;
const HANDLER: u32 = 0x5000;
const STACK: u32 = 0x8000;
const DATA: u32 = 0x9000;

/// No guest here runs for longer, unless something is wrong.
fn soon() -> Limit {
    Limit::until(Instant::now() + Duration::from_secs(10))
}

/// The strategy; none, with a word about it, where there is no KVM.
fn kvm() -> Option<HardwareAssist> {
    if let Support::Missing(reason) = support() {
        println!("not tested, for want of KVM: {reason}");
        return None;
    }
    Some(HardwareAssist::new().unwrap())
}

fn machine() -> Machine {
    let config = MachineConfig { memory_bytes: 2 << 20, ..MachineConfig::default() };
    Machine::new(&config).unwrap()
}

fn place(machine: &mut Machine, address: u32, bytes: &[u8]) {
    assert!(machine.memory.write(PhysicalAddress(address.into()), bytes));
}

fn read(machine: &Machine, address: u32) -> u32 {
    machine.memory.read_u32(PhysicalAddress(address.into()))
}

/// What the guest writes to the debug console from now on.
fn console(machine: &mut Machine) -> mpsc::Receiver<u8> {
    let (sender, receiver) = mpsc::channel();
    machine.bus.devices.debug_console.set_output(Box::new(Console(sender)));
    receiver
}

struct Console(mpsc::Sender<u8>);

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for &byte in bytes {
            self.0.send(byte).map_err(std::io::Error::other)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Real mode at 0:CODE.
fn real_mode(code: &[u8]) -> Machine {
    let mut machine = machine();
    place(&mut machine, CODE, code);
    machine.cpu.segments = [Segment::real_mode(0); 6];
    machine.cpu.eip = CODE;
    machine.cpu.registers[register::ESP] = STACK;
    machine
}

/// Flat protected mode in ring 0 at CODE, interrupts off, with a GDT (8 and 0x10 for ring 0, 0x1b
/// and 0x23 for ring 3), a TSS, and an empty IDT.
fn flat(code: &[u8]) -> Machine {
    let mut machine = machine();
    place(&mut machine, CODE, code);
    for (at, descriptor) in (GDT..).step_by(8).zip([
        0u64,
        0x00cf_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
    ]) {
        place(&mut machine, at, &descriptor.to_le_bytes());
    }
    place(&mut machine, TSS + 4, &STACK.to_le_bytes());
    place(&mut machine, TSS + 8, &0x10u32.to_le_bytes());
    let cpu = &mut machine.cpu;
    cpu.cr0 = Cr0::PE | Cr0::ET | Cr0::NE;
    cpu.segments = [Segment::flat(0x10, false, 0); 6];
    *cpu.segment_mut(SegmentRegister::Cs) = Segment::flat(8, true, 0);
    cpu.gdtr = TableRegister { base: GDT, limit: 0x27 };
    cpu.idtr = TableRegister { base: IDT, limit: 0x7ff };
    cpu.tr = Segment::system(0x28, TSS, 0x67, access::TSS32_BUSY);
    cpu.eip = CODE;
    cpu.registers[register::ESP] = STACK;
    machine
}

/// Puts a handler behind a vector, as a ring-0 interrupt gate that ring 3 may use.
fn handle(machine: &mut Machine, vector: u32, code: &[u8]) {
    let address = HANDLER + vector * 0x20;
    let gate = u64::from(address & 0xffff) | 8 << 16 | 0xee00 << 32;
    place(machine, IDT + 8 * vector, &gate.to_le_bytes());
    place(machine, address, code);
}

#[test]
fn the_exit_port_ends_the_run() {
    let Some(mut kvm) = kvm() else { return };
    // mov al, 0x31; out 0xf4, al; jmp $
    let mut machine = real_mode(&[0xb0, 0x31, 0xe6, 0xf4, 0xeb, 0xfe]);
    assert_eq!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Exit(0x31));
    assert_eq!(machine.cpu.eip, CODE + 4);
    assert_eq!(kvm.exits().get(ExitKind::PortIo), 1);
}

#[test]
fn a_loop_of_port_writes_arrives_in_order() {
    let Some(mut kvm) = kvm() else { return };
    // mov cl, 5; l: mov al, cl; add al, '0'; out 0xe9, al; dec cl; jnz l; out 0xf4, al
    let mut machine = real_mode(&[
        0xb1, 5, 0x88, 0xc8, 0x04, 0x30, 0xe6, 0xe9, 0xfe, 0xc9, 0x75, 0xf6, 0xe6, 0xf4,
    ]);
    let output = console(&mut machine);
    assert_eq!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Exit(0x31));
    assert_eq!(output.try_iter().collect::<Vec<_>>(), b"54321");
    assert_eq!(kvm.exits().get(ExitKind::PortIo), 6);
}

#[test]
fn string_output_and_input_move_every_element() {
    let Some(mut kvm) = kvm() else { return };
    // mov esi, DATA; mov ecx, 6; mov edx, 0xe9; rep outsb
    // mov edi, DATA; mov ecx, 3; mov edx, 0xcfc; rep insd; out 0xf4, al
    let mut machine = flat(&[
        0xbe, 0, 0x90, 0, 0, 0xb9, 6, 0, 0, 0, 0xba, 0xe9, 0, 0, 0, 0xf3, 0x6e, // out
        0xbf, 0, 0x90, 0, 0, 0xb9, 3, 0, 0, 0, 0xba, 0xfc, 0x0c, 0, 0, 0xf3, 0x6d, // in
        0xe6, 0xf4,
    ]);
    place(&mut machine, DATA, b"string");
    let output = console(&mut machine);
    assert_eq!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Exit(0));
    assert_eq!(output.try_iter().collect::<Vec<_>>(), b"string");
    let words = [0, 4, 8, 12].map(|offset| read(&machine, DATA + offset));
    assert_eq!(words, [u32::MAX, u32::MAX, u32::MAX, 0], "no PCI device answers");
}

#[test]
fn writes_to_the_vga_hole_reach_the_device_and_come_back() {
    let Some(mut kvm) = kvm() else { return };
    // mov dword [0xb8000], 0x07410742; mov eax, [0xb8000]; mov [DATA], eax; out 0xf4, al
    let mut machine = flat(&[
        0xc7, 0x05, 0, 0x80, 0x0b, 0, 0x42, 0x07, 0x41, 0x07, 0xa1, 0, 0x80, 0x0b, 0, 0xa3, 0,
        0x90, 0, 0, 0xe6, 0xf4,
    ]);
    assert_eq!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Exit(0x42));
    assert_eq!(read(&machine, DATA), 0x0741_0742);
    assert_eq!(kvm.exits().get(ExitKind::Mmio), 2);
    let mut shown = [0; 4];
    machine.bus.mmio_read(PhysicalAddress(0xb_8000), &mut shown);
    assert_eq!(shown, [0x42, 0x07, 0x41, 0x07]);
}

#[test]
fn read_only_memory_keeps_its_contents() {
    let Some(mut kvm) = kvm() else { return };
    // mov byte [0xf0000], 5; mov al, [0xf0000]; out 0xf4, al
    let mut machine = flat(&[0xc6, 0x05, 0, 0, 0x0f, 0, 5, 0xa0, 0, 0, 0x0f, 0, 0xe6, 0xf4]);
    place(&mut machine, 0xf_0000, &[0x77]);
    assert_eq!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Exit(0x77));
}

#[test]
fn cpuid_shows_the_machines_model() {
    let Some(mut kvm) = kvm() else { return };
    for model in [CpuModel::Pentium, CpuModel::Pentium4] {
        for leaf in [0u32, 1, 2, 0x4000_0000, 0x8000_0000] {
            // mov eax, leaf; cpuid; four stores; out 0xf4, al
            let mut code = vec![0xb8];
            code.extend(leaf.to_le_bytes());
            code.extend([0x0f, 0xa2, 0xa3, 0, 0x90, 0, 0, 0x89, 0x1d, 4, 0x90, 0, 0]);
            code.extend([0x89, 0x0d, 8, 0x90, 0, 0, 0x89, 0x15, 12, 0x90, 0, 0, 0xe6, 0xf4]);
            let mut machine = flat(&code);
            machine.cpu.model = model;
            assert!(matches!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Exit(_)));
            let wanted = model.cpuid(leaf);
            let seen = [0, 4, 8, 12].map(|offset| read(&machine, DATA + offset));
            let wanted = [wanted.eax, wanted.ebx, wanted.ecx, wanted.edx];
            assert_eq!(seen, wanted, "{model}, leaf {leaf:#x}");
        }
    }
}

#[test]
fn a_triple_fault_is_reported_and_the_machine_runs_after_a_reset() {
    let Some(mut kvm) = kvm() else { return };
    // ud2, with an IDT that holds nothing.
    let mut machine = flat(&[0x0f, 0x0b]);
    machine.cpu.idtr.limit = 0;
    assert_eq!(kvm.run(&mut machine, &soon()).unwrap(), Stop::TripleFault);
    machine.reset();
    place(&mut machine, 0xf_fff0, &[0xb0, 9, 0xe6, 0xf4]);
    machine.cpu.segment_mut(SegmentRegister::Cs).base = 0xf_0000;
    assert_eq!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Exit(9));
}

#[test]
fn halting_with_interrupts_off_stops_for_good() {
    let Some(mut kvm) = kvm() else { return };
    let mut machine = flat(&[0xf4, 0xb0, 1, 0xe6, 0xf4]);
    assert_eq!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Halted);
    assert!(machine.cpu.halted);
    assert_eq!(machine.cpu.eip, CODE + 1);
    assert_eq!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Halted, "it stays halted");
}

/// Master controller at vector 0x20 with only IRQ 0 open, and the timer at 1 kHz in mode 2.
const TIMER_SETUP: [u8; 30] = [
    0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x20, 0xe6, 0x21, 0xb0, 4, 0xe6, 0x21, 0xb0, 1, 0xe6,
    0x21, // ICWs
    0xb0, 0xfe, 0xe6, 0x21, // mask
    0xb0, 0x34, 0xe6, 0x43, 0xb0, 0xa9, 0xe6, 0x40, 0xb0, 0x04, // 1193 ticks
];
/// The rest of it: the counter's high byte.
const TIMER_SETUP_END: [u8; 2] = [0xe6, 0x40];

/// inc dword [DATA]; mov al, 0x20; out 0x20, al; iret
const TIMER_HANDLER: [u8; 11] = [0xff, 0x05, 0, 0x90, 0, 0, 0xb0, 0x20, 0xe6, 0x20, 0xcf];

fn timer_guest(body: &[u8]) -> Machine {
    let mut code = TIMER_SETUP.to_vec();
    code.extend(TIMER_SETUP_END);
    code.extend(body);
    let mut machine = flat(&code);
    handle(&mut machine, 0x20, &TIMER_HANDLER);
    machine
}

#[test]
fn a_halted_guest_wakes_at_each_timer_interrupt() {
    let Some(mut kvm) = kvm() else { return };
    // l: sti; hlt; cli; cmp dword [DATA], 20; jb l; out 0xf4, al
    let mut machine =
        timer_guest(&[0xfb, 0xf4, 0xfa, 0x83, 0x3d, 0, 0x90, 0, 0, 20, 0x72, 0xf4, 0xe6, 0xf4]);
    let start = Instant::now();
    assert!(matches!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Exit(_)));
    let elapsed = start.elapsed();
    assert_eq!(read(&machine, DATA), 20);
    assert!(elapsed >= Duration::from_millis(18), "{elapsed:?}");
    assert_eq!(kvm.exits().get(ExitKind::Interrupt), 20);
    // A slow host may find the next interrupt there already when the handler returns.
    assert!((1..=20).contains(&kvm.exits().get(ExitKind::Halt)));
}

#[test]
fn timer_interrupts_arrive_in_a_loop_without_exits() {
    let Some(mut kvm) = kvm() else { return };
    // sti; l: cmp dword [DATA], 20; jb l; cli; out 0xf4, al
    let mut machine =
        timer_guest(&[0xfb, 0x83, 0x3d, 0, 0x90, 0, 0, 20, 0x72, 0xf7, 0xfa, 0xe6, 0xf4]);
    assert!(matches!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Exit(_)));
    // On a slow host one more may arrive between the comparison and CLI.
    assert!((20..=22).contains(&read(&machine, DATA)));
    assert!(kvm.exits().get(ExitKind::Host) > 0, "the guest had to be interrupted");
}

#[test]
fn a_deadline_ends_an_endless_loop_in_time() {
    let Some(mut kvm) = kvm() else { return };
    let mut machine = flat(&[0xeb, 0xfe]);
    for _ in 0..5 {
        let start = Instant::now();
        let limit = Limit::until(start + Duration::from_millis(5));
        assert_eq!(kvm.run(&mut machine, &limit).unwrap(), Stop::Limit);
        let late = start.elapsed().saturating_sub(Duration::from_millis(5));
        // The host's scheduler may add to it; a deadline missed altogether takes far longer.
        assert!(late < Duration::from_millis(50), "{late:?}");
        assert_eq!(machine.cpu.eip, CODE);
    }
}

#[test]
fn another_thread_stops_an_endless_loop() {
    let Some(mut kvm) = kvm() else { return };
    let mut machine = flat(&[0xeb, 0xfe]);
    let signals = machine.signals().clone();
    let asker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(10));
        signals.request(machine::signals::Request::Stop);
        Instant::now()
    });
    assert_eq!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Requested);
    let late = asker.join().unwrap().elapsed();
    assert!(late < Duration::from_millis(50), "{late:?}");
}

#[test]
fn many_short_runs_make_the_progress_of_a_long_one() {
    let Some(mut kvm) = kvm() else { return };
    // mov ecx, 20000; l: add eax, ecx; dec ecx; jnz l; mov [DATA], eax; out 0xf4, al
    let mut machine = flat(&[
        0xb9, 0x20, 0x4e, 0, 0, 0x01, 0xc8, 0x49, 0x75, 0xfb, 0xa3, 0, 0x90, 0, 0, 0xe6, 0xf4,
    ]);
    let mut runs = 0u32;
    let stop = loop {
        runs += 1;
        assert!(runs < 100_000, "no progress: {:?}", machine.cpu);
        match kvm.run(&mut machine, &Limit::instructions(1_000)).unwrap() {
            Stop::Limit => {}
            stop => break stop,
        }
    };
    assert!(matches!(stop, Stop::Exit(_)));
    assert!(runs > 1);
    assert_eq!(read(&machine, DATA), 20_000 * 20_001 / 2);
}

#[test]
fn interrupts_and_returns_in_protected_mode_work() {
    let Some(mut kvm) = kvm() else { return };
    // mov ecx, 100; l: int 0x41; dec ecx; jnz l; out 0xf4, al; handler: inc dword [DATA]; iret
    let mut machine = flat(&[0xb9, 100, 0, 0, 0, 0xcd, 0x41, 0x49, 0x75, 0xfb, 0xe6, 0xf4]);
    handle(&mut machine, 0x41, &[0xff, 0x05, 0, 0x90, 0, 0, 0xcf]);
    assert_eq!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Exit(0));
    assert_eq!(read(&machine, DATA), 100);
    assert_eq!(machine.cpu.registers[register::ESP], STACK);
}

#[test]
fn ring_3_is_entered_and_left() {
    let Some(mut kvm) = kvm() else { return };
    // push 0x23; push DATA + 0x800; push 0x3002; push 0x1b; push r3; iret; r3: int 0x41
    let mut machine = flat(&[
        0x6a, 0x23, 0x68, 0, 0x98, 0, 0, 0x68, 0x02, 0x30, 0, 0, 0x6a, 0x1b, 0x68, 0x14, 0x10, 0,
        0, 0xcf, 0xcd, 0x41,
    ]);
    // mov ax, [esp + 4] (the CS it came from); out 0xf4, al
    handle(&mut machine, 0x41, &[0x8a, 0x44, 0x24, 0x04, 0xe6, 0xf4]);
    assert_eq!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Exit(0x1b));
    assert_eq!(machine.cpu.cpl, 0);
}

#[test]
fn a_guest_turns_paging_on() {
    let Some(mut kvm) = kvm() else { return };
    // mov eax, 0x10000; mov cr3, eax; mov eax, cr0; or eax, 1 << 31; mov cr0, eax;
    // mov eax, [0x400000 + DATA]; out 0xf4, al
    let mut machine = flat(&[
        0xb8, 0, 0, 1, 0, 0x0f, 0x22, 0xd8, 0x0f, 0x20, 0xc0, 0x0d, 0, 0, 0, 0x80, 0x0f, 0x22,
        0xc0, 0xa1, 0, 0x90, 0x40, 0, 0xe6, 0xf4,
    ]);
    place(&mut machine, DATA, &[0x5a]);
    // The first table maps the first 4 MiB twice.
    for entry in [0, 4] {
        place(&mut machine, 0x1_0000 + entry, &0x1_1007u32.to_le_bytes());
    }
    for page in 0..0x200 {
        place(&mut machine, 0x1_1000 + 4 * page, &(page << 12 | 7).to_le_bytes());
    }
    handle(&mut machine, 13, &[0xb0, 0xdd, 0xe6, 0xf4]);
    assert_eq!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Exit(0x5a));
    assert!(machine.cpu.paging());
    assert_eq!(read(&machine, 0x1_1000 + 4 * (DATA >> 12)) & 0x20, 0x20, "accessed");
}

#[test]
fn the_floating_point_unit_computes_and_keeps_its_state() {
    let Some(mut kvm) = kvm() else { return };
    // fninit; fld1; fldpi; faddp; fst qword [DATA]; out 0xf4, al; fstp qword [DATA + 8]; out 0xf4
    let mut machine = flat(&[
        0xdb, 0xe3, 0xd9, 0xe8, 0xd9, 0xeb, 0xde, 0xc1, 0xdd, 0x15, 0, 0x90, 0, 0, 0xe6, 0xf4,
        0xdd, 0x1d, 8, 0x90, 0, 0, 0xe6, 0xf4,
    ]);
    assert_eq!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Exit(0));
    // The sum was rounded (PE), the top of the stack is 7, one register is in use.
    assert_eq!(machine.cpu.fpu.area.0[2..5], [0x20, 0x38, 0x80]);
    assert_eq!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Exit(0));
    let sum = |at| {
        f64::from_bits(u64::from(read(&machine, at)) | u64::from(read(&machine, at + 4)) << 32)
    };
    assert_eq!(sum(DATA), 1.0 + std::f64::consts::PI);
    assert_eq!(sum(DATA + 8), sum(DATA));
    assert_eq!(machine.cpu.fpu.area.0[4], 0, "the stack is empty again");
}

#[test]
fn one_strategy_serves_two_machines_in_turn() {
    let Some(mut kvm) = kvm() else { return };
    // l: inc al; out 0xf4, al; jmp l
    let code = [0xfe, 0xc0, 0xe6, 0xf4, 0xeb, 0xfa];
    let mut machines = [real_mode(&code), flat(&code)];
    for round in 1..=3 {
        for machine in &mut machines {
            assert_eq!(kvm.run(machine, &soon()).unwrap(), Stop::Exit(round));
        }
    }
}

#[test]
fn the_time_stamp_counter_is_the_machines() {
    let Some(mut kvm) = kvm() else { return };
    // rdtsc; mov [DATA], eax; mov [DATA + 4], edx; out 0xf4, al
    let mut machine =
        flat(&[0x0f, 0x31, 0xa3, 0, 0x90, 0, 0, 0x89, 0x15, 4, 0x90, 0, 0, 0xe6, 0xf4]);
    machine.clock().set_tsc(1 << 40);
    let before = machine.clock().tsc();
    kvm.run(&mut machine, &soon()).unwrap();
    let after = machine.clock().tsc();
    let seen = u64::from(read(&machine, DATA)) | u64::from(read(&machine, DATA + 4)) << 32;
    let slack = 1 << 24;
    assert!(seen + slack > before && seen < after + slack, "{before:#x} {seen:#x} {after:#x}");
}

#[test]
fn an_interrupt_waits_for_its_window() {
    let Some(mut kvm) = kvm() else { return };
    // mov ecx, 30000; l: dec ecx; jnz l; (the timer has fired) mov [DATA + 4], 1; sti; nop; jmp $
    let mut machine = timer_guest(&[
        0xb9, 0x30, 0x75, 0, 0, 0x49, 0x75, 0xfd, 0xc7, 0x05, 4, 0x90, 0, 0, 1, 0, 0, 0, 0xfb,
        0x90, 0xeb, 0xfe,
    ]);
    // mov al, [DATA + 4]; out 0xf4, al
    handle(&mut machine, 0x20, &[0xa0, 4, 0x90, 0, 0, 0xe6, 0xf4]);
    assert!(!machine.cpu.flags.contains(Eflags::IF));
    assert_eq!(kvm.run(&mut machine, &soon()).unwrap(), Stop::Exit(1), "not before STI");
}
