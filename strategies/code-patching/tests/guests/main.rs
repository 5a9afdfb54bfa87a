//! Small guests under code patching: those of trap-and-emulate, and what only patched code gets right.

#[macro_use]
#[expect(dead_code, reason = "some of it serves tests of trap-and-emulate alone")]
#[path = "../../../trap-and-emulate/tests/guests/guest.rs"]
mod guest;

#[path = "../../../trap-and-emulate/tests/guests/float.rs"]
mod float;
#[path = "../../../trap-and-emulate/tests/guests/limits.rs"]
mod limits;
#[path = "../../../trap-and-emulate/tests/guests/modes.rs"]
mod modes;
#[path = "../../../trap-and-emulate/tests/guests/moving.rs"]
mod moving;
#[path = "../../../trap-and-emulate/tests/guests/paging.rs"]
mod paging;
#[path = "../../../trap-and-emulate/tests/guests/privilege.rs"]
mod privilege;
#[path = "../../../trap-and-emulate/tests/guests/random.rs"]
mod random;
#[path = "../../../trap-and-emulate/tests/guests/time.rs"]
mod time;
#[path = "../../../trap-and-emulate/tests/guests/traps.rs"]
mod traps;

mod on_trap;
mod patches;
mod records;
mod transparency;

use code_patching::{CodePatching, Options};

/// The strategy under test.
type Native = CodePatching;

fn native() -> Native {
    CodePatching::new(Options::default()).expect("the host has memory for it")
}

const PUSHF_SHOWS_HOST: bool = false;
