"""The faults suite: real processes, real faults, and a judge that shares no code with the gateway.

``python -m tests.faults`` runs every row of ``rows.py`` in its full form and prints a table; ``--short`` runs what
``make test`` runs; names of rows (``F3 F7``) run these alone. The exit status is 0 only if every row that was asked for
was run and kept its promises.

To write a row:

1. Put it in ``rows.py``: what is broken, and how often in the short and in the full form.
2. Write ``test_f03_….py`` with tests that are marked ``@pytest.mark.row("F3")`` and ask for the fixtures ``count`` (how
   many faults this form wants of the test) and ``tally``.
3. In the test: ``async with world(tmp_path, store=…, broker=…) as here`` starts a stub vendor and gateways, each a
   process of its own. ``here.requests(n, …)`` makes requests, ``await here.post(requests)`` and ``await
   here.publish(requests)`` send them and note which were acknowledged. Break something, and say so:
   ``tally.fault(recovery=seconds)``. Then ``await here.settled(seconds)`` and ``tally.judge(await here.verdict())``.
4. When the test ends the tally is held against the promise: nothing lost, doubled or pretended, and faults injected.
   What only this row promises (readiness within 15 s, say) is an assertion of its own.

The judge is ``checker.py``: pure, from the vendor's ledger, what the test itself sent, and plain SQL. A row that sends
no messages (a parser that is fed rubbish) counts its faults and asserts for itself.
"""
