"""Addresses that tell a vendor what to do with a message. All others are accepted.

``steer-ACTION@example.com`` or ``steer-ACTION+anything@example.com`` for mail, ``steer-ACTION`` or
``steer-ACTION--anything`` for push tokens and what the ``http`` vendor is sent, numbers of ``+1 500 555`` for the rest
(https://www.twilio.com/docs/iam/test-credentials has those that begin with 0; the others are ours):

======== ================== ===================================================================
number   action
======== ================== ===================================================================
…0001    21211              To is invalid
…0002    21612, 21214       cannot be reached (messages, calls)
…0003    21408, 21215       no permission for the region (messages, calls)
…0004    21610, 21216       blocked (messages, calls)
…0009    21614              not a mobile number
…9NNN    NNN                an error of that HTTP status, 429 with ``Retry-After: 2``
…9988    lost-silence       not accepted, and no answer
…9989    lost-reset         not accepted, and the connection is reset
…9997    html               accepted, answered with a page of HTML
…9998    silence            accepted, and no answer
…9999    reset              accepted, and the connection is reset
…8001    (accepted)         callbacks: undelivered, 30005
…8002    (accepted)         callbacks: failed, 30003
…8003    (accepted)         no callback ever
…8004    (accepted)         callbacks: delivered, twice
…8005    (accepted)         calls: a person picks up and presses 9
…8006    (accepted)         calls: an answering machine picks up
…8007    (accepted)         calls: a person picks up and presses 1
…8008    (accepted)         calls: busy
…8009    (accepted)         calls: nobody picks up
======== ================== ===================================================================

For mail ``ACTION`` is ``silence``, ``reset``, ``lost-silence``, ``lost-reset`` (the last two before the final dot),
``rcpt-550-5.1.1`` (a reply to RCPT) or ``data-451-4.3.0`` (a reply to the final dot). For FCM it is one of its error
codes in lower case, ``invalid-token``, or one of the words and statuses above; for ``http`` these words and statuses.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"steer-([a-z0-9._-]+?)(?:\+|--|@|$)", re.IGNORECASE)
_NUMBER = re.compile(r"\+1500555([0-9]{4})")
_WORDS = {"9988": "lost-silence", "9989": "lost-reset", "9997": "html", "9998": "silence", "9999": "reset"}


def action(address: str) -> str:
    """What the address asks for; empty for an ordinary one."""
    if found := _WORD.match(address):
        return found[1].lower()
    if found := _NUMBER.fullmatch(address):
        digits = found[1]
        return _WORDS.get(digits) or (digits[1:] if digits[0] == "9" else digits if digits[0] in "08" else "")
    return ""
