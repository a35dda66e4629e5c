"""The installed device as its owner and its operator see it: packages, unit, status, models over the air.

`Device` knows how to do things and to wait; what must hold is in everyday.py and power.py.
"""
import itertools
import json
import pathlib
import shutil
import subprocess
import time

from machines import Failed

MODELS = pathlib.Path(__file__).resolve().parent.parent / "models"
NAME, SLOT = "device-test", "detector"
PASSWORD = "correct horse battery staple"

# The user's own file, in place of whatever the package brings.
AGENT = f"""\
# The owner's: an upgrade must leave every byte of it.
[device]
id = "{NAME}"

[[pipeline]]
name = "camera"
slot = "{SLOT}"
fps = {{fps}}
# A busy machine must not lose its frames.
max_age = "60s"
[pipeline.source]
kind = "synthetic"

[update]
probation_frames = {{frames}}
probation_min = "2s"
# A busy machine must not roll a model back.
slow_floor_ms = 60000
disk_reserve = "1MiB"
{{more}}"""
# The operator's drop-in. The pace makes a fetch long enough to meet it.
FLEET = """\
[mqtt]
url = "mqtt://127.0.0.1:1883"
username = "edgewarden"
password_file = "credential:mqtt-password"

[repository]
url = "http://127.0.0.1:8088/"
root = "/etc/edgewarden/root.json"
rate_limit = "25kB"
"""
UNIT = """\
[Service]
LoadCredential=mqtt-password:/etc/edgewarden/mqtt-password
"""
DROP_IN = "/etc/systemd/system/edgewarden.service.d/50-fleet.conf"
# What the user has in /etc, and an upgrade must keep.
OWN = ["/etc/edgewarden/agent.toml", "/etc/edgewarden/config.d/50-fleet.toml", "/etc/edgewarden/root.json",
       "/etc/edgewarden/mqtt-password", DROP_IN]
SERVER = """\
[Service]
ExecStart=/srv/server repo serve /srv/repo
[Install]
WantedBy=multi-user.target
"""
BROKER = """\
listener 1883 127.0.0.1
allow_anonymous false
password_file /etc/mosquitto/passwords
"""


def good(what):
    print(f"   ✓ {what}", flush=True)


def check(holds, what, otherwise=""):
    if not holds:
        raise Failed(f"{what}: not so. {otherwise}")
    good(what)


