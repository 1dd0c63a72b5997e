"""The scheduler's Lua scripts (scripts/), each as one typed function. They raise RedisError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from redis.asyncio import Redis

from penstock.service import keys as shared
from penstock.service.ledger.heads import Heads
from scheduler import keys

_FOLDER = Path(__file__).parent / "scripts"
_ADVANCE = (_FOLDER / "advance_heads.lua").read_text()
_MOVE = (_FOLDER / "move_position.lua").read_text()
_TAKE = (_FOLDER / "take_turn.lua").read_text()


async def advance_heads(
    control: Redis,
    before: Heads,
    after: Heads,
    entries: Sequence[bytes],
    marks: Mapping[str, int],
) -> bool:
    """Makes ``after`` the heads, raises the sealed marks and deletes the outbox entries.

    All or nothing; False, and nothing done, when ``before`` are no longer the heads.
    """
    if after.audit is None or after.usage is None:
        raise ValueError("both chains have a segment")
    pairs = [text for source, last in marks.items() for text in (source, str(last))]
    was = b"" if before.audit is None else before.audit.encoded()
    answer = await control.register_script(_ADVANCE)(
        keys=[shared.LEDGER_HEADS, shared.LEDGER_SEALED, shared.LEDGER_OUTBOX],
        args=[
            was,
            after.audit.encoded(),
            after.usage.encoded(),
            repr(after.sealed_until),
            len(entries),
            *entries,
            *pairs,
        ],
    )
    return bool(answer)


async def move_position(control: Redis, key: str, expected: int, position: int) -> bool:
    """Moves a position on; False when it is not the expected one."""
    return bool(await control.register_script(_MOVE)(keys=[key], args=[expected, position]))


async def take_turn(control: Redis, work: str, holder: str, seconds: float) -> bool:
    """Takes or prolongs the turn at a piece of work; False while another scheduler has it.

    Turns only spare doubled work: whatever has to be exact does not rely on them.
    """
    milliseconds = max(1, round(seconds * 1000))
    answer = await control.register_script(_TAKE)(
        keys=[keys.turn(work)], args=[holder, milliseconds]
    )
    return bool(answer)
