#!/usr/bin/env python3
"""Measures whether a new server takes a request before its check passes: measure-gate.py HAPROXY > tests/data/gate-VERSION.json

Each situation is a backend of one HAProxy. Slot 2 holds server A. Then B replaces A by the lines that hsdo sends, while B's check
fails and clients that stuck to A keep sending requests. `reached` counts the requests that B got before its check could pass.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

# `connect` to it fails at once (ip(7)).
PARKED = "255.255.255.255"
WEB, CHECK, AGENT, FRONT = 18911, 18912, 18913, 18914
CLIENTS = 8
SHUT = 1.5  # how long B's check fails, seconds
PLAIN = "option httpchk GET /check"
COOKIE = "cookie S insert indirect nocache"
STICK = [
    "stick-table type string size 1k expire 1m",
    "stick match req.hdr(x-client)",
    "stick store-request req.hdr(x-client) if { req.hdr(x-learn) 1 }",
]
USE = "use-server s2 if { req.hdr(x-client) c0 c1 c2 c3 }"
DEFAULT = "inter 200ms fall 1 rise 1"
SELDOM = "inter 1s fall 1 rise 1"

# Name: server options, backend lines, and what differs from the default run.
SITUATIONS = {
    "fall 1 rise 1": (f"check {DEFAULT}", [PLAIN, COOKIE], {}),
    "fall 1 rise 3": ("check inter 200ms fall 1 rise 3", [PLAIN, COOKIE], {}),
    "fall 3 rise 2": ("check inter 200ms fall 3 rise 2", [PLAIN, COOKIE], {}),
    "rise 10": ("check inter 200ms fall 1 rise 10", [PLAIN, COOKIE], {}),
    "no persistence": (f"check {DEFAULT}", [PLAIN], {}),
    "stick table": (f"check {DEFAULT}", [PLAIN, *STICK], {}),
    "use-server": (f"check {DEFAULT}", [PLAIN, USE], {}),
    "check of another port, closed": (f"check port {CHECK} {DEFAULT}", [COOKIE], {"closed": True}),
    "balance source": (f"check {DEFAULT}", [PLAIN, "balance source"], {"weight": "100%"}),
    "balance uri consistent": (f"check {DEFAULT}", [PLAIN, "balance uri", "hash-type consistent"], {}),
    "leastconn": (f"check {DEFAULT}", [PLAIN, COOKIE, "balance leastconn"], {}),
    "fastinter downinter": (f"check {DEFAULT} fastinter 50ms downinter 100ms", [PLAIN, COOKIE], {}),
    "slowstart": (f"check {DEFAULT} slowstart 1s", [PLAIN, COOKIE], {}),
    "observe layer7": (
        f"check {DEFAULT} observe layer7 error-limit 2 on-error mark-down", [PLAIN, COOKIE], {}),
    "on-marked-down": (f"check {DEFAULT} on-marked-down shutdown-sessions", [PLAIN, COOKIE], {}),
    "disable-on-404": (f"check {DEFAULT}", [PLAIN, COOKIE, "http-check disable-on-404"], {}),
    "disable-on-404, answers 404": (
        f"check {DEFAULT}", [PLAIN, COOKIE, "http-check disable-on-404"], {"fails": 404}),
    "check and agent": (f"check {DEFAULT} agent-check agent-port {AGENT} agent-inter 100ms", [PLAIN, COOKIE], {}),
    "external check": (
        "check inter 500ms fall 1 rise 1",
        [COOKIE, "option external-check", "external-check path /usr/bin:/bin", "external-check command {folder}/check.sh"],
        {}),
    "init-state up": (f"check {DEFAULT} init-state up", [PLAIN, COOKIE], {"since": (3, 1)}),
    "init-state fully-up": (f"check {DEFAULT} init-state fully-up", [PLAIN, COOKIE], {"since": (3, 1)}),
    "init-state down": (f"check {DEFAULT} init-state down", [PLAIN, COOKIE], {"since": (3, 1)}),
    "A's check under way": (f"check {DEFAULT}", [PLAIN, COOKIE, "timeout check 4s"], {"late": True}),
    # Controls: not hsdo's way, to prove that an early request would be seen.
    "unwaited: A's check under way": (
        f"check {SELDOM}", [PLAIN, COOKIE, "timeout check 4s"], {"late": True, "wait": False, "open": True}),
    "without health down: fall 1 rise 1": (f"check {SELDOM}", [PLAIN, COOKIE], {"gate": False, "open": True}),
    "option persist": (f"check {DEFAULT}", [PLAIN, COOKIE, "option persist"], {"open": True}),
    # No check of its own to wait for.
    "agent only": (f"agent-check agent-port {AGENT} agent-inter 100ms", [COOKIE], {"gate": False, "open": True}),
    "no check": ("", [COOKIE], {"gate": False, "open": True}),
    "tracks": (f"track {{model}}", [COOKIE], {"gate": False, "model": "after"}),
    "tracks, and is opened after its model": (f"track {{model}}", [COOKIE], {"gate": False, "model": "before"}),
}


class World:
    """The fake servers, each at its own address."""

    def __init__(self):
        self.lock = threading.Lock()
        self.checks = {}  # address: the status of its check
        self.late = set()  # addresses whose check is slow
        self.got = {}  # address: requests
        self.folder = ""

    def check(self, address, status):
        self.checks[address] = status
        path = f"{self.folder}/pass-{address}"
        if status == 200:
            open(path, "w", encoding="utf-8").close()
        elif os.path.exists(path):
            os.remove(path)

    def serve(self, address, port):
        listener = socket.create_server((address, port), backlog=128)
        threading.Thread(target=self.accept, args=(listener, address, port), daemon=True).start()

    def accept(self, listener, address, port):
        while True:
            talk, _ = listener.accept()
            if address in self.late:
                threading.Thread(target=self.serve_one, args=(talk, address, port), daemon=True).start()
            else:
                self.serve_one(talk, address, port)

    def serve_one(self, talk, address, port):
        with talk:
            talk.settimeout(1)
            try:
                if port == WEB:
                    self.answer(talk, address)
                elif port == AGENT:
                    talk.sendall(b"up\n")
            except OSError:
                pass

    def answer(self, talk, address):
        head = b""
        while b"\r\n\r\n" not in head:
            part = talk.recv(4096)
            if not part:
                return
            head += part
        status = 200
        if head.startswith(b"GET /check"):
            status = self.checks[address]
            if address in self.late:
                self.late.discard(address)
                time.sleep(1.2)
        else:
            with self.lock:
                self.got[address] = self.got.get(address, 0) + 1
        body = address.encode()
        talk.sendall(b"HTTP/1.0 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))


class Situation:
    def __init__(self, world, path, number, name, how):
        self.world, self.path, self.name, self.how = world, path, name, how
        self.backend = f"b{number}"
        self.keeper, self.old, self.new = (f"127.9.{number}.{host}" for host in (1, 2, 3))
        self.model = f"m{number}" if how.get("model") else None
        self.weight = how.get("weight", "10")
        self.cookies = {}
        self.asked = self.failed = 0
        self.result = {}

    def config(self, folder, options, lines):
        rows = [f"backend {self.backend}"]
        rows += [f"    {line.replace('{folder}', folder)}" for line in lines]
        for slot, address in ("s1", self.keeper), ("s2", self.old):
            own = options.replace("{model}", f"{self.model}/{slot}")
            rows.append(f"    server {slot} {address}:{WEB} cookie {slot} {own} weight 1")
        if self.model:
            rows += [f"backend {self.model}", f"    {PLAIN}"]
            for slot, address in ("s1", self.keeper), ("s2", self.old):
                rows.append(f"    server {slot} {address}:{WEB} check {DEFAULT} weight 1")
        return rows

    def tell(self, line):
        with socket.socket(socket.AF_UNIX) as talk:
            talk.settimeout(5)
            talk.connect(self.path)
            talk.sendall(line.encode() + b"\n")
            answer = b""
            while part := talk.recv(65536):
                answer += part
            return answer.decode("latin-1")

    def row(self, backend=None):
        rows = self.tell(f"show servers state {backend or self.backend}").split("\n")
        head = rows[1][2:].split(" ")
        return next(dict(zip(head, row.split(" "))) for row in rows[2:] if row.split(" ")[3] == "s2")

    def ask(self, client, learn=False):
        """Sends a request as that client; returns the address that answered."""
        self.asked += 1
        cookie = self.cookies.get(client)
        with socket.socket() as talk:
            talk.settimeout(3)
            talk.bind((f"127.8.0.{client + 1}", 0))
            talk.connect(("127.0.0.1", FRONT))
            lines = [f"GET /{client} HTTP/1.1", "Host: x", "Connection: close", f"X-Backend: {self.backend}"]
            lines += [f"X-Client: c{client}", f"X-Learn: {int(learn)}"] + ([f"Cookie: {cookie}"] if cookie else [])
            talk.sendall("\r\n".join([*lines, "", ""]).encode())
            answer = b""
            while part := talk.recv(4096):
                answer += part
        head, _, body = answer.decode("latin-1").partition("\r\n\r\n")
        if learn:
            for line in head.split("\r\n"):
                if line.lower().startswith("set-cookie: "):
                    self.cookies[client] = line[12:].split(";")[0]
        if " 200 " not in head.split("\r\n")[0]:
            self.failed += 1
            return None
        return body

    def until(self, what, holds, seconds=15):
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, f"{self.name}: {what}: {self.row()}"
            time.sleep(0.03)

    def traffic(self, stop):
        """Sends requests as one client after the other until `stop`."""
        client = 0
        while not stop():
            self.ask(client % CLIENTS)
            client += 1
            time.sleep(0.06)

    def reached(self):
        return self.world.got.get(self.new, 0)

    def run(self):
        world = self.world
        self.until("A serves", lambda: self.row()["srv_op_state"] == "2")
        stuck = set()
        for _ in range(6):
            stuck |= {client for client in range(CLIENTS) if self.ask(client, learn=True) == self.old}
        assert stuck, f"{self.name}: nobody reaches A"
        self.asked = self.failed = 0
        done = threading.Event()
        sender = threading.Thread(target=self.traffic, args=(done.is_set,), daemon=True)
        if self.how.get("late"):
            world.late.add(self.old)
            self.until("a check is under way", lambda: self.old not in world.late)
        sender.start()
        try:
            self.measure()
        finally:
            done.set()
            sender.join()

    def is_gated(self, name):
        return self.how.get("gate", True) or name == self.model

    def measure(self):
        backends = [name for name in (self.backend, self.model) if name]
        if self.how.get("model") == "before":
            backends.reverse()
        line = "set server {0}/s2 weight 0;set server {0}/s2 state maint;set server {0}/s2 addr {1} port {2}"
        # A server with a check is parked where connections fail; others get their address at once.
        first = {name: PARKED if self.is_gated(name) else self.new for name in backends}
        self.tell(";".join(line.format(name, first[name], WEB) for name in backends))
        begin = time.monotonic()
        for name in backends:
            self.until("its address", lambda: self.row(name)["srv_addr"] == first[name])
        self.result["check_state_in_maintenance"] = max(int(self.row(name)["srv_check_state"]) for name in backends)
        if self.how.get("wait", True):
            for name in backends:
                self.until("no check is under way", lambda: not int(self.row(name)["srv_check_state"]) & 1)
            self.result["waited_for_check"] = round(time.monotonic() - begin, 1) if self.how.get("late") else 0.0
        line = []
        for name in backends:
            line.append(f"set server {name}/s2 state ready")
            if self.is_gated(name):
                line += [f"set server {name}/s2 health down", f"set server {name}/s2 addr {self.new} port {WEB}"]
            line.append(f"set server {name}/s2 weight {self.weight}")
        replies = self.tell(";".join(line))
        assert replies.count("IP changed") == sum(map(self.is_gated, backends)), f"{self.name}: {replies!r}"
        time.sleep(SHUT)
        row = self.row()
        self.result["state_before"] = {name: row[name] for name in ("srv_op_state", "srv_admin_state", "srv_uweight")}
        self.result["requests_before"] = self.asked
        self.result["failed_before"] = self.failed
        self.result["reached"] = self.reached()
        passes = time.monotonic()
        self.world.check(self.new, 200)
        if self.how.get("closed"):
            self.world.serve(self.new, CHECK)
        before = self.reached()
        self.until("B serves", lambda: self.reached() > before)
        self.result["served_after"] = round(time.monotonic() - passes, 1)
        self.until("ten are served", lambda: self.reached() >= before + 10)
        self.result["served"] = 10
        if not self.how.get("gate", True):
            reply = self.tell(f"set server {self.backend}/s2 health down").strip()
            time.sleep(0.6)
            self.result["health_down"] = {"reply": reply, "srv_op_state_after": self.row()["srv_op_state"]}
        # Stop its traffic, so that the remaining measurements are undisturbed.
        self.tell(f"set server {self.backend}/s2 state maint")


def main():
    haproxy = sys.argv[1]
    version = subprocess.run([haproxy, "-v"], capture_output=True, text=True, check=True).stdout.split()[2]
    number = tuple(int(part) for part in version.split(".")[:2])
    world = World()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        world.folder = folder
        with open(f"{folder}/check.sh", "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\ntest -e "{folder}/pass-$3"\n')
        os.chmod(f"{folder}/check.sh", 0o755)
        path = f"{folder}/admin.sock"
        rows = f"""global
    stats socket {path} level admin
    stats maxconn 100
    maxconn 2000
    external-check
    insecure-fork-wanted
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
    retries 0
    option redispatch
    balance roundrobin
