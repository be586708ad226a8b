"""Small objects of S3 by bare HTTP: one signed request over a connection that stays open, a third of what boto3 spends on it.

It does nothing but succeed: whatever else happens is left to boto3, which then does the same again and knows all errors.
"""

from __future__ import annotations

import http.client
import ssl
from collections import defaultdict, deque
from functools import cached_property
from urllib.parse import SplitResult, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.utils import get_environ_proxies, percent_encode

from .s3client import Connection
from .scheme import STALL_SECONDS

MOST_BYTES = 4 * 2**20
_MARK = "x"  # a key whose address shows that of its bucket


class Small:
    """Gets and puts objects of at most MOST_BYTES. One for all threads: who needs a connection takes one that is idle."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._credentials = connection.session.get_credentials()
        region = connection.client.meta.region_name
        self._region = "us-east-1" if region in (None, "aws-global") else region
        self._addresses: dict[str, str | None] = {}
        self._idle: dict[tuple[str, str], deque[http.client.HTTPConnection]] = defaultdict(deque)

    def get(self, bucket: str, key: str) -> tuple[str, bytes] | None:
        """ETag (without quotation marks) and content; None: let boto3 do it."""
        answer = self._ask("GET", bucket, key, None)
        return (answer[0].get("ETag", "").strip('"'), answer[1]) if answer else None

    def put(self, bucket: str, key: str, data: bytes) -> bool:
        """Whether it is there now; else let boto3 do it."""
        return self._ask("PUT", bucket, key, data) is not None

    def _ask(self, method: str, bucket: str, key: str, data: bytes | None):
        """The headers and the body of an answer that says all is well, or None."""
        address = self._address(bucket)
        if address is None:
            return None
        request = AWSRequest(method, address + percent_encode(key, safe="/~"), data=data)
        try:
            S3SigV4Auth(self._credentials.get_frozen_credentials(), "s3", self._region).add_auth(request)
            return self._exchange(method, urlsplit(request.url), dict(request.headers.items()), data)
        except (OSError, http.client.HTTPException, BotoCoreError):
            return None

    def _exchange(self, method: str, url: SplitResult, headers: dict[str, str], data: bytes | None):
        idle = self._idle[url.scheme, url.netloc]
        try:
            line = idle.pop()
        except IndexError:
            line = self._new_line(url.scheme, url.netloc)
        try:
            line.request(method, url.path, data, headers)
            answer = line.getresponse()
            if answer.status == 200:
                found = answer.headers, answer.read()
                idle.append(line)
                return found
        except BaseException:
            line.close()
            raise
        line.close()  # the server may not have read all
        return None

    def _new_line(self, scheme: str, host: str) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(host, timeout=STALL_SECONDS)
        return http.client.HTTPSConnection(host, timeout=STALL_SECONDS, context=self._trusted)

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._connection.certificates)

    def __del__(self):
        for line in [line for idle in self._idle.values() for line in idle]:
            line.close()

    def _address(self, bucket: str) -> str | None:
        """The URL of a bucket, with a final `/`; None where more is needed than a signature."""
        if bucket not in self._addresses:
            self._addresses[bucket] = self._found_address(bucket)
        return self._addresses[bucket]

    def _found_address(self, bucket: str) -> str | None:
        if not self._connection.signed or ":" in bucket or bucket.endswith("--x-s3"):
            return None
        try:
            url = self._connection.client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": _MARK})
        except BotoCoreError:
            return None
        address = url.partition("?")[0]
        return None if get_environ_proxies(address) else address.removesuffix(_MARK)
