#!/usr/bin/env python3
"""Records the replies on HAProxy's sockets, for tests/data: record-haproxy.py HAPROXY > tests/data/haproxy-VERSION.json

The file holds a list of connections per socket: the line that was sent, and every byte that came back.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

PORT = 18901  # has a listener
CLOSED = 18900  # has none

GLOBAL = """
global
    stats socket {folder}/admin.sock level admin
    stats socket {folder}/operator.sock level operator
    stats socket {folder}/number.sock level admin severity-output number
    stats socket {folder}/string.sock level admin severity-output string
    stats timeout 2s
    {extra}
defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
"""

BACKENDS = f"""
backend b
    balance roundrobin
    server-template s 1-6 127.0.0.2:{CLOSED} check inter 100ms disabled
backend unchecked
    balance uri
    hash-type consistent
    server-template u 1-2 127.0.0.2:{CLOSED} disabled
backend static
    balance uri
    server-template t 1-2 127.0.0.2:{CLOSED} disabled
backend slow
    server-template w 1-3 127.0.0.1:{PORT} check inter 6s rise 9 disabled
backend following
    server f1 127.0.0.1:{PORT} track b/s1
    server f2 127.0.0.1:{PORT} track b/s2
backend mapped
    server-template m 1-1 127.0.0.2:0 disabled
backend added
    server-template a 1-1 127.0.0.2:+{PORT} disabled
backend named
    server n1 web.invalid:{PORT} init-addr 127.0.0.1
backend off
    disabled
    server-template o 1-1 127.0.0.2:{CLOSED} disabled
backend twin
    server-template x 1-1 127.0.0.2:{CLOSED} disabled
listen both
    bind 127.0.0.1:18903
    server-template l 1-1 127.0.0.2:{CLOSED} disabled
"""

# 3.3 and later reject two proxies of one name.
TWIN = """
frontend twin
    bind 127.0.0.1:18902
    default_backend twin
"""

RESOLVERS = f"""
resolvers consul
    nameserver one 127.0.0.1:{CLOSED}
backend named
    server n1 web.invalid:{PORT} resolvers consul init-addr 127.0.0.1
