"""Filter the messages of Streamlit's WebSockets: allowed types from browsers, and no server paths to browsers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Send

__all__ = ["MAX_MESSAGE_BYTES", "guarded_receive", "guarded_send"]

MAX_MESSAGE_BYTES = 8 << 20  # from a browser; the largest is a picture of a query
# Others are for developers: they clear caches, run git, write files or show the working tree.
ALLOWED_MESSAGES = frozenset({"rerun_script", "stop_script", "app_heartbeat", "deferred_file_request"})
ALLOWED_OPERATIONS = frozenset({"deferred_file", "dataframe_chunk"})
SCRIPT = str(Path(__file__).with_name("app.py")).encode()


def guarded_receive(receive: Receive) -> Receive:
    """Receive from a browser, dropping messages of other types."""

    async def take() -> Message:
        while True:
            message = await receive()
            if message["type"] != "websocket.receive" or _is_wanted(message.get("bytes")):
                return message

    return take


def guarded_send(send: Send) -> Send:
    """Send to a browser, without the path of the page's script."""

    async def give(message: Message) -> None:
        content = message.get("bytes")
        if message["type"] == "websocket.send" and content and SCRIPT in content:
            message = {**message, "bytes": _without_path(content)}
        await send(message)

    return give


def _is_wanted(content: bytes | None) -> bool:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from streamlit.proto.BackMsg_pb2 import BackMsg

    message = BackMsg()
    try:
        message.ParseFromString(content or b"")  # a text is none
    except DecodeError:
        return False
    kind = message.WhichOneof("type")
    if kind == "backend_operation_request":
        request = message.backend_operation_request
        return any(request.WhichOneof(group.name) in ALLOWED_OPERATIONS for group in request.DESCRIPTOR.oneofs)
    return kind in ALLOWED_MESSAGES


def _without_path(content: bytes) -> bytes:
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

    message = ForwardMsg()
    message.ParseFromString(content)
    if message.WhichOneof("type") == "new_session":
        message.new_session.main_script_path = Path(__file__).with_name("app.py").name
    return message.SerializeToString()
