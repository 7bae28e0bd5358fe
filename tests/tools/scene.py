#!/usr/bin/env python3
"""Lets an installed hsdo serve a HAProxy: scene.py [--root FOLDER] [--settings FILE] [--boot [--upgrade X] [--remove X]] COMMAND...

COMMAND starts hsdo, with whatever stands before it, such as `chroot --userspec=hsdo FOLDER /usr/bin/hsdo`. The scene has moto
as AWS, three instances in one group, each a web server on its own address, and HAProxy. hsdo makes the table, checks, fills the
table in one server turn, and then runs as client, while an instance comes and one goes. Everything is on loopback.
With --boot, the client is the unit hsdo-client of that root folder, and HAProxy its haproxy.service, under its own systemd;
there --upgrade and --remove are commands that a package's administrator types while all of it runs.
Run it with the Python of target/venv, which has moto and boto3.
"""

import argparse
import collections
import contextlib
import http.server
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import boto3

REGION, TABLE, GROUP, SLOTS = "eu-west-1", "scene", "web", 10
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return
        if time.monotonic() > end:
            sys.exit(f"scene: waited {seconds} s in vain for {what}")
        time.sleep(0.1)


def listens(port):
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


class Aws:
    """moto, with a group."""

    def __init__(self, processes):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        moto = str(pathlib.Path(sys.executable).parent / "moto_server")
        log = subprocess.DEVNULL
        processes.append(subprocess.Popen([moto, "-H", "127.0.0.1", "-p", str(self.port)], stdout=log, stderr=log))
        wait_for("moto", lambda: listens(self.port))
        client = lambda name: boto3.client(name, endpoint_url=self.url, region_name=REGION, aws_access_key_id="test",
                                           aws_secret_access_key="test")
        self.ec2, self.groups = client("ec2"), client("autoscaling")
        vpc = self.ec2.create_vpc(CidrBlock="127.1.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            self.ec2.create_subnet(VpcId=vpc, CidrBlock=block, AvailabilityZone=zone)["Subnet"]["SubnetId"]
            for block, zone in [("127.1.0.0/20", "eu-west-1a"), ("127.1.16.0/20", "eu-west-1b")]
        ]
        image = self.ec2.describe_images(MaxResults=5)["Images"][0]["ImageId"]
        data = {"ImageId": image, "InstanceType": "t3.micro"}
        self.ec2.create_launch_template(LaunchTemplateName=GROUP, LaunchTemplateData=data)
        template = {"LaunchTemplateName": GROUP, "Version": "$Latest"}
        self.groups.create_auto_scaling_group(AutoScalingGroupName=GROUP, LaunchTemplate=template, MinSize=0, MaxSize=9,
                                              DesiredCapacity=3, VPCZoneIdentifier=",".join(subnets))

    def instances(self):
        group = self.groups.describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])["AutoScalingGroups"][0]
        ids = [one["InstanceId"] for one in group["Instances"]]
        found = self.ec2.describe_instances(InstanceIds=ids)["Reservations"] if ids else []
        return {one["InstanceId"]: one["PrivateIpAddress"] for some in found for one in some["Instances"]}


