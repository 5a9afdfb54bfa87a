//! "Did you mean": the known name that is nearest to an unknown one.

/// A message about the unknown `name`: with the nearest of `known`, or else all of them.
#[must_use]
pub(super) fn unknown<S: AsRef<str>>(what: &str, name: &str, known: &[S]) -> String {
    match nearest(name, known) {
        Some(near) => format!("unknown {what} {name:?}; did you mean {near:?}?"),
        None => {
            let known: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
            format!("unknown {what} {name:?}; known are {}", known.join(", "))
        }
    }
}

/// The nearest of `known`, if it is near enough to be meant.
fn nearest<'a, S: AsRef<str>>(name: &str, known: &'a [S]) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).max(1);
    let by_distance = known.iter().map(|known| (distance(name, known.as_ref()), known.as_ref()));
    by_distance.min().filter(|&(distance, _)| distance <= allowed).map(|(_, known)| known)
}

/// The fewest insertions, deletions, substitutions and swaps of neighbours that lead from `a` to
/// `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let plain = change.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if swapped { plain.min(table[i - 2][j - 2] + 1) } else { plain }
            };
        }
    }
    table[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised() {
        let message = unknown("key", "smaples", &["strategies", "samples"]);
        assert_eq!(message, "unknown key \"smaples\"; did you mean \"samples\"?");
    }

    #[test]
    fn a_strange_name_gets_the_list() {
        let message = unknown("group", "zebra", &["nano", "compute"]);
        assert_eq!(message, "unknown group \"zebra\"; known are nano, compute");
    }

    #[test]
    fn distances_count_swaps_once() {
        assert_eq!(distance("sieve", "seive"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kernel", "kernal"), 1);
    }
}
