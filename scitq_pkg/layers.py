"""What cannot be imported from inside the one file, or is too large for it: packages that are unpacked to a cache when first
needed.

The one file holds `_layers/NAME-MACHINE.zip` (native) and `_layers/NAME-any.zip` (pure); in it `any/` is for every Python,
`abi3/` for every usual CPython, `cp312/` for that one alone. An unpacked layer is named by the content of its zip, so versions
live side by side. Installed with pip, none of this is used.
"""

from __future__ import annotations

import os
import sys

PACKAGES = {  # importable package -> layer
    "psutil": "psutil",
    "psycopg2": "psycopg2",
    **dict.fromkeys(("cffi", "_cffi_backend"), "cffi"),
    "cryptography": "cryptography",
    "jmespath": "jmespath",
    **dict.fromkeys(("boto3", "botocore", "dateutil", "s3transfer", "six"), "s3"),
    **dict.fromkeys(("azure", "isodate"), "azure"),
    **dict.fromkeys(("azure.identity", "azure.mgmt", "jwt", "msal", "msal_extensions"), "azure-mgmt"),
    **dict.fromkeys(("decorator", "dogpile", "iso8601", "jsonpatch", "jsonpointer", "keystoneauth1", "openstack"), "openstack"),
    **dict.fromkeys(("os_service_types", "pbr", "platformdirs", "stevedore"), "openstack"),
}
PURE = ("azure", "azure-mgmt", "jmespath", "openstack", "s3")  # layers that are the same on every machine


class Layers:
    """A finder for the packages in PACKAGES, put before the others: the one file brings its own parts."""

    def __init__(self, loader):
        self.loader = loader
        self.folders = []  # of the layers that this process uses

    def find_spec(self, name: str, path=None, target=None):
        """A package of PACKAGES from its layer, or an installed one where no layer fits; None for all others."""
        if name not in PACKAGES:
            return None
        from importlib.machinery import PathFinder

        try:
            folder = os.path.join(self.unpacked(PACKAGES[name]), *name.split(".")[:-1])
            places = [folder, *(sys.path if path is None else path)]  # an `azure` may lie in several
            return PathFinder.find_spec(name, places)
        except NotForThisPython as why:
            installed = PathFinder.find_spec(name, path)
            if installed:
                return installed
            raise ModuleNotFoundError(f"{name}: {why}; install it with pip, or use one of those", name=name) from None

    def unpacked(self, layer: str) -> str:
        """The folder with the layer's packages for this Python; raises NotForThisPython, and ImportError when no folder can hold
        it.
        """
        part = Part(self.read(f"{layer}-{'any' if layer in PURE else machine()}"))
        folder = _in_some_cache("-".join([layer, part.digest, *part.tags]), part)
        if folder not in self.folders:
            self.folders.append(folder)
        return folder

    def find_distributions(self, context=None):
        """The descriptions (version, plugins) of what lies in the layers that are in use: keystoneauth1 finds its plugins by
        them.
        """
        from importlib.metadata import DistributionFinder, MetadataPathFinder

        return MetadataPathFinder.find_distributions(DistributionFinder.Context(name=context and context.name, path=self.folders))

    def read(self, layer: str) -> bytes:
        try:
            return self.loader.get_data(f"_layers/{layer}.zip")
        except OSError:
            raise NotForThisPython(f"this file has no '{layer}' part (this machine is {machine()})") from None


