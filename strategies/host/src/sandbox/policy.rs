//! What one guest's process needs after the sandbox has closed.

/// Private memory that a monitor may take beyond what it has: code caches, decoded blocks.
const PRIVATE_MEMORY: u64 = 1 << 30;

/// Address space that it may take: a few windows of 4 GiB each. Bounds the page tables that a
/// hostile guest can make the host allocate, to some 2 MiB a GiB.
const ADDRESS_SPACE: u64 = 64 << 30;

/// Bytes to which a file may grow.
const FILE_BYTES: u64 = 1 << 20;

/// What is needed. The constants suit a guest that writes no file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Guest code, or code made from it, runs on the host's CPU in this process: windows, the LDT,
    /// signals as exits.
    pub native_code: bool,
    /// The guest runs under KVM, whose device is open already.
    pub kvm: bool,
    /// Bytes of private memory beyond what is in use (RLIMIT_DATA). The guest's own memory is a
    /// file of fixed size and does not count.
    pub private_memory: u64,
    /// Bytes of address space beyond what is in use (RLIMIT_AS).
    pub address_space: u64,
    /// The size beyond which no file can be written (RLIMIT_FSIZE); none if there is no bound. Pipes
    /// and terminals do not count.
    pub file_bytes: Option<u64>,
}

impl Policy {
    /// For a guest that software executes.
    pub const SOFTWARE: Policy = Policy {
        native_code: false,
        kvm: false,
        private_memory: PRIVATE_MEMORY,
        address_space: ADDRESS_SPACE,
        file_bytes: Some(FILE_BYTES),
    };

    /// For a guest whose code, or code made from it, the host's CPU executes.
    pub const NATIVE: Policy = Policy { native_code: true, ..Policy::SOFTWARE };

    /// For a guest under KVM.
    pub const KVM: Policy = Policy { kvm: true, ..Policy::SOFTWARE };

    /// Descriptors that a strategy still opens: KVM's virtual machine and its CPU, by turns with
    /// those of the guest before a reset.
    pub(super) fn new_descriptors(&self) -> u64 {
        if self.kvm { 2 } else { 0 }
    }
}
