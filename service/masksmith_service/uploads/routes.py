"""HTTP routes that store, find and delete uploads."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from masksmith_service.auth.principal import PrincipalDep
from masksmith_service.errors import RequestError
from masksmith_service.resources import StateDep
from masksmith_wire.digests import is_digest
from masksmith_wire.errors import Code

from .quota import touch_upload
from .receive import receive

router = APIRouter(prefix="/v1/tensors", tags=["tensors"])
DigestPath = Annotated[str, Path(description="BLAKE3 of the file, 64 hex digits", max_length=200)]


class Upload(BaseModel):
    """A stored upload."""

    digest: str
    bytes: int
    tensors: list[str]


@router.post("", status_code=201)
async def post_tensor(request: Request, response: Response, state: StateDep, principal: PrincipalDep) -> Upload:
    """Store a safetensors file under the digest that the service computes: 201 if it is new to the key, else 200."""
    inspector, is_new = await receive(request, state, principal, None)
    await state.count_upload(inspector.bytes)
    if not is_new:
        response.status_code = 200
    assert inspector.header is not None
    return Upload(digest=inspector.digest, bytes=inspector.bytes, tensors=list(inspector.header.tensors))


@router.put("/{digest}", status_code=201)
async def put_tensor(
    digest: DigestPath, request: Request, response: Response, state: StateDep, principal: PrincipalDep
) -> Upload:
    """Store a safetensors file under its digest, which is checked: 201 if it is new to the key, else 200."""
    inspector, is_new = await receive(request, state, principal, _check_digest(digest))
    await state.count_upload(inspector.bytes)
    if not is_new:
        response.status_code = 200
    assert inspector.header is not None
    return Upload(digest=digest, bytes=inspector.bytes, tensors=list(inspector.header.tensors))


@router.head("/{digest}")
def head_tensor(digest: DigestPath, state: StateDep, principal: PrincipalDep) -> Response:
    """Check whether the key has sent this upload: 200 or 404. This counts as a use, which delays the upload's expiry.

    An admin's key also finds uploads that only other keys have sent, without delaying their expiry.
    """
    size = touch_upload(state, principal, _check_digest(digest), any_owner=principal.is_admin)
    if size is None:
        return Response(status_code=404)
    return Response(headers={"X-Upload-Bytes": str(size)})


@router.delete("/{digest}", status_code=204)
def delete_tensor(digest: DigestPath, state: StateDep, principal: PrincipalDep) -> None:
    """Delete an upload that the key has sent: 404 if it has not, 409 while a live job of the key reads the upload.

    The bytes are deleted at once, or after a running backup, unless another key has sent them, too.
    """
    forgotten = state.references.forget_upload(principal.key, _check_digest(digest))
    if forgotten is None:
        detail = f"upload {digest} does not exist, or this key has not sent it"
        raise RequestError(Code.UPLOAD_NOT_FOUND, detail, status=404, digest=digest)
    if not forgotten:
        detail = f"a job that is queued or running reads upload {digest}; cancel it, or wait for its end"
        raise RequestError(Code.UPLOAD_IN_USE, detail, digest=digest)


def _check_digest(digest: str) -> str:
    """Return a digest unchanged; raise `RequestError` if it is malformed."""
    if not is_digest(digest):
        raise RequestError(
            Code.INVALID_DIGEST, f"{digest[:80]!r} is not a BLAKE3 digest, which has 64 lower-case hex digits"
        )
    return digest
