#!/usr/bin/env python3
"""Lists the crates that are in a binary, twice: as CycloneDX, and in the form that scanners look for in the binary itself.

sbom.py TARGET BINARY BOM EMBEDDED, in the top folder. `CARGO_COMMAND` is Cargo with its flags, `SOURCE_DATE_EPOCH` the date.
With `-` as EMBEDDED nothing is embedded; with `-` as BOM no document is written.

cargo-cyclonedx writes a random serial number and the path of the folder, so two builds would differ. The form inside the
binary is that of cargo-auditable: zlib over JSON, in the section `.dep-v0`. cargo-auditable itself wraps rustc by its own
path, which Cargo hashes into the names of symbols, so the binary would depend on where it is installed.
"""

import datetime
import hashlib
import json
import os
import shlex
import subprocess
import sys
import tomllib
import uuid
import zlib

TARGET, BINARY, BOM, EMBEDDED = sys.argv[1:]
CARGO = shlex.split(os.environ.get("CARGO_COMMAND", "cargo"))
EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])


def cargo(*arguments):
    return subprocess.run([*CARGO, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def tree(edges):
    """The crates that Cargo reaches over these edges, with the features of this build."""
    text = cargo("tree", "--locked", "--target", TARGET, "--edges", edges, "--prefix", "none", "--format", "{p}")
    words = [line.split() for line in text.splitlines() if line.strip()]
    return {(name, version.removeprefix("v")) for name, version, *_ in words}


def crates():
    """Each crate by name and version: what Cargo knows of it, whether it only helps to build, and its dependencies."""
    run_time, all_of_them = tree("normal,no-proc-macro"), tree("no-dev")
    metadata = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET))
    keys = {package["id"]: (package["name"], package["version"]) for package in metadata["packages"]}
    packages = {keys[package["id"]]: package for package in metadata["packages"]}
    found = {}
    for node in metadata["resolve"]["nodes"]:
        key = keys[node["id"]]
        if key not in all_of_them:
            continue
        wanted = [dep for dep in node["deps"] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])]
        needs = sorted({keys[dep["pkg"]] for dep in wanted} & all_of_them)
        found[key] = {"package": packages[key], "build": key not in run_time, "needs": needs}
    missing = all_of_them - set(found)
    assert not missing, f"cargo metadata does not know {missing}"
    return dict(sorted(found.items())), keys[metadata["resolve"]["root"]]


def embedded(found, root):
    index = {key: number for number, key in enumerate(found)}
    packages = []
    for (name, version), crate in found.items():
        entry = {"name": name, "version": version, "source": "crates.io" if crate["package"]["source"] else "local"}
        if crate["build"]:
            entry["kind"] = "build"
        if crate["needs"]:
            entry["dependencies"] = [index[key] for key in crate["needs"]]
        if (name, version) == root:
            entry["root"] = True
        packages.append(entry)
    return zlib.compress(json.dumps({"packages": packages}, separators=(",", ":")).encode(), 9)


def purl(key):
    return f"pkg:cargo/{key[0]}@{key[1]}"


def document(found, root):
    with open("Cargo.lock", "rb") as file:
        checksums = {(one["name"], one["version"]): one.get("checksum") for one in tomllib.load(file)["package"]}
    with open(BINARY, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()

    def component(key, kind):
        package = found[key]["package"]
        entry = {"type": kind, "bom-ref": purl(key), "name": key[0], "version": key[1]}
        if package["description"]:
            entry["description"] = " ".join(package["description"].split())
        if checksums[key]:
            entry["hashes"] = [{"alg": "SHA-256", "content": checksums[key]}]
        if package["license"]:
            entry["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        entry["purl"] = purl(key)
        return entry

    application = component(root, "application")
    application["hashes"] = [{"alg": "SHA-256", "content": digest}]
    application["properties"] = [{"name": "hsdo:target", "value": TARGET}]
    components = []
    for key, crate in found.items():
        if key != root:
            entry = component(key, "library")
            entry["scope"] = "excluded" if crate["build"] else "required"
            components.append(entry)
    # The standard library, with musl's C library in it, is in the binary as well.
    release = subprocess.run(["rustc", "-vV"], check=True, stdout=subprocess.PIPE, text=True).stdout
    release = dict(line.split(": ") for line in release.splitlines()[1:])["release"]
    standard = {"type": "library", "bom-ref": f"pkg:generic/rust-std@{release}", "name": "rust-std", "version": release}
    standard |= {"description": "Rust's standard library for this target, with musl", "scope": "required"}
    standard |= {"licenses": [{"expression": "MIT OR Apache-2.0"}], "purl": f"pkg:generic/rust-std@{release}"}
    components.append(standard)
    dependencies = [{"ref": purl(key), "dependsOn": [purl(need) for need in crate["needs"]]} for key, crate in found.items()]
    next(one for one in dependencies if one["ref"] == purl(root))["dependsOn"].append(standard["bom-ref"])
    time = datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, digest).urn,
        "version": 1,
        "metadata": {"timestamp": time, "component": application},
        "components": components,
        "dependencies": dependencies,
    }


found, root = crates()
if EMBEDDED != "-":
    with open(EMBEDDED, "wb") as file:
        file.write(embedded(found, root))
if BOM != "-":
    with open(BOM, "w", encoding="utf-8") as file:
        json.dump(document(found, root), file, indent=1, ensure_ascii=False)
        file.write("\n")
