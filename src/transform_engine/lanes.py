"""The requests that may be open at a time, and what each goes through: containers, tries, time.

A lane is the permit for one open request. A lane whose reply has come takes the next payload of the
same object by itself, so that no task and no queue stands between a reply and the next request. If
there is none, it waits until the event loop has seen to all replies that are there: then all free
lanes take payloads, and after that send them. Objects that are one request each are opened, sent
and written a dozen at a time so, and a model server that had fallen asleep is woken once for each
dozen.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Protocol

from transform_engine.errors import ModelFailed, ModelRefused, NoAnswer, ObjectFailed
from transform_engine.http_client import Body, HttpClient, NoReply, TimedOut
from transform_engine.packing import Payload
from transform_engine.settings import Settings

_LOOKS_S = 0.05


class Sender(Protocol):
    """Whose payload it is; told once for each what came of it.

    :ivar all_taken: `take` will give no other one.
    """

    all_taken: bool

    def take(self) -> Payload | None:
        """Give another payload; None if there is none at the moment."""

    def deliver(self) -> None:
        """A payload has its reply: the last container has answered with 2xx."""

    def weigh(self, payload: Payload) -> None:
        """A large payload has its reply, and need not be kept."""

    def failed(self, payload: Payload, failure: ObjectFailed) -> None:
        """No try is left."""


class StreamedPayload(Payload, eq=False, gc=False, kw_only=True):
    """A body that is sent in chunks as it is read; opened anew for each try."""

    open: Callable[[], AsyncIterator[bytes]]


Next = Callable[[], tuple[Sender, Payload] | None]


class Lanes:
    """As many lanes as MaxConcurrentTransforms.

    :param clients: one for each container of the model, in order.
    :param take: gives the next payload; None when there is none at the moment.
    :param broke: told of an error that nobody foresaw.
    """

    def __init__(
        self,
        clients: Sequence[HttpClient],
        settings: Settings,
        *,
        take: Next,
        broke: Callable[[Exception], None],
    ) -> None:
        self.clients = clients
        self.settings = settings
        self.take = take
        self.broke = broke
        accept = settings.accept if len(clients) == 1 else None
        self.heads = clients[0].heads(settings.content_type, accept)
        self.idle = [_Lane(self) for _ in range(settings.max_concurrent)]
        self._lanes = [*self.idle]
        self._watch: asyncio.TimerHandle | None = None
        self._will_wake = False

    def wake_soon(self) -> None:
        """Let free lanes look for payloads, once the replies that are there are seen to."""
        if not self._will_wake:
            self._will_wake = True
            asyncio.get_running_loop().call_soon(self.wake)

    def wake(self) -> None:
        """Let free lanes look for payloads."""
        self._will_wake = False
        if self._watch is None:
            self._look()
        idle, given = self.idle, []
        try:
            while idle and (taken := self.take()) is not None:
                lane = idle.pop()
                lane.give(*taken)
                given.append((lane, taken[1]))
            for lane, payload in given:
                if lane.payload is payload:  # Its object may have failed meanwhile.
                    lane.send()
        except Exception as error:
            self.broke(error)

    def abandon(self, payload: Payload) -> None:
        """Give up a payload whose object has failed; its sender is told nothing more."""
        for lane in self._lanes:
            if lane.payload is payload:
                lane.abandon()
                self.idle.append(lane)
                self.wake_soon()

    def close(self) -> None:
        """Give up everything; no payload is taken any more."""
        self.take = lambda: None
        if self._watch is not None:
            self._watch.cancel()
        for lane in self._lanes:
            lane.abandon()

    def _look(self) -> None:
        # One timer for all requests: they last for milliseconds, the limit is in seconds.
        now = time.monotonic()
        for lane in self._lanes:
            if lane.payload is not None and now > lane.deadline:
                lane.expired()
        self._watch = asyncio.get_running_loop().call_later(_LOOKS_S, self._look)


class _Lane:
    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._clients = lanes.clients
        settings = lanes.settings
        self._timeout_s = settings.timeout_s
        self._content_type, self._accept = settings.content_type, settings.accept
        self._chunked = settings.limit_bytes is None
        self._last = len(lanes.clients) - 1
        self._heads = lanes.heads
        self._idle = self._clients[0].idle
        self._stage = 0
        self._max_retries = settings.max_retries
        self._tries_left = 0
        self._type: str | None = None
        # None only while nothing is sent, which is not asked for each of many replies.
        self._sender: Any = None
        self.payload: Any = None
        self._chunks: asyncio.Task[None] | None = None
        self.deadline = 0.0

    def give(self, sender: Sender, payload: Payload) -> None:
        """Take charge of a payload, to be sent in a moment."""
        self._sender, self.payload = sender, payload
        self._tries_left = self._max_retries

    def next(self) -> bool:
        """Send the next payload of the same object; without one the lane is idle."""
        sender = self._sender
        payload = self.payload = None if sender.all_taken else sender.take()
        if payload is None:
            self._sender = None
            self._lanes.idle.append(self)
            self._lanes.wake_soon()
            return False
        self._tries_left = self._max_retries
        self.send()
        return True

    def send(self) -> None:
        """Send the payload to the first container, whether for the first time or again."""
        payload = self.payload
        self._stage = 0
        self.deadline = time.monotonic() + self._timeout_s
        if self._chunked:
            opened = payload.open if isinstance(payload, StreamedPayload) else payload.body
            self._send_chunks(opened, self._content_type)
            return
        body = payload.body
        if self._idle:
            self._idle.pop().send(self._heads[len(body)], body, self)
        else:
            self._clients[0].post(self._heads, body, self)

    def _send_chunks(self, body: Body, content_type: str | None) -> None:
        headers = {"Content-Type": content_type} if content_type else {}
        if self._accept and self._stage == self._last:
            headers["Accept"] = self._accept
        stage = self._stage

        async def send() -> None:
            try:
                reply = await self._clients[stage].call(
                    "POST",
                    "/invocations",
                    timeout_s=self._timeout_s,
                    headers=headers,
                    body=body,
                    chunked=True,
                )
            except (NoReply, TimedOut) as error:
                self.lost(str(error))
            except ObjectFailed as failure:  # Of who reads the body.
                self._end(failure)
            else:
                self.replied(reply.status, reply.body, reply.content_type)

        self._chunks = asyncio.get_running_loop().create_task(send())

    # http_client.Waiter

    def replied(self, status: int, body: bytes, content_type: str | None) -> None:
        """Hand the reply on: to the next container, or to the object."""
        try:
            if not 200 <= status < 300:
                self._refused(status, body)
            elif self._stage == self._last:
                payload, self.payload = self.payload, None
                payload.reply = body
                if payload.size:
                    self._sender.weigh(payload)
                self._sender.deliver()
                if self.next() and self._lanes.idle:
                    self._lanes.wake_soon()  # A reply may make room for more than one payload.
            else:
                self._hand_on(body, content_type)
        except Exception as error:
            self._lanes.broke(error)

    def lost(self, why: str) -> None:
        """Try again, or give up."""
        try:
            self._again(NoAnswer(why))
        except Exception as error:
            self._lanes.broke(error)

    def _hand_on(self, body: bytes, content_type: str | None) -> None:
        # What the reply does not say is as it was (reference §4, Pipelines).
        self._type = content_type or (self._content_type if self._stage == 0 else self._type)
        self._stage += 1
        if self._chunked:
            self._send_chunks(body, self._type)
            return
        client = self._clients[self._stage]
        accept = self._accept if self._stage == self._last else None
        client.post(client.heads(self._type, accept), body, self)

    def _refused(self, status: int, body: bytes) -> None:
        if 400 <= status < 500:
            self._end(ModelRefused(status, body))
        elif status >= 500 and self._lanes.settings.readings.retry_5xx:
            self._again(ModelFailed(status, body))
        else:
            self._end(ModelFailed(status, body))

    def _again(self, failure: ObjectFailed) -> None:
        if self._tries_left:
            self._tries_left -= 1
            self.send()
        else:
            self._end(failure)

    def _end(self, failure: ObjectFailed) -> None:
        payload, self.payload = self.payload, None
        self._sender.failed(payload, failure)
        self.next()

    def expired(self) -> None:
        """Give up a try that has taken too long."""
        self._cancel()
        self.lost(f"no reply within {self._timeout_s} s")

    def abandon(self) -> None:
        """Give up the payload."""
        self._cancel()
        self._sender = self.payload = None

    def _cancel(self) -> None:
        if self._chunks is not None:
            self._chunks.cancel()
            self._chunks = None
        self._clients[self._stage].abandon(self)
