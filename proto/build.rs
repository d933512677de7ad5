//! Compiles the protocol files with protox, so that no `protoc` is needed on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let own = ["raft", "store", "gossip", "admin", "relay", "join", "signer"]
        .map(|name| format!("proto/baton/v1/{name}.proto"));
    let of_the_chain = ["canonical", "privval"].map(|name| format!("proto/cometbft/{name}.proto"));
    let files = own.into_iter().chain(of_the_chain);
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    println!("cargo::rerun-if-changed=proto");
    Ok(())
}
