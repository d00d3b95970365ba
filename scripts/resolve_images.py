"""Pin the base images of Dockerfile, docker-compose.yml and the manifests to the digests of their tags in Docker Hub.

    python scripts/resolve_images.py [--check]

Writes `image:tag@sha256:...`. Build arguments of a tag are replaced by their default values, and removed where nothing
else uses them: Docker ignores the tag of an image with a digest, and would build the default for any argument. The
script writes no digest that is not in a response of the registry. With `--check` nothing is written, and the exit code
is 1 if an image is not pinned, or its tag has another digest now. Exit code 2 if the registry does not respond with a
digest, or a file cannot be read or written. An image of another registry keeps the digest that it has; one without a
digest is an error.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = ("Dockerfile", "docker-compose.yml", "deploy/kubernetes/base/valkey.yaml")
HUB = "https://registry-1.docker.io"
ACCEPT = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in ("oci.image.index.v1", "docker.distribution.manifest.list.v2", "oci.image.manifest.v1",
                 "docker.distribution.manifest.v2")
)  # fmt: skip
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
REFERENCE = re.compile(
    r"^(?P<before>\s*(?:FROM|image:) +)(?P<name>(?:[\w.-]+:\d+/)?[a-z0-9./_-]+):(?P<tag>[\w.${}-]+)"
    r"(?P<digest>@sha256:[0-9a-f]{64})?",
    re.MULTILINE,
)


VARIABLE = re.compile(r"\$\{?(\w+)\}?")
"""A build argument in a tag, or elsewhere in a Dockerfile."""


class RegistryError(Exception):
    """The registry did not respond with a digest, an image is in another registry, or its tag is not known."""


def registry_of(name: str) -> str | None:
    """Return the registry that an image's name begins with; None for Docker Hub."""
    host, slash, _ = name.partition("/")
    has_host = slash and host != "docker.io" and (host == "localhost" or re.search(r"[.:]", host))
    return host if has_host else None


def digest_of(name: str, tag: str, registry: str = HUB) -> str:
    """Request the digest of a tag from a registry.

    Raises:
        RegistryError: If the registry does not respond, or its response has no digest.
    """
    name = name.removeprefix("docker.io/")
    repository = name if "/" in name else f"library/{name}"
    url = f"{registry}/v2/{repository}/manifests/{tag}"
    headers = {"Accept": ACCEPT}
    try:
        try:
            return _head(url, headers)
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise
            token = _token(error.headers.get("WWW-Authenticate", ""))
            return _head(url, headers | {"Authorization": f"Bearer {token}"})
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"{name}:{tag}: {error or type(error).__name__}") from None


def pinned(text: str, arguments: dict[str, str], registry: str = HUB) -> str:
    """Pin all images of a text that have a tag to their digests; images that are built here have no tag.

    Build arguments in tags are replaced by their values, and their lines removed unless they are used elsewhere.

    Args:
        text: A Dockerfile, a compose file, or a manifest.
        arguments: Default values of the build arguments that tags contain, by name.
        registry: URL of the registry.

    Raises:
        RegistryError: If the registry does not respond with the digest of an image, or an image of another registry
            has no digest; or if a build argument has no default value.
    """

    def replace(match: re.Match[str]) -> str:
        if (host := registry_of(match["name"])) is not None:
            if match["digest"] is None:
                raise RegistryError(f"{match['name']}:{match['tag']} is in {host}, not in Docker Hub: pin it by hand")
            return match[0]
        tag = VARIABLE.sub(lambda variable: arguments.get(variable[1], variable[0]), match["tag"])
        if "$" in tag:
            raise RegistryError(f"{match['name']}:{match['tag']}: a build argument of the tag has no default value")
        digest = digest_of(match["name"], tag, registry)
        return f"{match['before']}{match['name']}:{tag}@{digest}"

    replaced = {name for match in REFERENCE.finditer(text) for name in VARIABLE.findall(match["tag"])}
    return _without_unused_arguments(REFERENCE.sub(replace, text), replaced)


def _without_unused_arguments(text: str, names: set[str]) -> str:
    """Remove the `ARG` lines of those build arguments that the text does not use."""
    for name in sorted(names - set(VARIABLE.findall(text))):
        text = re.sub(rf"^ARG {name}=\S+\n", "", text, flags=re.MULTILINE)
    return text


def _head(url: str, headers: dict[str, str]) -> str:
    request = urllib.request.Request(url, headers=headers, method="HEAD")
    with urllib.request.urlopen(request, timeout=30) as response:
        digest = str(response.headers.get("Docker-Content-Digest", ""))
    if not DIGEST.fullmatch(digest):
        raise ValueError(f"the registry answered with the digest {digest!r}")
    return digest


def _token(challenge: str) -> str:
    """Request a token for anonymous access, as the header `WWW-Authenticate` describes."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    query = urllib.parse.urlencode({name: fields[name] for name in ("service", "scope") if name in fields})
    with urllib.request.urlopen(f"{fields['realm']}?{query}", timeout=30) as response:
        return str(json.load(response)["token"])


def main(root: Path = ROOT, registry: str = HUB) -> int:
    """Pin or check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    try:
        changed = _changed_files(root, registry)
    except (OSError, ValueError, RegistryError) as error:
        sys.stderr.write(f"nothing is pinned: {error}\n")
        return 2
    for name, pinned_text in changed:
        if check:
            sys.stdout.write(f"{name}: not pinned to what the registry has\n")
            continue
        try:
            (root / name).write_text(pinned_text, encoding="utf-8")
        except OSError as error:
            sys.stderr.write(f"{name} is not pinned: {error}\n")
            return 2
        sys.stdout.write(f"{name}: pinned\n")
    return int(check and bool(changed))


def _changed_files(root: Path, registry: str) -> list[tuple[str, str]]:
    """Return the name of each file whose images are not pinned to the registry's digests, and its text with them."""
    changed = []
    for name in FILES:
        text = (root / name).read_text(encoding="utf-8")
        arguments = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, re.MULTILINE))
        pinned_text = pinned(text, arguments, registry)
        if pinned_text != text:
            changed.append((name, pinned_text))
    return changed


if __name__ == "__main__":
    sys.exit(main())
