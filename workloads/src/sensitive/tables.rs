//! SGDT and SIDT: they show where the descriptor tables are, in every ring and without a trap.

use super::trap::{Ring, VARIABLES};
use crate::runtime::prelude::*;

/// Where the six bytes are stored.
const LIMIT: i32 = VARIABLES;
const BASE: i32 = VARIABLES + 2;

pub(super) fn sgdt(iterations: u32) -> Result<Image, Error> {
    assemble("sgdt", iterations, (layout::GDT, layout::GDT_ENTRIES * 8 - 1), |g| {
        x86!(g ; sgdt [VARIABLES]);
    })
}

pub(super) fn sidt(iterations: u32) -> Result<Image, Error> {
    assemble("sidt", iterations, (layout::IDT, 256 * 8 - 1), |g| x86!(g ; sidt [VARIABLES]))
}

fn assemble(
    name: &'static str,
    iterations: u32,
    (base, limit): (u32, u32),
    store: fn(&mut Guest),
) -> Result<Image, Error> {
    let mut g = Guest::for_probes(name);
    for (ring, base_name, limit_name) in
        [(Ring::Zero, "ring0-base", "ring0-limit"), (Ring::USER, "ring3-base", "ring3-limit")]
    {
        x86!(g ; mov DWORD [LIMIT], 0 ; mov DWORD [LIMIT + 4], 0);
        g.inside(ring, store);
        g.probe_variable(base_name, BASE, u32::MAX, base);
        g.probe_variable(limit_name, LIMIT, 0xFFFF, limit);
    }
    g.measure(iterations, |g| {
        store(g);
        x86!(g
            ; add ebx, [BASE]
            ; movzx eax, WORD [LIMIT]
            ; add ebx, eax
        );
    });
    g.finish(iterations.wrapping_mul(base + limit))
}
