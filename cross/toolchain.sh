# shellcheck shell=bash
# Sourced by the scripts beside it, in the top folder of the repository: what builds for another processor.
#
#   toolchain MACHINE    x86_64 or aarch64: finds or fetches the tools, sets `target` and `tools` (of Rust:
#                        `rustup` or `Debian`), and exports what `zig_cargo` needs
#   zig_cargo ARGUMENT…  cargo-zigbuild with them; with cargo-auditable, where packaging/setup.sh --packages put it
#
# zig compiles the C libraries and links, against the symbols of glibc 2.31. Rust's own library for the target comes
# from the installed Rust where that has it (`rustup target add`), else from Debian 12's packages, unpacked into .deps.

# Debian 12's Rust for its web browser; it moves with the browser's needs.
debian_rust=1.96

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Installs what is missing with apt, as packaging/setup.sh does.
need() {
    local missing=()
    while [ $# -ge 2 ]; do
        command -v "$1" >/dev/null || missing+=("$2")
        shift 2
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local root=(sudo)
    [ "$(id -u)" != 0 ] || root=(env)
    command -v apt-get >/dev/null || die "missing: ${missing[*]}; install them and run this again"
    say "installing with apt: ${missing[*]}"
    "${root[@]}" apt-get -o DPkg::Lock::Timeout=300 update -q >&2
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -q -y \
        --no-install-recommends "${missing[@]}" >&2
}

# Has the installed Rust the library of the target?
has_target() {
    local sysroot
    sysroot=$(rustc --print sysroot 2>/dev/null) && [ -d "$sysroot/lib/rustlib/$target/lib" ]
}

# Rust from Debian's packages, as $RUSTC. Its compiler and its library for this machine, and that for the target.
debian_toolchain() {
    local here arch=$1 folder=$PWD/.deps/rust-$debian_rust-$1 wanted
    here=$(dpkg --print-architecture) || die "Rust has no library for $target: rustup target add $target"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    [ "$(printf '%s\n' "$wanted" "$debian_rust" | sort -V | head -n1)" = "$wanted" ] ||
        die "Debian's Rust $debian_rust is older than the $wanted that is needed: rustup target add $target"
    local packages=("rustc-web=$debian_rust.*" "libstd-rust-web-$debian_rust+" "libstd-rust-web-dev=$debian_rust.*")
    [ "$arch" = "$here" ] || packages+=("libstd-rust-web-dev:$arch=$debian_rust.*")
    cross/debian.sh "$folder" "${packages[@]}"
    # Unpacked elsewhere than it was made for, it does not find its libraries; what it starts shall not find them.
    local libraries loader
    libraries=$(find "$folder/lib" "$folder/usr/lib" -maxdepth 1 -name '*-linux-gnu' | paste -sd:)
    loader=$(readelf --program-headers --wide "$folder/usr/bin/rustc" | sed -n 's/.*interpreter: \(.*\)]/\1/p')
    cat >"$folder/rustc" <<WRAPPER
#!/bin/sh
exec '$loader' --library-path '$libraries' '$folder/usr/bin/rustc' "\$@"
WRAPPER
    chmod +x "$folder/rustc"
    export RUSTC=$folder/rustc
    [ -d "$("$RUSTC" --print sysroot)/lib/rustlib/$target/lib" ] ||
        die "Debian's Rust $debian_rust in $folder has no library for $target; delete that folder and run this again"
}

toolchain() {
    local arch python remap cargo_home
    case $1 in
    x86_64) target=x86_64-unknown-linux-gnu arch=amd64 ;;
    aarch64) target=aarch64-unknown-linux-gnu arch=arm64 ;;
    *) die "$1: use aarch64 or x86_64" ;;
    esac
    need cmake cmake make make readelf binutils python3 python3
    # JPEG decoding in assembler; on ARM the C compiler suffices.
    [ "$arch" != amd64 ] || need nasm nasm
    [ -x "$(command -v cargo)" ] || [ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
    command -v cargo >/dev/null || die "Rust is missing: install it from https://rustup.rs, then run this again"

    python=$PWD/$(packaging/venv.sh cross --requirement cross/requirements.txt)
    export CARGO_ZIGBUILD_PYTHON_PATH=$python
    export CARGO_ZIGBUILD_CACHE_DIR=$PWD/.deps/zig ZIG_GLOBAL_CACHE_DIR=$PWD/.deps/zig/cache
    zigbuild=$(dirname "$python")/cargo-zigbuild

    tools=rustup
    if ! has_target; then
        tools=Debian
        debian_toolchain "$arch"
    fi
    say "$target with $("${RUSTC:-rustc}" --version), zig $("$python" -m ziglang version)"

    # No paths of this machine in the program: two machines make the same one.
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    remap=$(printf '\x1f--remap-path-prefix=%s' "$cargo_home=/cargo" "$PWD=/edgewarden")
    export CARGO_ENCODED_RUSTFLAGS="${CARGO_ENCODED_RUSTFLAGS-}$remap"
    CARGO_ENCODED_RUSTFLAGS=${CARGO_ENCODED_RUSTFLAGS#$'\x1f'}
    local flags="-ffile-prefix-map=$cargo_home=/cargo -ffile-prefix-map=$PWD=/edgewarden"
    export "CFLAGS_${target//-/_}=$flags" "CXXFLAGS_${target//-/_}=$flags"
}

zig_cargo() {
    if [ "$1" = zigbuild ] && [ -x .deps/tools/bin/cargo-auditable ]; then
        # It starts what it builds with by name.
        PATH=$PWD/.deps/tools/bin:$(dirname "$zigbuild"):$PATH cargo auditable "$@"
    else
        "$zigbuild" "$@"
    fi
}
