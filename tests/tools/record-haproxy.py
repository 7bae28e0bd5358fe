#!/usr/bin/env python3
"""Records what a HAProxy answers on its socket, for tests/data: record-haproxy.py HAPROXY > tests/data/haproxy-VERSION.json

Each entry is one connection: what was sent, and every byte that came back.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

CONFIG = """
global
    stats socket {folder}/admin.sock level admin
    stats socket {folder}/operator.sock level operator
    stats timeout 2s
defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
backend b
    balance roundrobin
    server-template s 1-6 127.0.0.2:18900 check inter 100ms disabled
backend unchecked
    balance uri
    hash-type consistent
    server-template u 1-2 127.0.0.2:18900 disabled
backend static
    balance uri
    server-template t 1-2 127.0.0.2:18900 disabled
"""

# The state that `show stat` and `show servers state` are to show.
SET = [
    "set server b/s1 addr 127.0.0.1 port 18901;set server b/s1 weight 7;set server b/s1 state ready",
    "set server b/s2 weight 5",
    "set server b/s3 addr 127.0.0.1 port 18901;set server b/s3 state drain",
    "set server b/s4 addr 127.0.0.1 port 1;set server b/s4 state ready",
    "set server b/s5 addr 2001:db8::1 port 80",
    "set server unchecked/u1 addr 127.0.0.1 port 18901;set server unchecked/u1 weight 9;set server unchecked/u1 state ready",
]

TALKS = [
    "show info",
    "show cli level",
    "show backend",
    "show stat b 4 -1",
    "show stat unchecked 4 -1",
    "show stat nobody 4 -1",
    "show servers state b",
    "show servers state unchecked",
    "show servers state nobody",
    "set server b/s6 state maint;set server b/s6 addr 127.0.0.11 port 80;set server b/s6 weight 0",
    "set server b/s6 addr 127.0.0.11 port 80",
    "set server b/s6 addr 127.0.0.12 port 80",
    "set server b/s6 addr 127.0.0.12 port 81",
    "set server b/s6 addr 2001:db8::6 port 82",
    "set server b/s6 state ready",
    "set server b/s6 state ready",
    "set server b/s6 weight 256",
    "set server b/s6 state maint",
    "set server b/s6 addr foo port 80",
    "set server b/s6 addr 127.0.0.12 port abc",
    "set server b/s6 weight 257",
    "set server b/s6 weight abc",
    "set server b/s6 weight abc;set server b/s6 state maint",
    "set server b/s9 state ready",
    "set server nobody/s1 state ready",
    "set server b/s6 state perhaps",
    "set server static/t1 weight 3",
    "set server static/t1 weight 100%",
    "show cli level;;show cli level",
    # More than one line: 3.0 and later drop all but the first.
    "show cli level\nshow cli level",
]


def ask(path, line):
    """What comes back for `line` until the other side closes; nothing at all if it stays silent."""
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(3)
        talk.connect(path)
        talk.sendall(line.encode() + b"\n")
        answer = b""
        try:
            while part := talk.recv(65536):
                answer += part
        except TimeoutError:
            return ""
        return answer.decode()


def main():
    listener = socket.create_server(("127.0.0.1", 18901))
    threading.Thread(target=lambda: [listener.accept() for _ in iter(int, 1)], daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        config, admin = f"{folder}/haproxy.cfg", f"{folder}/admin.sock"
        with open(config, "w", encoding="utf-8") as file:
            file.write(CONFIG.format(folder=folder))
        process = subprocess.Popen([sys.argv[1], "-db", "-f", config], stderr=subprocess.DEVNULL)
        try:
            while not os.path.exists(admin):
                time.sleep(0.05)
            for line in SET:
                ask(admin, line)
            while ask(admin, "show stat b 4 -1").count(",L4OK,") < 2 or ",L4CON," not in ask(admin, "show stat b 4 -1"):
                time.sleep(0.1)
            talks = [[line, ask(admin, line)] for line in TALKS]
            # The rest is about the machine.
            told = ("Name: ", "Version: ", "Pid: ", "Uptime_sec: ")
            talks[0][1] = "\n".join(line for line in talks[0][1].split("\n") if not line or line.startswith(told))
            line = "set server b/s6 state ready"
            talks.append([f"as operator: {line}", ask(f"{folder}/operator.sock", line)])
            # Longer than HAProxy's buffer.
            talks.append(["too long", ask(admin, ";".join(["set server b/s6 weight 1"] * 800))])
        finally:
            process.kill()
    json.dump(talks, sys.stdout, indent=1)
    print()


main()
