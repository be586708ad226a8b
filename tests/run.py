#!/usr/bin/env python3
"""Sets up what the tests need and runs all of them: `python3 tests/run.py [pytest's words...]`.

In `.venv`: this checkout and the exact packages of `requirements/test.txt`. With apt-get, as root on Debian or Ubuntu: the venv module and
PostgreSQL, where they are missing. The one file is built too. What is there already is not done again. Quick tests run first, slow ones after
them; the last line is pytest's own.
"""

import glob
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "test.txt"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"

sys.path.insert(0, str(ROOT))
from build_zipapp import apt_install  # noqa: E402 (it is found through the path above)


def main() -> None:
    if sys.version_info < (3, 10):
        sys.exit("scitq needs Python 3.10 or newer; this is Python %d.%d" % sys.version_info[:2])
    os.chdir(ROOT)
    make_venv()
    provide_postgresql()
    run(PYTHON, "build_zipapp.py")
    pytest = [str(PYTHON), "-m", "pytest", "-m", "slow or not slow", *sys.argv[1:]]
    sys.stdout.flush()
    os.execv(pytest[0], pytest)


def make_venv() -> None:
    """A venv that holds exactly what the lock says, made anew when that or this Python changed."""
    stamp = VENV / "made-from"
    made_from = hashlib.sha256(LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == made_from:
        return
    print("making .venv with the packages of requirements/test.txt", flush=True)
    if not venv_works():
        apt_install("python3-venv", why="the venv module of Python")
        if not venv_works():
            sys.exit(f"{sys.executable} cannot make a virtual environment: run this with /usr/bin/python3")
    pip = (PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--require-hashes", "-r", LOCK)
    run(*pip, "--no-build-isolation", "--no-deps", "-e", ".")
    stamp.write_text(made_from)


def venv_works() -> bool:
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return made.returncode == 0


def provide_postgresql() -> None:
    """Without it its tests are skipped, and that is only right where it cannot be installed: elsewhere they must run."""
    if not has_postgresql() and os.geteuid() == 0:
        apt_install("postgresql", why="PostgreSQL")
    if has_postgresql():
        os.environ.setdefault("SCITQ_TESTS_REQUIRE_SERVICES", "1")
    else:
        print("PostgreSQL is not installed here: its tests will be skipped", flush=True)


def has_postgresql() -> bool:
    return bool(glob.glob("/usr/lib/postgresql/*/bin/initdb") or shutil.which("initdb"))


def run(*words) -> None:
    done = subprocess.run([str(word) for word in words])
    if done.returncode:
        sys.exit(f"{' '.join(str(word) for word in words)} failed (exit code {done.returncode})")


if __name__ == "__main__":
    main()
