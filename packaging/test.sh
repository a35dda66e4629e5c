#!/usr/bin/env bash
# Sets up what is needed and runs every check and every test.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
./packaging/setup.sh --tests
[ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"
export PATH=$PWD/.deps/tools/bin:$PATH
export EDGEWARDEN_ONNXRUNTIME=${EDGEWARDEN_ONNXRUNTIME:-$PWD/.deps/onnxruntime/libonnxruntime.so}

step() { printf '\n=== %s\n' "$*" >&2; }
has_component() { cargo "$1" --version >/dev/null 2>&1; }

step "formatting"
if has_component fmt; then cargo fmt --check; else echo "skipped: run 'rustup component add rustfmt'" >&2; fi

step "clippy"
if has_component clippy; then
    cargo clippy --locked --all-targets -- -D warnings
else
    echo "skipped: run 'rustup component add clippy'" >&2
fi

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --quiet

step "tests"
if has_component nextest; then
    cargo nextest run --locked --no-fail-fast
    cargo test --locked --doc --quiet
else
    cargo test --locked --no-fail-fast
fi

# Licences, sources, bans: needs no network once the dependencies are there.
step "licences and sources (cargo deny)"
if has_component deny; then
    cargo deny --offline check bans licenses sources
else
    echo "skipped: cargo-deny is not there ('packaging/setup.sh --cargo-deny' builds it)" >&2
fi

# Advisories need their database, which is fetched from the network.
step "advisories (cargo audit)"
if ! has_component audit; then
    echo "skipped: cargo-audit is not installed ('cargo install --locked cargo-audit')" >&2
elif report=$(cargo audit --json 2>/dev/null); then
    echo "no known advisories" >&2
elif [ -n "$report" ]; then
    cargo audit >&2
    exit 1
else
    echo "skipped: the advisory database cannot be fetched" >&2
fi

step "all good"
