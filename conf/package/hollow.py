#!/usr/bin/env python3
"""Empties the vendored crates that no system needs which hsdo is built on or for: hollow.py FOLDER, in the top folder."""

import json
import os
import re
import shutil
import subprocess
import sys

FOLDER = sys.argv[1]
TARGETS = [f"{machine}-unknown-linux-{libc}" for machine in ("x86_64", "aarch64") for libc in ("musl", "gnu")]


def needed():
    flags = [word for target in TARGETS for word in ("--target", target)]
    command = ["cargo", "tree", "--locked", *flags, "--edges", "all", "--prefix", "none", "--format", "{p}"]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    words = [line.split() for line in text.splitlines() if line.strip()]
    return {f"{name}-{version.removeprefix('v')}" for name, version, *_ in words}


def hollow(crate):
    with open(f"{crate}/Cargo.toml", encoding="utf-8") as file:
        manifest = file.read()
    with open(f"{crate}/.cargo-checksum.json", encoding="utf-8") as file:
        package = json.load(file)["package"]
    # A manifest from the registry is normalised: each table begins on a line of its own.
    tables = re.split(r"^(?=\[)", manifest, flags=re.MULTILINE)
    files = ("[lib]", "[[bin]]", "[[example]]", "[[test]]", "[[bench]]")
    kept = "".join(table for table in tables if not table.startswith(files))
    kept = re.sub(r"^build = .*$", "build = false", kept, flags=re.MULTILINE) + '\n[lib]\npath = "src/lib.rs"\n'
    shutil.rmtree(crate)
    os.makedirs(f"{crate}/src")
    for name, text in [
        ("Cargo.toml", kept),
        ("src/lib.rs", ""),
        (".cargo-checksum.json", json.dumps({"files": {}, "package": package})),
    ]:
        with open(f"{crate}/{name}", "w", encoding="utf-8") as file:
            file.write(text)


wanted = needed()
for name in sorted(os.listdir(FOLDER)):
    if name not in wanted:
        hollow(os.path.join(FOLDER, name))
