"""The setting `MASKSMITH_ROOTS`: roots, and the keys that may read and write each of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from masksmith_state.errors import InvalidLocationError

from .location import normalise

EVERY_KEY = "*"


def _normalised_url(url: str) -> str:
    try:
        return normalise(url)
    except InvalidLocationError as error:
        raise ValueError(str(error)) from None


class RootSetting(BaseModel):
    """A root, and the keys that may read and write it.

    Keys of the role `admin` may read and write every root; requests without a key may do so if no key is required.

    Attributes:
        url: Absolute path of a directory, or `s3://bucket/prefix`; credentials of buckets come from the environment.
        read: Ids or names of the keys that may read the root; `*` stands for every key.
        write: Ids or names of the keys that may write to the root; `*` stands for every key.
    """

    model_config = ConfigDict(extra="forbid")

    url: Annotated[str, AfterValidator(_normalised_url)]
    read: list[Annotated[str, Field(min_length=1)]] = []
    write: list[Annotated[str, Field(min_length=1)]] = []