frontend front
    bind 127.0.0.1:{FRONT}
    use_backend %[req.hdr(x-backend)]""".split("\n")
        situations = []
        for place, (name, (options, lines, how)) in enumerate(SITUATIONS.items(), 1):
            if number < how.get("since", (0,)):
                continue
            situation = Situation(world, path, place, name, how)
            rows += situation.config(folder, options, lines)
            situations.append(situation)
            for address, status in (situation.keeper, 200), (situation.old, 200), (situation.new, how.get("fails", 503)):
                world.check(address, status)
                world.serve(address, WEB)
                if "agent-check" in options:
                    world.serve(address, AGENT)
                if how.get("closed") and address != situation.new:
                    world.serve(address, CHECK)
        with open(f"{folder}/haproxy.cfg", "w", encoding="utf-8") as file:
            file.write("\n".join(rows) + "\n")
        process = subprocess.Popen([haproxy, "-db", "-f", f"{folder}/haproxy.cfg"], stderr=subprocess.DEVNULL)
        faults = []
        try:
            while not os.path.exists(path):
                assert process.poll() is None, "HAProxy did not start"
                time.sleep(0.05)

            def run(situation):
                try:
                    situation.run()
                except Exception as fault:  # pylint: disable=broad-except
                    faults.append(f"{situation.name}: {fault!r}")

            # A few at a time, for machines with few cores.
            for start in range(0, len(situations), 6):
                threads = [threading.Thread(target=run, args=(one,)) for one in situations[start : start + 6]]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        finally:
            process.terminate()
            process.wait()
    if faults:
        sys.exit("\n".join(faults))
    told = {one.name: {"may_serve_early": one.how.get("open", False), **one.result} for one in situations}
    json.dump({"version": version, "situations": told}, sys.stdout, indent=1)
    print()


main()