class Part:
    """The files of one layer that this Python needs; raises NotForThisPython."""

    def __init__(self, data: bytes):
        import hashlib

        self.archive = _open(data)
        self.digest = hashlib.sha256(data).hexdigest()[:16]
        has = {name.partition("/")[0] for name in self.archive.namelist()}
        self.tags = [tag for tag in _tags() if tag in has]
        if not self.tags and has != {"any"}:
            python = sys.version.split()[0]
            raise NotForThisPython(f"this file has it for {', '.join(sorted(has - {'any'}))} and this Python is {python}")
        self.entries = {}
        for entry in self.archive.infolist():
            tag, _, path = entry.filename.partition("/")
            if tag == "any" or tag in self.tags:
                self.entries[path] = entry

    def is_whole(self, folder: str) -> bool:
        """Whether all files are in `folder`: cleaners of /tmp remove single ones."""
        try:
            return all(os.path.getsize(os.path.join(folder, path)) == entry.file_size for path, entry in self.entries.items())
        except FileNotFoundError:
            return False

    def unpack(self, folder: str) -> None:
        for path, entry in self.entries.items():
            target = os.path.join(folder, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                file.write(self.archive.read(entry))
                file.flush()
                os.fsync(file.fileno())


class NotForThisPython(Exception):
    """The layer has no variant for this Python on this machine; says which it has."""


def install() -> None:
    """Puts the finder in place when this package was imported from the one file; otherwise does nothing."""
    loader = __spec__.loader
    if hasattr(loader, "archive"):
        sys.meta_path.insert(0, Layers(loader))


def documentation_file(name: str) -> bytes:
    """The bytes of a file of Swagger UI (`swagger-ui.css`, `swagger-ui-bundle.js`); raises FileNotFoundError."""
    loader = __spec__.loader
    if hasattr(loader, "archive"):
        return _from_zip(loader.get_data("_layers/docs-any.zip"), name)
    from importlib.util import find_spec
    from pathlib import Path

    found = find_spec("swagger_ui_bundle")
    for path in Path(found.origin).parent.glob(f"vendor/*/{name}") if found else ():
        return path.read_bytes()
    raise FileNotFoundError(f"no file '{name}' of Swagger UI here: install swagger-ui-bundle")


def machine() -> str:
    """The kind of machine that a native part must fit: `x86_64`, `aarch64`; with the C library or system where that is another.
    """
    name = os.uname().machine
    if sys.platform != "linux":
        return f"{sys.platform}-{name}"
    try:
        return name if os.confstr("CS_GNU_LIBC_VERSION") else f"{name}-musl"
    except (ValueError, OSError):
        return f"{name}-musl"


def _tags() -> list[str]:
    """What this Python can load."""
    if sys.implementation.name != "cpython":
        return []
    own = f"cp{sys.version_info[0]}{sys.version_info[1]}{sys.abiflags}"
    return [own] if "t" in sys.abiflags else [own, "abi3"]


def _open(data: bytes):
    import io
    import zipfile

    return zipfile.ZipFile(io.BytesIO(data))


def _from_zip(data: bytes, name: str) -> bytes:
    try:
        return _open(data).read("any/" + name)
    except KeyError:
        raise FileNotFoundError(f"no file '{name}' of Swagger UI here") from None


def _in_some_cache(name: str, part: Part) -> str:
    """The folder `layers/NAME` of the first cache that has it whole or can take it."""
    from .cache import cache_folders

    troubles = []
    for cache in cache_folders():
        if os.statvfs(cache).f_flag & os.ST_NOEXEC:
            troubles.append(f"{cache}: mounted noexec")
            continue
        try:
            return _kept(os.path.join(cache, "layers", name), part)
        except OSError as error:
            troubles.append(f"{cache}: {error.strerror or error}")
    raise ImportError(f"no place to unpack {name} ({'; '.join(troubles)}): set SCITQ_CACHE to a folder of yours with 50 MB free")


def _kept(folder: str, part: Part) -> str:
    """`folder`, held by this process, unpacked first unless all of it is there."""
    from .cache import hold, prune

    for _ in range(3):  # another process may put it there, or a cleaner take it away, between two looks
        if hold(folder) is not None and part.is_whole(folder):
            return folder
        _unpack(folder, part)
        prune(os.path.dirname(folder))
    raise OSError(f"{folder} does not stay whole")


def _unpack(folder: str, part: Part) -> None:
    """Unpacks beside and renames, so that four processes may do it at once and a crash leaves nothing that looks whole."""
    import shutil
    import tempfile

    os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
    beside = tempfile.mkdtemp(prefix=".new-", dir=os.path.dirname(folder))
    try:
        os.chmod(beside, 0o755)
        part.unpack(beside)
        _put(beside, folder, part)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _put(beside: str, folder: str, part: Part) -> None:
    """Gives `beside` the name `folder`, unless a whole one has it by now; one that is not whole goes away."""
    import shutil

    try:
        os.rename(beside, folder)
    except OSError:
        if part.is_whole(folder):
            return  # another process was quicker
        broken = f"{beside}.broken"
        os.rename(folder, broken)
        shutil.rmtree(broken, ignore_errors=True)
        os.rename(beside, folder)
