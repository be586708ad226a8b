"""Fields of requests, and how what is wrong with one is told: by its name, in a sentence."""

from __future__ import annotations

import re

from marshmallow import RAISE, Schema, ValidationError, fields, validate

from ..errors import InvalidRequest, nearest
from ..limits import MAX_INT, MAX_LINE, MAX_NAME, MAX_SECONDS, MAX_TEXT, MAX_WORD, is_variable, line_fault, text_fault
from ..protocol import WORKER_NAME
from ..protofilter import check_flavor, is_protofilter
from ..uris import is_only_shown

MAX_WAIT = 60.0  # seconds that an answer may be waited for
SHELLS = ("sh", "bash")

_MOST, _LENGTH, _RANGE = "wants at most {max} characters", "wants {min} to {max} characters", "wants a number from {min} to {max}"
_ITEM = re.compile(r"#[0-9]{1,9}")


def _refuse(fault: str | None) -> None:
    if fault:
        raise ValidationError(fault)


def _check_text(value: str) -> None:
    _refuse(text_fault(value))


def check_line(value: str) -> None:
    _refuse("is empty" if not value else line_fault(value))


# --- fields ----------------------------------------------------------------------------------------------------------


class Text(fields.String):
    """A text without NUL."""

    def __init__(self, **options):
        super().__init__(validate=[validate.Length(max=MAX_TEXT, error=_MOST), _check_text], **options)


class Line(fields.String):
    """A text of one line."""

    def __init__(self, most: int = MAX_LINE, **options):
        super().__init__(validate=[validate.Length(min=1, max=most, error=_LENGTH), check_line], **options)


class UriLine(fields.String):
    """One URI."""

    def __init__(self, **options):
        super().__init__(validate=[validate.Length(min=1, max=MAX_LINE, error=_LENGTH), check_uri], **options)


class Name(Line):
    """What something is called."""

    def __init__(self, **options):
        super().__init__(MAX_NAME, **options)


class WorkerName(fields.String):
    """What a worker is called."""

    def __init__(self, **options):
        told = "wants letters, digits, '.', '-' and '_', up to 100, the first no '.' or '-'"
        super().__init__(validate=validate.Regexp(rf"{WORKER_NAME}\Z", error=told), **options)


class Flavor(Name):
    """The name of a flavor, or a protofilter."""

    def _deserialize(self, value, attr, data, **options):
        flavor = super()._deserialize(value, attr, data, **options)
        try:
            check_flavor(flavor)
        except InvalidRequest as error:
            raise ValidationError(error.message) from None
        return flavor


class FlavorName(Flavor):
    """The name of a flavor."""

    def _deserialize(self, value, attr, data, **options):
        flavor = super()._deserialize(value, attr, data, **options)
        _refuse("wants the name of a flavor, not a protofilter" if is_protofilter(flavor) else None)
        return flavor


class Command(fields.String):
    """A command; it may have several lines."""

    def __init__(self, **options):
        super().__init__(validate=[validate.Length(min=1, max=MAX_TEXT, error=_LENGTH), _check_text, _check_not_blank], **options)


def _check_not_blank(value: str) -> None:
    _refuse("is empty" if not value.strip() else None)


class Whole(fields.Integer):
    """A JSON number without fraction."""

    def __init__(self, least: int = 0, most: int = MAX_INT, **options):
        super().__init__(strict=True, validate=validate.Range(least, most, error=_RANGE), **options)


class Number(fields.Integer):
    """A whole number of a query string."""

    def __init__(self, least: int = 0, most: int = MAX_INT, **options):
        super().__init__(validate=validate.Range(least, most, error=_RANGE), **options)


class Seconds(fields.Float):
    """A length of time."""

    def __init__(self, most: float = MAX_SECONDS, least: float = 0.0, **options):
        super().__init__(allow_nan=False, validate=validate.Range(least, most, error=_RANGE), **options)


class Flag(fields.Boolean):
    """true or false, and nothing that only looks like them."""

    truthy = {True}
    falsy = {False}

    def _deserialize(self, value, attr, data, **options):
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class Shell(fields.Field):
    """true, false, null, "sh" or "bash"."""

    def _deserialize(self, value, attr, data, **options):
        if value is None or isinstance(value, bool):
            return "sh" if value else None
        if value not in SHELLS:
            raise ValidationError('is none: give true, false, "sh" or "bash"')
        return value


