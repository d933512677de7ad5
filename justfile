# `just` lists these. Each line is plain cargo: copy it where just is not installed.

_default:
    @just --list --unsorted

# Format, lints and the tests that start no process: under two minutes once built.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo test --workspace --locked --lib --test layers --test core --test model --test sim

# All tests but those that need other programs (docs/localnet.md names those).
test:
    cargo test --workspace --locked

# Three hosts, a small chain, a lost host.
demo:
    cargo run --release -p localnet

# Random faults for a while; needs root for network namespaces and disks.
nemesis rounds="20":
    cargo run --release --locked -p localnet -- nemesis --rounds {{rounds}}

# An hour of one network, looking for what grows.
soak:
    cargo run --release --locked -p localnet -- soak

# Each fault alone, measured.
bench rounds="5":
    cargo run --release --locked -p localnet -- bench --rounds {{rounds}}

# Everything that must hold of a fresh clone; needs root and Debian.
ci:
    .ci/run
