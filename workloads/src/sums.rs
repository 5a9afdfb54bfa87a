//! Sums in closed form, as guests add them up: modulo 2³². Checksums must be known for any number
//! of iterations without counting to it.

/// 1 + 2 + … + `last`.
pub(crate) fn sum_to(last: u32) -> u32 {
    let last = u64::from(last);
    (last * (last + 1) / 2) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_wraps_as_adding_does() {
        for last in [0, 1, 2, 0xFFFF, 200_000] {
            assert_eq!(sum_to(last), (1..=last).fold(0, u32::wrapping_add));
        }
        assert_eq!(sum_to(u32::MAX), 0x8000_0000);
    }
}
