"""The setting `MASKSMITH_ROOTS`: roots, and the keys that may read and write each of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from masksmith_state.errors import InvalidLocationError

from .location import normalise

EVERY_KEY = "*"


def _check_url(url: str) -> str:
    try:
        return normalise(url)
    except InvalidLocationError as error:
        raise ValueError(str(error)) from None


class RootSetting(BaseModel):
    """A root, and who has rights to it; admins have all rights, as have requests without a key where none is required.

    Attributes:
        url: An absolute directory, or `s3://bucket/prefix`; credentials come from the environment.
        read: Ids or names of the keys that may read it; `*` stands for every key.
        write: Those that may write to it, likewise.
    """

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, AfterValidator(_check_url)]
    read: list[Annotated[str, Field(min_length=1)]] = []
    write: list[Annotated[str, Field(min_length=1)]] = []
