"""Runs a command in a network namespace with name servers on port 53.

    unshare --net --mount python3 name-servers.py WHERE=WHAT... -- COMMAND...

WHERE is a loopback address. WHAT is `knows` (answers 127.0.0.1 for every name, after 50 ms), `unknown` (no such name, at
once) or `silent`. /etc/resolv.conf lists them in this order, and /etc/hosts is empty.
"""

import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def answer(question, what):
    end = question.index(b"\0", 12) + 5
    kind = question[end - 3]
    address = what == "knows" and kind == 1
    code = 3 if what == "unknown" else 0
    head = question[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, int(address), 0, 0)
    record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + bytes([127, 0, 0, 1])
    return head + question[12:end] + (record if address else b"")


def serve(server, what):
    while True:
        question, sender = server.recvfrom(600)
        if what == "knows":
            time.sleep(0.05)
        if what != "silent":
            server.sendto(answer(question, what), sender)


def mounted(text, path):
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    subprocess.run(["mount", "--bind", file.name, path], check=True)
    os.unlink(file.name)


def main():
    place = sys.argv.index("--")
    loopback_up()
    servers = [word.split("=") for word in sys.argv[1:place]]
    for where, what in servers:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((where, 53))
        threading.Thread(target=serve, args=(server, what), daemon=True).start()
    mounted("".join(f"nameserver {where}\n" for where, _ in servers), "/etc/resolv.conf")
    mounted("", "/etc/hosts")
    sys.exit(subprocess.run(sys.argv[place + 1 :]).returncode)


main()
