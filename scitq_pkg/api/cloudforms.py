"""What requests and answers about machines, jobs and flavors hold. See `schemas` and `shapes`, of which these are more."""

from __future__ import annotations

from marshmallow import fields

from ..protocol import DEFAULT_BATCH, JOB_KINDS, JOB_STATES, MACHINE_STATES
from .inputs import MAX_WAIT, Body, Flag, Flavor, Name, Number, Seconds, Whole, Word, WorkerName
from .schemas import MAX_PAGE, MAX_SLOTS, PageQuery
from .shapes import Moment, Page, Shape, Thing

MOST_AT_ONCE = 1000  # workers of one request
MOST_MONEY = 1e12
_SEVERAL = ", commas between"
_OR_AUTO = {"description": "its name, or `auto`: whichever is best"}


# --- requests --------------------------------------------------------------------------------------------------------------


class DeployBody(Body):
    number = Whole(least=1, most=MOST_AT_ONCE, load_default=1)
    batch = Name(load_default=DEFAULT_BATCH)
    provider = Name(load_default="auto", metadata=_OR_AUTO)
    region = Name(load_default="auto", metadata=_OR_AUTO)
    flavor = Flavor(required=True, metadata={"description": "a name, or a protofilter: `auto:cpu>=8:ram>=30`"})
    concurrency = Whole(
        least=1, most=MAX_SLOTS, allow_none=True, load_default=None, metadata={"description": "default: the flavor's processors"}
    )  # fmt: skip
    prefetch = Whole(most=MAX_SLOTS, load_default=0)
    permanent = Flag(load_default=False, metadata={"description": "kept when it idles"})
    name = WorkerName(allow_none=True, load_default=None, metadata={"description": "of several: NAME-1, NAME-2..."})


class BatchChange(Body):
    budget = Seconds(
        most=MOST_MONEY, allow_none=True, metadata={"description": "in the providers' currency; null: none"}
    )  # fmt: skip


class FlavorsUpdate(Body):
    provider = Name(allow_none=True, load_default=None, metadata={"description": "null: all of them"})


class JobsQuery(PageQuery):
    state = fields.String(metadata={"description": "one or several of " + ", ".join(JOB_STATES) + _SEVERAL})
    kind = fields.String(metadata={"description": "one or several of " + ", ".join(JOB_KINDS) + _SEVERAL})
    provider = Name()
    worker = Word(metadata={"description": "name or id", "oneOf": [{"type": "string"}, {"type": "integer"}]})
    batch = Name()


class LogQuery(Body):
    after = Number(load_default=0, metadata={"description": "the `next` of an answer before"})
    limit = Number(least=1, most=MAX_PAGE, load_default=MAX_PAGE)
    wait = Seconds(most=MAX_WAIT, load_default=0.0, metadata={"description": "seconds to wait for more"})


class FlavorsQuery(Body):
    provider = Name()
    region = Name()
    filter = Flavor(metadata={"description": "a name, or a protofilter: `auto:cpu>=8:ram>=30`"})
    limit = Number(least=1, most=MAX_PAGE, load_default=MAX_PAGE)


class MachinesQuery(PageQuery):
    unknown = fields.Boolean(metadata={"description": "those alone that nobody here asked for, or the others"})
    provider = Name()
    state = fields.String(metadata={"description": "one or several of " + ", ".join(MACHINE_STATES) + _SEVERAL})


class MachineEnd(Body):
    forget = fields.Boolean(
        load_default=False, metadata={"description": "take it for gone, and do not ask its provider: it may go on and cost"}
    )  # fmt: skip


# --- answers ---------------------------------------------------------------------------------------------------------------


class Planned(Shape):
    worker = fields.Integer(required=True)
    name = fields.String(required=True)
    machine = fields.Integer(required=True)
    job = fields.Integer(required=True)


class Deployment(Shape):
    items = fields.List(fields.Nested(Planned), required=True)


class JobOf(Shape):
    job = fields.Integer(required=True)


class JobsMade(Shape):
    items = fields.List(fields.Nested(JobOf), required=True)


