"""Kombu's Redis transport, except that a message that cannot be read is set aside, and does not end the worker."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import kombu.transport
import redis
from kombu.transport import redis as kombu_redis

from masksmith_state.unreadable import set_aside

from .messages import UnreadableMessageError, validate_message


class QoS(kombu_redis.QoS):
    """Messages that are delivered and not yet acknowledged."""

    def restore_by_tag(self, tag: Any, client: redis.Redis | None = None, leftmost: bool = False) -> None:
        """Put a message back into its queue; if the message cannot be read, set it aside."""
        try:
            super().restore_by_tag(tag, client, leftmost)  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            with self.channel.conn_or_acquire(client) as connection:
                message = connection.hget(self.unacked_key, tag)
                # The message is removed last: after a crash before the removal, it is set aside again, and not lost.
                set_aside(connection, "delivery", _text(tag), f"{type(error).__name__}: {error}", _text(message))
                self._remove_from_indices(tag).execute()  # type: ignore[no-untyped-call]


class Channel(kombu_redis.Channel):
    """Reads messages from queues, and sets those aside that cannot be read."""

    QoS = QoS

    def _get_client(self) -> type[redis.Redis]:
        channel = self

        class Client(super()._get_client()):  # type: ignore[misc]
            """A client that checks each message that `BRPOP` returns."""

            def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
                reply = super().parse_response(connection, command_name, **options)
                return channel.check_reply(reply) if command_name == "BRPOP" and reply else reply

        return Client

    def check_reply(self, reply: Any) -> Any:
        """Check the message in a reply of `BRPOP`; return the reply with the checked message.

        A message that cannot be read is set aside; None is returned then, as if the queue were empty.
        """
        key, item = reply
        queue = _text(key).rsplit(self.sep, 1)[0]
        try:
            return key, validate_message(item, queue)
        except UnreadableMessageError as error:
            with self.conn_or_acquire() as client:
                set_aside(client, "message", queue, str(error), _text(item))
            return None


class Transport(kombu_redis.Transport):
    """The transport of workers."""

    Channel = Channel


def install() -> None:
    """Use this transport for all Redis URLs of this process."""
    for scheme in ("redis", "rediss"):
        kombu.transport.TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"


def _text(value: Any) -> str:
    with suppress(AttributeError):
        value = value.decode(errors="backslashreplace")
    return str(value)
