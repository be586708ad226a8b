"""Two S3 servers to move data to and from, each in a folder of its own on free ports of loopback: rclone's and Swift's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import surroundings
from measure import until
from peers.base import free_port

BUCKET = "bench"
SWIFT = "swift==2.38.3"
_SERVICE = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
user = {user}
workers = 0
log_address = /nonexistent
fallocate_reserve = 0
disable_fallocate = true
[pipeline:main]
pipeline = {pipeline}
"""
_FILTERS = ("catch_errors", "gatekeeper", "healthcheck", "listing_formats", "bulk", "s3api", "tempauth", "slo", "dlo")
_CONFIGURED = {
    "tempauth": "user_test_tester = testing .admin",
    "s3api": "location = us-east-1\nallow_multipart_uploads = true\ncheck_bucket_owner = false",
}


class Bucket:
    """An S3 server with one empty bucket, between `start` and `stop`."""

    title, key, secret = "", "", ""

    @classmethod
    def check(cls) -> None:
        """Raises FileNotFoundError, with the reason, if it cannot run here."""

    def __init__(self, folder: Path):
        self.folder, self.processes = folder, []
        folder.mkdir(parents=True)

    def start(self) -> None:
        """Returns when it answers."""
        self.serve()
        self.client = self._client()
        until(self._answers, f"{self.title} answers", 60.0)
        self.client.create_bucket(Bucket=BUCKET)

    def serve(self) -> None:
        """Starts its processes and knows its `url`."""
        raise NotImplementedError

    @property
    def variables(self) -> dict[str, str]:
        """What leads every S3 program there. Sums beyond those of the signature are sent only where they must be."""
        return {
            "AWS_ENDPOINT_URL": self.url, "S3_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required", "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }  # fmt: skip

    def sizes(self, prefix: str) -> list[int]:
        """The sizes of the objects below a prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [one["Size"] for page in pages for one in page.get("Contents", ())]

    def empty(self, prefix: str) -> None:
        """Deletes what is below a prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        for page in pages:
            keys = [{"Key": one["Key"]} for one in page.get("Contents", ())]
            self.client.delete_objects(Bucket=BUCKET, Delete={"Objects": keys, "Quiet": True})

    def stop(self) -> None:
        """Ends its processes."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()

    def _spawn(self, *words: str) -> None:
        with open(self.folder / "log", "ab") as log:
            self.processes.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def _client(self):
        import boto3
        from botocore.config import Config

        config = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
        return boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id=self.key, aws_secret_access_key=self.secret, config=config,
            region_name="us-east-1",
        )  # fmt: skip

    def _answers(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        if any(process.poll() is not None for process in self.processes):
            raise RuntimeError(f"{self.title} has ended: {(self.folder / 'log').read_text()[-300:]}")
        try:
            self.client.list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True


class Rclone(Bucket):
    """`rclone serve s3` over a folder: the fastest."""

    title, key, secret = "rclone's S3", "testkey", "testsecret12345678"

    @classmethod
    def check(cls) -> None:
        rclone()

    def serve(self) -> None:
        port, data = free_port(), self.folder / "data"
        data.mkdir()
        self.url = f"http://127.0.0.1:{port}"
        words = ("--addr", f"127.0.0.1:{port}", "--auth-key", f"{self.key},{self.secret}", "--vfs-cache-mode", "off", str(data))
        self._spawn(rclone(), "--config", "/dev/null", "serve", "s3", *words)


class Swift(Bucket):
    """OpenStack Swift with its S3 interface, one replica: an S3 as sites run it."""

    title, key, secret = "Swift's S3", "test:tester", "testing"

    @classmethod
    def check(cls) -> None:
        if not (surroundings.environment("swift", SWIFT) / "bin" / "swift-proxy-server").exists():
            raise FileNotFoundError("Swift cannot be installed from PyPI")

    def serve(self) -> None:
        programs = surroundings.environment("swift", SWIFT) / "bin"
        (self.folder / "devices" / "d1").mkdir(parents=True)
        whole = "[swift-hash]\nswift_hash_path_suffix = a\n[storage-policy:0]\nname = one\ndefault = yes\n"
        (self.folder / "swift.conf").write_text(whole)
        ports = {name: free_port() for name in ("account", "container", "object", "proxy")}
        for name in ("account", "container", "object"):
            self._ring(str(programs / "swift-ring-builder"), name, ports[name])
            self._write(name, ports[name], f"{name}-server", f"[app:{name}-server]\nuse = egg:swift#{name}\n")
        filters = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n{_CONFIGURED.get(name, '')}\n" for name in _FILTERS)
        app = "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
        self._write("proxy", ports["proxy"], " ".join((*_FILTERS, "proxy-server")), app + filters)
        for name in ports:
            self._spawn(str(programs / f"swift-{name}-server"), str(self.folder / f"{name}.conf"))
        self.url = f"http://127.0.0.1:{ports['proxy']}"

    def _ring(self, builder: str, name: str, port: int) -> None:
        file = str(self.folder / f"{name}.builder")
        for words in (("create", "6", "1", "1"), ("add", f"r1z1-127.0.0.1:{port}/d1", "1"), ("rebalance",)):
            subprocess.run([builder, file, *words], check=True, stdout=subprocess.DEVNULL)

    def _write(self, name: str, port: int, pipeline: str, rest: str) -> None:
        user = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True).stdout.strip()
        text = _SERVICE.format(port=port, folder=self.folder, user=user, pipeline=pipeline)
        (self.folder / f"{name}.conf").write_text(text + rest)


def rclone() -> str:
    """The path of rclone, that of PyPI before the one of the machine. Raises FileNotFoundError."""
    path = shutil.which("rclone", path=os.path.dirname(sys.executable)) or shutil.which("rclone")
    if path is None:
        raise FileNotFoundError("rclone cannot be installed from PyPI")
    return path
