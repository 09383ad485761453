"""The few remoting calls the harness makes itself: enough to see routes without starting a JVM."""

import itertools
import json
import re
import socket
import struct

GET_BROKER_CLUSTER_INFO = 106

_opaque = itertools.count(1)


class RemoteError(Exception):
    """The server answered with a code other than 0."""


def call(address: str, code: int, fields: dict | None = None, body: bytes = b"", seconds: float = 3) -> bytes:
    """One request over its own connection; returns the response body."""
    host, _, port = address.rpartition(":")
    header = {"code": code, "language": "OTHER", "version": 479, "opaque": next(_opaque), "flag": 0, "extFields": fields or {}}
    encoded = json.dumps(header).encode()
    frame = struct.pack(">II", 4 + len(encoded) + len(body), len(encoded)) + encoded + body
    with socket.create_connection((host, int(port)), seconds) as connection:
        connection.settimeout(seconds)
        connection.sendall(frame)
        (length,) = struct.unpack(">I", _read(connection, 4))
        answer = _read(connection, length)
    header_length = struct.unpack(">I", answer[:4])[0] & 0xFFFFFF
    reply = json.loads(answer[4 : 4 + header_length])
    if reply.get("code", 0) != 0:
        raise RemoteError(f"{reply.get('code')}: {reply.get('remark')}")
    return answer[4 + header_length :]


def _read(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise ConnectionError("the connection was closed in the middle of an answer")
        data += part
    return data


def loads(text: bytes) -> dict:
    """JSON as the Java servers write it: map keys that are numbers may come without quotes."""
    return json.loads(re.sub(rb"([{,])(\d+):", rb'\1"\2":', text))


def members(namesrv: str, broker_name: str) -> dict[int, str]:
    """Broker id → address of one group as the nameserver tells it; empty while it cannot be asked."""
    try:
        info = loads(call(namesrv, GET_BROKER_CLUSTER_INFO))
    except (OSError, RemoteError, ValueError):
        return {}
    broker = info.get("brokerAddrTable", {}).get(broker_name, {})
    return {int(number): address for number, address in broker.get("brokerAddrs", {}).items()}
