"""Many small writes about servers in one transaction: a change on fifty servers is not a hundred commits."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_controller.db import Database

T = TypeVar("T")
MAX_IN_ONE_COUNT = 64


class _Order(NamedTuple):
    server_id: int
    work: Callable[[AsyncSession], Awaitable[Any]]
    done: asyncio.Future[Any]


_Outcome = tuple[_Order, Any, Exception | None]


class GroupWriter:
    """Collects works that wait at the same time into one transaction, each in a savepoint of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Order] = []
        self._turn = asyncio.Lock()

    async def do(self, server_id: int, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """What the work returns, once it is committed; what it raises undoes the work alone."""
        order = _Order(server_id, work, asyncio.get_running_loop().create_future())
        self._waiting.append(order)
        async with self._turn:
            if not order.done.done():
                await self._write()
        return await order.done

    async def _write(self) -> None:
        """Works are done in the order of servers, as all writers lock them.

        All in one go first; only when one of them fails are they all done again, each in a savepoint of its own.
        """
        orders, self._waiting = self._waiting[:MAX_IN_ONE_COUNT], self._waiting[MAX_IN_ONE_COUNT:]
        orders.sort(key=lambda each: each.server_id)
        try:
            try:
                outcomes = await self._at_once(orders)
            except Exception:  # noqa: BLE001  whose it was is found out one by one
                outcomes = await self._one_by_one(orders)
        except BaseException as error:
            for order in orders:
                if not order.done.done():
                    order.done.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
            if not isinstance(error, Exception):
                raise
            return
        for order, result, failure in outcomes:
            if order.done.done():
                continue
            if failure is None:
                order.done.set_result(result)
            else:
                order.done.set_exception(failure)

    async def _at_once(self, orders: list[_Order]) -> list[_Outcome]:
        async with self._database.write() as session:
            return [(order, await order.work(session), None) for order in orders]

    async def _one_by_one(self, orders: list[_Order]) -> list[_Outcome]:
        async with self._database.write() as session:
            return [await _try(session, order) for order in orders]


async def _try(session: AsyncSession, order: _Order) -> _Outcome:
    try:
        async with session.begin_nested():
            return order, await order.work(session), None
    except Exception as error:  # noqa: BLE001  handed to whoever asked for the work
        return order, None, error
