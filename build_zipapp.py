#!/usr/bin/env python3
"""Makes `dist/scitq.pyz`: the whole of scitq in one file that any CPython >= 3.10 on Linux runs.

Pure Python lies in the zip as it is and is imported from there; native parts lie in `_layers/*.zip` inside it (see
`scitq_pkg/layers.py`). The wheels come from PyPI, are checked against the hashes in `requirements/run.txt`, and stay in
`build/wheels`, so a second build needs no network. The same sources and the same Python give the same bytes. Needs the standard
library and pip only.
"""

import argparse
import concurrent.futures
import contextlib
import hashlib
import io
import os
import pathlib
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent
LOCK = ROOT / "requirements" / "run.txt"
WHEELS = ROOT / "build" / "wheels"

PYTHONS = ("310", "311", "312", "313")
PLATFORMS = {  # from the oldest glibc that each project still builds for
    "x86_64": ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64"),
    "aarch64": ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64"),
}
# distribution -> layer
NATIVE = {"cffi": "cffi", "cryptography": "cryptography", "psutil": "psutil", "psycopg2-binary": "psycopg2"}
FOR_ONE_PYTHON = ("cffi", "psycopg2-binary")  # of these, the others are built for every CPython
SELDOM = {  # pure, but large and not always needed: a layer -> its distributions
    "azure": ("azure-core", "azure-storage-blob", "isodate"),
    "azure-mgmt": (
        *("azure-identity", "azure-mgmt-compute", "azure-mgmt-core", "azure-mgmt-network", "azure-mgmt-resource"),
        *("msal", "msal-extensions", "pyjwt"),
    ),
    "jmespath": ("jmespath",),
    "openstack": (
        *("decorator", "dogpile-cache", "iso8601", "jsonpatch", "jsonpointer", "keystoneauth1", "openstacksdk"),
        *("os-service-types", "pbr", "platformdirs", "stevedore"),
    ),
    "s3": ("boto3", "botocore", "python-dateutil", "s3transfer", "six"),
}
FINDS_PLUGINS = ("keystoneauth1-",)  # by the `entry_points.txt` of its own description
AWS_SERVICES = ("s3", "signin", "sso", "sso-oidc", "sts")  # of the descriptions of all of AWS that botocore comes with
DOCUMENTATION = "swagger-ui-bundle"
DOCUMENTATION_FILES = ("swagger-ui.css", "swagger-ui-bundle.js")
# For a template of swagger-ui-bundle, for wrappers of C, for builds by pbr.
NOT_NEEDED = ("jinja2", "markupsafe", "pycparser", "setuptools")

DATE = (1980, 1, 1, 0, 0, 0)
MAIN = '''\
import sys

if sys.version_info < (3, 10):
    sys.exit("scitq needs Python 3.10 or newer; this is Python %d.%d" % sys.version_info[:2])
try:
    import os

    sys.path[0] = os.path.abspath(sys.path[0])
    from scitq.cli import main
except KeyboardInterrupt:
    sys.exit(130)
sys.exit(main())
'''


def main() -> None:
    """Fetches the locked wheels and writes the one file."""
    options = _options()
    pythons, machines = (PYTHONS, tuple(PLATFORMS)) if not options.fast else _this_machine()
    locked = read_lock(LOCK.read_text())
    wheels = fetch(locked, pythons, machines)
    files = core_files(wheels, locked)
    files.update(layer_files(wheels, machines))
    data = one_file(files)
    target = pathlib.Path(options.output)
    write_whole(target, data)
    print(f"{target}: {len(data) / 1e6:.1f} MB, sha256 {hashlib.sha256(data).hexdigest()}")


def read_lock(text: str) -> "dict[str, str]":
    """Distribution -> its pinned requirement with all hashes, without the marker: what one Python skips, another needs."""
    blocks = re.findall(r"^([a-z0-9-]+)(==\S+)[^\n]*((?:\n    --hash=\S+(?: \\)?)+)", text, re.MULTILINE)
    return {name: f"{name}{version} " + " ".join(re.findall(r"--hash=\S+", hashes)) for name, version, hashes in blocks}


def fetch(locked: "dict[str, str]", pythons, machines) -> "dict[tuple[str, str], list[pathlib.Path]]":
    """The wheels for each (Python, machine); what is the same for all comes with the first."""
    pairs = [(python, machine) for python in pythons for machine in machines]
    wanted = {pair: list(FOR_ONE_PYTHON) for pair in pairs}
    for machine in machines:
        wanted[pythons[0], machine] = list(NATIVE)
    wanted[pairs[0]] = [name for name in locked if name not in NOT_NEEDED]
    pip = None if all(_is_here(pair, names, locked) for pair, names in wanted.items()) else find_pip()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return dict(zip(wanted, pool.map(lambda pair: _wheels(pip, pair, wanted[pair], locked), wanted)))


