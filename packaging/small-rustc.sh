#!/usr/bin/env bash
# A part of small.sh: Cargo calls it as its RUSTC_WRAPPER, with the compiler and its arguments.
#
# The compiler makes one program of all crates at the end, and the level of that step decides for all of them whether
# loops may be vectorised: it gets that of speed, at which each function keeps what it was built for. With frame
# pointers, what unwinding needs is told once for a function and not at every push: the tables for it become smaller.
# The linker lays what a waiting agent needs side by side (waiting.sh).
set -euo pipefail
more=()
case " $* " in
*" --crate-name "*) more=(-C force-frame-pointers=yes) ;;
esac
case " $* " in
*" lto=fat "* | *" lto "*) more+=(-C opt-level=3) ;;
*" --crate-name edgewarden "*"--crate-type lib "*)
    # Without `minsize`, a function of this name is as fast as at the level of speed, with all that is inlined into it.
    # Sorted: the order is a part of what the compiler marks the crate with.
    for name in $(grep -rhoE 'export_name = "hot_[a-z0-9_]+"' "$CARGO_MANIFEST_DIR/src" | cut -d'"' -f2 | sort); do
        more+=(-C "llvm-args=-force-remove-attribute=$name:minsize -force-remove-attribute=$name:optsize")
    done
    ;;
esac
case " $* " in
*" --crate-name edgewarden "*"--crate-type bin "*)
    more+=(-C "link-arg=-Wl,-T,$CARGO_MANIFEST_DIR/packaging/waiting.ld")
    ;;
esac
exec "$@" "${more[@]}"
