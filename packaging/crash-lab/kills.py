#!/usr/bin/env python3
"""SIGKILL of the real agent, again and again (see kill-lab.sh, which sets everything up).

kills.py PROGRAM LIBRARY MODELS KILL [--every N] [--random N] [--seed N]

An update, a refused release and a rollback are each carried out until the agent is killed at its first call that changes
or syncs a file, at its second, and so on to the last (tests/data/kill.c; only every N-th with --every N). Then an agent is
killed at random moments of one update after the other, on the same state folder. Each time the agent is started again;
what must hold then is what lab.py looks at: one whole model serves, what was told is not forgotten or told again, no
command is taken twice, nothing is left behind, and the next update succeeds.
"""
import argparse
import concurrent.futures
import json
import pathlib
import queue
import random
import shutil
import signal
import sys
import tempfile
import time

from lab import Checker, held_clock, held_timestamp
from world import SLOT, Agent, Trouble, World, connected, ended, slot


class OneStep:
    """One command after a first release serves: what lab.py's checker needs to know of it."""

    def __init__(self, world, name, before, action, wanted, after):
        self.world, self.name, self.action, self.wanted = world, name, action, wanted
        self.releases, self.steps, self.commands = [None, before, after], [0, 1], {}

    def after(self, step):
        return self.releases[min(step + 1, 2)]


class Killer(Checker):
    """A checker without disks: works on a folder."""

    def __init__(self, world, folder):
        super().__init__(OneStep(world, "", None, {}, "", None), folder, "")
        self.state = self.folder / "state"

    def attempt(self, story, template, told, environment, moment=None):
        """Carries out the command on a copy of the template with an agent that dies; True where it was told the
        end."""
        self.story = story
        if template:
            shutil.rmtree(self.state, ignore_errors=True)
            shutil.copytree(template, self.state, symlinks=True)
        told = dict(told)
        with Agent(self.world, self.broker, self.state, environment=environment) as agent:
            def is_over():
                if moment is not None and time.monotonic() - begun > moment:
                    agent.kill()
                return agent.process.poll() is not None

            try:
                agent.until("the broker", connected)
                signed, begun = self.world.sign(**story.action), time.monotonic()
                for reply in self.broker.ask(signed, is_over):
                    if reply["status"] == "executing":
                        told["sequence"] = self.world.sequence_of(signed)
                        story.commands[told["sequence"]] = signed
                if not is_over():
                    if reply["status"] != story.wanted:
                        raise Trouble(f"{reply}")
                    told.update(step=1, deployment=slot(agent.status())["deployment"]["id"])
            except (Trouble, TypeError):
                # It may die before it is asked, or while its status is.
                if agent.process.poll() is None:
                    raise
            finished = agent.process.poll() is None
            agent.kill()
        self.look(self.state, told)
        self.live(self.state, told, True)
        return finished


def template_of(world, killer, folder, releases):
    """A state folder with these releases installed, one after the other, and what was told of it."""
    with Agent(world, killer.broker, folder) as agent:
        for release in releases:
            if (reply := agent.order(command="update", slot=SLOT, release=release))["status"] != "successful":
                sys.exit(f"kill-lab: {reply}")
        newest = agent.until("its end", ended)["deployment"]["id"]
        agent.stop()
    return {"step": 0, "sequence": 0, "timestamp": held_timestamp(folder), "clock": held_clock(folder),
            "deployment": newest}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("program", "library", "models", "kill"):
        parser.add_argument(name, type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--random", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("kill-lab: ended"))
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="edgewarden-kill-lab-"))
    rows, findings = [], 0
    try:
        with World(args.program, args.library, args.models) as world:
            one, two, bad = (world.publish(name) for name in ("v1", "v2", "v3"))
            following = world.publish("v1", "9.0.0")
            killers = [Killer(world, scratch / f"killer-{number}") for number in range(args.workers)]
            free = queue.Queue()
            for killer in killers:
                free.put(killer)
            update = {"command": "update", "slot": SLOT}
            stories = [
                (OneStep(world, "update", one, {**update, "release": two}, "successful", two), [one]),
                (OneStep(world, "refused release", one, {**update, "release": bad}, "failed", one), [one]),
                (OneStep(world, "rollback", two, {"command": "rollback", "slot": SLOT}, "successful", one), [one, two]),
            ]

            def kill_at(killer, story, template, told, number):
                try:
                    finished = killer.attempt(story, template, told, {
                        "LD_PRELOAD": str(args.kill), "EDGEWARDEN_TEST_KILL": str(number)})
                    return number, finished, None
                except Exception as error:  # noqa: BLE001: each is told
                    return number, False, repr(error) if not isinstance(error, Trouble) else str(error)
                finally:
                    free.put(killer)

            for story, releases in stories:
                begun = time.monotonic()
                story.following = following
                template = scratch / f"template-{story.name.split()[0]}" / "state"
                told = template_of(world, killers[0], template, releases)
                tried, bad_ones, number, done, last = 0, [], 1, False, 0
                with concurrent.futures.ThreadPoolExecutor(args.workers) as pool:
                    waiting = set()
                    while not done or waiting:
                        while not done and len(waiting) < args.workers:
                            waiting.add(pool.submit(kill_at, free.get(), story, template, told, number))
                            number += args.every
                        ready, waiting = concurrent.futures.wait(waiting, return_when="FIRST_COMPLETED")
                        for one_done in ready:
                            at, finished, why = one_done.result()
                            # The first that lives to its end was asked for a call that never came.
                            done |= finished
                            if not finished:
                                tried, last = tried + 1, max(last, at)
                            if why:
                                bad_ones.append((at, why))
                                print(f"{story.name}, killed at call {at}: {why}", flush=True)
                                # Something is wrong with all of it.
                                done |= len(bad_ones) >= 10
                findings += len(bad_ones)
                rows.append((story.name, f"at {tried} of its {last} calls", tried, len(bad_ones),
                             f"{time.monotonic() - begun:.0f} s"))

            begun, dice, killer, bad_ones = time.monotonic(), random.Random(args.seed), killers[0], []
            template = scratch / "template-random" / "state"
            told = template_of(world, killer, template, [one])

            shutil.rmtree(killer.state, ignore_errors=True)
            shutil.copytree(template, killer.state, symlinks=True)
            before = one
            for number in range(args.random):
                # To a release that is not the one that serves; the checker goes on to another one.
                version = f"2.0.{number + 1}"
                wanted = world.publish("v2" if number % 2 else "v1", version)
                story = OneStep(world, "random", before, {**update, "release": wanted}, "successful", wanted)
                story.following = world.publish("v1", f"3.0.{number + 1}")
                try:
                    killer.attempt(story, None, told, {}, dice.uniform(0, 1.5))
                except Trouble as trouble:
                    bad_ones.append((number, str(trouble)))
                    print(f"random kill {number}: {trouble}", flush=True)
                before = story.following
                told = {**told, "step": 0, "deployment": ""}
            findings += len(bad_ones)
            rows.append(("updates, one after the other", f"at random, seed {args.seed}", args.random, len(bad_ones),
                         f"{time.monotonic() - begun:.0f} s"))
            for killer in killers:
                killer.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    head = ("what was under way", "killed", "kills", "findings", "time")
    widths = [max(len(str(row[column])) for row in [head, *rows]) for column in range(len(head))]
    print()
    for row in [head, *rows]:
        print("  ".join(str(cell).ljust(width) if number < 2 else str(cell).rjust(width)
                        for number, (cell, width) in enumerate(zip(row, widths))).rstrip())
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
