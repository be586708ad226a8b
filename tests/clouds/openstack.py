"""OpenStack, for the conformance suite: a small server that answers as Keystone, Nova, Glance and Neutron do, faults included.

With SCITQ_TEST_OPENSTACK=CLOUD it is a cloud of the user's clouds.yaml instead, for real, with the flavor, region, image and
network of SCITQ_TEST_OPENSTACK_FLAVOR, _REGION, _IMAGE and _NETWORK.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
import uuid
from pathlib import Path

from clouds.http import Answer, Cloud, Request
from clouds.rig import Rig as Base

PASSWORD = "THE-SECRET-PASSWORD-OF-THE-PROJECT"
REGIONS = ("GRA11", "SBG5")
FLAVORS = {  # name: vcpus, MiB, GiB, extra specs
    "b3-8": (2, 8192, 50, {}),
    "b3-64": (16, 65536, 400, {}),
    "t2-le-90": (30, 92160, 500, {"pci_passthrough:alias": "v100s:2,nvme:1"}),
    "nowhere": (1, 1024, 10, {}),  # no host has room for it
    "breaks": (1, 1024, 10, {}),  # ends in ERROR
}
FAULTS = {
    "nowhere": "No valid host was found. There are not enough hosts available.",
    "breaks": "Build of instance aborted: the hypervisor gave up",
}


def thing(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


class OpenStackCloud(Cloud):
    """Keystone v3 at `/identity/v3`, the others at `/<region>/<service>`."""

    def __init__(self) -> None:
        super().__init__()
        self.servers: dict[str, dict] = {}
        self.ports: dict[str, str] = {}  # port -> server
        self.limits = {"maxTotalInstances": 10, "maxTotalCores": 40, "maxTotalRAMSize": -1}
        self.building, self.leaving = 1, 1  # so often a server is asked for until it is built, or gone
        self._numbers = itertools.count()

    def answer(self, request: Request) -> Answer:
        path = request.path.rstrip("/")
        if path.startswith("/identity"):
            return self.identity(request)
        if request.headers.get("X-Auth-Token") != "the-token":
            return Answer(
                401, {"error": {"code": 401, "title": "Unauthorized", "message": "The request requires authentication."}}
            )
        _, region, service, *rest = path.split("/")
        return getattr(self, service)(request, region, rest)

    # --- Keystone, Glance, Neutron ------------------------------------------------------------------------------------

    def identity(self, request: Request) -> Answer:
        if request.method == "GET":
            return Answer(
                200,
                {"version": {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": f"{self.url}/identity/v3/"}]}},
            )
        user = request.body["auth"]["identity"]["password"]["user"]
        if user["password"] != PASSWORD:
            message = "The request you have made requires authentication."
            return Answer(401, {"error": {"code": 401, "title": "Unauthorized", "message": message}})
        services = {"compute": "compute/v2.1", "image": "image", "network": "network"}
        catalog = [
            {"id": name, "type": name, "name": name, "endpoints": [self.endpoint(region, path) for region in REGIONS]}
            for name, path in services.items()
        ]
        token = {
            "methods": ["password"],
            "user": {"id": "u", "name": "demo", "domain": {"id": "default", "name": "Default"}},
            "project": {"id": "p", "name": "demo", "domain": {"id": "default", "name": "Default"}},
            "catalog": catalog,
            "issued_at": "2026-01-01T00:00:00.000000Z",
            "expires_at": "2999-01-01T00:00:00.000000Z",
            "roles": [],
        }
        return Answer(201, {"token": token}, {"X-Subject-Token": "the-token"})

    def endpoint(self, region: str, path: str) -> dict:
        return {
            "id": f"{region}{path}",
            "interface": "public",
            "region": region,
            "region_id": region,
            "url": f"{self.url}/{region}/{path}",
        }

    def image(self, request: Request, region: str, rest: list[str]) -> Answer:
        if not rest:
            links = [{"rel": "self", "href": f"{self.url}/{region}/image/v2/"}]
            return Answer(300, {"versions": [{"id": "v2.16", "status": "CURRENT", "links": links}]})
        names = ("Ubuntu 24.04", "Ubuntu 22.04", "Twice", "NVIDIA GPU Cloud")
        images = [{"id": thing(region + name), "name": name, "status": "active"} for name in names]
        return Answer(200, {"images": [*images, {"id": thing("another twice"), "name": "Twice", "status": "active"}]})

    def network(self, request: Request, region: str, rest: list[str]) -> Answer:
        if rest == ["v2.0", "networks"]:
            return Answer(200, {"networks": [{"id": thing(region + name), "name": name} for name in ("Ext-Net", "private")]})
        return Answer(
            200, {"security_groups": [{"id": thing(region + "default"), "name": "default", "security_group_rules": []}]}
        )

    # --- Nova ---------------------------------------------------------------------------------------------------------

    def compute(self, request: Request, region: str, rest: list[str]) -> Answer:
        match request.method, *rest[1:]:
            case ("GET",):
                links = [{"rel": "self", "href": f"{self.url}/{region}/compute/v2.1/"}]
                version = {"id": "v2.1", "status": "CURRENT", "version": "2.96", "min_version": "2.1", "links": links}
                return Answer(200, {"version": version})
            case "GET", "flavors", "detail":
                return Answer(200, {"flavors": [self.flavor(region, name) for name in FLAVORS]})
            case "GET", "limits":
                return Answer(200, {"limits": {"rate": [], "absolute": {**self.limits, **self.used(region)}}})
            case "GET", "os-keypairs":
                return Answer(
                    200, {"keypairs": [{"keypair": {"name": "lab", "fingerprint": "aa", "public_key": "ssh-ed25519 A"}}]}
                )
            case "GET", "servers", "detail":
                pattern = request.query.get("name", "")
                found = [server for server in self.of(region) if re.search(pattern, server["name"])]
                return Answer(200, {"servers": [self.shown(server) for server in found if self.goes_on(server)]})
            case "GET", "servers", identity:
                found = [server for server in self.of(region) if server["id"] == identity and self.goes_on(server)]
                return Answer(200, {"server": self.shown(found[0])}) if found else self.missing("Instance", identity)
            case "POST", "servers":
                return self.make(request.body["server"], region)
            case "DELETE", "servers", identity:
                if identity not in self.servers:
                    return self.missing("Instance", identity)
                self.servers[identity]["OS-EXT-STS:task_state"] = "deleting"
                return Answer(204)
        return Answer(404, {"itemNotFound": {"code": 404, "message": "The resource could not be found."}})

    def of(self, region: str) -> list[dict]:
        return [server for server in self.servers.values() if server["region"] == region]

    def used(self, region: str) -> dict:
        sizes = [FLAVORS[server["flavor"]["original_name"]] for server in self.of(region)]
        return {"totalInstancesUsed": len(sizes), "totalCoresUsed": sum(size[0] for size in sizes), "totalRAMUsed": 0}

    def flavor(self, region: str, name: str) -> dict:
        vcpus, ram, disk, specs = FLAVORS[name]
        return {
            "id": thing(region + name),
            "name": name,
            "vcpus": vcpus,
            "ram": ram,
            "disk": disk,
            "OS-FLV-EXT-DATA:ephemeral": 0,
            "swap": 0,
            "extra_specs": specs,
            "OS-FLV-DISABLED:disabled": False,
            "os-flavor-access:is_public": True,
        }

    def make(self, asked: dict, region: str) -> Answer:
        (name,) = [name for name in FLAVORS if thing(region + name) == asked["flavorRef"]] or [None]
        if name is None or asked["networks"][0]["uuid"] not in (thing(region + "Ext-Net"), thing(region + "private")):
            return Answer(400, {"badRequest": {"code": 400, "message": "Network or flavor could not be found."}})
        if self.used(region)["totalCoresUsed"] + FLAVORS[name][0] > self.limits["maxTotalCores"]:
            message = f"Quota exceeded for cores: Requested {FLAVORS[name][0]}, but already used 40 of 40 cores"
            return Answer(403, {"forbidden": {"code": 403, "message": message}})
        server = {
            "id": str(uuid.uuid4()),
            "name": asked["name"],
            "metadata": asked.get("metadata", {}),
            "region": region,
            "asked": asked,
            "status": "BUILD",
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1.8e9 + next(self._numbers))),
            "flavor": {"original_name": name},
            "addresses": {},
            "left": self.building,
            "leaving": self.leaving,
        }
        self.servers[server["id"]] = server
        self.ports[f"port of {server['id']}"] = server["id"]
        return Answer(202, {"server": {"id": server["id"], "links": [], "OS-DCF:diskConfig": "MANUAL"}})

    def goes_on(self, server: dict) -> bool:
        """Each look brings it on; whether it is there still."""
        if server.get("OS-EXT-STS:task_state") == "deleting":
            server["leaving"] -= 1
            if server["leaving"] < 0:
                del self.servers[server["id"]]
                self.ports.pop(f"port of {server['id']}", None)
                return False
        elif server["status"] == "BUILD":
            server["left"] -= 1
            if server["left"] < 0:
                self.end_of_build(server)
        return True

    def end_of_build(self, server: dict) -> None:
        fault = FAULTS.get(server["flavor"]["original_name"])
        if fault:
            server.update(status="ERROR", fault={"code": 500, "message": fault, "created": "2026-01-01T00:00:00Z"})
            return
        server["status"] = "ACTIVE"
        server["addresses"] = {"Ext-Net": [{"addr": "2001:db8::7", "version": 6}, {"addr": "198.51.100.7", "version": 4}]}

    def shown(self, server: dict) -> dict:
        return {key: value for key, value in server.items() if key not in ("region", "asked", "left", "leaving")}

    def missing(self, what: str, name: str) -> Answer:
        return Answer(404, {"itemNotFound": {"code": 404, "message": f"{what} {name} could not be found."}})


class Rig(Base):
    kind = "openstack"

    def __new__(cls, directory: Path):
        return super().__new__(RealRig if os.environ.get("SCITQ_TEST_OPENSTACK") else cls)

    def __init__(self, directory: Path):
        self.cloud = OpenStackCloud()
        self.flavor, self.region = "b3-8", "GRA11"
        self.config = {
            "regions": list(REGIONS),
            "image": "Ubuntu 24.04",
            "network": "Ext-Net",
            "keypair": "lab",
            "prices": {"b3-8": 0.05},
            "security_groups": ["default"],
            "currency": "EUR",
        }
        self.environ = credentials(directory, self.cloud.url)
        self.secrets = (PASSWORD,)
        self.unreachable = {**self.config, "cloud": "away"}

    def close(self) -> None:
        self.cloud.close()

    def things(self) -> set[str]:
        with self.cloud.lock:
            return {*self.cloud.servers, *self.cloud.ports}


def credentials(directory: Path, url: str) -> dict[str, str]:
    """Variables with which the SDK finds the cloud at `url`, and one called `away` where nobody is."""
    auth = {
        "auth_url": "http://127.0.0.1:9/v3",
        "username": "demo",
        "password": "x",
        "project_name": "demo",
        "user_domain_id": "default",
    }
    file = directory / "clouds.yaml"
    file.write_text(json.dumps({"clouds": {"away": {"auth": {**auth, "project_domain_id": "default"}}}}))
    return {
        "OS_CLIENT_CONFIG_FILE": str(file),
        "OS_AUTH_URL": f"{url}/identity/v3",
        "OS_USERNAME": "demo",
        "OS_PASSWORD": PASSWORD,
        "OS_PROJECT_NAME": "demo",
        "OS_USER_DOMAIN_ID": "default",
        "OS_PROJECT_DOMAIN_ID": "default",
    }


class RealRig(Rig):
    """A cloud of the user's own. What is there is looked up by the SDK itself."""

    def __init__(self, directory: Path):
        import openstack

        self.connection = openstack.connect(cloud=os.environ["SCITQ_TEST_OPENSTACK"])
        settings = {
            name: os.environ.get(f"SCITQ_TEST_OPENSTACK_{name.upper()}") for name in ("flavor", "region", "image", "network")
        }
        self.flavor, self.region = settings["flavor"] or "m1.tiny", settings["region"] or self.connection.config.region_name
        self.config = {
            "cloud": os.environ["SCITQ_TEST_OPENSTACK"],
            "regions": [self.region],
            "image": settings["image"] or "ubuntu-22.04",
            "network": settings["network"] or "private",
        }

    def close(self) -> None:
        self.connection.close()

    def things(self) -> set[str]:
        ours = {server.id for server in self.connection.compute.servers() if server.name.startswith("scitq-")}
        return ours | {port.id for port in self.connection.network.ports() if port.device_id in ours}
