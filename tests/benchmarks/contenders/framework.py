"""The reference that everybody knows: FastStream with a handler that does nothing."""

from __future__ import annotations

from typing import Any

from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

from tests.benchmarks.contenders._report import Report, Tally, Task, main


async def framework(task: Task) -> Report:
    tally = Tally(task.messages)
    broker = RabbitBroker(task.broker, default_channel=Channel(prefetch_count=task.prefetch), logger=None)

    @broker.subscriber(RabbitQueue(task.queue, queue_type=QueueType.QUORUM, durable=True, declare=False))
    async def handle(body: dict[str, Any]) -> None:
        tally.begin()
        tally.end()

    await broker.start()
    report = await tally.report()
    await broker.stop()
    return report


if __name__ == "__main__":
    main(framework)
