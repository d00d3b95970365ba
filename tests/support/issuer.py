"""A local OpenID Connect issuer: discovery and keys over HTTP, and tokens that are signed without a JWT library."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, padding, rsa


def encode(data: bytes | dict[str, Any]) -> str:
    """Base64url without padding."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _number(value: int) -> str:
    return encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class LocalIssuer:
    """An issuer on loopback.

    Attributes:
        documents: What it serves, by path.
        fetched: How often each path was fetched.
    """

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.fetched: dict[str, int] = {}
        self._private: dict[str, Any] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/realm"
        self.discovery = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        self.documents["/realm/.well-known/openid-configuration"] = self.discovery
        self.rotate("first")
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def rotate(self, kid: str) -> None:
        """Serve one new key."""
        self._private = {kid: rsa.generate_private_key(65537, 2048)}
        numbers = self._private[kid].public_key().public_numbers()
        public = {"kty": "RSA", "kid": kid, "use": "sig", "n": _number(numbers.n), "e": _number(numbers.e)}
        unusable = [{"kty": "new", "kid": "other"}, {"kty": "oct", "kid": "secret", "k": encode(b"s" * 32)}]
        self.documents["/realm/keys"] = {"keys": [*unusable, public]}

    def rotate_to_curve(self, curve: str, **members: str) -> None:
        """Serve one new key on a curve, `Ed25519` or `Ed448`; `token` signs with it."""
        kinds = {"Ed25519": ed25519.Ed25519PrivateKey, "Ed448": ed448.Ed448PrivateKey}
        self._private = {curve: kinds[curve].generate()}
        point = self._private[curve].public_key().public_bytes_raw()
        public = {"kty": "OKP", "crv": curve, "kid": curve, "x": encode(point)}
        self.documents["/realm/keys"] = {"keys": [public | members]}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a valid token, with changes; None removes a claim."""
        now = int(time.time())
        claims = {"iss": self.url, "aud": ["masksmith", "other"], "sub": "ann", "iat": now, "exp": now + 300} | changes
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, header: dict[str, Any] | None = None, claims_text: str | None = None, **changes: Any) -> str:
        """Sign a token, with RS256 unless the key is on a curve.

        Its claims are `claims_text`, else those of `claims` with the changes.
        """
        (kid, key), *_ = self._private.items()
        claims = self.claims(**changes) if claims_text is None else claims_text.encode()
        signed = f"{encode({'alg': 'RS256', 'kid': kid} | (header or {}))}.{encode(claims)}"
        details = (padding.PKCS1v15(), hashes.SHA256()) if isinstance(key, rsa.RSAPrivateKey) else ()
        return f"{signed}.{encode(key.sign(signed.encode(), *details))}"

    def token_with_secret(self, secret: bytes, kid: str) -> str:
        """Sign a token with HS256."""
        signed = f"{encode({'alg': 'HS256', 'kid': kid})}.{encode(self.claims())}"
        return f"{signed}.{encode(hmac.digest(secret, signed.encode(), 'sha256'))}"

    def token_without_signature(self) -> str:
        """Make a token with `alg` none."""
        return f"{encode({'alg': 'none'})}.{encode(self.claims())}."

    def stop(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetched[self.path] = issuer.fetched.get(self.path, 0) + 1
                body = json.dumps(issuer.documents.get(self.path)).encode()
                self.send_response(200 if self.path in issuer.documents else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        return Handler
