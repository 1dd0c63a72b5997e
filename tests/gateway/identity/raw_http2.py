"""A gRPC call as bytes on a socket: with metadata that no gRPC library would send."""

from __future__ import annotations

import asyncio
import struct

from tests.gateway.identity.front import REQUEST

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1


async def raw_call(host: str, port: int, method: str, authorization: bytes) -> bool:
    """Sends one unary call (RFC 9113, headers as RFC 7541 literals); whether a message came back.

    Returns once the server has ended the stream or the connection.
    """
    headers = b"".join(
        _literal(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", method.encode()),
            (b":authority", b"localhost"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"authorization", authorization),
        )
    )
    message = struct.pack(">BI", 0, len(REQUEST)) + REQUEST
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, headers)
        + _frame(_DATA, _END_STREAM, 1, message)
    )
    try:
        async with asyncio.timeout(10):
            return await _answered(reader)
    finally:
        writer.close()


async def _answered(reader: asyncio.StreamReader) -> bool:
    answered = False
    try:
        while True:
            head = await reader.readexactly(9)
            kind, flags, stream = head[3], head[4], struct.unpack(">I", head[5:])[0]
            await reader.readexactly(int.from_bytes(head[:3]))
            answered |= kind == _DATA and stream == 1
            ended = kind in (_DATA, _HEADERS) and flags & _END_STREAM
            if stream == 1 and (ended or kind == _RST_STREAM):
                return answered
            if kind == _GOAWAY:
                return answered
    except (asyncio.IncompleteReadError, ConnectionError):
        return answered


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _literal(name: bytes, value: bytes) -> bytes:
    """Without indexing, new name, no Huffman code."""
    return b"\0" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    size = len(text)
    return bytes([size]) if size < 127 else bytes([127, size - 127])
