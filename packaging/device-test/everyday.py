"""The everyday life of a device: installed, started without a word of configuration, set up, updated over the air,
hung and frozen, upgraded, removed, purged. Each step stands on the one before.
"""
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

from device import DROP_IN, MODELS, OWN, Device, check, good, rebuilt, release
from machines import Failed

COMPARE = pathlib.Path(__file__).resolve().parent.parent.parent / "cross" / "compare.py"
# What is the machine's, and not ours: it has no time server, and what it stands on may be short of anything.
HARMLESS = {"clock_unsynchronised", "disk_low", "memory_low", "throttled"}
# The status of an agent that does not answer.
NOTHING = {"metrics": {"processes": []}}


def step(number, title):
    print(f"{number}. {title}", flush=True)


def installed(device):
    """As a stranger would."""
    step(1, "installed with apt")
    said = device.install(device.debs)
    for line in re.findall(r"^(?:Setting up|Created symlink) .*", said, re.M):
        good(line)
    groups = device.run("id", "-nG", "edgewarden").stdout.split()
    check({"video", "render", "dialout", "gpio", "i2c"} <= set(groups), f"the user edgewarden is in {' '.join(groups)}")
    enabled = device.run("systemctl", "is-enabled", "edgewarden", check=False).stdout.strip()
    check(enabled == "enabled", "the unit is enabled", enabled)


def unconfigured(device):
    """The first start does no harm, and tells what to do."""
    step(2, "started without configuration")
    device.until("the unit to be active", lambda: device.unit("ActiveState")["ActiveState"] == "active", 30)
    now = device.until("the agent's answer", lambda: (said := device.status()) and said["health"]["problems"] and said, 30)
    state, problems = now["health"]["state"], now["health"]["problems"]
    check(state == "degraded", f"it runs and says {state}", json.dumps(problems))
    steps = [problem["detail"] for problem in problems if "edgewarden setup" in problem["detail"]]
    check(steps, f"and the next step: {steps[:1]}", json.dumps(problems))
    shown = device.unit("Type", "NRestarts", "StatusText")
    check(shown["Type"] == "notify" and shown["NRestarts"] == "0", f"notified systemd, no restart: {shown['StatusText']}")
    strange = device.shell("find /etc/edgewarden ! -user root")
    check(not strange, "what is in /etc/edgewarden is root's", strange)


def configured(device):
    """By hand, as the documentation says."""
    step(3, "set up: broker with a password, signed repository, camera")
    set_up(device)
    good("the broker takes the password that systemd hands over (LoadCredential)")
    secret = device.run("runuser", "-u", "edgewarden", "--", "cat", "/etc/edgewarden/mqtt-password", check=False)
    check(secret.returncode, "whose file the agent's user cannot read")


def over_the_air(device):
    """By the command line and by MQTT."""
    step(4, "models over the air")
    good(device.update("1.0.0").strip().splitlines()[-1])
    device.until("1.0.0 to run", lambda: device.running("1.0.0"))
    result = device.result()
    check("detections" in result, f"a result over MQTT: {json.dumps(result)[:160]} …")
    answer = device.command("update", {"slot": "detector", "release": release("2.0.0")})
    check(answer["status"] == "successful", f"MQTT command update: {answer.get('result')}", json.dumps(answer))
    now = device.until("2.0.0 to run, without a problem", lambda: healthy(device.running("2.0.0")))
    good(f"health {now['health']['state']} with 2.0.0 {sorted(codes(now)) or ''}")
    answer = device.command("set", {"values": {"health.interval": "25s"}})
    check(answer["status"] == "successful", f"MQTT command set: {answer.get('result')}", json.dumps(answer))
    kept = device.run("cat", "/etc/edgewarden/config.d/90-remote.toml").stdout
    check("25s" in kept, "which is in a drop-in of the agent's own", kept)
    mode = device.run("stat", "-c", "%a", "/etc/edgewarden/config.d/90-remote.toml").stdout.strip()
    check(mode == "644", "that all may read, as the rest of the configuration", mode)
    other = device.run("runuser", "-u", "edgewarden", "--", "mv", "/etc/edgewarden/config.d/50-fleet.toml", "/tmp/x",
                       check=False)
    check(other.returncode, "and it cannot touch the owner's")
    device.until("2.0.0 to run after that, without a problem", lambda: healthy(device.running("2.0.0")))


def codes(status):
    """The kinds of problems that it tells."""
    return {problem["code"] for problem in status["health"]["problems"]}


def healthy(status):
    """The status, where nothing is wrong that is ours."""
    return status if status and codes(status) <= HARMLESS else None


def set_up(device):
    """Broker and repository on the machine itself, and a configuration that knows them."""
    device.broker()
    device.publish(["v1", "v2", "v5"])
    if device.machine.emulated:
        device.configure(fps=1, frames=5, more='[runtime]\nframe_deadline = "60s"\n')
    else:
        device.configure(more='[health]\ninterval = "5s"\n')
    # The repository is first asked at the first update.
    device.until("the broker", lambda: (device.status() or {"health": {"mqtt": {}}})["health"]["mqtt"].get("reached"), 60)


