//! The program `kafka-scheduler`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kafka_scheduler::internal::main()
}
