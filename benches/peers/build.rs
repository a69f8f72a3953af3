//! Compiles what the bare echo answers: the gateway's own contract, with protox, as the gateway does.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=../../proto");
    let contract = protox::compile(["roomcast/v1/publish.proto"], ["../../proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(contract)?;
    Ok(())
}
