//! Compiles the contract with protox, so that no `protoc` has to be installed.

use std::{env, error::Error, fs, path::PathBuf};

/// The files of the contract; what they import is found by itself.
const FILES: [&str; 19] = [
    "roomcast/v1/types.proto",
    "roomcast/v1/publish.proto",
    "roomcast/v1/room.proto",
    "roomcast/v1/user.proto",
    "roomcast/v1/connection.proto",
    "roomcast/v1/access.proto",
    "roomcast/v1/subscribe.proto",
    "roomcast/v1/watch.proto",
    "roomcast/backend/v1/authorizer.proto",
    "roomcast/backend/v1/client_event.proto",
    "roomcast/client/v1/client.proto",
    "roomcast/node/v1/control.proto",
    "roomcast/node/v1/event.proto",
    "roomcast/node/v1/node.proto",
    "roomcast/node/v1/order.proto",
    "roomcast/node/v1/presence.proto",
    "roomcast/node/v1/relay.proto",
    "roomcast/node/v1/session.proto",
    "roomcast/node/v1/settings.proto",
];

#[allow(
    clippy::disallowed_methods,
    reason = "cargo tells a build script its folder in the environment"
)]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(FILES)?;

    // Reflection serves these bytes, comments included.
    let out = PathBuf::from(env::var("OUT_DIR")?).join("roomcast.bin");
    fs::write(out, compiler.encode_file_descriptor_set())?;

    // Payload bytes stay slices of the received buffer instead of copies.
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
