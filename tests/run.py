#!/usr/bin/env python3
"""Sets up what the tests need and runs all of them: `python3 tests/run.py [pytest's words...]`.

In `.venv`: this checkout and the exact packages of `requirements/test.txt`; in `build/swift` those of `requirements/swift.txt`.
With apt-get, as root on Debian or Ubuntu: the venv module, and what tests run against (PostgreSQL, nginx, docker, Chromium,
shells...), where they are missing. The one file is built too.
What is there already is not done again. Quick tests run first, slow ones after them; the last line is pytest's own.
What fails is tried once more, and listed and counted there as rerun.
"""

import glob
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent
AZURITE = "azurite@3.37.0"
AZURITE_FOLDER = ROOT / "build" / "azurite"  # tests/stores.py looks there
SWIFT_FOLDER = ROOT / "build" / "swift"  # and there; its packages are none of ours
SWIFT_LOCK = ROOT / "requirements" / "swift.txt"
LOCK = ROOT / "requirements" / "test.txt"
VENV = ROOT / ".venv"
STAMP = VENV / "made-from"
PYTHON = VENV / "bin" / "python"
PIP = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet")
PROCESSES = str(min(8, 2 * (os.cpu_count() or 1) + 1))  # they wait more than they work
AGAIN = ("--reruns", "1", "-rfER")  # real servers and machines that others load: a failure counts if it comes twice, and is told
SERVICES = {  # Debian package: a program of it
    "postgresql": "/usr/lib/postgresql/*/bin/initdb",
    "nginx-light": "/usr/sbin/nginx",
    "aria2": "/usr/bin/aria2c",
    "rclone": "/usr/bin/rclone",
    "sra-toolkit": "/usr/bin/fasterq-dump",
    "docker.io": "/usr/sbin/dockerd",
    "docker-registry": "/usr/bin/docker-registry",
    "podman": "/usr/bin/podman",
    "busybox-static": "/bin/busybox",
    "zsh": "/usr/bin/zsh",
    "fish": "/usr/bin/fish",
    "faketime": "/usr/bin/faketime",
    "chromium": "/usr/bin/chromium",
    "cloud-init": "/usr/bin/cloud-init",
    "openssh-client": "/usr/bin/scp",
    "openssh-server": "/usr/sbin/sshd",
    "tcsh": "/usr/bin/tcsh",
    "munge": "/usr/sbin/munged",
    "slurmctld": "/usr/sbin/slurmctld",
    "slurmd": "/usr/sbin/slurmd",
    "slurm-client": "/usr/bin/sbatch",
}

sys.path.insert(0, str(ROOT))
from build_zipapp import apt_install  # noqa: E402 (it is found through the path above)


def main() -> None:
    if sys.version_info < (3, 10):
        sys.exit("scitq needs Python 3.10 or newer; this is Python %d.%d" % sys.version_info[:2])
    os.chdir(ROOT)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what one process has compiled is there for all others
    made_from = make_venv()
    provide_services()
    with ThreadPoolExecutor() as pool:  # they wait for the network as much as they work
        for step in [pool.submit(provide_program, made_from), pool.submit(provide_azurite), pool.submit(provide_swift)]:
            step.result()
    os.environ["SCITQ_TESTS_ONE_FILE"] = str(ROOT / "dist" / "scitq.pyz")
    pytest = [str(PYTHON), "-m", "pytest", "-m", "slow or not slow", "-n", PROCESSES, "--dist", "loadfile", *AGAIN, *sys.argv[1:]]
    sys.stdout.flush()
    os.execv(pytest[0], pytest)


def make_venv() -> str | None:
    """An empty venv where there is none that holds exactly what the lock says, for this Python.

    Returns then what to write into its stamp.
    """
    made_from = hashlib.sha256(LOCK.read_bytes() + pathlib.Path(__file__).read_bytes() + sys.version.encode()).hexdigest()
    if STAMP.exists() and STAMP.read_text() == made_from:
        return None
    print("making .venv with the packages of requirements/test.txt", flush=True)
    if not venv_works():
        apt_install("python3-venv", why="the venv module of Python")
        if not venv_works():
            sys.exit(f"{sys.executable} cannot make a virtual environment: run this with /usr/bin/python3")
    return made_from


def provide_program(made_from: str | None) -> None:
    """The packages, the one file, and the tests compiled: each process of pytest would do that for itself."""
    if made_from:
        run(PYTHON, *PIP, "--require-hashes", "-r", LOCK)
        keep_starts_quick()
        STAMP.write_text(made_from)
    run(PYTHON, "build_zipapp.py")
    if not glob.glob("tests/__pycache__/*pytest*"):
        subprocess.run([PYTHON, "-m", "pytest", "--collect-only", "-q"], stdout=subprocess.DEVNULL)


def keep_starts_quick() -> None:
    """The checkout is found by its path: what pip's `-e` and setuptools would run at each start of Python doubles its time."""
    [packages] = VENV.glob("lib/python*/site-packages")
    (packages / "scitq.pth").write_text(f"{ROOT}\n")
    (packages / "distutils-precedence.pth").unlink(missing_ok=True)


def venv_works() -> bool:
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(VENV)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return made.returncode == 0


def provide_services() -> None:
    """Without one its tests are skipped, and that is only right where it cannot be installed: elsewhere they must run."""
    missing = [package for package in SERVICES if not is_installed(package)]
    if missing and os.geteuid() == 0:
        apt_install(*missing, why=f"what tests run against ({', '.join(missing)})")
        missing = [package for package in missing if not is_installed(package)]
    if missing:
        print(f"not installed here, their tests will be skipped: {', '.join(missing)}", flush=True)
    else:
        os.environ.setdefault("SCITQ_TESTS_REQUIRE_SERVICES", "1")


def provide_azurite() -> None:
    """Azure's blob service for tests, from the npm registry, where npm is."""
    if shutil.which("npm") is None:
        print("npm is not installed here: tests of azure:// will be skipped", flush=True)
    elif not (AZURITE_FOLDER / "node_modules" / ".bin" / "azurite-blob").exists():
        print(f"installing {AZURITE}", flush=True)
        AZURITE_FOLDER.mkdir(parents=True, exist_ok=True)
        words = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(AZURITE_FOLDER), AZURITE]
        if subprocess.run(words).returncode:
            print("npm could not install it: tests of azure:// will be skipped", flush=True)


def provide_swift() -> None:
    """OpenStack's object store, whose S3 interface is one to test against, in an environment of its own."""
    made = SWIFT_FOLDER / "made-from"
    if not (made.exists() and made.read_text() == SWIFT_LOCK.read_text()):
        print("installing Swift", flush=True)
        run(sys.executable, "-m", "venv", "--clear", SWIFT_FOLDER)
        if subprocess.run([SWIFT_FOLDER / "bin" / "python", *PIP, "--require-hashes", "-r", SWIFT_LOCK]).returncode:
            print("pip could not install it: tests of Swift will be skipped", flush=True)
        else:
            made.write_text(SWIFT_LOCK.read_text())


def is_installed(package: str) -> bool:
    program = SERVICES[package]
    return bool(shutil.which(os.path.basename(program)) or glob.glob(program))


def run(*words) -> None:
    done = subprocess.run([str(word) for word in words])
    if done.returncode:
        sys.exit(f"{' '.join(str(word) for word in words)} failed (exit code {done.returncode})")


if __name__ == "__main__":
    main()
