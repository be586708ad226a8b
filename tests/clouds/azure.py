"""Azure, for the conformance suite: a small server that answers as its Resource Manager is documented, faults included."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import ClassVar

from clouds.http import Answer, Cloud, Request
from clouds.rig import Rig as Base

SUBSCRIPTION = "00000000-0000-0000-0000-000000000001"
TOKEN = "THE-SECRET-TOKEN-OF-THE-SUBSCRIPTION"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA lab"
IMAGE = "Canonical:ubuntu-24_04-lts:server:latest"
REGIONS = ("westeurope", "northeurope")
SIZES = {  # name: family, capabilities
    "Standard_D2s_v5": ("standardDSv5Family", {"vCPUs": "2", "MemoryGB": "8", "MaxResourceVolumeMB": "0"}),
    "Standard_E16ds_v5": ("standardEDSv5Family", {"vCPUs": "16", "MemoryGB": "128", "MaxResourceVolumeMB": "614400"}),
    "Standard_NC24ads_A100_v4": (
        "standardNCADSA100v4Family",
        {"vCPUs": "24", "MemoryGB": "220", "GPUs": "1", "MaxResourceVolumeMB": "65536", "NvmeDiskSizeInMiB": "915527"},
    ),
    "Standard_B2s": ("standardBSFamily", {"vCPUs": "2", "MemoryGB": "4", "LowPriorityCapable": "False"}),
    "Standard_L8s_v3": ("standardLSv3Family", {"vCPUs": "8", "MemoryGB": "64"}),  # not for this subscription
}
FAILING = {  # ends of the operation by the size
    "Standard_E16ds_v5": ("AllocationFailed", "Allocation failed. We do not have sufficient capacity for the requested VM size."),
}


def error(status: int, code: str, message: str, **headers: str) -> Answer:
    return Answer(
        status, {"error": {"code": code, "message": message}}, {name.replace("_", "-"): value for name, value in headers.items()}
    )


class AzureCloud(Cloud):
    """Keeps every resource by its path in small letters; what takes its time is asked for `polls` times."""

    def __init__(self) -> None:
        super().__init__()
        self.things: dict[str, dict] = {}
        self.operations: dict[str, list] = {}
        self.power: dict[str, str] = {}  # of a virtual machine by its path, where it is not running
        self.polls, self.cores = 1, 40
        self.failing = dict(FAILING)
        self._numbers = itertools.count()

    def answer(self, request: Request) -> Answer:
        if request.path == "/prices":
            return self.prices(request)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return error(401, "InvalidAuthenticationToken", "The access token is invalid.")
        path = request.path.rstrip("/").lower()
        if "/operations/" in path:
            return self.operation(path)
        if "/providers/microsoft.compute/locations/" in path or path.endswith("/microsoft.compute/skus"):
            return self.told(path, request)
        if path == "/providers/microsoft.resourcegraph/resources":
            return Answer(200, {"data": [{"sku": "standard_d2s_v5", "rate": "5-10"}], "totalRecords": 1})
        return getattr(self, request.method.lower())(path, request)

    # --- what is there ------------------------------------------------------------------------------------------------

    def get(self, path: str, request: Request) -> Answer:
        if path.endswith("/instanceview"):
            return self.view(path.removesuffix("/instanceview"))
        if path in self.things:
            return Answer(200, self.things[path])
        last = path.rsplit("/", 1)[-1]
        if last == "resourcegroups":
            tag = re.search(r"tagValue eq '([^']*)'", request.query.get("$filter", ""))
            groups = [one for key, one in self.things.items() if key.count("/") == 4]
            return Answer(200, {"value": [one for one in groups if tag is None or one["tags"].get("scitq-tag") == tag[1]]})
        if last in ("virtualmachines", "publicipaddresses"):
            inside = path.split("/providers/")[0] + "/"
            return Answer(
                200, {"value": [one for key, one in self.things.items() if f"/{last}/" in key and key.startswith(inside)]}
            )
        return error(
            404, "ResourceGroupNotFound" if path.count("/") == 4 else "ResourceNotFound", f"{request.path} was not found."
        )

    def put(self, path: str, request: Request) -> Answer:
        kind = path.split("/")[-2]
        group = "/".join(path.split("/")[:5])
        if group != path and group not in self.things:
            return error(404, "ResourceGroupNotFound", "Resource group could not be found.")
        if kind == "virtualmachines" and path not in self.things and self.used() + self.cores_of(request.body) > self.cores:
            message = (
                "Operation could not be completed as it results in exceeding approved LowPriorityCores quota. Current Limit: 40"
            )
            return error(409, "OperationNotAllowed", message)
        new = path not in self.things
        thing = {**request.body, "id": request.path, "name": request.path.rsplit("/", 1)[1]}
        self.things[path] = thing
        thing.setdefault("properties", {})["provisioningState"] = "Succeeded"
        self.complete(kind, thing)
        if kind == "resourcegroups":
            return Answer(201 if new else 200, thing)
        failure = self.failing.get(thing["properties"].get("hardwareProfile", {}).get("vmSize"))
        thing["properties"]["provisioningState"] = "Failed" if failure else "Succeeded"
        return Answer(201 if new else 200, thing, self.begun(failure))

    def complete(self, kind: str, thing: dict) -> None:
        """What Azure adds by itself."""
        if kind == "virtualnetworks":
            for subnet in thing["properties"]["subnets"]:
                subnet["id"] = f"{thing['id']}/subnets/{subnet['name']}"
        if kind == "publicipaddresses":
            thing["properties"]["ipAddress"] = f"198.51.100.{next(self._numbers) % 250 + 1}"

    def delete(self, path: str, request: Request) -> Answer:
        if path not in self.things:
            return error(404, "ResourceGroupNotFound", "Resource group could not be found.")
        if path.count("/") == 4:
            self.things[path]["properties"]["provisioningState"] = "Deleting"
        return Answer(202, None, self.begun(None, lambda: self.drop(path)))

    def drop(self, path: str) -> None:
        for key in [key for key in self.things if key == path or key.startswith(path + "/")]:
            del self.things[key]

    def evict(self, name: str) -> None:
        """As Azure does where the policy is Delete: the machine and what goes with it, not its group."""
        for kind in ("microsoft.compute/virtualmachines", "microsoft.network/networkinterfaces"):
            self.drop(f"/subscriptions/{SUBSCRIPTION}/resourcegroups/{name}/providers/{kind}/{name}")

    def machines(self) -> list[dict]:
        return [one for key, one in self.things.items() if "/virtualmachines/" in key]

    def cores_of(self, machine: dict) -> int:
        return int(SIZES[machine["properties"]["hardwareProfile"]["vmSize"]][1]["vCPUs"])

    def used(self) -> int:
        return sum(self.cores_of(one) for one in self.machines())

    def view(self, path: str) -> Answer:
        if path not in self.things:
            return error(404, "ResourceNotFound", "The machine was not found.")
        properties = self.things[path]["properties"]
        statuses = [{"code": f"PowerState/{self.power.get(path, 'running')}", "displayStatus": "VM"}]
        if properties["provisioningState"] == "Failed":
            code, message = self.failing[properties["hardwareProfile"]["vmSize"]]
            statuses = [{"code": f"ProvisioningState/failed/{code}", "level": "Error", "message": message}]
        return Answer(200, {"statuses": statuses})

    # --- operations that take their time ------------------------------------------------------------------------------

    def begun(self, failure, then=lambda: None) -> dict[str, str]:
        name = str(next(self._numbers))
        self.operations[name] = [self.polls, failure, then]
        where = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/westeurope"
        url = f"{self.url}{where}/operations/{name}?api-version=x"
        return {"Azure-AsyncOperation": url, "Location": url, "Retry-After": "0"}

    def operation(self, path: str) -> Answer:
        operation = self.operations[path.rsplit("/", 1)[1]]
        operation[0] -= 1
        if operation[0] >= 0:
            return Answer(202, {"status": "InProgress"}, {"Retry-After": "0"})
        operation[2]()
        if operation[1]:
            code, message = operation[1]
            return Answer(200, {"status": "Failed", "error": {"code": code, "message": message}})
        return Answer(200, {"status": "Succeeded"})

    # --- what is told -------------------------------------------------------------------------------------------------

    def told(self, path: str, request: Request) -> Answer:
        if path.endswith("/skus") and "/publishers/" not in path:
            region = re.search(r"location eq '([^']*)'", request.query["$filter"])[1]
            return Answer(200, {"value": [self.size(name, region) for name in SIZES] if region in REGIONS else []})
        if path.endswith("/usages"):
            quotas = {"lowPriorityCores": self.cores, "cores": 100, "virtualMachines": 250, "standardDSv5Family": 20}
            used = {"lowPriorityCores": self.used(), "virtualMachines": len(self.machines())}
            return Answer(
                200,
                {
                    "value": [
                        {
                            "name": {"value": name, "localizedValue": name},
                            "limit": limit,
                            "currentValue": used.get(name, 0),
                            "unit": "Count",
                        }
                        for name, limit in quotas.items()
                    ]
                },
            )
        names = ["ubuntu-24_04-lts", "ubuntu-22_04-lts"] if path.endswith("/offers") else ["server", "minimal"]
        if "/publishers/canonical/" not in path:
            return error(404, "NotFound", "Artifact: Publisher was not found.")
        return Answer(200, [{"name": name, "id": name, "location": "westeurope"} for name in names])

    def size(self, name: str, region: str) -> dict:
        family, has = SIZES[name]
        restrictions = (
            [{"type": "Location", "values": [region], "reasonCode": "NotAvailableForSubscription"}]
            if name.startswith("Standard_L")
            else []
        )
        capabilities = [{"name": key, "value": value} for key, value in has.items()]
        return {
            "resourceType": "virtualMachines",
            "name": name,
            "family": family,
            "locations": [region],
            "capabilities": capabilities,
            "restrictions": restrictions,
        }

    def prices(self, request: Request) -> Answer:
        def item(words: str, price: float, product: str = "Virtual Machines DSv5 Series") -> dict:
            return {
                "armSkuName": "Standard_D2s_v5",
                "skuName": words,
                "retailPrice": price,
                "productName": product,
                "unitOfMeasure": "1 Hour",
            }

        if "page" not in request.query:
            items = [
                item("D2s v5 Spot", 0.3, "Virtual Machines DSv5 Series Windows"),
                item("D2s v5 Low Priority", 0.2),
                item("D2s v5", 0.1),
            ]
            return Answer(200, {"Items": items, "NextPageLink": f"{self.url}/prices?page=2"})
        return Answer(200, {"Items": [item("D2s v5 Spot", 0.0176)], "NextPageLink": None})


def configuration(url: str) -> dict:
    """Of a provider that asks the server at `url`."""
    return {
        "subscription": SUBSCRIPTION,
        "regions": list(REGIONS),
        "image": IMAGE,
        "ssh_key": KEY,
        "endpoint": url,
        "catalog": f"{url}/prices",
    }


class Rig(Base):
    kind, flavor, region = "azure", "Standard_D2s_v5", "westeurope"
    environ: ClassVar = {"AZURE_ACCESS_TOKEN": TOKEN}
    secrets = (TOKEN,)

    def __init__(self, directory: Path):
        self.cloud = AzureCloud()
        self.config = configuration(self.cloud.url)
        self.unreachable = configuration("http://127.0.0.1:9")

    def close(self) -> None:
        self.cloud.close()

    def things(self) -> set[str]:
        with self.cloud.lock:
            return set(self.cloud.things)
