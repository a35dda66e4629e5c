#!/usr/bin/env bash
# Builds the program for another processor, or for older systems than this one, on any Debian (and with rustup's
# target on any Linux), without containers:
#
#   cross/build.sh aarch64|x86_64 [ARGUMENT OF CARGO…]
#
# Prints the path of the program, in target/cross; everything else goes to standard error. The program needs glibc 2.31
# or newer, which is checked. It is a release without symbols, built small (packaging/small.sh), unless the arguments
# name another profile.
# What is fetched (zig, cargo-zigbuild, Rust's library for the target) lies in .deps; see README.md beside this.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec 3>&1 1>&2
. cross/toolchain.sh

[ $# -ge 1 ] || { sed -n '5s/^#   //p' "${BASH_SOURCE[0]}"; exit 64; }
machine=$1
shift
toolchain "$machine"

profile='' before=''
for argument in "$@"; do
    [ "$before" != --profile ] || profile=$argument
    case $argument in --profile=*) profile=${argument#--profile=} ;; esac
    before=$argument
done
[ -n "$profile" ] || set -- --release "$@"
[ "${profile:-release}" != release ] || . packaging/small.sh
folder=${profile:-release}
[ "$folder" != dev ] || folder=debug

export CARGO_PROFILE_RELEASE_STRIP=${CARGO_PROFILE_RELEASE_STRIP:-symbols}
zig_cargo zigbuild --locked --bin edgewarden --target "$target.2.31" --target-dir target/cross "$@"

program=$PWD/target/cross/$target/$folder/edgewarden
glibc=$(cross/floor.sh "$program" "$machine")
say "$program: $(stat -c %s "$program") bytes, starts with glibc $glibc and newer"
echo "$program" >&3