class Job(Thing):
    kind = fields.String(required=True)
    state = fields.String(required=True)
    provider = fields.String(required=True)
    region = fields.String(required=True, allow_none=True)
    flavor = fields.String(required=True, allow_none=True)
    machine = fields.Integer(required=True, allow_none=True)
    machine_name = fields.String(required=True, allow_none=True)
    worker_id = fields.Integer(required=True, allow_none=True)
    worker = fields.String(required=True, allow_none=True)
    batch = fields.String(required=True, allow_none=True)
    attempt = fields.Integer(required=True)
    retry = fields.Integer(required=True, metadata={"description": "attempts that may fail before it is given up"})
    progress = fields.Integer(required=True, metadata={"description": "percent"})
    step = fields.String(required=True, allow_none=True, metadata={"description": "what it does now"})
    message = fields.String(required=True, allow_none=True, metadata={"description": "why it failed, or waits"})
    canceled_by = fields.String(required=True, allow_none=True)
    asked_by = fields.String(required=True)
    not_before_at = Moment()
    created_at = Moment()
    started_at = Moment()
    finished_at = Moment()


class JobPage(Page):
    items = fields.List(fields.Nested(Job), required=True)


class LogLine(Shape):
    seq = fields.Integer(required=True)
    at = fields.DateTime(required=True)
    line = fields.String(required=True)


class JobLog(Shape):
    items = fields.List(fields.Nested(LogLine), required=True)
    next = fields.Integer(required=True, metadata={"description": "give it as `after`"})
    state = fields.String(required=True, metadata={"description": "of the job: one that ended says no more"})


class FlavorShape(Shape):
    provider = fields.String(required=True)
    region = fields.String(required=True)
    name = fields.String(required=True)
    cpu = fields.Integer(required=True, allow_none=True)
    ram = fields.Float(required=True, allow_none=True, metadata={"description": "GB"})
    disk = fields.Float(required=True, allow_none=True, metadata={"description": "GB, of the scratch disk"})
    gpus = fields.Integer(required=True)
    gpu = fields.String(required=True, allow_none=True)
    gpumem = fields.Float(required=True, allow_none=True, metadata={"description": "GB, of one GPU"})
    tags = fields.String(required=True, metadata={"description": "letters: G GPU, M bare metal, N NVMe disk"})
    price = fields.Float(required=True, allow_none=True, metadata={"description": "of an hour"})
    currency = fields.String(required=True, allow_none=True)
    eviction = fields.Float(required=True, allow_none=True, metadata={"description": "percent taken away in an hour"})
    available = fields.Integer(required=True, allow_none=True, metadata={"description": "how many more the quota allows"})
    planned = fields.Integer(required=True, metadata={"description": "how many are on their way"})
    updated_at = Moment()


class FlavorPage(Page):
    items = fields.List(fields.Nested(FlavorShape), required=True)


class Machine(Thing):
    name = fields.String(required=True)
    provider = fields.String(required=True)
    region = fields.String(required=True)
    flavor = fields.String(required=True, allow_none=True)
    state = fields.String(required=True)
    unknown = fields.Boolean(required=True, metadata={"description": "it carries our tag, and nobody here asked for it"})
    provider_id = fields.String(required=True, allow_none=True)
    address = fields.String(required=True, allow_none=True)
    worker_id = fields.Integer(required=True, allow_none=True)
    worker = fields.String(required=True, allow_none=True)
    batch = fields.String(required=True, allow_none=True)
    price = fields.Float(required=True, allow_none=True)
    currency = fields.String(required=True, allow_none=True)
    cost = fields.Float(required=True, allow_none=True)
    hours = fields.Float(required=True)
    message = fields.String(required=True, allow_none=True)
    job = fields.Integer(required=True, allow_none=True)
    asked_by = fields.String(required=True)
    created_at = Moment()
    asked_at = Moment()
    up_at = Moment()
    gone_at = Moment()
    seen_at = Moment()


class MachinePage(Page):
    items = fields.List(fields.Nested(Machine), required=True)


class ProviderShape(Shape):
    name = fields.String(required=True)
    kind = fields.String(required=True)
    regions = fields.List(fields.String(), required=True, metadata={"description": "the preferred ones first"})
    flavors = fields.Integer(required=True, metadata={"description": "how many are known"})
    trouble = fields.String(required=True, allow_none=True, metadata={"description": "why it cannot be used now"})
    trouble_at = Moment()
    listed_at = Moment()


class ProviderPage(Page):
    items = fields.List(fields.Nested(ProviderShape), required=True)
