"""The model server of the conformance vectors: a program of its own, standard library only.

    python -IS conformance_model.py CONFIG.json RECORDS.jsonl

It behaves as the vectors' legend says and records every call, so that the runner can hold them
against what a vector expects. Few imports: a vector starts one such process per container.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from binascii import a2b_base64, b2a_base64

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing costs 10 ms, which each server would pay.
    from collections.abc import Callable
    from typing import Any

    Answer = tuple[int, dict[str, str], bytes]


def _lines(body: bytes) -> list[bytes]:
    if not body:
        return []
    return (body[:-1] if body.endswith(b"\n") else body).split(b"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _sum(line: bytes) -> bytes:
    columns = line.strip(b"\r").split(b",") if line.strip() else []
    return _number(sum(float(column) for column in columns)).encode()


def _per_line(answer: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda body: b"\n".join(answer(line) for line in _lines(body))


def _length(line: bytes) -> bytes:
    return json.dumps({"n": len(json.loads(line))}, separators=(",", ":")).encode()


#: What a rule of a script can say.
RULE = frozenset(
    {
        *("container", "path", "match_body", "request", "times"),
        *("status", "headers", "content_type", "body", "utf8", "base64", "json"),
        *("delay_ms", "hang", "reset", "drop", "close", "exit_code"),
    }
)


def behaviours(class_reply: bytes) -> dict[str, Callable[[bytes], bytes]]:
    """Return what each behaviour of the legend makes of a request's body."""
    return {
        "echo": lambda body: body,
        "echo_rstrip": lambda body: body[:-1] if body.endswith(b"\n") else body,
        "csv_sum": _per_line(_sum),
        "csv_count": _per_line(lambda line: str(len(line.split(b","))).encode()),
        "const_1": _per_line(lambda line: b"1"),
        "json_label": _per_line(lambda line: b'{"label":1}'),
        "json_label_doc": lambda body: b'{"label":1}',
        "json_len": _per_line(_length),
        "json_class": _per_line(lambda line: class_reply),
        "line_count": lambda body: str(len(_lines(body))).encode(),
        "byte_len": lambda body: str(len(body)).encode(),
    }


