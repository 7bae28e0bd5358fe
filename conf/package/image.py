#!/usr/bin/env python3
"""Writes an OCI image: image.py ARCHITECTURE BINARY ARCHIVE, in the top folder.

`VERSION`, `REVISION` and `SOURCE_DATE_EPOCH` come from the environment. umoci and skopeo cannot write a health check, and
what umoci writes depends on the machine; both read what this writes (`make test-dist`). The archive is an image layout
in a tar file, and has the file that `docker load` wants.
"""

import datetime
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile

ARCHITECTURE, BINARY, ARCHIVE = sys.argv[1:]
VERSION, REVISION = os.environ["VERSION"], os.environ["REVISION"]
EPOCH = int(os.environ["SOURCE_DATE_EPOCH"])
CREATED = datetime.datetime.fromtimestamp(EPOCH, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
# Nobody, on every system.
USER = 65534
SECOND = 1_000_000_000
DESCRIPTION = "Keeps HAProxy backends in step with AWS Auto Scaling groups"


def add(archive, name, content=None, mode=0o644, owner=0):
    """Adds a file, or a folder if there is no content."""
    entry = tarfile.TarInfo(name)
    entry.mtime, entry.uid, entry.gid, entry.mode = EPOCH, owner, owner, mode
    if content is None:
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    else:
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))


def layer():
    with open(BINARY, "rb") as file:
        binary = file.read()
    with open("LICENSE", "rb") as file:
        licence = file.read()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for folder in ["etc", "etc/hsdo", "usr", "usr/bin", "usr/share", "usr/share/doc", "usr/share/doc/hsdo"]:
            add(archive, folder, mode=0o755)
        for folder in ["var", "var/lib", "var/run", "var/run/haproxy"]:
            add(archive, folder, mode=0o755)
        # For CLIENT_STATE_FILE, if it is set.
        add(archive, "var/lib/hsdo", mode=0o700, owner=USER)
        add(archive, "usr/bin/hsdo", binary, mode=0o755)
        add(archive, "usr/share/doc/hsdo/LICENSE", licence)
    return buffer.getvalue()


blobs = {}


def blob(content, media_type, **more):
    digest = hashlib.sha256(content).hexdigest()
    blobs[f"blobs/sha256/{digest}"] = content
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content), **more}


def text(value):
    return json.dumps(value, indent=1).encode()


plain = layer()
packed = blob(gzip.compress(plain, 9, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip")
platform = {"architecture": ARCHITECTURE, "os": "linux"}
labels = {
    "org.opencontainers.image.title": "hsdo",
    "org.opencontainers.image.description": DESCRIPTION,
    "org.opencontainers.image.version": VERSION,
    "org.opencontainers.image.revision": REVISION,
    "org.opencontainers.image.created": CREATED,
    "org.opencontainers.image.licenses": "MIT",
    "org.opencontainers.image.vendor": "the hsdo maintainers",
}
config = blob(
    text({
        "created": CREATED,
        "author": "the hsdo maintainers",
        **platform,
        "config": {
            "User": f"{USER}:{USER}",
            "Entrypoint": ["/usr/bin/hsdo"],
            "Cmd": ["--help"],
            "WorkingDir": "/",
            "ExposedPorts": {"6789/tcp": {}},
            # The second is the folder of CLIENT_HAPROXY_SOCKET_PATH.
            "Volumes": {"/etc/hsdo": {}, "/var/run/haproxy": {}},
            # Docker's extension of the format. ECS has its own in the task definition, and Kubernetes its probes.
            "Healthcheck": {
                "Test": ["CMD", "/usr/bin/hsdo", "check", "--quick"],
                "Interval": 10 * SECOND,
                "Timeout": 5 * SECOND,
                "StartPeriod": 30 * SECOND,
                "Retries": 3,
            },
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(plain).hexdigest()]},
        "history": [{"created": CREATED, "created_by": "conf/package/image.py", "comment": "from scratch"}],
    }),
    "application/vnd.oci.image.config.v1+json",
)
manifest = blob(
    text({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [packed],
        "annotations": labels,
    }),
    "application/vnd.oci.image.manifest.v1+json",
    platform=platform,
    annotations={
        "org.opencontainers.image.ref.name": VERSION,
        # Where containerd and podman look for the name that Docker finds in manifest.json.
        "io.containerd.image.name": f"docker.io/library/hsdo:{VERSION}",
    },
)


def path(entry):
    return "blobs/" + entry["digest"].replace(":", "/")


files = {
    "oci-layout": text({"imageLayoutVersion": "1.0.0"}),
    "index.json": text({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    }),
    "manifest.json": text([{"Config": path(config), "RepoTags": [f"hsdo:{VERSION}"], "Layers": [path(packed)]}]),
    **blobs,
}
with tarfile.open(ARCHIVE, "w", format=tarfile.USTAR_FORMAT) as archive:
    for folder in ["blobs", "blobs/sha256"]:
        add(archive, folder, mode=0o755)
    for name in sorted(files):
        add(archive, name, files[name])
