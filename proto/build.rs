//! Generates the wire types from the .proto files with a pure-Rust compiler, so that no protoc is needed.

use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=stepcast");
    public()?;
    peers()
}

/// What people and workers speak, with its descriptors for reflection.
fn public() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("stepcast/v1");
    let mut files: Vec<PathBuf> = std::fs::read_dir(root)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "proto")
        })
        .collect();
    files.sort();
    let descriptors = protox::compile(&files, ["."])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(
        out.join("descriptors.bin"),
        prost::Message::encode_to_vec(&descriptors),
    )?;
    tonic_prost_build::configure()
        // The rare large variant lies apart, so that every renewal and progress report stays small.
        .boxed(".stepcast.v1.AttachResponse.order.assign")
        .boxed(".stepcast.v1.WatchJobResponse.update.current")
        // Their values are shown nowhere, whoever prints a message.
        .skip_debug([
            ".stepcast.v1.Credential",
            ".stepcast.v1.GiveCredentialsRequest",
            ".stepcast.v1.JobFile",
        ])
        .compile_fds(descriptors)?;
    Ok(())
}

/// What nodes speak among themselves: nobody else needs to know its shape.
fn peers() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(["stepcast/raft/v1/peer_service.proto"], ["."])?;
    tonic_prost_build::configure()
        // Frames are handed on as they came, without a copy.
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
