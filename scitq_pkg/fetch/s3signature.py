"""The signature of requests to S3, version 4, for requests without a query: a tenth of what botocore's takes, which fits all
services.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable


class Signer:
    """Signs with the credentials that `credentials()` tells at that moment: `access_key`, `secret_key`, `token`."""

    def __init__(self, credentials: Callable, region: str):
        self._credentials, self._region = credentials, region
        self._keys: dict[tuple[str, str], bytes] = {}  # one a day and secret

    def headers(self, method: str, host: str, path: str, extra: dict[str, str], body: bytes) -> dict[str, str]:
        """`extra` (small names) and those that make the request a signed one. `path` is quoted."""
        payload = hashlib.sha256(body).hexdigest()
        who = self._credentials()
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers = {"host": host, "x-amz-content-sha256": payload, "x-amz-date": now, **extra}
        if who.token:
            headers["x-amz-security-token"] = who.token
        names = sorted(headers)
        signed = ";".join(names)
        lines = "".join(f"{name}:{headers[name]}\n" for name in names)
        request = hashlib.sha256(f"{method}\n{path}\n\n{lines}\n{signed}\n{payload}".encode()).hexdigest()
        scope = f"{now[:8]}/{self._region}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{request}"
        signature = hmac.new(self._key(who.secret_key, now[:8]), text.encode(), hashlib.sha256).hexdigest()
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={who.access_key}/{scope}, SignedHeaders={signed}, Signature={signature}"
        )
        return headers

    def _key(self, secret: str, day: str) -> bytes:
        """What a secret becomes for one day, this region and S3."""
        if (secret, day) not in self._keys:
            key = f"AWS4{secret}".encode()
            for word in (day, self._region, "s3", "aws4_request"):
                key = hmac.new(key, word.encode(), hashlib.sha256).digest()
            self._keys = {(secret, day): key}
        return self._keys[secret, day]
