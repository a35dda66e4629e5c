#!/usr/bin/env bash
# Sets up all that is needed to build, test and show Edgewarden on Debian 12+ or Ubuntu 22.04+.
#
# Installs only what is missing, says what it does, and can be run again at any time. What it fetches
# lies in .deps/ beside the sources; nothing else outside apt's packages is changed.
#
# With --tests it also installs what only some tests need: ffmpeg, GStreamer and an RTSP server for stream
# sources; age for encrypted models; from PyPI, each in a Python environment of its own, securesystemslib for the
# signed commands, model_signing for signed models and the reference TUF client for the repository. Without them those
# tests say that they are skipped.
# With --packages it also installs what only packaging/build-debs.sh needs: lintian, strip for the other
# architecture, and three Cargo tools at fixed versions, which it builds. With --cargo-deb only those of them that
# `build-debs.sh --quick` needs. With --cargo-deny it builds the tool that reads licences and sources.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

with_tests=no with_packages=no with_deny=no
for argument in "$@"; do
    case $argument in
    --tests) with_tests=yes ;;
    --packages) with_packages=yes ;;
    --cargo-deb) [ "$with_packages" = yes ] || with_packages=quick ;;
    --cargo-deny) with_deny=yes ;;
    *) printf 'usage: packaging/setup.sh [--tests] [--packages | --cargo-deb] [--cargo-deny]\n' >&2; exit 64 ;;
    esac
done

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# ---- packages ----

# A program may be where only root's PATH looks.
have() { command -v "$1" >/dev/null || [ -x "/usr/sbin/$1" ]; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif have sudo; then sudo "$@"
    else die "needs root for: $* (run that as root, then run this again)"
    fi
}

missing=()
want() { have "$1" || missing+=("$2"); }
want cc gcc
want c++ g++
want make make
want cmake cmake
want mosquitto mosquitto
# The tests make certificates with it.
want openssl openssl
want python3 python3
# JPEG decoding in assembler; on ARM the C compiler suffices.
[ "$(uname -m)" != x86_64 ] || want nasm nasm

if [ "$with_tests" = yes ]; then
    want ffmpeg ffmpeg
    want curl curl
    want age age
    want gst-launch-1.0 gstreamer1.0-tools
    # Not programs: asked for by their packages.
    for package in gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad \
        gstreamer1.0-libav gir1.2-gst-rtsp-server-1.0 python3-gi; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
    done
fi

if [ "$with_packages" != no ]; then
    want readelf binutils
    want "$(uname -m)-linux-gnu-strip" binutils
    want git git
fi
if [ "$with_packages" = yes ]; then
    want x86_64-linux-gnu-strip binutils-x86-64-linux-gnu
    want aarch64-linux-gnu-strip binutils-aarch64-linux-gnu
    want lintian lintian
    want apt-ftparchive apt-utils
    want gpg gpg
fi

library=.deps/onnxruntime/libonnxruntime.so

# Version, machine and digest of the library that is wanted here.
read -r version _ digest < <(awk -v machine="$(uname -m)" '$2 == machine' packaging/onnxruntime.sha256) ||
    die "there is no pinned ONNX Runtime for $(uname -m); put one for it at $library and its digest in packaging/onnxruntime.sha256"

is_wanted() { [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d' ' -f1)" = "$digest" ]; }

if ! is_wanted "$library" && ! python3 -m pip --version >/dev/null 2>&1; then
    missing+=(python3-pip)
fi

if [ ${#missing[@]} -gt 0 ]; then
    have apt-get || die "missing: ${missing[*]}; this script can install them only with apt, so install them and run this again"
    say "installing with apt: ${missing[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
else
    say "compiler, cmake, mosquitto and openssl are there"
    [ "$with_tests" = no ] || say "ffmpeg, GStreamer, its RTSP server and age are there"
fi

# ---- Rust ----

[ -x "$(command -v cargo)" ] || [ ! -f "$HOME/.cargo/env" ] || . "$HOME/.cargo/env"
have cargo || die "Rust is missing: install it from https://rustup.rs, then run this again"
wanted_rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
found_rust=$(rustc --version | cut -d' ' -f2)
[ "$(printf '%s\n' "$wanted_rust" "$found_rust" | sort -V | head -n1)" = "$wanted_rust" ] ||
    die "Rust $found_rust is too old, $wanted_rust or newer is needed: run 'rustup update stable'"
say "Rust $found_rust is there"

# ---- ONNX Runtime ----

if is_wanted "$library"; then
    say "ONNX Runtime $version is there"
else
    [ ! -e "$library" ] || say "$library is not the pinned ONNX Runtime $version and will be replaced"
    say "fetching ONNX Runtime $version for $(uname -m) from PyPI"
    mkdir -p "$(dirname "$library")"
    scratch=$(mktemp -d "$(dirname "$library")/fetch.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    # Any Python will do: the wheel is only unpacked, never installed.
    python3 -m pip download "onnxruntime==$version" --quiet --disable-pip-version-check --no-deps \
        --only-binary=:all: --platform "manylinux_2_28_$(uname -m)" --python-version 3.12 \
        --implementation cp --abi cp312 --dest "$scratch"
    python3 - "$scratch" <<'PYTHON'
import pathlib, re, sys, zipfile
folder = pathlib.Path(sys.argv[1])
with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
    name = next(n for n in wheel.namelist() if re.fullmatch(r"onnxruntime/capi/libonnxruntime\.so\.[0-9.]+", n))
    (folder / "libonnxruntime.so").write_bytes(wheel.read(name))
PYTHON
    is_wanted "$scratch/libonnxruntime.so" ||
        die "the fetched ONNX Runtime has SHA-256 $(sha256sum "$scratch/libonnxruntime.so" | cut -d' ' -f1), not the pinned $digest; nothing was installed"
    mv "$scratch/libonnxruntime.so" "$library"
    say "ONNX Runtime $version is at $library"
fi

# ---- what only the tests need from PyPI ----

if [ "$with_tests" = yes ]; then
    packaging/venv.sh securesystemslib securesystemslib==1.6.0 cryptography==50.0.2 >/dev/null
    say "securesystemslib 1.6.0 is there"
    packaging/venv.sh tuf --requirement packaging/reference-tuf.txt >/dev/null
    say "the reference TUF client is there"
    packaging/venv.sh model-signing -r tests/it/modelsec/requirements.txt >/dev/null
    say "model_signing is there"
fi

# ---- tools that only the packages and the check of licences need ----

# In .deps/tools, so that another version of a tool on this machine stays as it is. Quickly built: each runs for
# seconds only.
tool() {
    local name=$1 version=$2
    if grep -qsF "\"$name $version " .deps/tools/.crates.toml && [ -x ".deps/tools/bin/$name" ]; then
        say "$name $version is there"
        return
    fi
    say "building $name $version"
    env -u CARGO_TARGET_DIR CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_DEBUG=false \
        cargo install --quiet --locked --force --root .deps/tools "$name@$version"
}

[ "$with_deny" = no ] || tool cargo-deny 0.20.2
[ "$with_packages" = no ] || tool cargo-deb 3.7.0
if [ "$with_packages" = yes ]; then
    # Writes into the program which crates it is made of; 0.7.3 is the first that can with Zig as the linker.
    tool cargo-auditable 0.7.5
    tool cargo-cyclonedx 0.5.9
fi
