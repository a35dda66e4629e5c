#!/usr/bin/env python3
"""The cost of a power cut: from the start of the agent to the first inference of the right model, after a kill in the
middle of an update (see bench-power-cut.sh, which sets everything up).

bench_power_cut.py PROGRAM BUNDLE PICTURE LIBRARY [--rounds N]

The agent and its children are killed when the update is at a stage; the time is that of the next start, from the
beginning of the process to the first answered frame, as its own socket tells, asked every few milliseconds. The right
model is the one that the slot's link names. The boot of a machine before it is not in it.
"""
import argparse
import http.client
import os
import signal
import statistics
import sys
import threading
import time

from device import Device

STAGES = ["resolving", "fetching", "verifying", "on_trial", "probation"]


class Bench(Device):
    def kill(self):
        os.killpg(self.agent.pid, signal.SIGKILL)
        self.agent.wait()

    def cut_at(self, release, stage):
        """Begins an update and kills the agent when the journal has come to the stage, or past it."""
        threading.Thread(target=self.order, args=(release,), daemon=True).start()
        reached = STAGES.index(stage)
        while True:
            deployment = (self.status() or {"slots": [{}]})["slots"][0].get("deployment")
            if deployment and deployment["release"] == release:
                now = deployment["stage"]
                if now not in STAGES or STAGES.index(now) >= reached:
                    break
        self.kill()
        return now

    def order(self, release):
        try:
            self.ask("POST", "/v1/update", {"slot": "bench", "release": release})
        except (OSError, http.client.HTTPException):
            pass  # it was killed

    def first_inference(self):
        """Starts the agent; seconds until the model that the link names has answered a frame."""
        begun = time.monotonic()
        self.run()
        while True:
            now = self.status()
            if now and now["metrics"]["pipelines"]:
                answered = now["metrics"]["pipelines"][0]["frames"]["answered"]
                current = now["slots"][0]["current"]
                if answered > 0 and current and now["health"]["pipelines"][0]["release"] == current["release"]:
                    return time.monotonic() - begun
            if time.monotonic() - begun > 120:
                sys.exit(f"no frame was answered\n{self.log()[-3000:]}")
            time.sleep(0.004)

    def settle(self):
        def ended():
            deployment = (self.status() or {"slots": [{}]})["slots"][0].get("deployment")
            return deployment and deployment["stage"] in ("committed", "refused", "rolled_back")
        self.until("the end of the update", ended)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("program", "bundle", "picture", "library"):
        parser.add_argument(name)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    device = Bench(args.program, args.bundle, args.picture, args.library, versions=1 + len(STAGES) * args.rounds)
    device.probation = 20, "1s"
    device.http = True
    rows, number = [], 0
    with device:
        plain = []
        for _ in range(args.rounds):
            device.kill()
            plain.append(device.first_inference())
        rows.append(("nothing under way", plain))
        for stage in STAGES:
            times = []
            for _ in range(args.rounds):
                number += 1
                device.cut_at(device.releases[number], stage)
                times.append(device.first_inference())
                device.settle()
            rows.append((stage.replace("_", " "), times))
    print(f"from the start of the agent to the first inference of the right model, {args.rounds} cuts each")
    print(f"{'killed at':<18}  {'median s':>8}  {'worst s':>8}")
    for name, times in rows:
        print(f"{name:<18}  {statistics.median(times):>8.2f}  {max(times):>8.2f}")


if __name__ == "__main__":
    main()
