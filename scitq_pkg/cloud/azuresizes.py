"""Sizes of Azure's virtual machines: what they have and cost, how often spot ones are taken away, what the quota leaves."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping

from ..errors import ScitqError
from .arm import Subscription
from .provider import CloudRefused, CloudTrouble, Flavor, Tell

PRICES = "https://prices.azure.com/api/retail/prices"
GPU_MEMORY = {  # GB of one, by the part of the size's name that tells its kind
    "H100": 80.0,
    "H200": 141.0,
    "A100": 80.0,
    "A10": 24.0,
    "T4": 16.0,
    "V100": 16.0,
    "P100": 16.0,
    "P40": 24.0,
    "MI300X": 192.0,
}
UNTOLD_EVICTION = 5.0  # percent, where Azure tells none
_SECONDS, _TRIES = 60.0, 4
_GIB, _MIB, _GB = 2**30, 2**20, 1e9
_QUERY = (
    "SpotResources | where type =~ 'microsoft.compute/skuspotevictionrate/location' | where location =~ '{region}' "
    "| project sku = tostring(sku.name), rate = tostring(properties.evictionRate)"
)
_GRAPH = "/providers/Microsoft.ResourceGraph/resources?api-version=2022-10-01"


class Sizes:
    """Those of a subscription, by region."""

    def __init__(self, subscription: Subscription, spot: bool, currency: str, prices: str | None, tell: Tell):
        self._subscription, self._spot, self._currency, self._tell = subscription, spot, currency, tell
        self._prices_url = prices or PRICES

    def all(self, region: str) -> list:
        """All that the region has, restricted ones too. Raises CloudRefused where there is no such region."""
        skus = self._subscription.compute.resource_skus
        query = f"location eq '{region}'"
        found = self._subscription.ask("listing sizes", lambda: list(skus.list(filter=query)))
        sizes = [one for one in found if one.resource_type == "virtualMachines"]
        if not sizes:
            raise CloudRefused(
                f"Azure has no virtual machines in a region {region!r:.80}: `az account list-locations` tells the names"
            )
        return [one for one in sizes if not self._spot or _has(one).get("LowPriorityCapable") != "False"]

    def room(self, region: str, size) -> int | None:
        """How many more of a size the quota allows; None where it sets no limit."""
        return _room(self._usages(region), size, self._spot)

    def flavors(self, region: str) -> Iterator[Flavor]:
        usages, prices = self._usages(region), self._prices(region)
        evictions = self._evictions(region) if self._spot else {}
        for size in self.all(region):
            if restriction(size) is None:
                room = _room(usages, size, self._spot)
                yield self._flavor(size, region, prices.get(size.name), evictions.get(size.name.lower()), room)

    def _flavor(self, size, region: str, price: float | None, eviction: float | None, room: int | None) -> Flavor:
        has, cards = _has(size), gpus(size)
        nvme = float(has.get("NvmeDiskSizeInMiB") or 0)
        kind = next((kind for kind in GPU_MEMORY if f"_{kind}" in size.name.upper()), None) if cards else None
        return Flavor(
            name=size.name,
            region=region,
            cpu=int(has.get("vCPUsAvailable") or has.get("vCPUs") or 0) or None,
            ram=round(float(has.get("MemoryGB") or 0) * _GIB / _GB, 1),
            disk=round((nvme or float(has.get("MaxResourceVolumeMB") or 0)) * _MIB / _GB, 1),
            gpus=cards,
            gpu=kind,
            gpumem=GPU_MEMORY.get(kind or ""),
            tags=("G" if cards else "") + ("N" if nvme else ""),
            price=price,
            currency=self._currency if price is not None else None,
            eviction=(UNTOLD_EVICTION if eviction is None else eviction) if self._spot else 0.0,
            available=room,
        )

    # --- where it is told ---------------------------------------------------------------------------------------------

    def _usages(self, region: str) -> dict[str, int]:
        """What is left, by the name of the quota, in small letters."""
        found = self._subscription.ask("asking for the quota", lambda: list(self._subscription.compute.usage.list(region)))
        return {one.name.value.lower(): max(0, one.limit - one.current_value) for one in found if one.name and one.name.value}

    def _prices(self, region: str) -> dict[str, float]:
        """The hour of each size under Linux, as the public list of prices has it. Raises CloudTrouble."""
        query = f"serviceName eq 'Virtual Machines' and armRegionName eq '{region}' and priceType eq 'Consumption'"
        url = f"{self._prices_url}?{urllib.parse.urlencode({'currencyCode': self._currency, '$filter': query})}"
        found: dict[str, float] = {}
        while url:
            page = _read(url)
            found.update(
                {item["armSkuName"]: float(item["retailPrice"]) for item in page.get("Items") or () if self._is_meant(item)}
            )
            url = page.get("NextPageLink")
        return found

    def _is_meant(self, item: Mapping) -> bool:
        words = item.get("skuName") or ""
        if "Windows" in (item.get("productName") or "") or "Low Priority" in words or not item.get("armSkuName"):
            return False
        return words.endswith(" Spot") == self._spot and item.get("unitOfMeasure") == "1 Hour"

    def _evictions(self, region: str) -> dict[str, float]:
        """The upper end of what Azure tells (`5-10`), in percent, by size in small letters; nothing where it may not be read."""
        found: dict[str, float] = {}
        body = {
            "subscriptions": [self._subscription.id],
            "query": _QUERY.format(region=region),
            "options": {"resultFormat": "objectArray"},
        }
        try:
            while True:
                page = self._subscription.post("asking for evictions", _GRAPH, body)
                found.update({row["sku"].lower(): _upper(row["rate"]) for row in page.get("data") or ()})
                if not (more := page.get("$skipToken")):
                    return found
                body["options"]["$skipToken"] = more
        except ScitqError as error:
            self._tell(f"evictions are not told ({error}): {UNTOLD_EVICTION:g} % is taken for all sizes of {region}")
            return found


def gpus(size) -> int:
    """How many GPUs a size has; a part of one counts as one."""
    told = float(_has(size).get("GPUs") or 0)
    return max(1, int(told)) if told > 0 else 0


def restriction(size) -> str | None:
    """Why this subscription may not have a size anywhere in the region; None if it may."""
    found = [one for one in size.restrictions or () if str(getattr(one.type, "value", one.type)).lower() == "location"]
    return str(getattr(found[0].reason_code, "value", found[0].reason_code)) if found else None


def _has(size) -> dict[str, str]:
    return {one.name: one.value for one in size.capabilities or ()}


def _room(usages: Mapping[str, int], size, spot: bool) -> int | None:
    cpus = int(_has(size).get("vCPUs") or 0) or 1
    quotas: Iterable[str] = ("lowprioritycores",) if spot else ("cores", (size.family or "").lower())
    rooms = [usages[name] // cpus for name in quotas if name in usages]
    return min([*rooms, *(usages[name] for name in ("virtualmachines",) if name in usages)], default=None)


def _upper(rate: str) -> float:
    """`0-5` -> 5; `20+` -> 100."""
    found = re.findall(r"\d+", rate or "")
    return 100.0 if "+" in (rate or "") else float(found[-1]) if found else UNTOLD_EVICTION


def _read(url: str) -> dict:
    """A page of prices. Raises CloudTrouble."""
    for attempt in range(1, _TRIES + 1):
        try:
            with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if attempt == _TRIES or error.code not in (429, 500, 502, 503, 504):
                raise CloudTrouble(f"Azure's list of prices answers {error.code} ({error.reason})") from None
            said = error.headers.get("Retry-After") or ""
            time.sleep(min(float(said) if said.isdigit() else 2.0**attempt, 60.0))
        except (OSError, ValueError) as error:
            raise CloudTrouble(f"Azure's list of prices cannot be read: {error}") from None
    raise AssertionError("the last attempt returns or raises")