def first_installed(device):
    """Installed and set up, without a word about it: the ground for other tests."""
    step("A", "installed and set up")
    device.install(device.debs)
    set_up(device)


def watched(device):
    """Who notices what hangs."""
    step(5, "watched")
    unit = device.unit("Type", "WatchdogUSec", "WatchdogTimestampMonotonic")
    fed = unit["WatchdogTimestampMonotonic"]
    device.until("the watchdog to be fed", lambda: device.unit("WatchdogTimestampMonotonic")["WatchdogTimestampMonotonic"] != fed, 90)
    good(f"Type={unit['Type']}, watchdog of {unit['WatchdogUSec']}, fed by frames")

    hung = device.until("an inference child", lambda: child(device.running("2.0.0"), "infer:camera"))
    agent = device.pid()
    device.run("kill", "-STOP", str(hung))
    device.until("another inference child", lambda: child(device.running("2.0.0"), "infer:camera") not in (None, hung), 60)
    check(device.pid() == agent, f"inference child {hung} hung (SIGSTOP): the agent replaced it, itself untouched")
    check(device.run("test", "-e", f"/proc/{hung}", check=False).returncode, "the hung one is gone")

    restarts = int(device.unit("NRestarts")["NRestarts"])
    device.run("kill", "-STOP", str(agent))
    device.until("systemd to restart the frozen agent", lambda: device.pid() not in (0, agent), 120)
    device.until("2.0.0 to run again", lambda: device.running("2.0.0"))
    check(int(device.unit("NRestarts")["NRestarts"]) == restarts + 1, f"agent {agent} frozen (SIGSTOP): systemd restarted it once")
    lines = [line for line in device.journal(200).splitlines() if "Watchdog timeout" in line]
    check(lines, lines[-1].split(": ", 1)[-1] if lines else "the journal tells of it")
    left = device.until("only children of the new agent", lambda: only_children(device))
    good(f"no child of the frozen one is left; {left} run")


def only_children(device):
    """How many children of the agent run, where no other does."""
    found = device.shell("pgrep -f '[e]dgewarden child' || true").split()
    known = [str(one["pid"]) for one in (device.status() or NOTHING)["metrics"]["processes"] if one["role"] != "agent"]
    return len(found) if sorted(found) == sorted(known) else None


def child(status, role):
    """The pid of a child."""
    found = [one["pid"] for one in (status or NOTHING)["metrics"]["processes"] if one["role"] == role]
    return found[0] if found else None


def closed(device):
    """How much the unit leaves open, as the installed systemd judges."""
    step(6, "locked in")
    said = device.run("systemd-analyze", "security", "--no-pager", "edgewarden", check=False).stdout
    line = next((line for line in said.splitlines() if "Overall exposure" in line), said[-500:])
    figure = re.search(r"edgewarden[^:]*: ([0-9.]+)", line)
    check(figure and float(figure[1]) <= 1.5, f"systemd-analyze security: {line.strip('→ ').strip()}", line)


def upgraded(device, agent_deb, folder):
    """To higher versions: idle, and in the middle of an update. Gives the newest package."""
    step(7, "upgraded")
    own, before = device.digests(OWN), device.pid()
    links = device.shell("find /var/lib/edgewarden/slots -type l -printf '%p %l\\n' | sort")
    deb, version = rebuilt(agent_deb, "+test1", folder)
    device.install([deb])
    installed = device.run("dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}", "edgewarden").stdout
    check(installed == f"{version} installed", f"{version} took its place without a question", installed)
    device.until("2.0.0 to run again", lambda: device.running("2.0.0"))
    check(device.pid() != before, "the agent was started anew")
    check(device.digests(OWN) == own, f"{len(OWN)} files of the owner in /etc are unchanged")
    check(device.shell("find /var/lib/edgewarden/slots -type l -printf '%p %l\\n' | sort") == links and links,
          "the state is unchanged, and 2.0.0 serves without an update")
    stray = device.shell("find /etc -name '*.dpkg-*'")
    check(not stray, "no dpkg leftovers in /etc", stray)
    for library in (deb for deb in device.debs if deb != agent_deb):
        before = device.pid()
        deb, version = rebuilt(library, "+test1", folder)
        device.install([deb])
        device.until("another agent", lambda: device.pid() not in (0, before))
        device.until("2.0.0 to run again", lambda: device.running("2.0.0"))
        good(f"{deb.name}: the agent was started anew with it")

    step(8, "upgraded in the middle of an update")
    deb, version = rebuilt(agent_deb, "+test2", folder)
    device.machine.push([deb], "/srv/debs")
    before = device.pid()
    follower = device.machine.start("edgewarden", "update", "detector", release("5.0.0"))
    try:
        device.until("the fetch of 5.0.0", lambda: is_at(device, "5.0.0", "fetching"), 60)
        # So that it cannot end before the new agent is there, however slow this machine is.
        device.shell("systemctl kill --signal=STOP fleet-repository")
        device.apt("install", f"/srv/debs/{deb.name}")
        device.until("another agent", lambda: device.pid() not in (0, before))
        stage = device.until("its answer", device.deployment)["stage"]
        check(stage != "committed", f"{version} installed while 5.0.0 was fetched; the new agent found it {stage}")
    finally:
        device.shell("systemctl kill --signal=CONT fleet-repository")
        follower.kill()
        follower.wait()
    device.until("the update to end", lambda: is_at(device, "5.0.0", "committed"), 120)
    device.until("5.0.0 to run", lambda: device.running("5.0.0"))
    good("the update went on after the restart and ended: 5.0.0 serves")
    check(device.digests(OWN) == own, "the owner's files are unchanged")
    return deb


