#!/usr/bin/env python3
"""How a qemu machine is started, for all who need one: its board, its processor, and what plays it.

    qemu.py --kernel FILE --initrd FILE [--append WORDS] [--memory MIB]

becomes one whose serial line is the output, for a script; machines.py makes those with a disk and a network.
EDGEWARDEN_ACCEL=tcg leaves KVM alone.
"""
import argparse
import os
import pathlib
import platform
import sys

# program, board, console, and the processor that is played where the machine's own cannot be lent. Not `max` on
# arm64: what the newest processors can is what emulators get wrong.
BOARDS = {
    "amd64": ("qemu-system-x86_64", "q35", "ttyS0", "max"),
    "arm64": ("qemu-system-aarch64", "virt", "ttyAMA0", "cortex-a72"),
}


def accelerator(arch):
    """kvm where it can be had and trusted, else tcg: an emulation in software, some hundred times slower with floats."""
    native = arch == {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine())
    # A /dev/kvm on a processor without the extension is an emulation that cannot be trusted.
    capable = any(word in pathlib.Path("/proc/cpuinfo").read_text().split() for word in ("vmx", "svm"))
    kvm = native and (capable or arch == "arm64") and os.access("/dev/kvm", os.W_OK)
    return os.environ.get("EDGEWARDEN_ACCEL") or ("kvm" if kvm else "tcg")


def command(arch, accel, kernel, initrd, append="", memory=768):
    """The words that start it. Without any device beside processors and memory; a reboot or a panic ends it."""
    program, board, console, cpu = BOARDS[arch]
    return [program, "-M", board, "-cpu", "host" if accel == "kvm" else cpu,
            "-accel", "tcg,thread=multi" if accel == "tcg" else accel, "-smp", "2", "-m", str(memory),
            "-nodefaults", "-display", "none", "-no-reboot", "-kernel", str(kernel), "-initrd", str(initrd),
            "-append", f"console={console} quiet panic=1 no_timer_check {append}".strip()]


def main():
    words = argparse.ArgumentParser()
    words.add_argument("--kernel", required=True)
    words.add_argument("--initrd", required=True)
    words.add_argument("--append", default="")
    words.add_argument("--memory", type=int, default=768, help="MiB")
    wish = words.parse_args()
    accel = accelerator("amd64")
    print(f"qemu: starting the machine ({accel})", file=sys.stderr, flush=True)
    line = command("amd64", accel, wish.kernel, wish.initrd, wish.append, wish.memory)
    # This process: whoever ends it, ends the machine.
    os.execvp(line[0], [*line, "-serial", "stdio"])


if __name__ == "__main__":
    main()
