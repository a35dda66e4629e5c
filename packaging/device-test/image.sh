#!/usr/bin/env bash
# Makes the Debian 12 that device-test.sh installs the packages on, once; root only.
#
#   packaging/device-test/image.sh container FOLDER          FOLDER/root, for systemd-nspawn
#   packaging/device-test/image.sh machine FOLDER amd64|arm64    FOLDER/{root.img,vmlinuz,initrd.img,key}, for qemu
#
# It has what a small server has: systemd, udev, apt, certificates; and a broker. Nothing of ours. What is in FOLDER
# is taken as it is until this script changes or the folder is deleted.
#   EDGEWARDEN_MIRROR    the Debian mirror (default: apt's own, where this is Debian)
set -euo pipefail

say() { printf 'image: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
kind=${1:-} folder=${2:-} arch=${3:-$(dpkg --print-architecture)}
[ -n "$folder" ] && [[ $kind =~ ^(container|machine)$ ]] || { sed -n '4,5s/^#   //p' "$0" >&2; exit 64; }
[ "$(id -u)" = 0 ] || die "needs root"

suite=bookworm
stamp="$(sha256sum <"$0") $kind $arch"
[ "$(cat "$folder/made" 2>/dev/null || true)" != "$stamp" ] || exit 0
rm -rf --one-file-system "$folder"
mkdir -p "$folder"
root=$folder/root
say "making a Debian 12 for $arch ($kind); this takes some minutes"

# ---- another processor's programs, to unpack its packages here ----

if [ "$arch" != "$(dpkg --print-architecture)" ] && ! arch-test "$arch" >/dev/null 2>&1; then
    # In a container nothing has registered the emulator with the kernel yet. It is taken back at the end.
    formats=/proc/sys/fs/binfmt_misc mounted=no registered=no
    forget() {
        [ $registered = no ] || echo -1 >$formats/qemu-aarch64
        [ $mounted = no ] || umount $formats
    }
    trap forget EXIT
    [ -e $formats/register ] || { mount -t binfmt_misc binfmt_misc $formats && mounted=yes; }
    cat /usr/lib/binfmt.d/qemu-aarch64.conf >$formats/register
    registered=yes
    arch-test "$arch" >/dev/null || die "this machine cannot run programs for $arch; install qemu-user-static"
fi

# ---- the root ----

packages=systemd-sysv,udev,dbus,procps,ca-certificates,mosquitto,mosquitto-clients
hooks=()
if [ "$kind" = machine ]; then
    packages+=,openssh-server,linux-image-$arch,initramfs-tools,zstd,kmod,iproute2
    # Of the drivers only those of the machine's disk.
    hooks=(--essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"
        echo MODULES=list >"$1/etc/initramfs-tools/conf.d/machine"
        printf "%s\n" virtio_pci virtio_mmio virtio_blk ext4 >"$1/etc/initramfs-tools/modules"')
fi
mirror=${EDGEWARDEN_MIRROR:-}
if [ -z "$mirror" ]; then
    mirror=http://deb.debian.org/debian
    if grep -qs '^ID=debian' /etc/os-release; then
        own=$(awk '/^URIs:/ { print $2; exit }' /etc/apt/sources.list.d/debian.sources 2>/dev/null || true)
        mirror=${own:-$mirror}
    fi
fi
mkdir -p "$folder/tmp"
TMPDIR=$folder/tmp mmdebstrap --quiet --mode=root --variant=minbase --architectures="$arch" --include="$packages" \
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg --aptopt='APT::Sandbox::User "root"' \
    --aptopt='Acquire::Retries "5"' --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/locale/*' \
    "${hooks[@]}" "$suite" "$root" "deb $mirror $suite main"
rm -rf "$folder/tmp"
# What is installed later is installed as anywhere.
rm -f "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$root/etc/apt/apt.conf.d/99mmdebstrap"
# There is no network later: what the lists promise could not be fetched.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin
echo device >"$root/etc/hostname"
printf '127.0.0.1 localhost device\n' >"$root/etc/hosts"
: >"$root/etc/fstab"
rm -f "$root/etc/resolv.conf"
: >"$root/etc/resolv.conf"
# The broker is set up, and started, by the test.
chroot "$root" systemctl -q disable mosquitto
chroot "$root" systemctl -q mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer

# ---- a disk for qemu ----

if [ "$kind" = machine ]; then
    # Drivers of what no such machine has would be most of it.
    for drivers in sound drivers/{gpu,infiniband,iio,scsi,ata,nvme,staging,hid,media,net/ethernet,net/wireless} \
        drivers/net/{wwan,can,dsa} fs/{ocfs2,gfs2,ceph,xfs,btrfs,nfs,smb,cifs,jfs,reiserfs}; do
        rm -rf "$root"/lib/modules/*/kernel/"$drivers"
    done
    chroot "$root" depmod "$(ls "$root/lib/modules")"
    ssh-keygen -q -t ed25519 -N '' -f "$folder/key"
    install -D -m 600 "$folder/key.pub" "$root/root/.ssh/authorized_keys"
    echo '/dev/vda / ext4 defaults,errors=remount-ro 0 1' >"$root/etc/fstab"
    printf '[Match]\nType=ether\n[Network]\nDHCP=ipv4\n' >"$root/etc/systemd/network/80-ether.network"
    chroot "$root" systemctl -q enable systemd-networkd
    chroot "$root" systemctl -q mask systemd-networkd-wait-online.service
    cp "$root"/boot/vmlinuz-* "$folder/vmlinuz"
    cp "$root"/boot/initrd.img-* "$folder/initrd.img"
    mke2fs -q -t ext4 -L root -d "$root" "$folder/root.img" 2G
    rm -rf "$root"
fi
echo "$stamp" >"$folder/made"
du -sh "$folder" | awk '{ print "image: " $2 ", " $1 }' >&2
