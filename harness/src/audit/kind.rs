//! The kinds of privileged and sensitive instructions, and what each strategy does at one.
//!
//! Every fact about a kind stands once, in the list at the end; names, tables, CSV and plot come
//! from it. "Privileged" and "sensitive" are Popek and Goldberg's (1974), the silent ones those of
//! Robin and Irvine's *Analysis of the Intel Pentium's Ability to Support a Secure Virtual Machine
//! Monitor* (2000) with what came to the architecture since. Exceptions that a program raises on
//! purpose (INT3, INTO, BOUND, UD2) reach the monitor in every ring and are not counted.
//!
//! "Ring 3" is a guest kernel run at CPL 3 with IOPL 0 and an I/O bitmap that allows nothing, in a
//! process of a 64-bit Linux host.

use iced_x86::Mnemonic;
use std::sync::LazyLock;

/// What the instruction does when a guest's ring 0 is run in ring 3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// It raises an exception: the monitor gets control.
    Traps,
    /// It does something else than in ring 0, and nobody is told.
    Silent,
    /// It does the one or the other, as its operands will have it.
    Operands,
}

impl Class {
    /// All classes, in the order in which they are shown.
    pub const ALL: [Class; 3] = [Class::Silent, Class::Operands, Class::Traps];

    /// The name in tables and CSV files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Class::Traps => "traps",
            Class::Silent => "silent",
            Class::Operands => "operands",
        }
    }

    /// What it means.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Class::Traps => "privileged: traps in ring 3",
            Class::Silent => "sensitive, silent in ring 3",
            Class::Operands => "sensitive, its operands decide",
        }
    }
}

/// What code patching does with the instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patch {
    /// A jump to a stub that works on the virtual CPU, where there is room for the jump.
    Stub,
    /// One byte that traps: the work needs the monitor.
    TrapByte,
    /// Nothing: it traps by itself, and the work needs the monitor.
    Leave,
}

/// What binary translation makes of the instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Translation {
    /// Code in the cache that does the work.
    InCache,
    /// A call of the monitor, without a trap.
    Callout,
}

impl Translation {
    /// The name in tables and CSV files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Translation::InCache => "in cache",
            Translation::Callout => "callout",
        }
    }
}

/// What VT-x does with the instruction in VMX non-root operation, by the architecture and as KVM
/// sets it up with EPT. Names and numbers are the basic exit reasons of Intel SDM volume 3,
/// appendix "VMX Basic Exit Reasons".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hardware {
    /// The CPU executes it on the guest's state.
    Runs,
    /// It exits.
    Exits(&'static str),
    /// It runs, but for operands or settings that make it exit.
    MayExit(&'static str),
}

impl std::fmt::Display for Hardware {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Hardware::Runs => f.pad("runs"),
            Hardware::Exits(reason) => f.pad(&format!("exits: {reason}")),
            Hardware::MayExit(reason) => f.pad(&format!("runs, or exits: {reason}")),
        }
    }
}

macro_rules! kinds {
    ($($kind:ident = $name:literal [$($mnemonic:ident)*] $class:ident, $patch:ident,
        $translation:ident, $hardware:ident $(($reason:literal))?, $sdm:literal, $ring3:literal;)*) => {
        /// A kind of instruction that matters to a monitor.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Kind { $(#[doc = $name] $kind,)* }

        impl Kind {
            /// All kinds, in the order in which they are listed.
            pub const ALL: &[Kind] = &[$(Kind::$kind,)*];

            /// The name in tables, CSV files and plots.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)* }
            }

            /// What it does in ring 3.
            #[must_use]
            pub fn class(self) -> Class {
                match self { $(Kind::$kind => Class::$class,)* }
            }

            /// The same in words.
            #[must_use]
            pub fn in_ring3(self) -> &'static str {
                match self { $(Kind::$kind => $ring3,)* }
            }

            /// What code patching does with it.
            #[must_use]
            pub fn patch(self) -> Patch {
                match self { $(Kind::$kind => Patch::$patch,)* }
            }

            /// What binary translation makes of it.
            #[must_use]
            pub fn translation(self) -> Translation {
                match self { $(Kind::$kind => Translation::$translation,)* }
            }

            /// What VT-x does with it.
            #[must_use]
            pub fn hardware(self) -> Hardware {
                match self { $(Kind::$kind => Hardware::$hardware $(($reason))?,)* }
            }

            /// Where Intel's manual describes it.
            #[must_use]
            pub fn sdm(self) -> &'static str {
                match self { $(Kind::$kind => concat!("Intel SDM volume 2, ", $sdm),)* }
            }

            /// The mnemonics that are of this kind whatever their operands.
            fn mnemonics(self) -> &'static [Mnemonic] {
                match self { $(Kind::$kind => &[$(Mnemonic::$mnemonic),*],)* }
            }
        }
    };
}