def find_pip() -> "list[str]":
    """The command of a pip that works; installs one when this is root on Debian or Ubuntu."""
    pip = [sys.executable, "-m", "pip"]
    if _works([*pip, "--version"]):
        return pip
    own = ROOT / "build" / "pip"
    if _works([sys.executable, "-m", "venv", "--clear", str(own)]):
        return [str(own / "bin" / "python"), "-m", "pip"]
    apt_install("python3-pip", why="pip, which downloads what goes into the one file")
    for python in (sys.executable, "/usr/bin/python3"):
        if _works([python, "-m", "pip", "--version"]):
            return [python, "-m", "pip"]
    sys.exit(f"pip was installed but {sys.executable} does not find it: run this with /usr/bin/python3")


def apt_install(*packages: str, why: str) -> None:
    """Installs Debian packages when this is root and apt-get is there; otherwise ends with what to type."""
    names = " ".join(packages)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit(f"{why} is missing here: install it (apt-get install {names}) and run this again")
    print(f"installing {names} with apt-get", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_services_started():
        for words in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run(
                ["apt-get", "-qq", *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
            )
    if done.returncode:
        sys.exit(f"apt-get install {names} failed:\n{done.stdout}")


@contextlib.contextmanager
def _no_services_started():
    """What apt-get installs meanwhile is not started as a service of this machine (Debian's `policy-rc.d`)."""
    policy = pathlib.Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def core_files(wheels, locked) -> "dict[str, bytes]":
    """What is imported straight from the zip: this package, its pure dependencies, and a `.pyc` beside each source."""
    files = {"scitq/" + path: data for path, data in package_files().items()}
    elsewhere = {*NATIVE, DOCUMENTATION, *NOT_NEEDED, *(name for names in SELDOM.values() for name in names)}
    pure = [name for name in locked if name not in elsewhere]
    for wheel in wheels[next(iter(wheels))]:
        if _distribution(wheel) in pure:
            files.update(_wheel_files(wheel))
    files = {path: data for path, data in files.items() if not path.endswith(".so")}
    files.update(compiled(files))
    files["__main__.py"] = MAIN.encode()
    return files


def package_files() -> "dict[str, bytes]":
    """Our own files by their path in the package."""
    folder = ROOT / "scitq_pkg"
    paths = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def compiled(files: "dict[str, bytes]") -> "dict[str, bytes]":
    """A `.pyc` that is valid by itself, without looking at dates, for each `.py`; only this Python's version will use it."""
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "source.py"), os.path.join(folder, "target.pyc")
        for path in sorted(path for path in files if path.endswith(".py")):
            pathlib.Path(source).write_bytes(files[path])
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            py_compile.compile(source, target, dfile=path, doraise=True, invalidation_mode=mode)
            result[path + "c"] = pathlib.Path(target).read_bytes()
    return result


def layer_files(wheels, machines) -> "dict[str, bytes]":
    """The zips in the zip, each distinct file in them once."""
    layers = {"_layers/docs-any.zip": _documentation(_all_of(wheels, DOCUMENTATION)[0])}
    for layer, names in SELDOM.items():
        layers[f"_layers/{layer}-any.zip"] = zipped(_seldom([_all_of(wheels, name)[0] for name in names]))
    for name, layer in NATIVE.items():
        for machine in machines:
            here = {pair: found for pair, found in wheels.items() if pair[1] == machine}
            layers[f"_layers/{layer}-{machine}.zip"] = zipped(_native(_all_of(here, name)))
    return layers


def one_file(files: "dict[str, bytes]") -> bytes:
    return zipped(files, b"#!/usr/bin/env python3\n")


def zipped(files: "dict[str, bytes]", start: bytes = b"") -> bytes:
    """A zip, after `start`, that depends on the files' names and bytes alone."""
    result = io.BytesIO(start)
    result.seek(len(start))
    with zipfile.ZipFile(result, "w") as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path, DATE)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_STORED if path.endswith(".zip") else zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[path], compresslevel=9)
    return result.getvalue()