def is_at(device, version, stage):
    found = device.deployment()
    return found and found["release"] == release(version) and found["stage"] == stage


def removed(device, agent_deb):
    """Without losing what is the user's, until it is purged."""
    step(9, "removed and installed again")
    own = device.digests(OWN)
    device.apt("remove", "edgewarden")
    check(not device.shell("pgrep -f '[e]dgewarden (run|child)' || true"), "nothing of it runs")
    check(device.digests(OWN) == own, "the owner's files in /etc are still there")
    check(device.shell("find /var/lib/edgewarden/models -type f"), "and the models")
    device.install([agent_deb])
    device.until("5.0.0 to run", lambda: device.running("5.0.0"))
    good("installed again: 5.0.0 serves, with the same configuration")

    step(10, "purged")
    names = device.shell("dpkg-query -W -f '${Package}\\n' 'edgewarden*'").split()
    device.apt("purge", *names)
    left = device.shell(
        "find / -xdev \\( -path /proc -o -path /sys -o -path /srv -o -path /var/log \\) -prune -o -iname '*edgewarden*' -print").split()
    # The owner's own addition to the unit is not the package's to take.
    known = {DROP_IN.rsplit("/", 1)[0]}
    check(not set(left) - known, f"nothing of {', '.join(names)} is left but {left or 'nothing'}", str(left))
    unit = device.run("systemctl", "cat", "edgewarden", check=False)
    check(unit.returncode and "ExecStart" not in unit.stdout, "the unit is gone")
    failed = device.shell("systemctl list-units --failed --plain --no-legend")
    check("edgewarden" not in failed, "no failed unit is left", failed)
    users = device.shell("getent passwd edgewarden || true").strip()
    good(f"its user is {'kept, as Debian advises' if users else 'gone'}")


def everyday(machine, debs, folder):
    """The whole life; the packages are those of the machine's processor."""
    agent = [deb for deb in debs if deb.name.startswith("edgewarden_")]
    if len(agent) != 1:
        raise Failed(f"one package edgewarden_VERSION_ARCH.deb is needed among {[deb.name for deb in debs]}")
    machine.boot()
    device = Device(machine, debs)
    for part in (installed, unconfigured, configured, over_the_air, watched):
        part(device)
    closed(device)
    newest = upgraded(device, agent[0], folder)
    removed(device, newest)


def short(machine, debs, native, folder):
    """Install, start, inference, update: what a slow machine has time for. `native` are the same packages for this
    machine; with them the answers on both are compared."""
    machine.boot()
    device = Device(machine, debs)
    print(f"   {device.run('uname', '-m').stdout.strip()}, {machine.accel}", flush=True)
    for part in (installed, unconfigured, configured, over_the_air):
        part(device)
    step(5, "answers beside those of this machine")
    if native:
        beside(device, native, folder)
    else:
        print("   skipped: no packages for this machine were given", flush=True)


def beside(device, native, folder):
    """The golden pictures of the smallest model, answered there and here."""
    words = ["predict", "v1", *sorted(str(path.relative_to(MODELS)) for path in MODELS.glob("v1/golden/*.jpg"))]
    there = device.shell(f"cd /srv/bundles; edgewarden {shlex.join(words)} 2>/dev/null")
    for deb in native:
        subprocess.run(["dpkg-deb", "-x", str(deb), str(folder / "native")], check=True)
    library = {"EDGEWARDEN_ONNXRUNTIME": str(folder / "native/usr/lib/edgewarden/onnxruntime/libonnxruntime.so")}
    here = subprocess.run([str(folder / "native/usr/bin/edgewarden"), *words], cwd=MODELS, env=os.environ | library,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if here.returncode:
        raise Failed(f"this machine's program: {here.stderr}")
    answers = folder / "here.jsonl", folder / "there.jsonl"
    for path, said in zip(answers, (here.stdout, there)):
        path.write_text(said)
    compared = subprocess.run([sys.executable, str(COMPARE), *map(str, answers)],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print("   " + compared.stdout.strip().replace("\n", "\n   "), flush=True)
    check(compared.returncode == 0, "this machine's answers (left) and that one's (right) are the same within tolerance")
