//! Binary translation: the guest's own bytes never run; they are translated, mostly one to one, into
//! a cache of 64-bit code (Adams & Agesen, *A Comparison of Software and Hardware Techniques for x86
//! Virtualization*, 2006).
//!
//! The eight guest registers live in the eight legacy host registers, but for ESP, which is R14:
//! RSP is a stack of host return addresses, so that the host's return predictor serves the guest.
//! EFLAGS is the host's. GS's base is a window's, in which the host's MMU does the guest's paging,
//! and a memory operand becomes `gs:` with 32-bit address size. R13 points to the context, R15 to what
//! polls read; the rest of R8 to R15 is scratch. Translated code can reach nothing outside its window and
//! its context.
//!
//! With [`User::Direct`] only the kernel is translated: ring 3 runs natively, in the window at linear
//! address 0 that direct execution has. It saves what translated user code is slower by, costs a signal
//! at each entry into the kernel, and what is sensitive in ring 3 goes wrong.
//!
//! From the top: `engine` runs units and handles what ends them; `translate` makes them;
//! `cache` keeps them; `calls` has what they call; `space` and `view` keep the windows.

mod cache;
mod calls;
mod class;
mod context;
mod emit;
mod engine;
mod explain;
mod memory;
mod mode;
mod options;
mod sites;
mod space;
mod stubs;
mod translate;
mod view;

pub use cache::Statistics;
pub use direct_execution::Divergence;
pub use explain::{Explained, explain};
pub use options::{Options, User};

use direct_execution::UserCode;

use engine::Engine;
use machine::Machine;
use sites::{Sites, Testing};
use strategy::{Error, ExitCounts, Limit, Stop, Strategy, StrategyId, Support};

/// VMware's strategy.
pub struct BinaryTranslation {
    engine: Engine,
}

/// AT_HWCAP2: RDFSBASE and its kin may be used (Linux 5.9).
const HWCAP2_FSGSBASE: libc::c_ulong = 1 << 1;

/// Whether this host can run guests so.
#[must_use]
pub fn support() -> Support {
    // SAFETY: only asks for a number.
    let hwcap2 = unsafe { libc::getauxval(libc::AT_HWCAP2) };
    if hwcap2 & HWCAP2_FSGSBASE == 0 {
        Support::Missing("no FSGSBASE (Linux 5.9 and a CPU of 2013 have it)".to_owned())
    } else if !std::arch::is_x86_feature_detected!("bmi2") {
        Support::Missing("no BMI2 (CPUs of 2013 have it)".to_owned())
    } else {
        Support::Full
    }
}

impl BinaryTranslation {
    /// A translator whose cache is empty.
    ///
    /// # Errors
    /// When the host lacks something or gives no memory.
    pub fn new() -> Result<BinaryTranslation, Error> {
        BinaryTranslation::with_sites(Sites::default())
    }

    /// The same with options.
    ///
    /// # Errors
    /// As [`BinaryTranslation::new`]; when user code is to run natively, also where the host does not
    /// allow that ([`direct_execution::support`]).
    pub fn with_options(options: Options) -> Result<BinaryTranslation, Error> {
        let mut made = BinaryTranslation::new()?;
        if options.user == User::Direct {
            if let Support::Missing(reason) = direct_execution::support() {
                return Err(Error::Unsupported { strategy: StrategyId::BinaryTranslation, reason });
            }
            made.engine.run_user_natively(UserCode::new(StrategyId::BinaryTranslation));
        }
        Ok(made)
    }

    /// Where user code runs natively: runs the guest one instruction at a time, for at most `most` of
    /// them, and returns the first of ring 3's that is executed otherwise than the architecture says.
    ///
    /// # Errors
    /// When the host fails.
    pub fn watch(machine: &mut Machine, most: u64) -> Result<Option<Divergence>, Error> {
        UserCode::new(StrategyId::BinaryTranslation).watch(machine, most)
    }

    /// For tests: a translator to which every memory access is guilty before it was tried, so that
    /// all of them go through the software TLB.
    ///
    /// # Errors
    /// As [`BinaryTranslation::new`].
    #[doc(hidden)]
    pub fn with_all_sites_guilty() -> Result<BinaryTranslation, Error> {
        let testing = Testing { all_guilty: true, ..Testing::default() };
        BinaryTranslation::with_sites(Sites::for_tests(testing))
    }

    /// For tests of what finds errors in strategies, lockstep runs among it: a translator that is
    /// wrong in one instruction. ADC of two 32-bit registers (opcodes 0x11 and 0x13) leaves the
    /// inverse of CF; its result and all else is right.
    ///
    /// # Errors
    /// As [`BinaryTranslation::new`].
    #[doc(hidden)]
    pub fn with_planted_error() -> Result<BinaryTranslation, Error> {
        let testing = Testing { planted_error: true, ..Testing::default() };
        BinaryTranslation::with_sites(Sites::for_tests(testing))
    }

    fn with_sites(sites: Sites) -> Result<BinaryTranslation, Error> {
        if let Support::Missing(reason) = support() {
            return Err(Error::Unsupported { strategy: StrategyId::BinaryTranslation, reason });
        }
        Ok(BinaryTranslation { engine: Engine::new(sites)? })
    }

    /// What the code cache has done.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.engine.statistics()
    }
}

impl Drop for BinaryTranslation {
    fn drop(&mut self) {
        tracing::debug!(statistics = ?self.statistics(), "code cache");
    }
}

impl Strategy for BinaryTranslation {
    fn id(&self) -> StrategyId {
        StrategyId::BinaryTranslation
    }

    fn run(&mut self, machine: &mut Machine, limit: &Limit) -> Result<Stop, Error> {
        self.engine.run(machine, limit)
    }

    fn exits(&self) -> &ExitCounts {
        self.engine.exits()
    }
}
