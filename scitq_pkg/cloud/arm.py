"""One subscription of Azure, by its own SDK: credentials, clients, errors told in ours.

The SDK itself asks again after 429 (as long as `Retry-After` says) and after failures of what may be asked twice.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from functools import cached_property
from types import SimpleNamespace
from typing import Any, TypeVar

from ..errors import ScitqError
from .provider import CloudRefused, CloudTrouble, NoRoom

T = TypeVar("T")

ENDPOINT = "https://management.azure.com"
TOKEN = "AZURE_ACCESS_TOKEN"
VARIABLES = f"AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or {TOKEN}, or log in with az login"
_TRIES = 4  # of the SDK, after the first
_NO_ROOM = re.compile(
    r"quota|Allocat.*Fail|AllocationFailed|Overconstrained|SkuNotAvailable|LimitReached|LimitExceeded|NotAvailableForSubscription"
)
_ATTEMPT = re.compile(r"\w+Credential: ")
_ABSENT = re.compile(r"unavailable|not found|not installed|could not be found|requires the|No accounts were")
_WRONG = (400, 401, 403, 404)


class Subscription:
    """The clients of a subscription, loaded when they are first used."""

    def __init__(self, provider: str, subscription: str, endpoint: str):
        self._provider, self.id, self.endpoint = provider, subscription, endpoint.rstrip("/")

    @cached_property
    def compute(self):
        from azure.mgmt.compute import ComputeManagementClient

        return self._client(ComputeManagementClient)

    @cached_property
    def network(self):
        from azure.mgmt.network import NetworkManagementClient

        return self._client(NetworkManagementClient)

    @cached_property
    def resources(self):
        from azure.mgmt.resource.resources import ResourceManagementClient

        return self._client(ResourceManagementClient)

    def ask(self, what: str, call: Callable[..., T], *words, **more) -> T:
        """What the SDK answers. Raises CloudTrouble, NoRoom, CloudRefused."""
        try:
            return call(*words, **more)
        except Exception as error:  # the SDK's, msal's, the line's: they have no common ancestor
            raise self._ours(what, error) from error

    def found(self, what: str, call: Callable[..., T], *words) -> T | None:
        """What the SDK answers; None where it says that there is no such thing."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return self.ask(what, call, *words)
        except ScitqError as error:
            if isinstance(error.__cause__, ResourceNotFoundError):
                return None
            raise

    def post(self, what: str, path: str, body: dict) -> dict:
        """The answer to a POST of what no client of ours has. Raises CloudTrouble, NoRoom, CloudRefused."""
        from azure.core.rest import HttpRequest

        def send():
            answer = self._pipeline.send_request(HttpRequest("POST", f"{self.endpoint}{path}", json=body))
            answer.raise_for_status()
            return answer.json()

        return self.ask(what, send)

    @cached_property
    def _pipeline(self):
        from azure.core.pipeline.policies import RetryPolicy
        from azure.mgmt.core import ARMPipelineClient

        return ARMPipelineClient(base_url=self.endpoint, policies=[RetryPolicy(retry_total=_TRIES), self._policy])

    def _client(self, kind: type) -> Any:
        scopes = [f"{self.endpoint}/.default"]
        pause = {"polling_interval": 0} if self._is_near else {"polling_interval": 5}
        return kind(
            self._credential, self.id, base_url=self.endpoint, credential_scopes=scopes, authentication_policy=self._policy,
            retry_total=_TRIES, retry_connect=2, **pause,
        )  # fmt: skip

    @property
    def _is_near(self) -> bool:
        """Whether it is a stand-in on this machine, which plain HTTP reaches."""
        return self.endpoint.startswith("http://")

    @cached_property
    def _credential(self):
        if token := os.environ.get(TOKEN):
            return SimpleNamespace(get_token=lambda *_scopes, **_more: _access_token(token))
        from azure.identity import DefaultAzureCredential

        logging.getLogger("azure.identity").setLevel(logging.CRITICAL)  # what it warns of at length is told as an error
        return DefaultAzureCredential()

    @cached_property
    def _policy(self):
        from azure.core.pipeline.policies import BearerTokenCredentialPolicy
        from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy

        class Near(BearerTokenCredentialPolicy):
            def on_request(self, request):
                request.context.options["enforce_https"] = False
                super().on_request(request)

        return (Near if self._is_near else ARMChallengeAuthenticationPolicy)(self._credential, f"{self.endpoint}/.default")

    def _ours(self, what: str, error: Exception) -> Exception:
        if isinstance(error, (ScitqError, ImportError)):
            return error
        from azure.core.exceptions import ClientAuthenticationError

        code, said, status = code_of(error), _without_attempts(_said(error), error), getattr(error, "status_code", None)
        who = f"provider {self._provider}: {what}: {said}"
        if isinstance(error, ClientAuthenticationError) or status == 401:
            return CloudRefused(f"{who}: set {VARIABLES}")
        if is_no_room(code, said):
            return NoRoom(who)
        return CloudRefused(who) if status in _WRONG else CloudTrouble(who)


def is_no_room(code: str, said: str) -> bool:
    """Whether an error means that quota or capacity are used up."""
    return (
        _NO_ROOM.search(code) is not None
        or (code == "OperationNotAllowed" and "quota" in said.lower())
        or "QuotaExceeded" in said
    )


def code_of(error: Exception) -> str:
    """Azure's own code of an error; an empty string if there is none."""
    return getattr(getattr(error, "error", None), "code", None) or ""


def _said(error: Exception) -> str:
    """What Azure said, in one line: its code and the first sentence or two."""
    message = getattr(getattr(error, "error", None), "message", None) or getattr(error, "message", None) or str(error)
    text = " ".join(str(message).split())[:400] or type(error).__name__
    code = code_of(error)
    return f"{code}: {text}" if code and not text.startswith(f"({code})") else text


def _without_attempts(said: str, error: Exception) -> str:
    """Of credentials that were looked for in ten places, what those say that were there, if any were."""
    lines = [line.strip() for line in str(error).splitlines()]
    if "Attempted credentials:" not in lines:
        return said
    told = [line for line in lines if _ATTEMPT.match(line) and not _ABSENT.search(line)]
    return "; ".join(told)[:400] or "no credentials"


def _access_token(token: str):
    from azure.core.credentials import AccessToken

    return AccessToken(token, int(time.time()) + 600)
