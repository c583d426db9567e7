"""The engine for an event loop: one thread steps it while there is work, and each request is an async stream.

Requests of any number of tasks run together in one batch. A stream that is closed early, because its client has gone,
is cancelled, and what it held is free before the next step. The loop itself never waits for a step.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress

from puna.base.errors import ResourceError
from puna.core.chat import Message, ToolSpec
from puna.core.completion import Completion, Done, SamplingParams, StreamEvent
from puna.engine.local import Hearing, LocalModel, completion_of
from puna.engine.sequence import Request

_log = logging.getLogger(__name__)


class AsyncModel:
    """A `LocalModel` that many tasks talk to.

    Use it as an async context manager: its thread runs inside the block, and at the end the requests under way are
    let finish.

    Args:
        model: whose engine it steps; nobody else should.
        drain_seconds: how long requests may take to finish at the end, before they are cancelled.
    """

    def __init__(self, model: LocalModel, drain_seconds: float = 30.0) -> None:
        self.model = model
        self.drain_seconds = drain_seconds
        self._work = threading.Condition()
        self._closing = self._closed = False
        self._failure: BaseException | None = None
        self._wakers: dict[int, Callable[[], None]] = {}
        self._thread = threading.Thread(target=self._run, name="puna-engine", daemon=True)

    async def __aenter__(self) -> AsyncModel:
        self._thread.start()
        return self

    async def __aexit__(self, *failure: object) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self.drain_seconds
        while self.model.engine.busy and self._failure is None and loop.time() < end:
            await asyncio.sleep(0.02)
        with self._work:
            self._closing = True
            self._work.notify()
        await asyncio.to_thread(self._thread.join)
        self.model.engine.cancel_all()
        self._closed = True
        self._wake_all()

    async def chat(
        self, messages: Sequence[Message], params: SamplingParams | None = None, tools: Sequence[ToolSpec] = ()
    ) -> Completion:
        """Answers a conversation."""
        async with aclosing(self.stream(messages, params, tools)) as events:
            async for event in events:
                if isinstance(event, Done):
                    return event.completion
        raise AssertionError("a stream ends with Done")

    async def stream(
        self, messages: Sequence[Message], params: SamplingParams | None = None, tools: Sequence[ToolSpec] = ()
    ) -> AsyncGenerator[StreamEvent, None]:
        """Answers a conversation piece by piece; see `LocalModel.stream`."""
        params = params or SamplingParams()
        tools = () if params.tool_choice == "none" else tools
        request = self.model.request(messages, params, tools)
        async with aclosing(self.follow(request, tools)) as events:
            async for event in events:
                yield event

    async def follow(self, request: Request, tools: Sequence[ToolSpec] = ()) -> AsyncGenerator[StreamEvent, None]:
        """Streams the answer to a request that says its own tenant, adapter and priority."""
        self._require_running(self._closing)
        answers = await self._ask(request, tools)
        try:
            with self._woken() as arrived:
                while not all(hearing.ended for hearing in answers):
                    self._require_running(self._closed)
                    await arrived.wait()
                    arrived.clear()
                    for event in answers[0].take_events():
                        yield event
            for event in answers[0].take_events():
                yield event
            yield Done(completion_of(answers))
        finally:
            self._cancel(answers)

    async def _ask(self, request: Request, tools: Sequence[ToolSpec]) -> list[Hearing]:
        """Compiling a grammar takes milliseconds: not on the loop. Who leaves meanwhile has asked for nothing."""
        asking = asyncio.ensure_future(asyncio.to_thread(self.model.ask_all, request, tools))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(self._unask)
            raise

    def _unask(self, asking: asyncio.Future[list[Hearing]]) -> None:
        if not asking.cancelled() and asking.exception() is None:
            self._cancel(asking.result())

    def _cancel(self, answers: Sequence[Hearing]) -> None:
        for hearing in answers:
            self.model.engine.cancel(hearing.generation)

    @contextmanager
    def _woken(self) -> Iterator[asyncio.Event]:
        """An event that is set after every step, and when the thread has ended."""
        loop, arrived = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has been closed: nobody waits any more
                loop.call_soon_threadsafe(arrived.set)

        self._wakers[id(arrived)] = wake
        try:
            with self._work:
                self._work.notify()
            yield arrived
        finally:
            del self._wakers[id(arrived)]

    def _require_running(self, stopped: bool) -> None:
        if self._failure is not None or stopped:
            raise ResourceError(
                "The engine has stopped.", hint="Start the server again; its log says why it stopped."
            ) from self._failure

    def _run(self) -> None:
        """The thread: steps while there is work, sleeps while there is none."""
        engine = self.model.engine
        try:
            while True:
                with self._work:
                    self._work.wait_for(lambda: engine.busy or self._closing)
                    if self._closing:
                        return
                engine.step()
                self._wake_all()
        except BaseException as failure:
            _log.exception("The engine has stopped.")
            self._failure = failure
            self._wake_all()

    def _wake_all(self) -> None:
        for wake in list(self._wakers.values()):
            wake()
