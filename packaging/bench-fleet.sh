#!/usr/bin/env bash
# Many light devices in one process against a real mosquitto: connect, report, answer a command to their group.
#
#   [PROGRAM=...] [DEVICES=200] [MESSAGES=50] packaging/bench-fleet.sh
#
# PROGRAM names the benchmark `fleet` that is built already. The devices have the real client, spool and command
# handling; inference is made up. MESSAGES: how many each device says that must arrive.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
program=${PROGRAM:-$(packaging/bench-program.sh fleet)}
mosquitto=$(command -v mosquitto || echo /usr/sbin/mosquitto)
folder=$(mktemp -d "${TMPDIR:-/var/tmp}/bench-fleet.XXXXXX")
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$folder/mosquitto.conf" <<CONF
listener $port 127.0.0.1
allow_anonymous true
persistence false
user root
log_type error
max_queued_messages 0
max_inflight_messages 0
CONF
"$mosquitto" -c "$folder/mosquitto.conf" &
broker=$!
trap 'kill $broker; wait $broker 2>/dev/null || true; rm -rf "$folder"' EXIT
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do kill -0 $broker; sleep 0.05; done
ulimit -n 4096 2>/dev/null || true
"$program" "$port" "${DEVICES:-200}" "${MESSAGES:-50}" "$folder"
