//! The `ringside` program: everything is in the library beside it, so that tests and benches reach it.

fn main() -> std::process::ExitCode {
    ringside::main()
}
