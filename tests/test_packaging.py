"""The shapes in which the program comes: the one file, a checkout, an install."""

import ast
import glob
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap
import time
import urllib.request
import zipfile

import build_zipapp
import pytest

ROOT = pathlib.Path(build_zipapp.__file__).parent
NOBODY = 65534

IDENTITY = """
import importlib.resources, multiprocessing, pickle
import scitq, scitq.errors, scitq_pkg, scitq_pkg.errors, scitq_pkg.store.schema as by_folder
import scitq.store.schema as by_name
from scitq_pkg.protocol import TaskSpec
from scitq.errors import NotFound
assert scitq is scitq_pkg and scitq.errors is scitq_pkg.errors and by_folder is by_name and NotFound is scitq_pkg.errors.NotFound
assert scitq.errors.__name__ == scitq.errors.__spec__.name == "scitq.errors"
assert pickle.loads(pickle.dumps(NotFound)) is NotFound
assert "protocol.py" in [entry.name for entry in importlib.resources.files("scitq").iterdir()]
try:
    import scitq_pkg.nothing
    raise SystemExit("scitq_pkg.nothing was found")
except ModuleNotFoundError:
    pass
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(scitq.errors.nearest, ("lanch", ["launch"])) == " (did you mean 'launch'?)"
    print("one package")
"""