"""

# The state that the tables should show.
SET = [
    "set server b/s1 addr 127.0.0.1 port 18901;set server b/s1 weight 7;set server b/s1 state ready",
    "set server b/s2 weight 5",
    "set server b/s3 addr 127.0.0.1 port 18901;set server b/s3 state drain",
    "set server b/s4 addr 127.0.0.1 port 1;set server b/s4 state ready",
    "set server b/s5 addr 2001:db8::1 port 80",
    "set server unchecked/u1 addr 127.0.0.1 port 18901;set server unchecked/u1 weight 9;set server unchecked/u1 state ready",
]

READINGS = [
    "show proc",
    "show info",
    "show cli level",
    "show backend",
    "show resolvers",
    "show servers state b",
    "show servers state unchecked",
    "show servers state following",
    "show servers state named",
    "show servers state twin",
    "show servers state both",
    "show servers state off",
    "show servers state nobody",
    "show stat twin 4 -1",
    "show stat off 4 -1",
    "show stat nobody 4 -1",
]

COMMANDS = [
    "set server b/s6 state maint;set server b/s6 addr 127.0.0.11 port 80;set server b/s6 weight 0",
    "set server b/s6 addr 127.0.0.11 port 80",
    "set server b/s6 addr 127.0.0.12 port 80",
    "set server b/s6 addr 127.0.0.12 port 81",
    "set server b/s6 addr 127.0.0.12",
    "set server b/s6 addr 127.0.0.13",
    "set server b/s6 addr 2001:db8::6 port 82",
    "set server b/s6 state ready",
    "set server b/s6 health down",
    "set server b/s6 weight 256",
    "set server b/s6 state maint",
    "set server b/s6 addr foo port 80",
    "set server b/s6 addr 127.0.0.12 port abc",
    "set server b/s6 weight 257",
    "set server b/s6 weight abc",
    "set server b/s6 weight abc;set server b/s6 state maint",
    "set server b/s6 state perhaps",
    "set server b/s9 state ready",
    "set server nobody/s1 state ready",
    "set server static/t1 weight 3",
    "set server static/t1 weight 100%",
    "set server following/f1 health down",
    "set server unchecked/u1 health down;show servers state unchecked",
    "set server off/o1 state ready",
    "set server off/o1 addr 127.0.0.13 port 80",
    "set server mapped/m1 addr 127.0.0.13;show servers state mapped",
    "set server mapped/m1 addr 127.0.0.13 port 80;show servers state mapped",
    f"set server added/a1 addr 127.0.0.13 port {PORT};show servers state added",
    # In maintenance `health down` is lost; after `ready` it is not.
    "set server slow/w1 health down;set server slow/w1 state ready;show servers state slow",
    "set server slow/w2 state ready;set server slow/w2 health down;show servers state slow",
    "set server slow/w3 state ready;disable health slow/w3;show servers state slow",
    "show cli level;;show cli level",
    # More than one line: 3.0 and later drop all but the first.
    "show cli level\nshow cli level",
    # Longer than HAProxy's buffer.
    ";".join(["set server b/s6 weight 1"] * 800),
]

SEVERITY = [
    "show proc",
    "show cli level",
    "show info",
    "set server nobody/s1 state ready",
    "set severity-output none;show info",
    "set severity-output none;show cli level",
    "set severity-output none;show info;show servers state b",
    "set severity-output none;show info;show stat {b} 4 -1",
    "set severity-output none;set server b/s1 weight 7;set server nobody/s1 state ready;set server b/s1 addr 127.0.0.1 port 18901",
]

MASTER = [
    "show proc",
    "@1;show info",
    "@1;show cli level",
    "@1;show cli level;show backend",
    "@1;show info;show servers state b",
    "@1;show info;show stat {b} 4 -1",
    "@1;set server b/s1 weight 7;set server nobody/s1 state ready;set server b/s1 addr 127.0.0.1 port 18901",
]


def ask(path, line, stays_open=False):
    """The reply to `line`, until the peer closes or falls silent; empty if there is none."""
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(0.5 if stays_open else 3)
        talk.connect(path)
        talk.sendall(line.encode() + b"\n")
        answer = b""
        try:
            while part := talk.recv(65536):
                answer += part
        except TimeoutError:
            answer = answer if stays_open else b""
        return answer.decode("latin-1")


def trimmed(line, answer):
    """Drops the lines of `show info` that hsdo does not read."""
    told = ("Name: ", "Version: ", "Pid: ", "Uptime_sec: ", "Start_time_sec: ", "Nbproc: ", "Process_num: ")
    words = ("Uptime: ", "Memmax_MB: ", "Total", "Cum", "Max", "Curr", "Pool", "Poll", "Hard", "Ulimit", "Build")
    if "show info" not in line:
        return answer
    begin = answer.find("Name: ")
    end = answer.find("\n\n", begin) + 1
    info = [row for row in answer[begin:end].split("\n") if row.startswith(told)]
    assert begin >= 0 and end > 0 and any(row.startswith(words) for row in answer[begin:end].split("\n")), answer
    return answer[:begin] + "".join(f"{row}\n" for row in info) + answer[end:]


def talks(path, lines, stays_open=False):
    return [[line, trimmed(line, ask(path, line, stays_open))] for line in lines]


@contextlib.contextmanager
def haproxy(config, extra="", options=("-db",)):
    """Runs HAProxy; yields the folder with its sockets."""
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/haproxy.cfg", "w", encoding="utf-8") as file:
            file.write(GLOBAL.format(folder=folder, extra=extra) + config)
        options = [option.format(folder=folder) for option in options]
        process = subprocess.Popen(
            [sys.argv[1], *options, "-f", f"{folder}/haproxy.cfg"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        try:
            while not os.path.exists(f"{folder}/admin.sock"):
                assert process.poll() is None, "HAProxy did not start"
                time.sleep(0.05)
            yield folder
        finally:
            process.terminate()
            process.wait()


def prepare(folder):
    """Sets up the state of SET; returns the number of the backend `b`."""
    admin = f"{folder}/admin.sock"
    for line in SET:
        ask(admin, line)
    while True:
        rows = ask(admin, "show stat b 4 -1")
        if rows.count("L4OK,") == 2 and "L4CON," in rows:
            return ask(admin, "show servers state b").split("\n")[2].split(" ")[0]
        time.sleep(0.03)


def main():
    version = subprocess.run([sys.argv[1], "-v"], capture_output=True, text=True, check=True).stdout.split()[2]
    listener = socket.create_server(("127.0.0.1", PORT))
    threading.Thread(target=lambda: [listener.accept() for _ in iter(int, 1)], daemon=True).start()
    result = {}
    version_number = tuple(int(part) for part in version.split(".")[:2])
    backends = BACKENDS if version_number >= (3, 3) else TWIN + BACKENDS
    with haproxy(backends) as folder:
        admin = f"{folder}/admin.sock"
        number = prepare(folder)
        numbers = [ask(admin, f"show servers state {name}").split("\n")[2].split(" ")[0] for name in ("unchecked", "twin")]
        stats = [f"show stat {number} 4 -1" for number in (number, *numbers)]
        result["admin"] = talks(admin, READINGS + stats)
        for level in "number", "string":
            result[f"severity {level}"] = talks(f"{folder}/{level}.sock", [line.format(b=number) for line in SEVERITY])
        result["operator"] = talks(f"{folder}/operator.sock", ["show cli level", "set server b/s6 state ready"])
        result["admin"] += talks(admin, COMMANDS)
    with haproxy(backends, options=("-W", "-S", "{folder}/master.sock")) as folder:
        number = prepare(folder)
        lines = [line.format(b=number) for line in MASTER]
        result["master"] = talks(f"{folder}/master.sock", lines, stays_open=True)
    with haproxy(RESOLVERS) as folder:
        lines = ["show proc", "show info", "show cli level", "show servers state named", "show resolvers"]
        result["resolver"] = talks(f"{folder}/admin.sock", lines)
    if version_number < (2, 5):
        with haproxy(backends, extra="nbproc 2", options=("-W",)) as folder:
            time.sleep(1)
            result["nbproc"] = talks(f"{folder}/admin.sock", ["show proc", "show info", "show cli level"])
    json.dump(result, sys.stdout, indent=1)
    print()


main()
