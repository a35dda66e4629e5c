"""What the agent's own process (without its children) takes while it has little to do. See bench-idle.sh."""
import os
import pathlib
import sys
import time

from device import Device, mosquitto, smaps_rollup

PROGRAM, MOSQUITTO, LIBRARY, SECONDS = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
ROOT = pathlib.Path(__file__).resolve().parent
BUNDLE, PICTURE = ROOT / "models/v1", ROOT / "models/v1/golden/1.jpg"


def heap(pid):
    """KiB of private memory that is no file's: heaps, stacks, caches."""
    kib, anonymous = 0, False
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        fields = line.split()
        if "-" in fields[0] and len(fields) >= 5:
            anonymous = len(fields) == 5 or fields[5].startswith("[")
        elif fields[0] == "Rss:" and anonymous:
            kib += int(fields[1])
    return kib


def processor(pid):
    """Seconds of processor time so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(title, mqtt):
    device = Device(PROGRAM, BUNDLE, PICTURE, LIBRARY, fps=1)
    device.mqtt = mqtt
    with device:
        pid = device.agent.pid
        # What was needed to start and to install is given back once a minute.
        time.sleep(75)
        begun, spent = time.monotonic(), processor(pid)
        time.sleep(SECONDS)
        share = (processor(pid) - spent) / (time.monotonic() - begun)
        kib, threads = smaps_rollup(pid), len(os.listdir(f"/proc/{pid}/task"))
        print(f"{title:14}{kib['Rss'] / 1024:10.1f}{kib['Pss'] / 1024:10.1f}{heap(pid) / 1024:10.1f}"
              f"{threads:10}{share * 100:10.2f}", flush=True)
        if os.environ.get("SMAPS"):
            pathlib.Path(os.environ["SMAPS"] + "." + title.replace(" ", "-")).write_text(
                pathlib.Path(f"/proc/{pid}/smaps").read_text())


with mosquitto(MOSQUITTO) as port:
    print(f"the agent's process alone, one frame a second, {SECONDS:.0f} s each; MiB, and % of one core")
    print(f"{'':14}{'resident':>10}{'shared out':>10}{'heap':>10}{'threads':>10}{'core %':>10}")
    measured("without MQTT", "")
    measured("with MQTT", f'[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\n')
