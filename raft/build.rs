//! Compiles `proto/proto/raft.proto` without an external protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Read when it runs: a target folder may serve a checkout that has moved since.
    let root = format!("{}/../proto/proto", std::env::var("CARGO_MANIFEST_DIR")?);
    println!("cargo:rerun-if-changed={root}/raft.proto");
    let files = protox::compile(["raft.proto"], [&root])?;
    // Every `bytes` field becomes a `Bytes`: entries and frames are slices of the receive buffer.
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(files)?;
    Ok(())
}
