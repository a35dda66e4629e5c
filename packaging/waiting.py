"""Finds the functions that the agent needs while it waits, and writes the linker script that lays them side by side.
See waiting.sh.

A breakpoint lies on each function of the running agent, and is taken away when it is first met: an agent with all of
them met is as fast as before. Of ptrace(2), for x86-64.
"""
import ctypes
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

from device import Device, mosquitto

PROGRAM, MOSQUITTO, LIBRARY, SECONDS = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
ROOT = pathlib.Path(__file__).resolve().parent
BUNDLE, PICTURE = ROOT / "models/v1", ROOT / "models/v1/golden/1.jpg"

CONT, GETREGS, SETREGS, DETACH, SEIZE, INTERRUPT = 7, 12, 13, 17, 0x4206, 0x4207
# Options and events of ptrace, a flag of waitpid, the place of the program counter among the registers.
TRACE_CLONE, EVENT_STOP, ALL_THREADS, RIP = 1 << 3, 128, 0x40000000, 16
BREAKPOINT = 0xCC
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, thread, address=0, data=0):
    if libc.ptrace(request, thread, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace {request}: {os.strerror(number)}")


def functions(program):
    """The symbols of each function's address in the file."""
    found = {}
    table = subprocess.run(["readelf", "--syms", "--wide", program], capture_output=True, text=True, check=True)
    for line in table.stdout.splitlines():
        fields = line.split()
        if len(fields) == 8 and fields[3] == "FUNC" and fields[6] != "UND":
            found.setdefault(int(fields[1], 16), []).append(fields[7])
    if not found:
        sys.exit(f"{program}: no symbols; build it without stripping them")
    return found


def code(pid):
    """Where the program's file begins in the process's memory, and where its code begins and ends."""
    begin = None
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split()
        if len(fields) == 6 and fields[5].startswith("/") and os.path.samefile(f"/proc/{pid}/exe", fields[5]):
            start, end = (int(number, 16) for number in fields[0].split("-"))
            begin = start if begin is None else begin
            if fields[1] == "r-xp":
                return begin, start, end
    sys.exit(f"process {pid}: no code of its program in memory")


def seize(pid):
    """Stops all threads of the process and traces them and those that they begin; their ids."""
    threads = set()
    while new := {int(name) for name in os.listdir(f"/proc/{pid}/task")} - threads:
        for thread in new:
            ptrace(SEIZE, thread, 0, TRACE_CLONE)
            ptrace(INTERRUPT, thread)
            os.waitpid(thread, ALL_THREADS)
        threads |= new
    return threads


def used(pid, program, seconds):
    """The symbols of the functions that the process enters in the next seconds."""
    symbols, (begin, start, end) = functions(program), code(pid)
    threads = seize(pid)
    memory = os.open(f"/proc/{pid}/mem", os.O_RDWR)
    old = os.pread(memory, end - start, start)
    watched = {address + begin: names for address, names in symbols.items() if start <= address + begin < end}
    changed = bytearray(old)
    for address in watched:
        changed[address - start] = BREAKPOINT
    os.pwrite(memory, bytes(changed), start)
    for thread in threads:
        ptrace(CONT, thread)

    met, finish, ending = set(), time.monotonic() + seconds, False
    registers = (ctypes.c_ulonglong * 27)()
    while threads:
        if not ending and time.monotonic() > finish:
            ending = True
            os.pwrite(memory, old, start)
            for thread in list(threads):
                try:
                    ptrace(INTERRUPT, thread)
                except OSError:  # It has just ended.
                    threads.discard(thread)
        thread, status = os.waitpid(-1, ALL_THREADS | (0 if ending else os.WNOHANG))
        if thread == 0:
            time.sleep(0.005)
            continue
        if not os.WIFSTOPPED(status):
            threads.discard(thread)
            continue
        threads.add(thread)
        number, event, passed_on = os.WSTOPSIG(status), status >> 16, 0
        if event == 0:
            passed_on = number
            ptrace(GETREGS, thread, 0, ctypes.addressof(registers))
            address = registers[RIP] - 1
            if number == signal.SIGTRAP and address in watched:
                met.add(address)
                os.pwrite(memory, old[address - start:address - start + 1], address)
                registers[RIP], passed_on = address, 0
                ptrace(SETREGS, thread, 0, ctypes.addressof(registers))
        if ending and event == EVENT_STOP:
            ptrace(DETACH, thread)
            threads.discard(thread)
        else:
            ptrace(CONT, thread, 0, passed_on)
    os.close(memory)
    print(f"{len(met)} of {len(watched)} functions", file=sys.stderr)
    return {name for address in met for name in watched[address]}


def pattern(symbol):
    """The symbol in any build: without what differs between versions of the compiler and of crates."""
    symbol = re.sub(r"(\.llvm)?(\.\d+)+$", "", symbol)
    if symbol.startswith("_ZN"):
        return re.sub(r"17h[0-9a-f]{16}E$", "17h*", symbol)
    if symbol.startswith("_R"):
        return re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", symbol) + "*"
    return symbol


def waits():
    """The symbols that a connected agent with one frame a second needs."""
    with mosquitto(MOSQUITTO) as port:
        device = Device(PROGRAM, BUNDLE, PICTURE, LIBRARY, fps=1)
        device.mqtt = f'[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\n'
        with device:
            # Until what follows an update is done.
            time.sleep(40)
            found = used(device.agent.pid, device.program, SECONDS)
            device.until("the agent to answer afterwards", device.running)
            return found


lines = sorted({pattern(symbol) for symbol in waits()})
print("""/* The functions that the agent needs while it waits. The linker lays them side by side, and the agent, which lets go of
   all other code, stays small: a page that is needed comes with its neighbours. Made by waiting.sh; a name that
   no longer fits, or a missing one, does no harm. */
SECTIONS
{
  .text.waiting :
  {""")
for line in lines:
    print(f"    *(.text.{line} .text.unlikely.{line})")
print("""  }
}
INSERT BEFORE .text;""")