#[rustfmt::skip]
kinds! {
    // Silent: Robin and Irvine's instructions, and their kin.
    Sgdt = "SGDT" [Sgdt] Silent, Stub, InCache, Runs, "SGDT",
        "sees the host's GDT register, or with UMIP a dummy";
    Sidt = "SIDT" [Sidt] Silent, Stub, InCache, Runs, "SIDT",
        "sees the host's IDT register, or with UMIP a dummy";
    Sldt = "SLDT" [Sldt] Silent, Stub, InCache, Runs, "SLDT",
        "sees the selector of the monitor's LDT, or with UMIP a dummy";
    Str = "STR" [Str] Silent, Stub, InCache, Runs, "STR",
        "sees the selector of the host's TSS, or with UMIP a dummy";
    Smsw = "SMSW" [Smsw] Silent, Stub, InCache, Runs, "SMSW",
        "sees the host's CR0, or with UMIP a dummy";
    Pushf = "PUSHF" [Pushf Pushfd] Silent, Stub, InCache, Runs, "PUSHF/PUSHFD",
        "sees IF set and IOPL 0, whatever the guest's are";
    Popf = "POPF" [Popf Popfd] Silent, Stub, InCache, Runs, "POPF/POPFD",
        "leaves IF and IOPL as they are: interrupts stay on or off";
    Lar = "LAR" [Lar] Silent, TrapByte, Callout, Runs, "LAR",
        "looks into the host's descriptor tables, with CPL 3";
    Lsl = "LSL" [Lsl] Silent, TrapByte, Callout, Runs, "LSL",
        "looks into the host's descriptor tables, with CPL 3";
    Verr = "VERR" [Verr] Silent, TrapByte, Callout, Runs, "VERR/VERW",
        "looks into the host's descriptor tables, with CPL 3";
    Verw = "VERW" [Verw] Silent, TrapByte, Callout, Runs, "VERR/VERW",
        "looks into the host's descriptor tables, with CPL 3";
    ReadCode = "read CS, SS" [] Silent, Stub, InCache, Runs, "MOV; PUSH",
        "sees a selector with RPL 3";
    ReadData = "read DS to GS" [] Silent, Stub, InCache, Runs, "MOV; PUSH",
        "sees the selector of the shadow descriptor";
    Cpuid = "CPUID" [Cpuid] Silent, Stub, InCache, Exits("CPUID (10)"), "CPUID",
        "sees the host's CPU, unless that has CPUID faulting";
    Xgetbv = "XGETBV" [Xgetbv] Silent, Stub, InCache, Runs, "XGETBV",
        "sees the host's XCR0";
    Sysenter = "SYSENTER, SYSCALL" [Sysenter Syscall] Silent, TrapByte, Callout, Runs,
        "SYSENTER; SYSCALL", "enters the host's kernel, not the guest's";
    Hypercall = "VMCALL, VMMCALL" [Vmcall Vmmcall] Operands, TrapByte, Callout,
        Exits("VMCALL (18)"), "VMCALL (volume 3)",
        "raises #UD, but on a host that is itself a guest calls the hypervisor below";

    // Silent or not: the selector, the vector, the flags popped, or a setting of the host decides.
    LoadSegment = "load segment" [Lds Les Lfs Lgs Lss] Operands, TrapByte, Callout, Runs,
        "MOV; POP; LDS/LES/LFS/LGS/LSS",
        "raises #GP, but loads null selectors and those of host descriptors that ring 3 may use";
    FarJump = "far JMP" [] Operands, TrapByte, Callout, MayExit("task switch (9)"), "JMP",
        "raises #GP, but goes through host selectors that ring 3 may use, 0x33 (64-bit code) too";
    FarCall = "far CALL" [] Operands, TrapByte, Callout, MayExit("task switch (9)"), "CALL",
        "raises #GP, but goes through host selectors that ring 3 may use; pushes CS with RPL 3";
    FarReturn = "far RET" [Retf] Operands, TrapByte, Callout, Runs, "RET",
        "raises #GP, but returns to selectors that ring 3 may use";
    Iret = "IRET" [Iret Iretd] Operands, TrapByte, Callout, MayExit("task switch (9)"),
        "IRET/IRETD", "raises #GP, but to a selector that ring 3 may use it returns, without IF and IOPL";
    Int = "INT n" [Int] Operands, TrapByte, Callout, MayExit("task switch (9)"), "INT n",
        "raises #GP; 0x80 is the host's system call, which syscall user dispatch turns into a signal";
    Rdtsc = "RDTSC" [Rdtsc Rdtscp] Operands, Stub, InCache, Runs, "RDTSC; RDTSCP",
        "reads the host's counter, but raises #GP where the host has set CR4.TSD (PR_SET_TSC)";
    Rdpmc = "RDPMC" [Rdpmc] Operands, TrapByte, Callout, Exits("RDPMC (15)"), "RDPMC",
        "raises #GP, but reads the host's counter where the host has set CR4.PCE";

    // Privileged (Intel SDM volume 3, "Privileged Instructions"), and those that obey IOPL.
    Cli = "CLI" [Cli] Traps, Stub, InCache, Runs, "CLI", "raises #GP";
    Sti = "STI" [Sti] Traps, Stub, InCache, Runs, "STI", "raises #GP";
    In = "IN" [In] Traps, Leave, Callout, Exits("I/O instruction (30)"), "IN", "raises #GP";
    Out = "OUT" [Out] Traps, Leave, Callout, Exits("I/O instruction (30)"), "OUT", "raises #GP";
    StringIo = "INS, OUTS" [Insb Insw Insd Outsb Outsw Outsd] Traps, Leave, Callout,
        Exits("I/O instruction (30)"), "INS; OUTS", "raises #GP";
    Hlt = "HLT" [Hlt] Traps, Leave, Callout, Exits("HLT (12)"), "HLT", "raises #GP";
    Lgdt = "LGDT" [Lgdt] Traps, Leave, Callout, Runs, "LGDT/LIDT", "raises #GP";
    Lidt = "LIDT" [Lidt] Traps, Leave, Callout, Runs, "LGDT/LIDT", "raises #GP";
    Lldt = "LLDT" [Lldt] Traps, Leave, Callout, Runs, "LLDT", "raises #GP";
    Ltr = "LTR" [Ltr] Traps, Leave, Callout, Runs, "LTR", "raises #GP";
    Lmsw = "LMSW" [Lmsw] Traps, Leave, Callout, MayExit("CR access (28)"), "LMSW", "raises #GP";
    Clts = "CLTS" [Clts] Traps, Stub, InCache, MayExit("CR access (28)"), "CLTS", "raises #GP";
    ReadCr0 = "read CR0" [] Traps, Stub, InCache, Runs, "MOV to/from control registers", "raises #GP";
    ReadCr2 = "read CR2" [] Traps, Stub, InCache, Runs, "MOV to/from control registers", "raises #GP";
    ReadCr3 = "read CR3" [] Traps, Stub, InCache, Runs, "MOV to/from control registers", "raises #GP";
    ReadCr4 = "read CR4" [] Traps, Stub, InCache, Runs, "MOV to/from control registers", "raises #GP";
    WriteCr0 = "write CR0" [] Traps, Leave, Callout, MayExit("CR access (28)"),
        "MOV to/from control registers", "raises #GP";
    WriteCr2 = "write CR2" [] Traps, Stub, InCache, Runs, "MOV to/from control registers", "raises #GP";
    WriteCr3 = "write CR3" [] Traps, Leave, Callout, Runs, "MOV to/from control registers",
        "raises #GP";
    WriteCr4 = "write CR4" [] Traps, Leave, Callout, MayExit("CR access (28)"),
        "MOV to/from control registers", "raises #GP";
    DebugRegister = "read, write DR" [] Traps, Leave, Callout, MayExit("DR access (29)"),
        "MOV to/from debug registers", "raises #GP";
    Invlpg = "INVLPG" [Invlpg Invpcid] Traps, Leave, Callout, Runs, "INVLPG; INVPCID", "raises #GP";
    CacheFlush = "INVD, WBINVD" [Invd Wbinvd Wbnoinvd] Traps, Leave, Callout,
        Exits("INVD (13), WBINVD (54)"), "INVD; WBINVD", "raises #GP";
    Rdmsr = "RDMSR" [Rdmsr] Traps, Leave, Callout, MayExit("RDMSR (31)"), "RDMSR", "raises #GP";
    Wrmsr = "WRMSR" [Wrmsr] Traps, Leave, Callout, MayExit("WRMSR (32)"), "WRMSR", "raises #GP";
    Sysexit = "SYSEXIT, SYSRET" [Sysexit Sysret] Traps, Leave, Callout, Runs, "SYSEXIT; SYSRET",
        "raises #GP";
    Rsm = "RSM" [Rsm] Traps, Leave, Callout, Exits("RSM (17)"), "RSM", "raises #UD";
    Monitor = "MONITOR, MWAIT" [Monitor Mwait] Traps, Leave, Callout,
        Exits("MWAIT (36), MONITOR (39)"), "MONITOR; MWAIT", "raises #UD";
    Smap = "CLAC, STAC" [Clac Stac] Traps, Leave, Callout, Runs, "CLAC; STAC", "raises #UD";
    Xsetbv = "XSETBV" [Xsetbv] Traps, Leave, Callout, Exits("XSETBV (55)"), "XSETBV", "raises #GP";
    Vmx = "VT-x, SVM" [
        Vmclear Vmfunc Vmlaunch Vmptrld Vmptrst Vmread Vmresume Vmwrite Vmxoff Vmxon Invept Invvpid
        Vmload Vmrun Vmsave Stgi Clgi Skinit Invlpga
    ] Traps, Leave, Callout, Exits("each its own (19 to 27, 50, 53)"),
        "VMX instructions (volume 3)", "raises #UD or #GP";
    OtherPrivileged = "other privileged" [] Traps, Leave, Callout, Runs, "each under its name",
        "raises #GP or #UD";
}

impl Kind {
    /// The kind that this mnemonic is whatever its operands, if it is one.
    pub(super) fn of_mnemonic(mnemonic: Mnemonic) -> Option<Kind> {
        static KINDS: LazyLock<Vec<Option<Kind>>> = LazyLock::new(|| {
            let mut kinds = vec![None; Mnemonic::values().len()];
            for &kind in Kind::ALL {
                for &mnemonic in kind.mnemonics() {
                    kinds[mnemonic as usize] = Some(kind);
                }
            }
            kinds
        });
        KINDS[mnemonic as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_mnemonic_and_no_name_stands_twice() {
        let mut mnemonics: Vec<Mnemonic> =
            Kind::ALL.iter().flat_map(|kind| kind.mnemonics()).copied().collect();
        let mut names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        let before = (mnemonics.len(), names.len());
        mnemonics.sort();
        mnemonics.dedup();
        names.sort_unstable();
        names.dedup();
        assert_eq!((mnemonics.len(), names.len()), before);
    }

    #[test]
    fn silent_instructions_are_never_left_to_trap() {
        for kind in Kind::ALL.iter().filter(|kind| kind.class() != Class::Traps) {
            assert_ne!(kind.patch(), Patch::Leave, "{}", kind.name());
        }
    }
}
