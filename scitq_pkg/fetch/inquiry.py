"""Questions to the archives' services (ENA, NCBI): asked with a limit of time, and again while a service is busy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import requests

from .. import __version__
from ..errors import NotAllowed, TransferFailed
from .certificates import certificates
from .refusals import behind

PAUSES_SECONDS = (1.0, 3.0, 10.0)  # between one try and the next
_TIMEOUTS = (15.0, 120.0)  # for the connection, and without a byte: the report of a large project takes its time
_BUSY = (408, 425, 429, 500, 502, 503, 504)
T = TypeVar("T")


def ask(service: str, method: str, url: str, values: dict[str, str]) -> requests.Response:
    """One request; `values` are the query of a GET or the body of a POST. Raises TransferFailed if nobody answers, or is busy."""
    query, body = (values, None) if method == "GET" else (None, values)
    headers, trusted = {"User-Agent": f"scitq/{__version__}"}, certificates() or True
    try:
        answer = requests.request(method, url, params=query, data=body, headers=headers, timeout=_TIMEOUTS, verify=trusted)
    except requests.RequestException as error:
        if refusal := behind(error):
            raise NotAllowed(f"{service}: {refusal}") from error
        raise TransferFailed(f"{service} does not answer ({type(error).__name__}): try again later", again=True) from error
    if answer.status_code in _BUSY:
        raise TransferFailed(f"{service} answered {answer.status_code} {answer.reason}: try again later", again=True)
    return answer


def unreadable(service: str, answer: requests.Response, wanted: str) -> TransferFailed:
    """The error for an answer that is not what it should be: a page that says that there is maintenance, say."""
    start = " ".join(answer.text[:200].split())[:60]
    told = f"begins with {start!r}" if start else "is empty"
    return TransferFailed(f"{service} answered {answer.status_code} with something else than {wanted}: it {told}", again=True)


def patiently(question: Callable[[], T]) -> T:
    """The answer to a question, which is asked again after each of PAUSES_SECONDS while the service may do better next time."""
    for pause in PAUSES_SECONDS:
        try:
            return question()
        except TransferFailed as error:
            if not error.again:
                raise
        time.sleep(pause)
    return question()
