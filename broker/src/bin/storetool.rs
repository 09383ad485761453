//! `storetool`: looks at a member's store while the member is stopped, and imports RocketMQ's.

fn main() -> std::process::ExitCode {
    raftmq_broker::storetool::main(std::env::args_os())
}
