#!/usr/bin/env python3
"""Three proofs on a running device, each a table at its end (see soak.sh, which sets everything up).

soak.py swap   PROGRAM BUNDLE PICTURE LIBRARY [--rounds N] [--cores LIST] [--share F]
    Hot swaps under load: frames that are lost, and the 99th percentile of the frame latency (capture to
    answer) during a swap, from the order to the takeover, beside the steady state of the same minutes.
soak.py memory PROGRAM BUNDLE PICTURE LIBRARY [--swaps N] [--warm N]
    Memory over many swaps between two releases of the same model, after some that fill the caches (that of
    the journal alone may take 4 MiB).
soak.py faults PROGRAM BUNDLE PICTURE LIBRARY [--minutes N]
    A camera that stalls (SIGSTOP), dies (SIGKILL), vanishes and returns (its folder is moved away), a
    model's process that hangs or dies, a candidate lost in the shadow, and good swaps between them.

The exit status is 1 where a frame was lost, something leaked, or a state stayed stuck; times are told and
judged by who reads them. It needs paho-mqtt for `swap`, and a mosquitto.
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time

from device import (Device, Unix, descriptors, frames, free_port, own_memory, processes, quantile, shared_memory,
                    unaccounted)

MIB = 1 << 20


def table(head, rows):
    rows = [head] + [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        print("  ".join(cell.rjust(width) if number else cell.ljust(width)
                        for number, (cell, width) in enumerate(zip(row, widths))))
    print()


class Broker:
    """mosquitto on a free port, and a client that notes every answered frame with its time of arrival."""

    def __init__(self, folder):
        self.port = free_port()
        config = pathlib.Path(folder) / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nlog_type error\n")
        os.chmod(folder, 0o755)
        program = shutil.which("mosquitto", path=os.environ["PATH"] + ":/usr/sbin") or sys.exit("no mosquitto")
        self.process = subprocess.Popen([program, "-c", config])
        self.seen, self.lock = [], threading.Lock()

    def listen(self):
        import paho.mqtt.client as mqtt
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        client.on_connect = lambda client, *_: client.subscribe("edgewarden/bench/telemetry/#")
        client.on_message = self.note
        for _ in range(50):
            try:
                client.connect("127.0.0.1", self.port)
                break
            except OSError:
                time.sleep(0.1)
        client.loop_start()
        self.client = client

    def note(self, _client, _user, message):
        told = json.loads(message.payload)
        with self.lock:
            self.seen.append((time.monotonic(), told["seq"], told["latency_ms"]))

    def between(self, start, end):
        with self.lock:
            return [latency for when, _, latency in self.seen if start <= when < end]

    def numbers(self):
        with self.lock:
            return [seq for _, seq, _ in self.seen]

    def close(self):
        self.client.loop_stop()
        self.process.terminate()
        self.process.wait()


def swap_once(device, release):
    """Orders an update; the time of the order, of the takeover, and of the end."""
    connection = Unix(device.folder / "run" / "agent.sock", timeout=600)
    ordered = time.monotonic()
    connection.request("POST", "/v1/update", body=json.dumps({"slot": "bench", "release": release}))
    taken, last = None, {}
    answer = connection.getresponse()
    while line := answer.readline():
        last = json.loads(line)
        if last.get("detail", "").startswith("watching") and taken is None:
            taken = time.monotonic()
    connection.close()
    if last.get("status") != "successful":
        sys.exit(f"update to {release}: {last}\n{device.log()[-3000:]}")
    return ordered, taken or time.monotonic(), time.monotonic()


def swap(args):
    """One device for each set of cores, all at the same rate: what is above the first set is to spare."""
    failed, rows = False, []
    # The most that the model answers on the first cores, and then a share of it: a paced camera.
    prefix = ["taskset", "-c", args.cores[0]]
    with Device(args.program, args.bundle, args.picture, args.library, prefix=prefix) as device:
        time.sleep(3)
        first, start = frames(device.status())["answered"], time.monotonic()
        time.sleep(5)
        rate = (frames(device.status())["answered"] - first) / (time.monotonic() - start)
    for cores in args.cores:
        prefix = ["taskset", "-c", cores]
        fps = max(1.0, min(240.0, rate * args.share))
        device = Device(args.program, args.bundle, args.picture, args.library, versions=2, fps=round(fps, 2),
                        prefix=prefix)
        broker = Broker(device.folder)
        device.mqtt = f'[mqtt]\nurl = "mqtt://127.0.0.1:{broker.port}"\nresults_per_second = 1000\n'
        broker.listen()
        with device:
            time.sleep(5)
            before = frames(device.status())
            steady, during, lasted = [], [], []
            for number in range(args.rounds):
                ordered, taken, _ = swap_once(device, device.releases[(number + 1) % 2])
                lasted.append(taken - ordered)
                # Its last answers are under way.
                time.sleep(0.5)
                during += broker.between(ordered, taken + 0.2)
                quiet = time.monotonic()
                time.sleep(max(4.0, 2 * lasted[-1]))
                steady += broker.between(quiet, time.monotonic())
            after = device.until("an account that balances", lambda: balanced(device))
        broker.close()
        numbers = broker.numbers()
        counted = {name: after[name] - before[name] for name in after}
        lost = counted["unserved"] + counted["failed"] + len(numbers) - len(set(numbers))
        failed |= lost > 0
        p99 = [quantile(values, 0.99) for values in (steady, during)]
        rows.append([cores, f"{fps:.1f}", args.rounds, f"{statistics.median(lasted):.2f}",
                     counted["captured"], counted["skipped"], lost, f"{quantile(steady, .5):.1f}", f"{p99[0]:.1f}",
                     f"{quantile(during, .5):.1f}", f"{p99[1]:.1f}", f"{p99[1] / p99[0]:.2f}"])
    print(f"Hot swaps under load; the camera gives {args.share:.0%} of the {rate:.1f} frames/s that the model can "
          f"answer on core {args.cores[0]}.")
    table(["cores", "fps", "swaps", "s each", "frames", "skipped", "lost", "steady p50", "p99 ms",
           "swap p50", "p99 ms", "ratio"], rows)
    return failed


def balanced(device):
    """The counts, once every captured frame has its fate (but the newest, which may be in work)."""
    counts = frames(device.status())
    return counts if unaccounted(counts) <= 1 else None


def swaps(args):
    device = Device(args.program, args.bundle, args.picture, args.library, versions=2, fps=20)
    device.probation = 3, "100ms"
    with device:
        device.until("frames", lambda: frames(device.status())["answered"] > 20)
        before, seen = frames(device.status()), []
        for number in range(1, args.warm + args.swaps + 1):
            device.update(device.releases[number % 2])
            now = own_memory(device.until("the child before to end", lambda: settled(device)))
            seen.append((now["agent"] / MIB, now["infer"] / MIB, sum(now.values()) / MIB))
        after = device.until("an account that balances", lambda: balanced(device))
    tenth = max(1, args.swaps // 10)
    warming, seen = seen[:args.warm], seen[args.warm:]
    rows = [[f"{args.warm + start + 1} to {args.warm + start + tenth}"] +
            [f"{statistics.mean(one[column] for one in seen[start:start + tenth]):.2f}" for column in range(3)]
            for start in range(0, len(seen), tenth)]
    lost = after["unserved"] - before["unserved"] + after["failed"] - before["failed"]
    grown = [float(rows[-1][column]) - float(rows[0][column]) for column in (1, 3)]
    if warming:
        rows.insert(0, ["first, warming", *(f"{value:.2f}" for value in warming[0])])
    print(f"Memory over {args.swaps} swaps after {args.warm} to warm up, MiB of the processes' own (no files), means; frames lost: {lost}.")
    table(["swaps", "agent", "infer", "total"], rows)
    print(f"agent {grown[0]:+.2f} MiB, total {grown[1]:+.2f} MiB from the first tenth to the last\n")
    return lost > 0 or grown[0] > 1.0 or grown[1] > 4.0


def settled(device):
    now = device.status()
    return now if now and set(processes(now)) == {"agent", "capture", "infer"} else None


def of_agent(pid):
    """What may leak: descriptors, threads, zombies, files in shared memory."""
    zombies = 0
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            zombies += stat[0] == "Z" and int(stat[1]) == pid
    return {"descriptors": descriptors(pid), "threads": len(os.listdir(f"/proc/{pid}/task")), "zombies": zombies}


def shared(device):
    """Files of the bookkeeping of shared memory."""
    return sum(1 for _ in (device.folder / "run" / "frames").rglob("*") if _.is_file())


def faults(args):
    random.seed(args.seed)
    extra = 'stall_timeout = "1s"'
    device = Device(args.program, args.bundle, args.picture, args.library, versions=2, fps=20, extra=extra)
    device.runtime = 'frame_deadline = "1s"'
    pictures, away = device.folder / "pictures", device.folder / "away"
    done, stuck, worst = {}, [], {}

    def kill(role, how):
        pid = processes(device.status()).get(role)
        if pid:
            os.kill(pid, how)

    def vanish():
        pictures.rename(away)
        kill("capture", signal.SIGKILL)
        time.sleep(random.uniform(1, 5))
        away.rename(pictures)

    def shadow_lost():
        release = other(device)
        connection = Unix(device.folder / "run" / "agent.sock", timeout=60)
        connection.request("POST", "/v1/update", body=json.dumps(
            {"slot": "bench", "release": release, "shadow": {"frames": 100000, "min_agreement": 0}}))
        deadline = time.monotonic() + 30
        while "candidate" not in processes(device.status()) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(random.uniform(0, 2))
        kill("candidate", signal.SIGKILL)
        connection.getresponse().read()
        connection.close()

    def swapped():
        device.ask("POST", "/v1/update", {"slot": "bench", "release": other(device)})

    kinds = {
        "camera stalls": lambda: kill("capture", signal.SIGSTOP),
        "camera dies": lambda: kill("capture", signal.SIGKILL),
        "camera vanishes, returns": vanish,
        "model dies": lambda: kill("infer", signal.SIGKILL),
        "model hangs": lambda: kill("infer", signal.SIGSTOP),
        "candidate dies in shadow": shadow_lost,
        "swap": swapped,
    }

    def figures():
        now = settled(device)
        if not now:
            return None
        pid = device.agent.pid
        held = own_memory(now)
        return {"agent MiB": held["agent"] / MIB, "total MiB": sum(held.values()) / MIB, **of_agent(pid),
                "frame files": shared(device), "/dev/shm files": shared_memory(device)}

    with device:
        samples, end = [], time.monotonic() + args.minutes * 60
        schedule = []
        while time.monotonic() < end:
            if not schedule:
                schedule = random.sample(list(kinds), len(kinds))
            kind = schedule.pop()
            answered = frames(device.status())["answered"]
            started = time.monotonic()
            kinds[kind]()
            done[kind] = done.get(kind, 0) + 1

            def well():
                now = settled(device)
                return now and now["health"]["pipelines"][0]["state"] == "running" and \
                    frames(now)["answered"] > answered + 10
            while not well():
                if time.monotonic() - started > 120 or device.agent.poll() is not None:
                    stuck.append(kind)
                    break
                time.sleep(0.2)
            worst[kind] = max(worst.get(kind, 0), time.monotonic() - started)
            if stuck:
                break
            if not schedule:
                time.sleep(1)
                samples.append(device.until("the figures", figures))
        last_words = device.status()["metrics"]
        counts = device.until("an account that balances", lambda: balanced(device))
        unknown = unaccounted(counts)
    print(f"{sum(done.values())} faults and swaps in {args.minutes:g} minutes. This is accelerated: on a device that "
          f"meets one an hour they stand for {sum(done.values()) / 24:.1f} days; what needs time alone is not seen.")
    table(["what", "times", "worst s to run again"], [[kind, done[kind], f"{worst[kind]:.1f}"] for kind in done])
    if len(samples) < 2:
        print("too short to tell a leak; give it more minutes")
        return bool(stuck)
    # The first round fills caches.
    first, last = samples[min(1, len(samples) - 2)], samples[-1]
    table(["after round", *first], [
        [number + 1, *(f"{value:.1f}" if isinstance(value, float) else value for value in one.values())]
        for number, one in enumerate(samples) if number in (0, 1, len(samples) // 2, len(samples) - 1)])
    # A child that has just ended may still be about; a leak grows with every round.
    allowed = {"agent MiB": 2, "total MiB": 8, "threads": 2, "descriptors": 2, "frame files": 10, "/dev/shm files": 6}
    leaks = [name for name in first if last[name] - first[name] > allowed.get(name, 0)]
    print(f"stuck: {', '.join(stuck) or 'nothing'}; leaked: {', '.join(leaks) or 'nothing'}; frames captured "
          f"{counts['captured']}, answered {counts['answered']}, skipped {counts['skipped']}, unserved "
          f"{counts['unserved']}, of unknown fate {unknown}; deployments {last_words['deployments']}, restarts "
          f"{last_words['child_restarts']}\n")
    return bool(stuck or leaks or unknown > 1)


def other(device):
    current = device.status()["slots"][0]["current"]["release"]
    return next(release for release in device.releases if release != current)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["swap", "memory", "faults"])
    for name in ("program", "bundle", "picture", "library"):
        parser.add_argument(name, type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--cores", default="0;0,1", type=lambda text: text.split(";"))
    parser.add_argument("--share", type=float, default=0.6)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--warm", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    sys.exit({"swap": swap, "memory": swaps, "faults": faults}[args.what](args))


if __name__ == "__main__":
    main()