def write_whole(target: pathlib.Path, data: bytes) -> None:
    """Writes beside and renames, so that whoever runs the old file is not disturbed and nobody sees half of the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f"{target.name}.{os.getpid()}")
    beside.write_bytes(data)
    beside.chmod(0o755)
    beside.replace(target)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the one file.")
    parser.add_argument(
        "--output", default=str(ROOT / "dist" / "scitq.pyz"), metavar="FILE", help="where to write it (default: dist/scitq.pyz)"
    )
    parser.add_argument("--fast", action="store_true", help="native parts for this Python and this kind of machine only")
    return parser.parse_args()


def _this_machine():
    python, machine = f"3{sys.version_info[1]}", os.uname().machine
    if machine not in PLATFORMS or python not in PYTHONS:
        sys.exit(f"--fast: no native parts are known for Python 3.{sys.version_info[1]} on {machine}")
    return (python,), (machine,)


def _is_here(pair, names, locked) -> bool:
    stamp = WHEELS / "-".join(pair) / "complete"
    return stamp.exists() and stamp.read_text() == _wanted(names, locked)


def _wanted(names, locked) -> str:
    return "".join(locked[name] + "\n" for name in sorted(names))


def _wheels(pip, pair, names, locked) -> "list[pathlib.Path]":
    """The wheels of one (Python, machine), downloaded unless they are here; each is checked against the lock."""
    folder = WHEELS / "-".join(pair)
    if not _is_here(pair, names, locked):
        _download(pip, pair, _wanted(names, locked), folder)
    wheels = sorted(folder.glob("*.whl"))
    for wheel in wheels:
        if hashlib.sha256(wheel.read_bytes()).hexdigest() not in locked[_distribution(wheel)]:
            sys.exit(f"{wheel} is not the file that {LOCK.relative_to(ROOT)} names: remove build/wheels and run this again")
    return wheels


def _download(pip, pair, wanted: str, folder: pathlib.Path) -> None:
    """Fills `folder` with the wanted wheels; `complete` is written last."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "wanted.txt").write_text(wanted)
    words = ["download", "--quiet", "--require-hashes", "--no-deps", "--only-binary=:all:", "--implementation", "cp"]
    words += ["--python-version", pair[0], "--dest", str(folder), "--requirement", str(folder / "wanted.txt")]
    for platform in PLATFORMS[pair[1]]:
        words += ["--platform", platform]
    done = subprocess.run(
        [*pip, "--disable-pip-version-check", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"pip could not download the wheels for Python {pair[0]} on {pair[1]}:\n{done.stdout}")
    (folder / "complete").write_text(wanted)


def _distribution(wheel: pathlib.Path) -> str:
    return wheel.name.partition("-")[0].lower().replace("_", "-")


def _all_of(wheels, name: str) -> "list[pathlib.Path]":
    return [wheel for found in wheels.values() for wheel in found if _distribution(wheel) == name]


def _wheel_files(wheel: pathlib.Path) -> "dict[str, bytes]":
    """The files of a wheel that are of use: its packages, and of its description the METADATA and the licences."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/") and _is_of_use(name)}


def _is_of_use(name: str) -> bool:
    top, _, rest = name.partition("/")
    if top.endswith(".dist-info"):
        plugins = top.startswith(FINDS_PLUGINS) and rest == "entry_points.txt"
        return plugins or rest == "METADATA" or "licen" in rest.lower()
    return not name.endswith((".pyi", "py.typed")) and not top.endswith(".data") and top not in ("_yaml", "pwiz.py")


def _native(wheels: "list[pathlib.Path]") -> "dict[str, bytes]":
    """The wheels of one project for several Pythons as `any/` (the same for all), `cp312/` or `abi3/`."""
    contents = {wheel.name.split("-")[3]: _wheel_files(wheel) for wheel in wheels}  # by ABI tag
    first = next(iter(contents.values()))
    common = {
        path for path in first if "cpython-" not in path and all(first[path] == other.get(path) for other in contents.values())
    }
    if "abi3" in contents:
        common = set()
    files = {"any/" + path: first[path] for path in common}
    for tag, found in contents.items():
        files.update({f"{tag}/{path}": data for path, data in found.items() if path not in common})
    return files


def _seldom(wheels: "list[pathlib.Path]") -> "dict[str, bytes]":
    """The wheels of pure projects as `any/`, without what nobody calls here."""
    contents = {path: data for wheel in wheels for path, data in _wheel_files(wheel).items()}
    return {f"any/{path}": data for path, data in contents.items() if not _is_never_asked_for(path)}


def _is_never_asked_for(path: str) -> bool:
    """Whether it describes a service of AWS that is not used, is for asyncio, or for the project's own tests."""
    found = re.match(r"(?:botocore|boto3)/data/([^/]+)/", path)
    other_service = found is not None and found[1] not in AWS_SERVICES
    own_tests = r"/aio/|/examples-|^(keystoneauth1|openstack|pbr|stevedore)/(fixture|tests?)/"
    return other_service or re.search(own_tests, path) is not None


def _documentation(wheel: pathlib.Path) -> bytes:
    files = _wheel_files(wheel)
    taken = {"any/" + path.rpartition("/")[2]: data for path, data in files.items() if path.endswith(DOCUMENTATION_FILES)}
    taken.update({"any/" + path: data for path, data in files.items() if ".dist-info/" in path})
    return zipped(taken)


def _works(words: "list[str]") -> bool:
    return subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


if __name__ == "__main__":
    main()
