"""A process of its own that makes rows of what the gateway hands over, masks them, and writes them (`capture.py`)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from stepwell.config_kept import Capture as Section
from stepwell.ledger.listen import listen
from stepwell.synth.captured import row_of
from stepwell.synth.seen import Seen
from stepwell.synth.shards import Limits, Shards, folder_of

log = logging.getLogger(__name__)

decode = msgspec.msgpack.Decoder(list[Seen]).decode
encode = msgspec.json.Encoder().encode


class Writer:
    """All tenants' files of one gateway process."""

    def __init__(self, section: Section) -> None:
        self.section = section
        self.limits = Limits(section.shard_rows, section.shard_s, section.keep_days, section.tenant_bytes)
        self.shards: dict[str, Shards] = {}

    def answer(self, batch: bytes) -> bytes:
        """Write a batch; what went wrong, or nothing. An empty batch is a reminder that time has passed."""
        try:
            self.write(decode(batch))
        except OSError as error:
            return str(error).encode() or type(error).__name__.encode()
        return b""

    def write(self, batch: Sequence[Seen]) -> None:
        """Rows go to their tenants' files. Raises OSError."""
        by_tenant: dict[str, list[bytes]] = {}
        for seen in batch:
            line = self.line(seen)
            if line is not None:
                by_tenant.setdefault(seen.tenant, []).append(line)
        for tenant, lines in by_tenant.items():
            self.of(tenant).write(lines)
        for shards in self.shards.values():
            if shards.file is not None:
                shards.seal_if_due()

    def line(self, seen: Seen) -> bytes | None:
        """A row as it is written; None for what is none. One that cannot be read must not hold up the others."""
        try:
            row = row_of(seen, self.section.licence)
        except Exception:
            log.exception("request %s cannot be captured", seen.request)
            return None
        return None if row is None else encode(row)

    def of(self, tenant: str) -> Shards:
        """A tenant's files."""
        if tenant not in self.shards:
            self.shards[tenant] = Shards(folder_of(Path(self.section.folder), tenant), self.limits)
        return self.shards[tenant]

    def close(self) -> None:
        """Give everything to readers."""
        for shards in self.shards.values():
            shards.seal()
            shards.tidy()


def main() -> None:
    """Write what comes down the pipe until it ends."""
    writer = Writer(msgspec.json.decode(sys.argv[1], type=Section))
    listen(writer.answer)
    writer.close()