class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.server.name.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve(name, address, port):
    server = http.server.ThreadingHTTPServer((address, port), Web)
    server.name = name
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def administer(nspawn, arguments, serves):
    """Upgrades and removes hsdo in the booted system, which goes on serving."""
    first = subprocess.check_output(["pgrep", "-P", str(nspawn)], text=True).split()[0]

    def inside(command):
        words = ["nsenter", "-a", "-t", first, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-c", command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            sys.exit(f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def unit():
        """The number of the client's process, 0 if there is none, and what the kernel says of it."""
        pid = inside("systemctl show --property MainPID --value hsdo-client")
        lines = inside(f"cat /proc/{pid}/status").splitlines() if pid != "0" else []
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        return pid, {key: status.get(key) for key in ("Uid", "Gid", "Groups", "Seccomp", "NoNewPrivs", "CapBnd")}

    pid, rights = unit()
    print("the unit's process:", rights)
    # As the manual has it: as the unit's user, in its sandbox.
    manual = pathlib.Path(__file__).parents[2].joinpath("conf/README.md").read_text(encoding="utf-8")
    check = re.search(r"^systemd-run (?:.*\\\n)*.* hsdo check --client", manual, re.MULTILINE)
    assert "0 warn, 0 mend" in inside(check.group(0)), check
    if arguments.upgrade:
        inside(arguments.upgrade)

        def is_another():
            now, its_rights = unit()
            # systemd takes the rights of root away in the new process.
            return now not in ("0", pid) and its_rights == rights and serves()

        wait_for("another process with the same rights", is_another)
        assert inside("systemctl is-enabled hsdo-client") == "enabled"
        assert inside("systemctl is-active hsdo-server || true") == "inactive"
        print(f"{arguments.upgrade}: it was restarted, with the same rights")
    if arguments.remove:
        inside(arguments.remove)
        assert unit()[0] == "0", unit()
        failed = inside("systemctl --no-legend --plain list-units --state=failed,active 'hsdo*'")
        assert not failed, failed
        assert serves(), "HAProxy does not serve without hsdo"
        print(f"{arguments.remove}: it is gone, and HAProxy goes on serving")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default="/", help="the root folder of COMMAND")
    parser.add_argument("--settings", help="file to write the settings to, instead of the environment")
    parser.add_argument("--boot", action="store_true", help="start that root folder's systemd, with its HAProxy and the client's unit")
    parser.add_argument("--upgrade", help="command in that system that puts another version in place")
    parser.add_argument("--remove", help="command in that system that removes hsdo")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    root, processes, servers = pathlib.Path(arguments.root), [], {}
    (root / "tmp").mkdir(exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="scene", dir=root / "tmp"))
    folder.chmod(0o755)
    inside = "/" / folder.relative_to(root)
    web, front = free_port(), free_port()
    try:
        aws = Aws(processes)
        proxy = f"""
frontend in
    bind 127.0.0.1:{front}
    default_backend http-back
backend http-back
    balance roundrobin
    option redispatch
    retries 3
    retry-on conn-failure
    server-template web 1-{SLOTS} 127.0.0.2:80 check inter 200ms disabled
"""
        if arguments.boot:
            # Debian's configuration has the admin socket and the defaults.
            with open(root / "etc/haproxy/haproxy.cfg", "a", encoding="utf-8") as file:
                file.write(proxy)
        else:
            (folder / "haproxy.cfg").write_text(f"""
global
    stats socket {folder}/admin.sock mode 666 level admin
defaults
    mode http
    timeout connect 2s
    timeout client 5s
    timeout server 5s
{proxy}""")
            command = ["haproxy", "-q", "-db", "-f", str(folder / "haproxy.cfg")]
            processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            wait_for("HAProxy", lambda: listens(front))
        settings = {
            "SERVER_MODE": "aws",
            "SERVER_ASG_NAMES": GROUP,
            "CLIENT_HAPROXY_SOCKET_PATH": "/run/haproxy/admin.sock" if arguments.boot else str(inside / "admin.sock"),
            "CLIENT_HAPROXY_BACKEND_LIST": f"http-back:web:{web}",
            "HAPROXY_BACKEND_SERVERS_LIST_SIZE": str(SLOTS),
            "DYNAMODB_TABLE_NAME": TABLE,
            "AWS_DEFAULT_REGION": REGION,
            "INTERVAL": "0.5",
            "EXPORTER_PORT": str(free_port()),
        }
        environment = {"PATH": os.environ["PATH"], "AWS_ENDPOINT_URL": aws.url, **KEYS}
        if arguments.settings:
            with open(arguments.settings, "w", encoding="utf-8") as file:
                file.writelines(f"{key}: {value}\n" for key, value in settings.items())
        else:
            environment |= settings

        def hsdo(*words, codes=(0,)):
            started = time.monotonic()
            done = subprocess.run([*arguments.command, *words], env=environment, capture_output=True, text=True, timeout=300)
            print(f"$ hsdo {' '.join(words)}    # exit {done.returncode}, {time.monotonic() - started:.1f} s", flush=True)
            if done.returncode not in codes:
                sys.exit(done.stdout + done.stderr)
            return done.stdout + done.stderr

        def turn():
            for name, address in aws.instances().items():
                if name not in servers:
                    servers[name] = serve(name, address, web)
            hsdo("--server", "--once")

        def who_answers(requests=30):
            with contextlib.suppress(OSError):
                answers = [urllib.request.urlopen(f"http://127.0.0.1:{front}", timeout=5).read().decode() for _ in range(requests)]
                return collections.Counter(answers)
            return collections.Counter()

        print(hsdo("--version").strip())
        hsdo("--create-table")
        turn()
        # moto lets everybody do everything, so some findings are about that; the settings and HAProxy must be right.
        report = hsdo("check", *(["--server"] if arguments.boot else []), codes=(0, 1))
        print("\n".join(line for line in report.splitlines() if not line.startswith("ok")))
        log = open(folder / "client.log", "w+", encoding="utf-8")
        if arguments.boot:
            variables = root / "etc/hsdo/hsdo.env"
            variables.touch(mode=0o600)
            variables.write_text("".join(f"{key}={value}\n" for key, value in environment.items() if key != "PATH"))
            subprocess.run(["systemctl", f"--root={root}", "--quiet", "enable", "hsdo-client"], check=True)
            words = ["systemd-nspawn", "--register=no", "--keep-unit", "--quiet", "-D", str(root), "-b"]
            client = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        else:
            client = subprocess.Popen([*arguments.command, "--client"], env=environment, stderr=log)
        processes.append(client)
        instances = aws.instances()
        wait_for("HAProxy to serve all instances", lambda: set(who_answers()) == set(instances))
        print(f"HAProxy serves {len(instances)} instances: {sorted(who_answers().values())} of 30 requests")
        gone = sorted(instances)[0]
        aws.groups.terminate_instance_in_auto_scaling_group(InstanceId=gone, ShouldDecrementDesiredCapacity=True)
        aws.groups.set_desired_capacity(AutoScalingGroupName=GROUP, DesiredCapacity=4)
        turn()
        instances = aws.instances()
        assert gone not in instances and len(instances) == 4, instances
        wait_for("HAProxy to follow", lambda: set(who_answers(60)) == set(instances))
        print(f"one gone, two new: HAProxy serves {len(instances)} instances")
        if arguments.boot:
            administer(client.pid, arguments, lambda: set(who_answers()) == set(instances))
        client.send_signal(signal.SIGTERM)
        code = client.wait(60)
        assert code == 0 or arguments.boot, code
        log.seek(0)
        print("\n".join(line for line in log.read().splitlines() if "hsdo" in line or not arguments.boot))
        print("scene: as it should be")
    finally:
        for process in processes:
            process.kill()
            process.wait()
        for server in servers.values():
            server.shutdown()
        subprocess.run(["rm", "-rf", str(folder)], check=True)


main()