class Model:
    """Answers calls as one vector wants them answered."""

    def __init__(self, config: dict[str, Any], records: str) -> None:
        self._container = config["container"]
        self._behaviour = behaviours(config["class_reply"].encode()).get(config["behaviour"])
        self._parameters = config.get("execution_parameters") or {"status": 404}
        self._ping = config.get("ping") or []
        self._hold_s = config.get("hold_s", 0)
        self._script: list[dict[str, Any]] = [
            rule for rule in config["script"] if rule.get("container", 1) == self._container
        ]
        self._uses = [0] * len(self._script)
        self._records = os.open(records, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self._open = 0
        self.record({"env": dict(os.environ), "container": self._container})

    def record(self, entry: dict[str, Any]) -> None:
        """Note something for the runner; one write, so that lines stay whole."""
        os.write(self._records, json.dumps(entry).encode() + b"\n")

    def _rule(self, body: bytes) -> dict[str, Any]:
        text = body[:-1] if body.endswith(b"\n") else body
        with self._lock:
            for number, rule in enumerate(self._script):
                match = rule.get("match_body", rule.get("request"))
                if match is not None:
                    wanted = match.encode()
                    if (wanted[:-1] if wanted.endswith(b"\n") else wanted) != text:
                        continue
                times = rule.get("times")
                if times is None and match is None and self._reaches_further(number):
                    times = 1  # Else the rules behind it could never be meant.
                if times is None or self._uses[number] < times:
                    self._uses[number] += 1
                    return rule
        return {"status": 500, "body": "no rule of the script matches"}

    def _reaches_further(self, number: int) -> bool:
        return any(
            later.get("match_body", later.get("request")) is None
            for later in self._script[number + 1 :]
        )

    def call(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer | None:
        """Return status, extra headers and body; None closes the connection."""
        invocation = path == "/invocations"
        with self._lock:
            self._open += invocation
            self.record(
                {
                    "at": time.time(),
                    "call": f"{method} {path}",
                    "headers": headers,
                    "body": b2a_base64(body, newline=False).decode(),
                    "open": self._open,
                    "container": self._container,
                }
            )
        try:
            if path == "/ping":
                return self._answer_ping()
            if path == "/execution-parameters":
                answer = self._parameters
                text = json.dumps(answer["json"]) if "json" in answer else answer.get("body", "")
                return answer["status"], {}, text.encode()
            return self._invoke(headers, body)
        finally:
            with self._lock:
                self._open -= invocation

    def _answer_ping(self) -> Answer:
        answer = {"status": 200}
        if self._ping:
            answer = self._ping[0]
            answer["times"] = answer.get("times", 1) - 1
            if answer["times"] <= 0 and len(self._ping) > 1:
                self._ping.pop(0)
        if answer.get("exit_code") is not None:
            os._exit(answer["exit_code"])
        time.sleep(3600 if answer.get("hang") else answer.get("delay_ms", 0) / 1000)
        return answer.get("status", 200), {}, b""

    def _invoke(self, headers: dict[str, str], body: bytes) -> Answer | None:
        time.sleep(self._hold_s)
        media_type = headers.get("accept") or headers.get("content-type") or "text/plain"
        if self._behaviour is not None:
            try:
                return 200, {"Content-Type": media_type}, self._behaviour(body)
            except (ValueError, TypeError) as error:
                return 400, {}, str(error).encode()
        rule = self._rule(body)
        time.sleep(rule.get("delay_ms", 0) / 1000)
        if rule.get("exit_code") is not None:
            os._exit(rule["exit_code"])
        if rule.get("hang"):
            time.sleep(3600)
        if rule.get("reset") or rule.get("drop") or rule.get("close"):
            return None
        if "base64" in rule:
            reply = a2b_base64(rule["base64"])
        else:
            text = rule.get("body", rule.get("utf8", rule.get("json", "")))
            reply = (text if isinstance(text, str) else json.dumps(text)).encode()
        extra = {"Content-Type": rule.get("content_type", media_type), **rule.get("headers", {})}
        return rule.get("status", 200), extra, reply


def _serve(model: Model, connection: socket.socket) -> None:
    stream = connection.makefile("rb")
    with connection, stream:
        while line := stream.readline():
            method, path, _ = line.decode("latin-1").split(" ", 2)
            headers = {}
            while (line := stream.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
            if headers.get("transfer-encoding") == "chunked":
                body = b""
                while size := int(stream.readline(), 16):
                    body += stream.read(size)
                    stream.readline()
                stream.readline()
            else:
                body = stream.read(int(headers.get("content-length", 0)))
            answer = model.call(method, path, headers, body)
            if answer is None:
                return
            status, extra, reply = answer
            head = [f"HTTP/1.1 {status} ", *(f"{name}: {value}" for name, value in extra.items())]
            if status != 204:
                head.append(f"Content-Length: {len(reply)}")
            else:
                reply = b""
            connection.sendall("\r\n".join((*head, "", "")).encode("latin-1") + reply)


def _quietly(model: Model, connection: socket.socket) -> None:
    try:
        _serve(model, connection)
    except (ConnectionError, ValueError, OSError):
        pass  # The agent went away, as it does after a timeout.


def main() -> None:
    """Serve until ended."""
    with open(sys.argv[1], encoding="utf-8") as file:
        model = Model(json.load(file), sys.argv[2])
    listener = socket.create_server(
        (os.environ["BIND_HOST"], int(os.environ["SAGEMAKER_BIND_TO_PORT"])), backlog=128
    )
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_quietly, args=(model, connection), daemon=True).start()


if __name__ == "__main__":
    main()
