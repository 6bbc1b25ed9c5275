"""A cluster: Ray actors decode and encode, and the driver gives a lost actor's blocks to another one.

Without GPUs every processor gets an actor that decodes and encodes a block itself, so no pixel crosses the network.
With GPUs, or with a given number of encoders, actors on processors decode and actors on GPUs encode; the crops go
through Ray's object store. The driver keeps the list of what is open. An actor may die, its machine may vanish and take
decoded crops along: the block is done again from its file, and the functions being pure, with the same result.

Ray Data would bring its own rebatching, which makes the composition of a batch, and so the last bits of a vector,
depend on the moment.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vlfer.batch import Steps
from vlfer.batch.cluster import connection
from vlfer.errors import EnvironmentProblem, VlferError
from vlfer.memory import keep_freed_memory

_TASKS_AN_ACTOR = 2  # one runs, one waits at its door
_BLOCKS_HELD_AN_ENCODER = 6
_ATTEMPTS = 3
_WAIT_S = 1.0

Kind = Literal["decode", "encode", "both"]


@dataclass(frozen=True, slots=True)
class RayEngine:
    """Run on a Ray cluster.

    Attributes:
        address: Of a running cluster ("auto", "ray-head:6379"), or None to start one on this machine for the run.
        encoders: Actors that only encode. None: one for each GPU; without GPUs every actor does both.
        gpus: Whether GPUs are used.
        patience_s: Seconds without any working actor after which the run gives up.
    """

    address: str | None = None
    encoders: int | None = None
    gpus: bool = True
    patience_s: float = 300.0

    def __call__(self, blocks: Sequence[Sequence[Any]], steps: Steps[Any, Any, Any]) -> Iterator[tuple[int, Any]]:
        """Yield the result of each block as it is ready.

        Raises:
            EnvironmentProblem: If Ray is not installed, the cluster cannot be reached, or no actor is left.
        """
        with connection(self.address) as ray:
            pool = _Pool(ray, steps=steps, engine=self, n_blocks=len(blocks))
            try:
                yield from _Driver(ray, blocks=blocks, steps=steps, pool=pool).run()
            finally:
                pool.close()


class _Worker:
    """One actor: decodes, encodes, or both; one thread, as its neighbours have the other processors."""

    def __init__(self, build_reader: Callable[[], Any], build_tower: Callable[[], Any]) -> None:
        keep_freed_memory()
        self._build_reader = build_reader
        self._build_tower = build_tower
        self._reader: Any = None
        self._tower: Any = None

    def ready(self) -> None:
        """Answer once the actor runs."""

    def decode(self, rows: Sequence[Any]) -> tuple[int, list[Any]]:
        """Read the rows of one block; their number comes apart, so that the driver need not fetch pixels."""
        if self._reader is None:
            self._reader = self._build_reader()
            _limit_threads()
        return len(rows), [self._reader(row) for row in rows]

    def encode(self, *crops: Any) -> Any:
        """Encode what `decode` gave for the rows of one block, in one list or in several."""
        if self._tower is None:
            self._tower = self._build_tower()
            _limit_threads()
        return self._tower([one for part in crops for one in part])

    def both(self, rows: Sequence[Any]) -> Any:
        """Decode and encode one block."""
        return self.encode(self.decode(rows)[1])


@dataclass(eq=False)
class _Member:
    """An actor as the driver sees it.

    Attributes:
        actor: Its handle.
        kind: What it is for.
        is_ready: Whether it has answered.
        queue: What it was asked and has not answered, in the order in which it works.
        culprit: What it was working on when it died; the tasks behind it are not to blame.
    """

    actor: Any
    kind: Kind
    is_ready: bool = False
    queue: list[_Task] = field(default_factory=list)
    culprit: _Task | None = None


@dataclass(eq=False)
class _Task:
    """Something that was asked of an actor.

    Attributes:
        kind: What.
        member: Of whom.
        block: Index of the block.
        part: The row, in a block that is decoded row by row; else -1.
        crops: Reference to what `decode` will give.
    """

    kind: Literal["ready", "decode", "encode", "both"]
    member: _Member
    block: int = -1
    part: int = -1
    crops: Any = None


@dataclass(eq=False)
class _State:
    """Where one block stands.

    Attributes:
        attempts: How often an actor died over it.
        parts: Decoded crops, by row where the rows are decoded one by one, else one for all.
    """

    attempts: int = 0
    row_attempts: dict[int, int] = field(default_factory=dict)
    parts: dict[int, Any] = field(default_factory=dict)


class _Pool:
    """The actors: as many as the cluster has room for, and a new one for each that dies."""

    def __init__(self, ray: Any, *, steps: Steps[Any, Any, Any], engine: RayEngine, n_blocks: int) -> None:
        self._ray = ray
        self._factories = (steps.build_reader, steps.build_tower)
        self._patience_s = engine.patience_s
        self._n_gpus = int(ray.cluster_resources().get("GPU", 0)) if engine.gpus else 0
        n_cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
        n_encoders = self._n_gpus if engine.encoders is None else engine.encoders
        self.members: list[_Member] = []
        self.pings: dict[Any, _Task] = {}
        self._last_alive = time.monotonic()
        self._deaths = 0
        for _ in range(n_encoders):
            self._hire("encode")
        n_others = n_cpus if self._n_gpus else max(1, n_cpus - n_encoders)
        for _ in range(min(n_others, n_blocks)):
            self._hire("decode" if n_encoders else "both")

    def able(self, kind: Kind) -> _Member | None:
        """Return the ready actor with the least to do that may take a task, or None.

        Without GPUs any actor may do anything, so that a run goes on with whoever is left.
        """
        others = [] if self._n_gpus and kind == "encode" else self.members
        for members in ([m for m in self.members if m.kind in (kind, "both")], others):
            if any(m.is_ready for m in members):
                free = [m for m in members if m.is_ready and len(m.queue) < _TASKS_AN_ACTOR]
                return min(free, key=lambda m: len(m.queue)) if free else None
        return None

    @property
    def has_encoders(self) -> bool:
        """Whether decoding and encoding are done apart."""
        return any(m.kind == "encode" for m in self.members)

    def praise(self, member: _Member) -> None:
        """Note that an actor answered."""
        member.is_ready = True
        self._deaths = 0

    def dismiss(self, member: _Member, error: Exception) -> None:
        """Strike a dead actor off and ask for another one of its kind.

        Raises:
            EnvironmentProblem: If actors die one after the other and none answers.
        """
        if member not in self.members:
            return
        self._deaths += 1
        if self._deaths > _ATTEMPTS * (len(self.members) + _ATTEMPTS):
            raise EnvironmentProblem(f"{self._deaths} Ray actors died in a row. The last one said: {error}") from error
        self.members.remove(member)
        with contextlib.suppress(Exception):  # dead already, unless only what it was given is lost
            self._ray.kill(member.actor)
        self._hire(member.kind)

    def check(self) -> None:
        """Raise EnvironmentProblem if nobody has been there to work for too long."""
        now = time.monotonic()
        needed = [m for m in self.members if m.is_ready and (m.kind != "decode" or not self._n_gpus)]
        if needed:
            self._last_alive = now
        elif now - self._last_alive > self._patience_s:
            raise EnvironmentProblem(
                f"The Ray cluster has given no actor for {self._patience_s:.0f} s.",
                why="Its nodes are gone or taken. What was encoded is stored.",
                fix="ray status; then run again, it goes on where it stopped",
            )

    def close(self) -> None:
        """End every actor."""
        for member in self.members:
            with contextlib.suppress(Exception):  # it may be dead already
                self._ray.kill(member.actor)

    def _hire(self, kind: Kind) -> None:
        on_gpu = kind == "encode" and self._n_gpus > 0
        options = {"num_cpus": 0 if on_gpu else 1, "num_gpus": 1 if on_gpu else 0, "max_restarts": 0}
        actor = self._ray.remote(_Worker).options(**options).remote(*self._factories)
        member = _Member(actor, kind)
        self.members.append(member)
        self.pings[actor.ready.remote()] = _Task("ready", member)


class _Driver:
    """Gives blocks to actors, and gives them again where an actor died over them."""

    def __init__(self, ray: Any, *, blocks: Sequence[Sequence[Any]], steps: Steps[Any, Any, Any], pool: _Pool) -> None:
        self._ray = ray
        self._blocks = blocks
        self._steps = steps
        self._pool = pool
        self._state = [_State() for _ in blocks]
        self._to_decode: deque[tuple[int, int]] = deque((i, -1) for i in range(len(blocks)))
        self._to_encode: deque[int] = deque()
        self._running: dict[Any, _Task] = {}

    def run(self) -> Iterator[tuple[int, Any]]:
        """Yield each block's result once."""
        left = len(self._blocks)
        while left:
            self._assign()
            self._pool.check()
            waiting = [*self._running, *self._pool.pings]
            done, _ = self._ray.wait(waiting, num_returns=1, timeout=_WAIT_S)
            for reference in done:
                task = self._pool.pings.pop(reference, None) or self._running.pop(reference)
                answer = self._finish(task, reference)
                if answer is not None:
                    left -= 1
                    yield answer

    def _assign(self) -> None:
        """Hand out tasks while there are actors for them, encoding first: it frees crops."""
        while self._to_encode and (member := self._pool.able("encode")):
            index = self._to_encode.popleft()
            parts = self._state[index].parts
            self._start(_Task("encode", member, index), *(parts[i] for i in sorted(parts)))
        apart = self._pool.has_encoders
        encoders = sum(1 for m in self._pool.members if m.kind == "encode")
        while self._to_decode and (member := self._pool.able("decode")):
            held = len(self._to_encode) + sum(1 for t in self._running.values() if t.kind in ("decode", "encode"))
            if apart and held >= _BLOCKS_HELD_AN_ENCODER * encoders:
                break
            index, part = self._to_decode.popleft()
            rows = self._blocks[index] if part < 0 else [self._blocks[index][part]]
            self._start(_Task("decode" if apart or part >= 0 else "both", member, index, part), rows)

    def _start(self, task: _Task, *arguments: Any) -> None:
        task.member.queue.append(task)
        method = getattr(task.member.actor, task.kind)
        if task.kind == "decode":
            reference, task.crops = method.options(num_returns=2).remote(*arguments)
        else:
            reference = method.remote(*arguments)
        self._running[reference] = task

    def _finish(self, task: _Task, reference: Any) -> tuple[int, Any] | None:
        """Take what came of a task; return a block's result if it is complete."""
        queue = task.member.queue
        try:
            answer = self._ray.get(reference)
        except Exception as error:
            task.member.culprit = task.member.culprit or (queue[0] if queue else None)
            self._recover(task, error)
            return None
        finally:
            if task in queue:
                queue.remove(task)
        self._pool.praise(task.member)
        if task.kind == "ready":
            return None
        if task.kind == "decode":
            self._take_crops(task.block, task.part, task.crops)
            return None
        self._state[task.block].parts.clear()  # lets go of the crops
        return task.block, answer

    def _take_crops(self, index: int, part: int, crops: Any) -> None:
        parts = self._state[index].parts
        parts[part] = crops
        if len(parts) == (1 if part < 0 else len(self._blocks[index])):
            self._to_encode.append(index)

    def _recover(self, task: _Task, error: Exception) -> None:
        """Put a lost block back; raise what is no loss but a mistake."""
        errors = self._ray.exceptions
        cause = getattr(error, "cause", None)
        if isinstance(error, errors.RayTaskError) and not isinstance(cause, errors.RayError):
            raise cause if isinstance(cause, VlferError) else error
        if not isinstance(error, errors.RayError):
            raise error
        if isinstance(error, errors.RayActorError):
            self._pool.dismiss(task.member, error)
        if task.kind == "ready":
            return
        state = self._state[task.block]
        if task.part >= 0:
            self._recover_row(task, error)
            return
        state.parts.clear()
        state.attempts += task is task.member.culprit
        if state.attempts < _ATTEMPTS:
            self._to_decode.append((task.block, -1))
        elif state.attempts < 2 * _ATTEMPTS and task.kind != "encode":
            # it may be a file that kills its reader: row by row shows which one
            self._to_decode.extend((task.block, i) for i in range(len(self._blocks[task.block])))
        elif state.attempts < 2 * _ATTEMPTS:
            self._to_decode.append((task.block, -1))
        else:
            raise EnvironmentProblem(
                f"{state.attempts} actors died over one block of {len(self._blocks[task.block])} rows: {error}",
                why="Memory may be short on the nodes.", fix="a smaller --batch-size or fewer --frames",
            ) from error  # fmt: skip

    def _recover_row(self, task: _Task, error: Exception) -> None:
        state = self._state[task.block]
        blame = task is task.member.culprit
        state.row_attempts[task.part] = state.row_attempts.get(task.part, 0) + blame
        if state.row_attempts[task.part] < _ATTEMPTS:
            self._to_decode.append((task.block, task.part))
            return
        record = self._steps.lost(self._blocks[task.block][task.part], type(error).__name__)
        self._take_crops(task.block, task.part, self._ray.put([record]))


def _limit_threads() -> None:
    """Give the libraries that this process has loaded one thread each: its neighbours have the other processors."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    if (cv2 := sys.modules.get("cv2")) is not None:
        cv2.setNumThreads(1)
