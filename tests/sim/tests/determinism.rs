//! A seed run twice does the same: every line of the members' own logs and every byte between them,
//! at the same nanosecond.

use std::process::Command;

fn run(seed: u64) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_raftmq-sim"))
        .arg(seed.to_string())
        .env("RUST_LOG", "debug,raftmq_sim=trace")
        .output()
        .expect("the simulation");
    output.stdout
}

#[test]
fn seeds_replay_exactly() {
    for seed in 0..12 {
        let (once, again) = (run(seed), run(seed));
        assert!(once.len() > 100_000, "seed {seed} says hardly anything");
        let differ = once.split(|byte| *byte == b'\n');
        let differ = differ
            .zip(again.split(|byte| *byte == b'\n'))
            .find(|(one, two)| one != two);
        if let Some((one, two)) = differ {
            let (one, two) = (String::from_utf8_lossy(one), String::from_utf8_lossy(two));
            panic!("seed {seed} differs:\n{one}\n{two}");
        }
        assert_eq!(once.len(), again.len(), "seed {seed}");
    }
}
