"""IBM Cloud's IAM: an API key is exchanged for a bearer token, which is renewed before it runs out (watsonx.ai)."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic, time
from urllib.parse import quote

import msgspec
from msgspec import Struct

from stepwell.engines.pool import Patience, Pool, address_of
from stepwell.errors import EngineError, EngineUnavailable

log = logging.getLogger(__name__)

GRANT = "urn:ibm:params:oauth:grant-type:apikey"
RENEW_AT = 0.8
"""The share of a token's life after which it is renewed; the old one serves until the new one is there."""
RETRY_S = 5.0
"""After a renewal failed, the next waits this long, while the old token is good."""
PATIENCE = Patience(connect_s=5.0, first_byte_s=10.0, total_s=15.0)
OK = 200
KEY_REFUSED = (400, 401, 403)
"""IAM answers an unknown key with 400."""


class Granted(Struct):
    """The part of IAM's reply that matters."""

    access_token: str
    expires_in: float | None = None
    """Seconds."""
    expiration: float | None = None
    """Seconds since 1970."""

    def life_s(self) -> float:
        """How long the token is good; an hour, which is IAM's rule, where the reply does not say."""
        if self.expires_in is not None:
            return self.expires_in
        return self.expiration - time() if self.expiration is not None else 3600.0


class Iam:
    """Gives the token of the moment: `await iam.token()`."""

    def __init__(self, url: str, api_key: str) -> None:
        self.address = address_of(url, "iam.url")
        self.pool = Pool(self.address, PATIENCE, 2)
        body = f"grant_type={quote(GRANT, safe='')}&apikey={quote(api_key, safe='')}".encode()
        head = (
            f"POST {self.address.path or '/'} HTTP/1.1\r\nHost: {self.address.host_header}\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\nAccept: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self.asking = head.encode() + body
        self.held = ""
        self.renew_at_s = self.ends_at_s = 0.0
        self.renewing: asyncio.Task[None] | None = None

    async def token(self) -> str:
        """A token that is still good. Raises EngineUnavailable where none can be had."""
        now_s = monotonic()
        if now_s < self.renew_at_s:
            return self.held
        if self.renewing is None or self.renewing.done():
            self.renewing = asyncio.get_running_loop().create_task(self.renew())
            self.renewing.add_done_callback(forgiven)
        if now_s >= self.ends_at_s:
            await asyncio.shield(self.renewing)
        return self.held

    async def renew(self) -> None:
        """Ask for a new token. Raises EngineUnavailable."""
        began_s = monotonic()
        self.renew_at_s = min(began_s + RETRY_S, self.ends_at_s)
        try:
            reply = await self.pool.ask(self.asking)
            body = await reply.body()
        except EngineError as error:
            raise EngineUnavailable(f"the IAM token endpoint cannot be reached: {error}") from error
        if reply.status in KEY_REFUSED:
            raise EngineUnavailable(f"IAM refuses the API key (status {reply.status}); check api_key_env")
        if reply.status != OK:
            raise EngineUnavailable(f"IAM gives no token (status {reply.status})")
        try:
            granted = msgspec.json.decode(body, type=Granted)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise EngineUnavailable(f"IAM's reply cannot be read: {error}") from error
        self.held = granted.access_token
        self.renew_at_s = began_s + RENEW_AT * granted.life_s()
        self.ends_at_s = began_s + granted.life_s()

    async def close(self) -> None:
        """Close the connections."""
        if self.renewing is not None:
            self.renewing.cancel()
        await self.pool.close()


def forgiven(renewing: asyncio.Task[None]) -> None:
    """A renewal may fail while the old token is still good: say so, and go on."""
    if not renewing.cancelled() and renewing.exception() is not None:
        log.warning("no new IAM token: %s", renewing.exception())
