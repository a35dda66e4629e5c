#!/usr/bin/env python3
"""The whole path of a running device: source process, shared memory, inference process, agent.

bench_path.py PROGRAM BUNDLE PICTURE LIBRARY [SECONDS [THREADS [FPS]]]: has a device (device.py) with that
picture as its camera take the bundle, and prints one JSON object from the agent's own figures and from
/proc: frames, latencies, memory at its peak and processor time, also by process and thread.

With `none` as the BUNDLE no model is installed, and only the processor time is of interest.
"""
import json
import os
import pathlib
import sys
import threading
import time

from device import Device, frames, memory, smaps_rollup

program, bundle, picture, library = sys.argv[1:5]
seconds = float(sys.argv[5]) if len(sys.argv) > 5 else 10
threads = int(sys.argv[6]) if len(sys.argv) > 6 else 1
fps = float(sys.argv[7]) if len(sys.argv) > 7 else 240


def family(pid):
    """The agent and its children: each of its threads may have started some."""
    children = set()
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children |= {int(child) for child in task.read_text().split()}
        except OSError:
            pass
    return [pid, *sorted(children)]


def shared_by_share(pid):
    """Bytes of a process, shared pages counted by share; 0 when it has ended."""
    try:
        return smaps_rollup(pid).get("Pss", 0) << 10
    except OSError:
        return 0


def processor_seconds(pids):
    """Seconds by process and thread, with the processes' names."""
    used = {}
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            try:
                # Nanoseconds; `stat` counts in hundredths of a second.
                ran = int((task / "schedstat").read_text().split()[0]) / 1e9
                role = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                name = role[2] if role[1] == "child" else "agent"
                used[f"{name}/{(task / 'comm').read_text().strip()}", task.name] = ran
            except OSError:
                pass
    return used


def between(before, after):
    """What was used in between: the sum, and the seconds by name."""
    by_name = {}
    for (name, task), ran in after.items():
        by_name[name] = by_name.get(name, 0) + ran - before.get((name, task), 0)
    return sum(by_name.values()), by_name


class Peak(threading.Thread):
    """Looks at the memory of the whole family, all at once, ten times a second."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.most, self.done = pid, 0, threading.Event()

    def run(self):
        while not self.done.wait(0.1):
            self.most = max(self.most, sum(map(shared_by_share, family(self.pid))))


def idle(device):
    time.sleep(3)  # The camera gives its one frame and is paused.
    pids, start = family(device.agent.pid), time.monotonic()
    before = processor_seconds(pids)
    time.sleep(seconds)
    used, _ = between(before, processor_seconds(pids))
    return {"idle": used / (time.monotonic() - start)}


def busy(device):
    peak = Peak(device.agent.pid)
    peak.start()
    device.install()
    # Over the probation of 20 frames and a second, after which the model that served before is let go.
    time.sleep(2.5)
    peak.done.set()
    peak.join()
    pids = family(device.agent.pid)
    first, before, start = device.status(), processor_seconds(pids), time.monotonic()
    time.sleep(seconds)
    last, after, end = device.status(), processor_seconds(pids), time.monotonic()
    steady = sum(map(shared_by_share, pids))
    counted = {name: count - frames(first)[name] for name, count in frames(last).items()}
    answered = max(counted["answered"], 1)
    used, by_name = between(before, after)
    stages = {stage: figures["p50"] for stage, figures in last["metrics"]["pipelines"][0]["latency_ms"].items()}
    return {"fps": counted["answered"] / (end - start), "frames": counted, "stages": stages,
            "memory": memory(last), "peak_bytes": max(peak.most, steady), "steady_bytes": steady,
            "cpu_ms": 1e3 * used / answered, "threads": threads,
            "cpu_ms_by_thread": {name: 1e3 * ran / answered for name, ran in sorted(by_name.items())}}


device = Device(program, None if bundle == "none" else bundle, picture, library, fps=fps, threads=threads)
try:
    device.start()
    print(json.dumps(busy(device) if device.bundle else idle(device)))
finally:
    device.__exit__()