def check_uri(uri: str) -> None:
    """Raises ValidationError: not one line, or without its password, as the server shows it."""
    check_line(uri)
    if is_only_shown(uri):
        raise ValidationError("has ... where the server leaves passwords and signatures out: give the whole URI")


class Uris(fields.Field):
    """A URI, or a list of them."""

    def _deserialize(self, value, attr, data, **options):
        uris = value.split() if isinstance(value, str) else value
        if not isinstance(uris, list) or not all(isinstance(uri, str) and uri for uri in uris):
            raise ValidationError("wants a URI or a list of URIs")
        for uri in uris:
            check_uri(uri)
        return uris


class Requirement(fields.Field):
    """The id of a task, or "#N": the item of that index in the same request."""

    def _deserialize(self, value, attr, data, **options):
        if is_requirement(value):
            return value
        raise ValidationError('wants the id of a task, or "#N" for item N of this request')


class Environment(fields.Dict):
    """Names of variables and their texts."""

    def __init__(self, **options):
        super().__init__(keys=fields.String(validate=_check_variable), values=Text(), **options)


def _check_variable(name: str) -> None:
    _refuse(None if is_variable(name) else "is no name of a variable")


def check_absolute(path: str) -> None:
    _refuse(None if path.startswith("/") else "is no absolute path")


class Word(fields.Field):
    """A text, or a number in its place."""

    def _deserialize(self, value, attr, data, **options):
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ValidationError("wants a text or a number")
        _refuse(line_fault(str(value), MAX_WORD))
        return str(value)


def is_requirement(value: object) -> bool:
    if type(value) is str:
        return _ITEM.fullmatch(value) is not None
    return type(value) is int and 0 < value <= MAX_INT


# --- the base, and how errors are told ----------------------------------------------------------------------------------


class Body(Schema):
    """A JSON object that knows its keys."""

    class Meta:
        unknown = RAISE

    error_messages = {"unknown": "unknown", "type": "wants an object"}


def load(schema: Schema, plain: object, where: str = ""):
    """The checked values. Raises InvalidRequest naming the first field that is wrong: `tasks[3].retry`."""
    try:
        return schema.load(plain)  # type: ignore[arg-type]
    except ValidationError as error:
        path, message = _first(error.messages)
        raise _told(path, message, schema, where) from None


def _first(messages) -> tuple[list, str]:
    """The way to the first message in marshmallow's nested ones, and that message."""
    path: list = []
    while isinstance(messages, dict):
        key = next(iter(messages))
        path.append(key)
        messages = messages[key]
    return path, str(messages[0] if isinstance(messages, list) else messages)


def _told(path: list, message: str, schema: Schema, where: str) -> InvalidRequest:
    shown = where
    for key in path:
        if key == "_schema":
            continue
        shown += f"[{key}]" if isinstance(key, int) else f".{key}" if shown else f"{key}"
    if message == "unknown":
        message = f"there is no such field{nearest(str(path[-1]), _known_at(schema, path[:-1]))}"
    return InvalidRequest(_plain_words(message), field=_short(shown) or "body")


def _known_at(schema: Schema, path: list) -> list[str]:
    """The names of the fields at a place in the schema."""
    for key in path:
        found = schema.fields.get(key) if isinstance(key, str) else None
        if isinstance(found, fields.List):
            found = found.inner
        if isinstance(found, fields.Nested):
            schema = found.schema
    return [field.data_key or name for name, field in schema.fields.items()]


def _short(field: str) -> str:
    return field if len(field) <= 100 else field[:97] + "..."


_IN_OUR_WORDS = {
    "Missing data for required field": "is missing",
    "Field may not be null": "cannot be null",
    "Not a valid string": "wants a text",
    "Not a valid list": "wants a list",
    "Not a valid integer": "wants a whole number",
    "Not a valid number": "wants a number",
    "Not a valid boolean": "wants true or false",
    "Not a valid mapping type": "wants an object",
}


def _plain_words(message: str) -> str:
    """marshmallow's sentences, in ours: the name of the field comes before."""
    message = message.rstrip(".")
    return _IN_OUR_WORDS.get(message, message)