class Device:
    """A machine with our packages, or about to have them."""

    def __init__(self, machine, debs):
        self.machine, self.debs = machine, [pathlib.Path(deb) for deb in debs]
        self.run, self.shell = machine.run, machine.shell
        self.ids = itertools.count(1)

    # ---- packages ----

    def apt(self, *words):
        """There is no network and nobody to ask: a question is a failure."""
        return self.run("apt-get", "-q", "-y", "--no-install-recommends", *words).stdout

    def install(self, debs):
        """Installs package files as a stranger would, with apt."""
        self.shell("rm -rf /srv/debs")
        self.machine.push(debs, "/srv/debs")
        return self.apt("install", *(f"/srv/debs/{deb.name}" for deb in debs))

    # ---- unit ----

    def unit(self, *properties):
        """Properties of the unit, as text."""
        said = self.run("systemctl", "show", "edgewarden", *(f"--property={name}" for name in properties)).stdout
        return dict(line.split("=", 1) for line in said.splitlines())

    def pid(self):
        """The agent's process."""
        return int(self.unit("MainPID")["MainPID"])

    def journal(self, lines=40):
        return self.run("journalctl", "--no-pager", "--unit=edgewarden", f"--lines={lines}", check=False).stdout

    # ---- status ----

    def status(self):
        """What the agent says of itself; None while it does not answer."""
        done = self.run("edgewarden", "status", "--json", check=False)
        try:
            return json.loads(done.stdout) if done.returncode == 0 else None
        except json.JSONDecodeError:
            return None

    def until(self, what, found, seconds=60):
        """Waits until something is found, and gives it."""
        deadline = time.monotonic() + seconds * self.machine.slow
        while not (value := found()):
            if time.monotonic() > deadline:
                now = self.run("edgewarden", "status", check=False).stdout
                raise Failed(f"waited in vain for {what}\n{now}\n{self.journal()}")
            # Where programs are slow, asking all the time would hold up what is waited for.
            time.sleep(2 if self.machine.emulated else 0.2)
        return value

    def running(self, *releases):
        """The status, where a pipeline answers frames with one of these models (any, where none is named)."""
        now = self.status()
        pipeline = now and now["health"]["pipelines"] and now["health"]["pipelines"][0]
        if not pipeline or pipeline["state"] != "running" or not pipeline.get("release"):
            return None
        return now if not releases or pipeline["release"] in map(release, releases) else None

    def deployment(self):
        """The slot's newest deployment."""
        now = self.status()
        return now["slots"][0]["deployment"] if now and now["slots"] else None

    # ---- the fleet around it ----

    def publish(self, versions):
        """A signed repository in it, made with the installed program, and a web server for it."""
        self.machine.push([MODELS / version for version in versions], "/srv/bundles")
        self.shell("cd /srv; edgewarden repo init repo --keys keys; edgewarden repo publish repo --keys keys bundles/*")
        # A copy beside the agent's package, so that the server outlives its upgrades and its end; and a unit, so that
        # it is there again after a power cut.
        self.machine.write("/etc/systemd/system/fleet-repository.service", SERVER)
        self.shell("cp /usr/bin/edgewarden /srv/server; systemctl daemon-reload; systemctl -q enable --now fleet-repository")

    def broker(self):
        """A broker that wants a password."""
        self.machine.write("/etc/mosquitto/conf.d/fleet.conf", BROKER)
        self.shell(f"""
            cd /etc/mosquitto; touch passwords
            mosquitto_passwd -b passwords edgewarden '{PASSWORD}'
            mosquitto_passwd -b passwords operator operator
            chown mosquitto passwords; chmod 600 passwords; systemctl -q enable mosquitto; systemctl restart mosquitto""")

    def configure(self, fps=10, frames=20, more=""):
        """What an owner writes, and the restart that makes it count."""
        write = self.machine.write
        write("/etc/edgewarden/agent.toml", AGENT.format(fps=fps, frames=frames, more=more))
        write("/etc/edgewarden/config.d/50-fleet.toml", FLEET)
        write("/etc/edgewarden/mqtt-password", PASSWORD + "\n", "600")
        write(DROP_IN, UNIT)
        self.shell("cp /srv/repo/metadata/1.root.json /etc/edgewarden/root.json; systemctl daemon-reload")
        self.shell("systemctl restart edgewarden")

    def update(self, version):
        """Over the air, by the command line; what it told."""
        return self.run("edgewarden", "update", SLOT, release(version)).stdout

    def command(self, name, body, seconds=120):
        """Sends a command over MQTT and waits for its last answer."""
        number = next(self.ids)
        login = ["-h", "127.0.0.1", "-u", "operator", "-P", "operator"]
        wait = str(int(seconds * self.machine.slow))
        answers = self.machine.start("mosquitto_sub", *login, "-q", "1", "-W", wait, "-v",
                                     "-t", f"edgewarden/{NAME}/ack/{name}/{number}", "-t", f"edgewarden/{NAME}/birth")
        try:
            sent = False
            for line in answers.stdout:
                topic, _, payload = line.partition(" ")
                # The birth is retained: with it the subscription stands.
                if not sent:
                    self.run("mosquitto_pub", *login, "-q", "1", "-t", f"edgewarden/{NAME}/cmd/{name}/{number}",
                             "-m", json.dumps(body))
                    sent = True
                    continue
                if "/ack/" in topic:
                    answer = json.loads(payload)
                    if answer["status"] in ("successful", "failed"):
                        return answer
        finally:
            answers.kill()
            answers.wait()
        raise Failed(f"MQTT command {name}: no last answer\n{self.journal()}")

    def result(self, seconds=60):
        """One result of the model, as it comes over MQTT."""
        said = self.run("mosquitto_sub", "-h", "127.0.0.1", "-u", "operator", "-P", "operator", "-C", "1",
                        "-W", str(int(seconds * self.machine.slow)), "-t", f"edgewarden/{NAME}/telemetry/camera").stdout
        return json.loads(said)

    def digests(self, paths):
        """The content of files, to be compared."""
        return self.run("sha256sum", *paths).stdout


def release(version):
    """The name of a release of our models."""
    return f"belt-inspector@{version}"


def rebuilt(deb, suffix, folder):
    """The package under a higher version, its defaults changed: what the next release might be."""
    tree, out = folder / "tree", folder / f"{deb.stem}{suffix}"
    subprocess.run(["dpkg-deb", "-R", str(deb), str(tree)], check=True)
    control = tree / "DEBIAN" / "control"
    lines = control.read_text().splitlines()
    version = next(line.split(": ", 1)[1] for line in lines if line.startswith("Version: "))
    control.write_text("\n".join(f"Version: {version}{suffix}" if line.startswith("Version: ") else line for line in lines) + "\n")
    # Where a default is a conffile that its owner has changed too, dpkg would ask now.
    for path in [*tree.glob("etc/**/*"), *tree.glob("usr/share/edgewarden/**/*.toml")]:
        if path.is_file():
            path.write_text(path.read_text() + f"\n# {suffix}\n")
    out.mkdir()
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(tree), str(out)], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return next(out.glob("*.deb")), f"{version}{suffix}"
