#!/usr/bin/env bash
# Runs the camera tests (tests/it/v4l2.rs) against a real kernel driver: `vivid`, Linux's own test camera,
# in a virtual machine, as hosts seldom have that driver and should not have their cameras unplugged.
#
# The machine is Debian's kernel with twelve of its modules, busybox, v4l2-ctl, the program and its tests
# in one archive in memory: no disk, no network; ONNX Runtime and a small model are there, so that the
# cameras are needed. It has two cameras at /dev/video0 and /dev/video1, the
# second one multi-planar, and a node at /dev/video2 that is no camera. Works on Debian and its like,
# x86-64; with KVM in seconds, without it in some minutes. Arguments are names of tests.
#   EDGEWARDEN_ACCEL=tcg    do not use KVM
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'test-v4l2: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ "$(uname -m)" = x86_64 ] || die "only x86-64 machines can run this so far"

./packaging/setup.sh
[ -x "$(command -v cargo)" ] || . "$HOME/.cargo/env"
library=${EDGEWARDEN_ONNXRUNTIME:-$PWD/.deps/onnxruntime/libonnxruntime.so}

# ---- packages ----

missing=()
export PATH=$PATH:/usr/sbin:/sbin
want() { command -v "$1" >/dev/null || missing+=("$2"); }
want qemu-system-x86_64 qemu-system-x86
want busybox busybox-static
want cpio cpio
want v4l2-ctl v4l-utils
want depmod kmod
want dpkg-deb dpkg
if [ ${#missing[@]} -gt 0 ]; then
    sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
    say "installing with apt: ${missing[*]}"
    $sudo apt-get update -q
    # Nothing that is there is taken away: where this fails, install them by hand.
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends --no-remove \
        -o DPkg::Lock::Timeout=300 "${missing[@]}"
fi

# ---- kernel: fetched once, kept below target/ ----

target=$(cargo metadata --format-version 1 --no-deps --offline | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
home=$target/v4l2-vm
mkdir -p "$home"
if [ ! -e "$home/kernel/done" ]; then
    package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-[0-9]/ { print $2; exit }')
    [ -n "$package" ] || die "apt knows no linux-image-amd64; this needs Debian's kernel"
    say "fetching $package"
    rm -rf "$home/kernel" "$home/unpacked"
    mkdir -p "$home/kernel" "$home/unpacked"
    (cd "$home/unpacked" && apt-get download -q "$package" 2>/dev/null && dpkg-deb -x ./*.deb .)
    # Newer systems have /lib below /usr.
    [ -d "$home/unpacked/lib/modules" ] || mv "$home/unpacked/usr/lib" "$home/unpacked/lib"
    version=$(ls "$home/unpacked/lib/modules")
    depmod -b "$home/unpacked" "$version"
    # In the order in which they must be loaded.
    modprobe -d "$home/unpacked" -S "$version" --show-depends vivid | awk '$1 == "insmod" { print $2 }' |
        while read -r module; do
            name=$(basename "$module")
            case $module in
            *.xz) xz -dc "$module" >"$home/kernel/${name%.xz}" ;;
            *.zst) zstd -qdc "$module" >"$home/kernel/${name%.zst}" ;;
            *) cp "$module" "$home/kernel/$name" ;;
            esac
            name=${name%.xz}
            echo "${name%.zst}" >>"$home/kernel/order"
        done
    cp "$home/unpacked/boot/vmlinuz-$version" "$home/kernel/vmlinuz"
    rm -rf "$home/unpacked"
    grep -qx vivid.ko "$home/kernel/order" || die "$package has no vivid driver"
    touch "$home/kernel/done"
fi

# ---- program and tests ----

say "building the program and its tests"
cargo build --locked --quiet --bin edgewarden
tests=$(cargo test --locked --test it --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\/deps\/it-[^"]*\)".*/\1/p' | tail -n1)
[ -x "$tests" ] || die "the tests cannot be built; run: cargo test --test it --no-run"

# ---- the machine's files ----

root=$home/root
rm -rf "$root"
mkdir -p "$root"/{bin,dev,proc,sys,tmp,run,etc,lib/modules}
cp "$home"/kernel/*.ko "$home/kernel/order" "$root/lib/modules/"
# A program, at the path that the tests know it by, with the libraries that it is linked to.
take() {
    mkdir -p "$root$(dirname "$2")"
    cp -L "$1" "$root$2"
    strip -g "$root$2" 2>/dev/null || true
    # One that is linked statically has none.
    { ldd "$1" 2>/dev/null || true; } | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*/\1/p' | while read -r library; do
        [ -e "$root$library" ] || { mkdir -p "$root$(dirname "$library")" && cp -L "$library" "$root$library"; }
    done
}
take "$(command -v busybox)" /bin/busybox
take "$(command -v v4l2-ctl)" /bin/v4l2-ctl
take "$target/debug/edgewarden" "$target/debug/edgewarden"
take "$tests" /bin/it
take "$library" /lib/onnxruntime/libonnxruntime.so
# The tests publish it from where it lies in the sources.
mkdir -p "$root$PWD/packaging/models"
cp -r packaging/models/v1 "$root$PWD/packaging/models/"
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
cat >"$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp TMPDIR=/tmp EDGEWARDEN_TEST_VIVID=1 EDGEWARDEN_ONNXRUNTIME=/lib/onnxruntime/libonnxruntime.so
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs shm /dev/shm
chmod 1777 /tmp /dev/shm
ifconfig lo 127.0.0.1 up
hostname camera-vm
# vivid complains at each frame when the machine is slow.
dmesg -n 1
while read -r module; do
    case \$module in
    # Two webcams; the first one with a node for metadata beside it.
    vivid.ko) set -- n_devs=2 node_types=0x20001,0x1 num_inputs=1,1 input_types=0,0 multiplanar=1,2 \
        vid_cap_nr=0,1 meta_cap_nr=2 ;;
    *) set -- ;;
    esac
    insmod /lib/modules/\$module "\$@" || echo "cannot load \$module"
done </lib/modules/order
for camera in 0 1; do v4l2-ctl -d /dev/video\$camera -c osd_text_mode=2; done
ls -l /dev/video*
cd /tmp
/bin/it --test-threads=1 --nocapture $(printf '%q ' "${@:-v4l2::}")
echo "ended with \$?"
poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet) >"$home/root.cpio"
say "the machine's files: $(du -h "$home/root.cpio" | cut -f1)"

# ---- run ----

log=$home/log
timeout "${EDGEWARDEN_VM_TIMEOUT:-1800}" packaging/device-test/qemu.py --kernel "$home/kernel/vmlinuz" \
    --initrd "$home/root.cpio" --memory 2048 </dev/null 2>&1 | tee "$log" || die "the machine did not end by itself"
grep -q '^ended with 0' "$log" || die "the tests have failed; see $log"
# A run in which no test was selected proves nothing.
grep -qE '^test result: ok\. [1-9]' "$log" || die "no test ran; see $log"
! grep -q '^skipped: needs the vivid driver' "$log" || die "the tests did not see the driver; see $log"
say "all good"
