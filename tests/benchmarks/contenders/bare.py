"""The yardstick: aio-pika consumes and acknowledges each message, and does nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aio_pika

from tests.benchmarks.contenders._report import Report, Tally, Task, main

if TYPE_CHECKING:
    from aio_pika.abc import AbstractIncomingMessage


async def bare(task: Task) -> Report:
    tally = Tally(task.messages)

    async def handle(message: AbstractIncomingMessage) -> None:
        tally.begin()
        await message.ack()
        tally.end()

    async with await aio_pika.connect(task.broker) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=task.prefetch)
        queue = await channel.get_queue(task.queue)
        await queue.consume(handle)
        report = await tally.report()
        await channel.close()
    return report


if __name__ == "__main__":
    main(bare)
