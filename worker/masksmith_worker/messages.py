"""Validates the messages of a queue; any client of the broker may have written them."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from masksmith_state.queue import task_of

Text = Annotated[str, StringConstraints(max_length=200)]


class UnreadableMessageError(Exception):
    """A message does not have the form of the messages that services and workers send."""


class _StrictModel(BaseModel):
    model_config = ConfigDict(strict=True, populate_by_name=True)


class _DeliveryInfo(_StrictModel):
    exchange: Literal[""]
    routing_key: Text
    redelivered: bool = False


class _Properties(_StrictModel):
    """Members that Kombu reads."""

    correlation_id: Text
    reply_to: Text = ""
    delivery_mode: Literal[2]
    delivery_info: _DeliveryInfo
    priority: Literal[0]
    body_encoding: Literal["base64"]
    delivery_tag: Text


class _Headers(_StrictModel):
    """Members that Celery reads, except stamps, which are removed. Dates, groups, time limits and retries are refused.

    `parent_id` is None, or the id of the task that sent the message: a task that takes a shard sends a message for the
    next one.
    """

    lang: Literal["py"]
    task: Text
    id: Text
    root_id: Text
    parent_id: Text | None
    group: None
    retries: Literal[0]
    timelimit: Annotated[list[None], Field(min_length=2, max_length=2)]
    eta: None
    expires: None
    argsrepr: Text = ""
    kwargsrepr: Text = ""
    origin: Text = ""
    ignore_result: bool | None = None
    redelivered: bool = False


class _Message(_StrictModel):
    body: Annotated[str, StringConstraints(max_length=2000)]
    content_encoding: Literal["utf-8"] = Field(alias="content-encoding")
    content_type: Literal["application/json"] = Field(alias="content-type")
    headers: _Headers
    properties: _Properties


def validate_message(item: bytes, queue: str) -> bytes:
    """Check a message, and return it without the members that are not declared in this module.

    Raises:
        UnreadableMessageError: If it is not a message of this queue.
    """
    try:
        message = _Message.model_validate_json(item)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "message"
        raise UnreadableMessageError(f"{where}: {first['msg']}") from None
    if message.headers.task != task_of(queue):
        raise UnreadableMessageError(f"headers.task: {message.headers.task} is not the task of this queue")
    _check_body(message.body)
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode()


def _check_body(body: str) -> None:
    """Check that the task has no arguments, and that no tasks are to be called afterwards."""
    try:
        content: Any = json.loads(base64.b64decode(body, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise UnreadableMessageError("body: not JSON in base64") from None
    match content:
        case [[], dict(named_arguments), dict(later_tasks)] if not named_arguments and not any(later_tasks.values()):
            return
    raise UnreadableMessageError("body: expected no arguments, and no tasks to call afterwards")