IMPORT_NATIVE = "import scitq, psutil, psycopg2; psutil.virtual_memory(); print(psutil.__file__); print(psycopg2.__file__)"


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The one file, for this Python and machine only."""
    target = tmp_path_factory.mktemp("built") / "scitq.pyz"
    subprocess.run(
        [sys.executable, ROOT / "build_zipapp.py", "--fast", "--output", target], check=True, stdout=subprocess.DEVNULL
    )
    return target


@pytest.fixture
def alone(built, tmp_path):
    """The one file in a folder of its own."""
    folder = tmp_path / "alone"
    folder.mkdir()
    return pathlib.Path(shutil.copy(built, folder))


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """A folder into which pip installed a copy of the sources."""
    sources, target = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("installed")
    shutil.copytree(ROOT / "scitq_pkg", sources / "scitq_pkg", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", sources)
    (sources / "README.md").write_text("")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", target, sources], check=True)
    return target


@pytest.fixture(params=["checkout", "built", "installed"])
def shape(request):
    """What to put on PYTHONPATH."""
    return ROOT if request.param == "checkout" else request.getfixturevalue(request.param)


def clean(tmp_path, **more):
    """An environment with next to nothing in it."""
    return {"SCITQ_CACHE": str(tmp_path / "cache"), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **more}


def python(*words, env, executable=sys.executable, check=True, cwd="/", **more):
    """Runs it away from the checkout, which would be found through the current directory."""
    done = subprocess.run([executable, *map(str, words)], env=env, cwd=cwd, capture_output=True, text=True, timeout=60, **more)
    if check:
        assert done.returncode == 0, done.stderr
    return done


def pythons():
    """Every CPython that is here, one a minor version."""
    found = {}
    for path in [
        sys.executable,
        *glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python3")),
        *glob.glob("/usr/bin/python3.*"),
    ]:
        match = re.fullmatch(r"3\.(\d+)", _version(path))
        if match and int(match[1]) >= 10:
            found.setdefault(match[0], path)
    return [pytest.param(path, id=version) for version, path in sorted(found.items())]


def _version(path):
    if not re.search(r"python(3(\.\d+)?)?$", path):
        return ""
    done = subprocess.run([path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True)
    return done.stdout.strip()


# -- one package under two names --


def test_one_package_in_every_shape(shape, tmp_path):
    script = tmp_path / "identity.py"
    script.write_text(IDENTITY)
    done = python(script, env={**os.environ, **clean(tmp_path, PYTHONPATH=str(shape))}, cwd=tmp_path)
    assert done.stdout == "one package\n"


def test_runs_as_a_module(shape, tmp_path):
    env = clean(tmp_path, PYTHONPATH=str(shape))
    assert python("-m", "scitq", "--version", env=env, cwd=tmp_path).stdout.startswith("scitq ")


def test_the_folder_runs_as_a_module_in_a_checkout(tmp_path):
    assert python("-m", "scitq_pkg", "--version", env=clean(tmp_path), cwd=ROOT).stdout.startswith("scitq ")


def test_starts_itself_again(shape, tmp_path):
    """Also where the current directory has modules of the same names as ours and Python's."""
    (tmp_path / "scitq.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "errors.py").write_text("raise SystemExit('the wrong one')")
    script = "import json, sys; sys.path.pop(0); from scitq.program import command; print(json.dumps(command('--version')))"
    env = clean(tmp_path, PYTHONPATH=str(shape))
    again = json.loads(python("-c", script, env=env, cwd=tmp_path).stdout)
    del env["PYTHONPATH"]
    assert python(*again[1:], executable=again[0], env=env, cwd=tmp_path).stdout.startswith("scitq ")


def test_an_install_has_the_commands(installed, tmp_path):
    names = {"scitq", "scitq-server", "scitq-worker", "scitq-launch", "scitq-manage", "scitq-run"}
    assert names <= {path.name for path in (installed / "bin").iterdir()}
    env = clean(tmp_path, PYTHONPATH=str(installed))
    assert python(installed / "bin" / "scitq-launch", "--version", env=env).stdout.startswith("scitq ")


def test_an_install_has_every_file(installed):
    files = {
        path.relative_to(ROOT / "scitq_pkg")
        for path in (ROOT / "scitq_pkg").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {path for path in files if not (installed / "scitq" / path).exists()} == set()


def test_the_lock_has_every_dependency_with_its_hashes():
    text = (ROOT / "pyproject.toml").read_text()
    asked = ast.literal_eval(re.search(r"^dependencies = (\[.*?^\])", text, re.MULTILINE | re.DOTALL)[1])
    asked += ast.literal_eval(re.search(r"^clouds = (\[.*?\])$", text, re.MULTILINE)[1])
    locked = build_zipapp.read_lock(build_zipapp.LOCK.read_text())
    assert {re.match(r"[a-z0-9-]+", requirement)[0] for requirement in asked} <= set(locked)
    assert all("--hash=sha256:" in block for block in locked.values())
    assert {re.match(r"[a-z0-9-]+", name)[0] for name in locked} == set(
        re.findall(r"^([a-z0-9-]+)==", build_zipapp.LOCK.read_text(), re.MULTILINE)
    )


# -- the one file --


def test_runs_with_nothing_around_it(alone, tmp_path):
    for words in (["--version"], ["-h"]):
        assert "scitq" in python("-I", "-S", alone.name, *words, env={}, cwd=alone.parent).stdout
    assert [path.name for path in alone.parent.iterdir()] == ["scitq.pyz"]


def test_is_executable_and_answers_to_the_name_of_a_link(alone, tmp_path):
    alone.chmod(0o755)
    link = tmp_path / "scitq-launch"
    link.symlink_to(alone)
    done = subprocess.run([link, "--version"], env=clean(tmp_path), capture_output=True, text=True)
    assert done.stdout.startswith("scitq ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without a home")
def test_runs_read_only_and_without_home(alone, tmp_path_factory):
    """As a user who may write nowhere but in the temporary directory."""
    folder = pathlib.Path("/tmp") / f"scitq-test-{os.getpid()}"
    temporary = folder / "tmp"
    temporary.mkdir(parents=True)
    try:
        file = pathlib.Path(shutil.copy(alone, folder))
        os.chown(temporary, NOBODY, NOBODY)
        folder.chmod(0o555)
        env = {"PYTHONPATH": str(file), "TMPDIR": str(temporary), "PATH": "/usr/bin:/bin"}
        done = python(
            "-c", "import scitq, psutil; print(psutil.__file__)", executable="/usr/bin/python3", env=env, cwd=folder, user=NOBODY
        )
        assert done.stdout.startswith(str(temporary / f"scitq-{NOBODY}"))
        assert (temporary / f"scitq-{NOBODY}").stat().st_mode & 0o777 == 0o700
    finally:
        shutil.rmtree(folder)


def test_native_parts_come_out_of_the_file(alone, tmp_path):
    env = clean(tmp_path, PYTHONPATH=str(alone))
    for line in python("-S", "-c", IMPORT_NATIVE, env=env).stdout.splitlines():
        assert line.startswith(str(tmp_path / "cache" / "layers"))


def test_four_at_once_the_first_time(alone, tmp_path):
    env = clean(tmp_path, PYTHONPATH=str(alone))
    running = [
        subprocess.Popen([sys.executable, "-S", "-c", IMPORT_NATIVE], env=env, cwd="/", stdout=subprocess.DEVNULL)
        for _ in range(4)
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    assert sorted(path.name.partition("-")[0] for path in (tmp_path / "cache" / "layers").iterdir()) == ["psutil", "psycopg2"]


STORES = """
import scitq, boto3, azure.storage.blob, cryptography
for service in ("s3", "sso", "sso-oidc", "sts"):  # what credentials may need
    boto3.client(service, region_name="us-east-1")
azure.storage.blob.BlobServiceClient("http://127.0.0.1:1/x", credential="a2V5")
print(boto3.__file__, azure.storage.blob.__file__, cryptography.__file__, sep="\\n")
"""


def test_clients_of_stores_come_out_of_the_file(alone, tmp_path):
    env = clean(tmp_path, PYTHONPATH=str(alone))
    for line in python("-S", "-W", "error", "-c", STORES, env=env).stdout.splitlines():
        assert line.startswith(str(tmp_path / "cache" / "layers"))


CLOUDS = """
import scitq, warnings
import azure.storage.blob  # from another part than azure.mgmt
from azure.mgmt.compute import ComputeManagementClient as compute
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient
from azure.identity import DefaultAzureCredential as identity
warnings.simplefilter("ignore")  # openstacksdk warns its own developers
import openstack, keystoneauth1.loading
assert keystoneauth1.loading.get_plugin_loader("password") and openstack.connect(auth_type="none", endpoint="http://127.0.0.1:1/")
print(azure.storage.blob.__file__, __import__("sys").modules[compute.__module__].__file__, openstack.__file__, sep="\\n")
"""


def test_clients_of_clouds_come_out_of_the_file(alone, tmp_path):
    env = clean(tmp_path, PYTHONPATH=str(alone), XDG_CACHE_HOME=str(tmp_path))
    lines = python("-S", "-W", "error", "-c", CLOUDS, env=env).stdout.splitlines()
    layers = [pathlib.Path(line).relative_to(tmp_path / "cache" / "layers").parts[0] for line in lines]
    assert [layer.rpartition("-")[0] for layer in layers] == ["azure", "azure-mgmt", "openstack"]


def test_an_azure_of_the_user_is_found_beside_ours(alone, tmp_path):
    """`azure` is a name that several projects share."""
    (tmp_path / "theirs" / "azure" / "other").mkdir(parents=True)
    (tmp_path / "theirs" / "azure" / "other" / "__init__.py").touch()
    env = clean(tmp_path, PYTHONPATH=f"{alone}:{tmp_path / 'theirs'}")
    python("-S", "-c", "import scitq, azure.other, azure.storage.blob", env=env)


def test_a_part_that_lost_a_file_is_unpacked_again(alone, tmp_path):
    env = clean(tmp_path, PYTHONPATH=str(alone))
    python("-S", "-c", IMPORT_NATIVE, env=env)
    for lost in (tmp_path / "cache" / "layers").glob("*/*/__init__.py"):
        lost.unlink()
    python("-S", "-c", IMPORT_NATIVE, env=env)


def test_a_cache_that_others_write_to_is_not_used(alone, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    env = clean(tmp_path, PYTHONPATH=str(alone), SCITQ_CACHE=str(shared), TMPDIR=str(tmp_path))
    python("-S", "-c", IMPORT_NATIVE, env=env)
    assert list(shared.iterdir()) == [] and (tmp_path / f"scitq-{os.geteuid()}" / "layers").is_dir()


def test_no_place_for_a_cache_is_told(alone, tmp_path):
    (tmp_path / "file").touch()
    env = clean(tmp_path, PYTHONPATH=str(alone), SCITQ_CACHE=str(tmp_path / "file"), TMPDIR=str(tmp_path / "file"))
    done = python("-S", "-c", "import scitq, psutil", env=env, check=False)
    assert "set SCITQ_CACHE to a folder of yours" in done.stderr


@pytest.mark.parametrize("other", [each for each in pythons() if each.id != "%d.%d" % sys.version_info[:2]])
def test_another_python_is_told_what_the_file_has(other, alone, tmp_path):
    env = clean(tmp_path, PYTHONPATH=str(alone))
    done = python("-S", "-c", "import scitq, psycopg2", env=env, executable=other, check=False)
    assert f"this file has it for cp3{sys.version_info[1]} and this Python is" in done.stderr


def test_the_documentation_page_has_its_files(shape, tmp_path):
    script = (
        "from scitq.layers import documentation_file as get; print(len(get('swagger-ui.css')), len(get('swagger-ui-bundle.js')))"
    )
    css, js = python("-c", script, env=clean(tmp_path, PYTHONPATH=str(shape))).stdout.split()
    assert int(css) > 100_000 and int(js) > 1_000_000


def test_licences_are_in_the_file(built):
    names = zipfile.ZipFile(built).namelist()
    for name in (
        "bottle",
        "peewee",
        "waitress",
        "marshmallow",
        "apispec",
        "packaging",
        "pyyaml",
        "rcssmin",
        "requests",
        "rjsmin",
        "urllib3",
        "certifi",
    ):
        assert any(re.match(rf"{name}-[\d.]+\.dist-info/METADATA", entry) for entry in names), name
    for layer, words in build_zipapp.SELDOM.items():
        with zipfile.ZipFile(built) as archive, archive.open(f"_layers/{layer}-any.zip") as inner:
            names = zipfile.ZipFile(inner).namelist()
        for name in words:
            assert any(re.match(rf"any/{name.replace('-', '.')}-[\w.]+\.dist-info/METADATA", entry) for entry in names), name


def test_old_pythons_get_one_line(alone, tmp_path):
    old = glob.glob(os.path.expanduser("~/.pyenv/versions/3.9*/bin/python")) + glob.glob(
        os.path.expanduser("~/.pyenv/versions/2.7*/bin/python")
    )
    if not old:
        pytest.skip("no Python older than 3.10 here")
    for executable in old:
        done = python(alone, "--version", executable=executable, env=clean(tmp_path), check=False)
        assert done.returncode == 1 and re.fullmatch(r"scitq needs Python 3\.10 or newer; this is Python \d\.\d+\n", done.stderr)


# -- long-lived processes --


@pytest.fixture
def keeper(alone, tmp_path):
    """A long-lived process started from the one file, once it runs from its copy."""
    folder = tmp_path / "keeper"
    folder.mkdir()
    process = subprocess.Popen([sys.executable, alone, "keeper", folder], env=clean(tmp_path), stdin=subprocess.DEVNULL)
    until(lambda: (folder / "keeper.sock").exists(), process)
    yield process
    process.kill()
    process.wait()


def until(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended with {process.returncode}"
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.02)


def test_a_long_lived_process_does_not_need_the_file_any_more(keeper, alone, tmp_path):
    words = pathlib.Path(f"/proc/{keeper.pid}/cmdline").read_text().split("\0")
    (copy,) = (tmp_path / "cache" / "copies").glob("*/scitq.pyz")
    assert str(copy) in words and str(alone) not in words
    assert copy.read_bytes() == alone.read_bytes()


@pytest.mark.parametrize("replace", ["overwritten", "moved"])
def test_a_server_goes_on_when_its_file_is_replaced(replace, alone, tmp_path):
    """What it imports or reads only later comes from its copy."""
    data = tmp_path / "data"
    env = clean(tmp_path, SCITQ_CONFIG=str(tmp_path / "config"))
    server = subprocess.Popen([sys.executable, alone, "server", "--quiet", "--port", "0", "--data", data], env=env)
    try:
        until(lambda: (data / "server.json").exists(), server)
        if replace == "moved":
            other = alone.with_name("other")
            other.write_bytes(b"not a program")
            other.replace(alone)
        else:
            alone.write_bytes(b"not a program")
        url = json.loads((data / "server.json").read_text())["url"]
        for path in ("/openapi.json", "/docs", "/docs/swagger-ui.css", "/ui/", "/ui/js/main.js"):
            with urllib.request.urlopen(url + path, timeout=10) as answer:
                assert answer.status == 200 and len(answer.read()) > 100
    finally:
        server.terminate()
        assert server.wait(60) == 0


def test_a_copy_in_use_is_not_removed(keeper, alone, tmp_path):
    (copy,) = (tmp_path / "cache" / "copies").glob("*")
    unused = copy.with_name("unused")
    unused.mkdir()
    for folder in (copy, unused):
        os.utime(folder, (0, 0))
    script = f"from scitq.cache import prune; prune({str(copy.parent)!r})"
    python("-c", script, env=clean(tmp_path, PYTHONPATH=str(alone)))
    assert copy.exists() and not unused.exists()


def test_four_long_lived_at_once_make_one_copy(alone, tmp_path):
    script = "from scitq.program import settle; settle(['--version'])"
    env = clean(tmp_path, PYTHONPATH=str(alone))
    running = [
        subprocess.Popen([sys.executable, "-c", script], env=env, cwd="/", stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert [process.communicate(timeout=60)[0][:6] for process in running] == ["scitq "] * 4
    (folder,) = (tmp_path / "cache" / "copies").iterdir()
    assert [path.name for path in folder.iterdir()] == ["scitq.pyz"]


def test_a_cache_without_room_is_left_as_it_was(alone, tmp_path):
    script = """
        import resource
        from scitq.program import settle
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, -1))
        settle(["--version"])"""
    done = python("-c", textwrap.dedent(script), env=clean(tmp_path, PYTHONPATH=str(alone), TMPDIR=str(tmp_path)))
    assert "no place to keep a copy" in done.stderr
    assert [path for path in tmp_path.rglob("scitq.pyz.*")] == []


# -- what the launch path loads --

HEAVY = {
    "asyncio",
    "azure",
    "boto3",
    "botocore",
    "bottle",
    "concurrent.futures",
    "importlib.metadata",
    "logging",
    "marshmallow",
    "multiprocessing",
    "peewee",
    "psutil",
}
HEAVY |= {"psycopg2", "requests", "sqlite3", "subprocess", "tempfile", "unittest", "waitress", "yaml"}


@pytest.mark.parametrize(
    "words", [["--version"], ["-h"], ["launch", "--help"], ["launch", "-s", "127.0.0.1:1", "true"]], ids=" ".join
)
def test_launch_loads_next_to_nothing(words, alone, tmp_path):
    script = f"""
        import sys
        sys.argv[1:] = {words!r}
        from scitq.cli import main
        main()
        print(sorted(sys.modules), file=sys.stderr)"""
    done = python("-S", "-c", textwrap.dedent(script), env=clean(tmp_path, PYTHONPATH=str(alone), SCITQ_CONFIG=str(tmp_path)))
    loaded = set(ast.literal_eval(done.stderr.splitlines()[-1]))
    assert loaded & HEAVY == set()
    assert "scitq.cli.launch" in loaded or words[0] != "launch"
    assert not loaded & {"scitq.store", "scitq.server", "scitq.worker"}


# -- slow: the whole file, every Python --


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The one file as it is given to people: the one that tests/run.py has just made, or one made now."""
    if made := os.environ.get("SCITQ_TESTS_ONE_FILE"):
        return pathlib.Path(made)
    target = tmp_path_factory.mktemp("whole") / "scitq.pyz"
    subprocess.run([sys.executable, ROOT / "build_zipapp.py", "--output", target], check=True, stdout=subprocess.DEVNULL)
    return target


@pytest.mark.slow(seconds=17)
def test_two_builds_have_the_same_bytes(whole, tmp_path):
    again = tmp_path / "again.pyz"
    env = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "TMPDIR": str(tmp_path)}
    subprocess.run(
        [sys.executable, ROOT / "build_zipapp.py", "--output", again], check=True, stdout=subprocess.DEVNULL, env=env, umask=0o077
    )
    assert again.read_bytes() == whole.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("executable", pythons())
def test_every_python_imports_everything(executable, whole, tmp_path):
    script = """
        import importlib, pkgutil, sys, warnings
        warnings.simplefilter("error")
        import scitq, psutil, psycopg2.extras, yaml, bottle, peewee, waitress, marshmallow, apispec.ext.marshmallow, requests
        for module in pkgutil.walk_packages(scitq.__path__, "scitq."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        assert "scitq.store.schema" in sys.modules
        print("all")"""
    env = clean(tmp_path, PYTHONPATH=str(whole))
    assert python("-S", "-c", textwrap.dedent(script), env=env, executable=executable, cwd=tmp_path).stdout == "all\n"
    python("-S", "-W", "error", "-c", STORES, env=env, executable=executable, cwd=tmp_path)


@pytest.mark.slow
def test_the_whole_file_has_every_native_part(whole):
    with zipfile.ZipFile(whole) as archive:
        for machine in build_zipapp.PLATFORMS:
            for layer_name in ("cffi", "psycopg2"):
                with archive.open(f"_layers/{layer_name}-{machine}.zip") as layer:
                    tags = {name.partition("/")[0] for name in zipfile.ZipFile(layer).namelist()}
                assert tags == {"any", *(f"cp{python}" for python in build_zipapp.PYTHONS)}
            assert {f"_layers/{name}-{machine}.zip" for name in ("cryptography", "psutil")} <= set(archive.namelist())
