"""The connection to S3, configured as every AWS program is, and its errors as users read them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from urllib.parse import urlsplit

import botocore.session
from botocore import UNSIGNED, exceptions
from botocore.config import Config
from botocore.parsers import ResponseParserError
from botocore.utils import parse_timestamp

from .. import __version__
from ..errors import InvalidRequest, NotAllowed, NotFound, ScitqError, TransferFailed
from . import refusals
from .certificates import certificates
from .scheme import STALL_SECONDS, Replaced
from .uri import Uri

CONNECT_SECONDS = 15.0
TRIES = 2  # of each request; a transfer is tried again by `transfer`
_MAY_PASS = frozenset(
    {"SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "RequestTimeTooSkewed", "TooManyRequests"}
    | {"InternalError", "ServiceUnavailable", "OperationAborted", "NoSuchUpload", "BadDigest", "XAmzContentSHA256Mismatch"}
)
_UNKNOWN = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AuthorizationHeaderMalformed"}
    | {"InvalidClientTokenId", "InvalidSecurity", "TokenRefreshRequired"}
)
_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.TokenRetrievalError,
    exceptions.SSOError,
)
_LOST = (exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.IncompleteReadError)
_WHERE = "is AWS_ENDPOINT_URL right?"
_HOW = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


class Connection:
    """The session and the client that the environment, `~/.aws` or the machine's role describe. Raises InvalidRequest.

    Where there are no credentials nothing is signed: public buckets want none.
    """

    def __init__(self, connections: int):
        try:
            self.session = botocore.session.get_session()
            self.session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time_of)
            self.signed = self.session.get_credentials() is not None
            config = _config(connections, self.signed)
            self.certificates = self.session.get_config_variable("ca_bundle") or certificates()
            opened = partial(self.session.create_client, "s3", verify=self.certificates)
            self.client = opened(config=config)
            if _has_own_names(self.client) and not _says_how_to_address(self.session):
                self.client = opened(config=config.merge(Config(s3={"addressing_style": "path"})))
            self.client.meta.events.register("before-send.s3", _check)
        except (exceptions.BotoCoreError, ValueError) as error:
            raise InvalidRequest(f"the configuration of S3 is wrong: {error}: look at AWS_* and ~/.aws/config") from error

    @contextlib.contextmanager
    def told(self, uri: Uri) -> Iterator[None]:
        """Turns what botocore raises inside into NotFound, NotAllowed, InvalidRequest or TransferFailed."""
        try:
            yield
        except exceptions.ClientError as error:
            raise self.of_answer(uri, error) from error
        except _CREDENTIALS as error:
            raise NotAllowed(f"{uri}: no credentials could be had ({error}): {_HOW}") from error
        except exceptions.SSLError as error:
            raise TransferFailed(f"{uri}: the server's certificate is not trusted here ({error}): set AWS_CA_BUNDLE") from error
        except _LOST as error:
            raise TransferFailed(f"{uri}: no answer from S3 ({error}): {_WHERE}", again=True) from error
        except exceptions.ParamValidationError as error:
            raise InvalidRequest(f"{uri}: {' '.join(str(error).split())}") from error
        except (ResponseParserError, RecursionError) as error:  # botocore goes on and on after a server that leads elsewhere
            raise TransferFailed(f"{uri}: what answers there does not speak S3: {_WHERE}") from error
        except exceptions.BotoCoreError as error:
            raise TransferFailed(f"{uri}: {error}") from error

    def of_answer(self, uri: Uri, error: exceptions.ClientError) -> ScitqError:
        """What a refusal of the server means."""
        answer = error.response
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        meant = of_code(uri, answer["Error"].get("Code", ""), answer["Error"].get("Message", ""), status)
        if self.signed or isinstance(meant, NotFound) or getattr(meant, "again", False):
            return meant
        return NotAllowed(f"{uri}: there are no credentials for S3 here, and without them the server refuses ({status}): {_HOW}")


def _check(request, **_) -> None:
    """Each address that a request is sent to: redirected ones too."""
    refusals.check_endpoint(request.url)


def _config(connections: int, signed: bool) -> Config:
    return Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=STALL_SECONDS,
        max_pool_connections=connections,
        retries={"total_max_attempts": TRIES, "mode": "standard"},
        request_checksum_calculation="when_required",  # many servers know no other than the signature's
        response_checksum_validation="when_required",
        signature_version=None if signed else UNSIGNED,
        user_agent_extra=f"scitq/{__version__}",
    )


def _time_of(text: str | int | float) -> datetime:
    """A time of an answer. Lists have one for each object: botocore's own way takes half of the time of a list."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return parse_timestamp(text)


def _has_own_names(client) -> bool:
    """Whether it is not Amazon's: then `bucket.host` is seldom a name that is known."""
    return not (urlsplit(client.meta.endpoint_url).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _says_how_to_address(session) -> bool:
    told = session.get_scoped_config().get("s3")
    return isinstance(told, dict) and "addressing_style" in told


def of_code(uri: Uri, code: str, message: str, status: int = 0) -> ScitqError:
    """The error that a code of S3 stands for; `status` is that of HTTP."""
    bucket = uri.place.partition("/")[0]
    if code == "NoSuchBucket":
        return NotFound(f"{uri}: there is no bucket '{bucket}' there: check its name and AWS_ENDPOINT_URL")
    if code in ("NoSuchKey", "404", "NotFound"):
        return NotFound(f"{uri}: there is no such object")
    if code in _UNKNOWN or status == 401:
        return NotAllowed(f"{uri}: the server does not accept the credentials ({code}: {message}): {_HOW}")
    if status == 403:
        return NotAllowed(f"{uri}: the credentials do not allow this, or there are none ({code}): {_HOW} of somebody who may")
    if code in ("InvalidBucketName", "InvalidURI", "KeyTooLongError"):
        return InvalidRequest(f"{uri}: {message or code}")
    if code == "PreconditionFailed" or status == 412:
        return Replaced(uri)
    if code.isdigit() and status != 503:  # S3 names its reasons
        message = f"{message}, which is not how S3 answers: {_WHERE}"
    again = code in _MAY_PASS or status == 429 or (status >= 500 and status not in (501, 507))
    return TransferFailed(f"{uri}: the server answered {status or ''} {code}: {message}".replace("  ", " "), again=again)
