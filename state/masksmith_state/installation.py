"""The identity of an installation: a broker and a store that belong together.

The identity is written to both on first use. A broker or a store of another installation, an emptied broker or store,
and a directory with other files are refused, before anything is written or deleted.
"""

from __future__ import annotations

import json
import logging
import os
import secrets

import redis
from obstore.exceptions import AlreadyExistsError

from masksmith_state import DATA_FORMAT
from masksmith_wire.json_text import parse_json
from masksmith_wire.text import without_credentials

from .blobs.store import BlobStore
from .broker import BrokerMonitor
from .errors import InstallationError

log = logging.getLogger(__name__)

IDENTITY_KEY = "masksmith:installation"
"""Redis key of the identity in the broker."""
IDENTITY_NAME = "installation.json"
"""Name of the file with the identity in the store."""
NEW_PREFIX = "new:"
"""Prefix of the identity in the broker until the store has the identity, too."""
IGNORED_NAMES = frozenset({"lost+found"})
"""Names of what a new file system contains; a store with nothing else counts as empty."""


def protect_files() -> None:
    """Make the files and folders that this process creates inaccessible to other users: 0600 and 0700."""
    os.umask(0o077)


class Installation:
    """The identity of the broker and the store that a process uses.

    Args:
        client: Redis client of the job records, with `decode_responses`.
        store: The blob store.

    Attributes:
        identity: The installation's id; None until `claim` has succeeded.
        broker: The state of the broker.
    """

    def __init__(self, client: redis.Redis, store: BlobStore) -> None:
        self._redis, self._store = client, store
        self.identity: str | None = None
        self.broker = BrokerMonitor(client)

    def claim(self) -> str:
        """Check that broker and store belong together; if both are new, give them an identity. Returns the identity.

        Raises:
            InstallationError: If they do not belong together; if the store has no identity, but other files; or if its
                identity is damaged or of another data format.
            RedisError: If the broker is unavailable.
            BaseError: If the store is unavailable.
        """
        broker_identity, store_identity = self._read_both()
        if store_identity is None and (broker_identity is None or broker_identity.startswith(NEW_PREFIX)):
            broker_identity, store_identity = self._first_use()
        if broker_identity == NEW_PREFIX + str(store_identity):
            self._redis.set(IDENTITY_KEY, str(store_identity))
            broker_identity = store_identity
        if broker_identity != store_identity:
            raise InstallationError(self._mismatch(broker_identity, store_identity))
        self.identity = broker_identity
        return str(broker_identity)

    def is_still_claimed(self) -> bool:
        """Whether broker and store still have the identity that `claim` returned; False before `claim` has succeeded.

        Also False if the identity in the store is damaged since then, or of another data format; the reason is logged.
        If False, the caller must delete nothing.
        """
        if self.identity is None:
            return False
        try:
            if self._read_broker() == self._read_store() == self.identity:
                return True
        except InstallationError as error:
            log.error("nothing is deleted: %s", error)
            return False
        log.error("nothing is deleted: broker and store are no longer those of installation %s", self.identity)
        return False

    def _read_both(self) -> tuple[str | None, str | None]:
        """Read the store's identity between two equal reads of the broker's, so that both identities are of one moment.

        Other processes may be writing them, in this order: the broker's, the store's, the broker's without prefix.
        """
        broker_identity = self._read_broker()
        while True:
            store_identity, previous_broker_identity = self._read_store(), broker_identity
            broker_identity = self._read_broker()
            if broker_identity == previous_broker_identity:
                return broker_identity, store_identity

    def _read_broker(self) -> str | None:
        identity = self._redis.get(IDENTITY_KEY)
        return None if identity is None else str(identity)

    def _read_store(self) -> str | None:
        try:
            document = parse_json(self._store.objects.get(IDENTITY_NAME))
            identity, data_format = str(document["installation"]), document["data_format"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise InstallationError(f"{IDENTITY_NAME} in the store {self._shown_url} is damaged") from None
        if data_format != DATA_FORMAT:
            raise InstallationError(
                f"the store {self._shown_url} has data format {data_format!r}, this masksmith uses {DATA_FORMAT}"
            )
        return identity

    def _first_use(self) -> tuple[str | None, str | None]:
        """Write an identity to the broker, then to the empty store, unless other processes have; return both."""
        # Names that begin with `IDENTITY_NAME` are left out: those of the identity, and of temporary files of processes
        # that are writing it.
        names = {name for name in self._store.objects.top_level() if not name.startswith(IDENTITY_NAME)}
        # Another process may have written the identity, and then blobs, since it was read.
        if names - IGNORED_NAMES and self._read_store() is None:
            raise InstallationError(
                f"{self._shown_url} is neither empty nor a store of masksmith: nothing in it is touched; "
                "choose another directory or prefix (MASKSMITH_STORE_URL)"
            )
        self._redis.set(IDENTITY_KEY, NEW_PREFIX + secrets.token_hex(16), nx=True)
        broker_identity = self._read_broker()
        document = {"installation": str(broker_identity).removeprefix(NEW_PREFIX), "data_format": DATA_FORMAT}
        try:
            self._store.objects.create(IDENTITY_NAME, json.dumps(document).encode())
        except AlreadyExistsError:
            log.debug("another process has written %s", IDENTITY_NAME)
        return broker_identity, self._read_store()

    @property
    def _shown_url(self) -> str:
        return without_credentials(self._store.url)

    def _mismatch(self, broker_identity: str | None, store_identity: str | None) -> str:
        url = self._shown_url
        if broker_identity is None:
            return (
                f"the store {url} belongs to installation {store_identity}, and the broker to none: does its URL name "
                f"another database than before, or was it emptied? To use both together, set the broker's key "
                f"{IDENTITY_KEY} to {store_identity}"
            )
        if store_identity is None:
            return (
                f"the broker belongs to installation {broker_identity}, and the store {url} to none: is its disk "
                f"mounted? To begin with an empty store, delete the broker's key {IDENTITY_KEY}"
            )
        return (
            f"the broker belongs to installation {broker_identity}, and the store {url} to installation "
            f"{store_identity}"
        )
