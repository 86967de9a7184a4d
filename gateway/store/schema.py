"""The tables, once for SQLite and PostgreSQL.

Instants are microseconds since 1970 in UTC, so that the same statements run on both and nothing is rounded.
Migrations are made from this; statements name the columns themselves.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Identity, Index, Integer, MetaData, SmallInteger, Table, Text, text

metadata = MetaData()

PLACE = 1
"""``due.held`` of a message that a place, given back by another, may let go before its instant."""
BEHIND = 2
"""The same of one in line behind another, which wakes it when it settles; by itself it wakes before it expires."""
RULED = 3
"""The same of one that only clocks hold: nothing but another policy may let it go before its instant."""

FRESH = 1
"""``due.suspect`` of a message whose worker vanished while it held it: the others of its line do not know that yet."""
SUSPECT = 2
"""The same of one that the others of its line do not wait for."""

_ROWID = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers only a column of exactly this type by itself
_UPDATED_IN_PLACE = {"fillfactor": 70}  # room on the page for an update that touches no index

messages = Table(
    "messages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("source", Text, nullable=False),
    Column("request", Text, nullable=False),
    Column("person", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("channels", Text, nullable=False, comment="in order, separated by spaces"),
    Column("priority", SmallInteger, nullable=False),
    Column("campaign", Text),
    Column("accepted_at", BigInteger, nullable=False),
    Column("starts_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False, comment="the request, JSON"),
    comment="Requests once accepted. Rows never change.",
)

requests = Table(
    "requests",
    metadata,
    Column("id", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("hash", Text, nullable=False, comment="SHA-256 of the canonical body"),
    Column("message", Text, nullable=False),
    Column("accepted_at", BigInteger, nullable=False),
    comment="Identity: which message a request's id stands for.",
)

due = Table(
    "due",
    metadata,
    Column("message", Text, primary_key=True),
    Column("person", Text, nullable=False),
    Column("bucket", SmallInteger, nullable=False, comment="hash(person) % 1024, to split the table by"),
    Column("line", BigInteger, nullable=False, comment="hash of all that rules look at; 0: bound by no rule"),
    Column("priority", SmallInteger, nullable=False),
    Column("channel", Text, nullable=False, comment="the first to be tried: whose budget it uses"),
    Column("starts_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False, comment="when to decide"),
    Column(
        "held",
        SmallInteger,
        nullable=False,
        server_default=text("0"),
        comment="1: a place that frees may let it go; 2: behind another of its line; 3: by clocks alone",
    ),
    Column("lease_until", BigInteger, nullable=False, server_default=text("0")),
    Column("fence", Integer, nullable=False, server_default=text("0"), comment="raised by each lease"),
    Column("said", BigInteger, nullable=False, server_default=text("0"), comment="hash of the last recorded deferral"),
    Column("tries", SmallInteger, nullable=False, server_default=text("0"), comment="of the retry budget"),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0"), comment="made so far"),
    Column("policy", Integer, nullable=False, server_default=text("0"), comment="the version it was last decided by"),
    Column("holder", BigInteger, nullable=False, server_default=text("0"), comment="the worker that leased it last"),
    Column(
        "suspect",
        SmallInteger,
        nullable=False,
        server_default=text("0"),
        comment="not 0: its worker vanished while it held it, so it is run alone",
    ),
    Column("crashes", SmallInteger, nullable=False, server_default=text("0"), comment="while it was run alone"),
    comment="Messages that are not settled yet. A row goes when its message settles.",
    postgresql_with={
        **_UPDATED_IN_PLACE,
        "autovacuum_vacuum_scale_factor": 0.01,
        "autovacuum_vacuum_threshold": 1000,
        "autovacuum_vacuum_cost_delay": 0,
    },
)
Index("due_wake", due.c.priority, due.c.channel, due.c.due_at)
Index("due_line", due.c.person, due.c.line, due.c.priority, due.c.expires_at, due.c.message)
Index(
    "due_suspects",
    due.c.priority,
    due.c.due_at,
    postgresql_where=due.c.suspect != 0,
    sqlite_where=due.c.suspect != 0,
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("message", Text, nullable=False),
    Column("number", SmallInteger, nullable=False),
    Column("person", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("address", Text, nullable=False, comment="SHA-256, to tell addresses of one message apart"),
    Column("state", Text, nullable=False),
    Column("begun_at", BigInteger, nullable=False),
    Column("deadline", BigInteger, nullable=False, comment="the first byte is never written after it"),
    Column("ended_at", BigInteger),
    Column("reference", Text, comment="the vendor's id"),
    Column("error", Text, comment="its kind and code"),
    Column("policy", Integer, nullable=False),
    Column(
        "generation", SmallInteger, nullable=False, server_default=text("1"), comment="raised by a deliberate re-send"
    ),
    Column("repeats", Text, comment="the attempt that a vendor takes it for, by its key, and whose place it shares"),
    Column(
        "tracked",
        SmallInteger,
        nullable=False,
        server_default=text("0"),
        comment="1: with links of ours in place of its own",
    ),
    comment="Calls of providers: committed before the call, amended after it.",
    postgresql_with=_UPDATED_IN_PLACE,
)
Index("attempts_message", attempts.c.message)
Index("attempts_address", attempts.c.address, attempts.c.begun_at)

unknowns = Table(
    "unknowns",
    metadata,
    Column("message", Text, primary_key=True),
    Column("attempt", Text, primary_key=True),
    Column("provider", Text, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("look_at", BigInteger, nullable=False, comment="when the sweeper looks at it next"),
    Column("closes_at", BigInteger, nullable=False, comment="when nobody listens any more"),
    comment="Attempts that may have been sent, and those that nobody works on any more. A row goes when that is known.",
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_threshold": 1000},
)
Index("unknowns_look", unknowns.c.look_at)

contacts = Table(
    "contacts",
    metadata,
    Column("attempt", Text, primary_key=True),
    Column("person", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("campaign", Text),
    Column("zone", Text, nullable=False, comment="the person's, when it was made"),
    Column("begun_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger, nullable=False, comment="the deadline while it is under way or unknown"),
    Column("labels", Text, comment="JSON; null: none"),
    Column("address", Text, comment="its fingerprint, where the category limits what one address may get"),
    Column("counts", SmallInteger, nullable=False, server_default=text("1"), comment="0: for the address alone"),
    comment="The ledger that caps are asked of: what counts. A row goes when its place is given back.",
    postgresql_with={
        # Its index alone answers only for pages that a vacuum has seen since they were written.
        "autovacuum_vacuum_insert_scale_factor": 0.01,
        "autovacuum_vacuum_scale_factor": 0.02,
    },
)
Index(
    "contacts_person",
    contacts.c.person,
    contacts.c.begun_at,
    # All that a decision asks of a contact: a person's contacts lie on as many pages as there are, this on one.
    postgresql_include=["ended_at", "channel", "category", "campaign", "zone", "message", "labels"],
    postgresql_where=contacts.c.counts == 1,
)
Index(
    "contacts_address",
    contacts.c.address,
    contacts.c.begun_at,
    postgresql_where=contacts.c.address.is_not(None),
    sqlite_where=contacts.c.address.is_not(None),
)

addresses = Table(
    "addresses",
    metadata,
    Column("address", Text, primary_key=True, comment="its fingerprint"),
    Column("used_at", BigInteger, nullable=False),
    comment="Addresses with a limit of their own. The row is what a decision locks.",
    postgresql_with=_UPDATED_IN_PLACE,
)

profiles = Table(
    "profiles",
    metadata,
    Column("person", Text, primary_key=True),
    Column("profile", Text, nullable=False, comment="JSON"),
    Column("updated_at", BigInteger, nullable=False),
    comment="Persons. The row is what a decision locks.",
    postgresql_with=_UPDATED_IN_PLACE,
)

suppressions = Table(
    "suppressions",
    metadata,
    Column("address", Text, primary_key=True, comment="its fingerprint"),
    Column("channel", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("suppressed_at", BigInteger, nullable=False),
    comment="Addresses that must not be used.",
)

optouts = Table(
    "optouts",
    metadata,
    Column("person", Text, primary_key=True, comment="empty: whoever has the address"),
    Column("address", Text, primary_key=True, comment="its fingerprint; empty: any of the person's"),
    Column("channel", Text, primary_key=True, comment="empty: all"),
    Column("category", Text, primary_key=True, comment="empty: all"),
    Column("topic", Text, primary_key=True, comment="empty: all"),
    Column("via", Text, nullable=False),
    Column("opted_out_at", BigInteger, nullable=False),
    comment="Who said no to what.",
)
Index("optouts_address", optouts.c.address)

replies = Table(
    "replies",
    metadata,
    Column("id", Text, primary_key=True),
    Column("key", Text, nullable=False, comment="the provider, and its vendor's id of the answer"),
    comment="Answers of people that were heard, so that a repeat of an old one undoes nothing.",
)
Index("replies_key", replies.c.key, unique=True)

acts = Table(
    "acts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("key", Text, nullable=False, comment="what is told twice under one key is one act"),
    Column("person", Text, nullable=False),
    Column("act", Text, nullable=False),
    Column("agent", Text, nullable=False, comment="human or machine"),
    Column("done_at", BigInteger, nullable=False),
    Column("message", Text, comment="null: it belongs to none"),
    Column("attempt", Text, comment="null: it is not known which"),
    Column("channel", Text),
    Column("category", Text),
    Column("stage", Text, comment="of a conversion: how far the person came"),
    Column("link", SmallInteger, comment="of a click: which of the message's links"),
    Column("via", Text, nullable=False, comment="how we heard of it"),
    Column("why", Text, comment="of a machine: how it is known to be one"),
    Column("band", Text, comment="of who leaves: how many contacts there were in the week before"),
    Column("refused", Text, comment="JSON; of an opt-out: what was said no to"),
    comment="What was done with messages, and by whom.",
)
Index("acts_key", acts.c.key, unique=True)
Index("acts_message", acts.c.message)
Index("acts_done", acts.c.done_at)

links = Table(
    "links",
    metadata,
    Column("code", Text, primary_key=True, comment="the path of the short link"),
    Column("attempt", Text, nullable=False),
    Column("link", SmallInteger, nullable=False, comment="which of the message's links, from 1"),
    comment="Short links in what was sent. Where they lead stands in the message.",
)
Index("links_attempt", links.c.attempt)

decisions = Table(
    "decisions",
    metadata,
    Column("id", _ROWID, Identity(), primary_key=True),
    Column("message", Text, nullable=False),
    Column("decided_at", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, comment="the rule or the cause"),
    Column("until", BigInteger, comment="the next eligible instant"),
    Column("policy", Integer, nullable=False),
    Column("why", Text, nullable=False, comment="JSON: each rule, its verdict and numbers"),
    comment="What was decided of a message and why; changes only.",
)
Index("decisions_message", decisions.c.message)

outbox = Table(
    "outbox",
    metadata,
    Column("id", _ROWID, Identity(), primary_key=True),
    Column("event", Text, nullable=False, comment="the event's id, by which subscribers tell repeats"),
    Column("routing_key", Text, nullable=False),
    Column("body", Text, nullable=False),
    comment="Events that are not published yet.",
    sqlite_autoincrement=True,  # a number is never used again, though the table is emptied all the time
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_threshold": 1000},
)

webhook_queue = Table(
    "webhook_queue",
    metadata,
    Column("webhook", Text, primary_key=True, comment="its name"),
    Column("sequence", BigInteger, primary_key=True, comment="the event's number, of when it was in the outbox"),
    Column("event", Text, nullable=False, comment="its id"),
    Column("body", Text, nullable=False, comment="as it is sent"),
    Column("queued_at", BigInteger, nullable=False),
    Column("tries", SmallInteger, nullable=False, server_default=text("0"), comment="calls that failed"),
    Column("due_at", BigInteger, comment="when it is to be called with it; null: given up"),
    Column("error", Text, comment="of the last call"),
    Column("called_at", BigInteger, comment="the last call, which failed; null: there was none"),
    comment="Events on their way to webhooks. A row goes when it is taken, or long after it was given up.",
    postgresql_with={"autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_threshold": 1000},
)
Index("webhook_queue_due", webhook_queue.c.webhook, webhook_queue.c.due_at, webhook_queue.c.sequence)
_FAILED = webhook_queue.c.called_at.is_not(None) & webhook_queue.c.due_at.is_not(None)
Index(
    "webhook_queue_called",
    webhook_queue.c.webhook,
    webhook_queue.c.called_at,
    sqlite_where=_FAILED,
    postgresql_where=_FAILED,
)

disabled_webhooks = Table(
    "disabled_webhooks",
    metadata,
    Column("webhook", Text, primary_key=True, comment="its name"),
    Column("url", Text, nullable=False, comment="SHA-256 of its URL then: with another one it is enabled"),
    Column("reason", Text, nullable=False),
    Column("disabled_at", BigInteger, nullable=False),
    comment="Webhooks that want no more events. A row goes when somebody enables it.",
)

parked = Table(
    "parked",
    metadata,
    Column("id", Text, primary_key=True),
    Column("parked_at", BigInteger, nullable=False),
    Column("via", Text, nullable=False),
    Column("source", Text),
    Column("request", Text),
    Column("reason", Text, nullable=False),
    Column("faults", Text, nullable=False, comment="JSON: each with its path"),
    Column("body", Text, nullable=False, comment="as it came, base64"),
    comment="Input that nobody can deliver, kept for people with its faults.",
)

doubtful = Table(
    "doubtful",
    metadata,
    Column("hash", Text, primary_key=True, comment="SHA-256 of the body"),
    Column("begun", SmallInteger, nullable=False, comment="how often it was begun with, alone, and not finished"),
    Column("begun_at", BigInteger, nullable=False),
    comment="Input that the broker delivers again, while it is being handled.",
)

policies = Table(
    "policies",
    metadata,
    Column("number", _ROWID, Identity(), primary_key=True),
    Column("hash", Text, nullable=False, unique=True),
    Column("activated_at", BigInteger, nullable=False),
    comment="Every policy that was ever in force, by its content.",
)

activations = Table(
    "activations",
    metadata,
    Column("id", _ROWID, Identity(), primary_key=True),
    Column("policy", Integer, nullable=False, comment="its number"),
    Column("worker", Text, nullable=False, comment="the process in which it came into force"),
    Column("activated_at", BigInteger, nullable=False),
    comment="Which policy came into force where and when.",
)

jobs = Table(
    "jobs",
    metadata,
    Column("name", Text, primary_key=True),
    Column("worker", Text, nullable=False),
    Column("lease_until", BigInteger, nullable=False),
    comment="Work that one worker does for all.",
)

provider_health = Table(
    "provider_health",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("worker", Text, primary_key=True),
    Column("seen", Text, nullable=False, comment="JSON: what it knows of the provider, instants as their age"),
    Column("written_at", BigInteger, nullable=False),
    comment="What each worker tells the others of its providers.",
    postgresql_with=_UPDATED_IN_PLACE,
)

paces = Table(
    "paces",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("next_at", BigInteger, nullable=False, comment="until when all is spoken for"),
    Column("critical_at", BigInteger, nullable=False, comment="the same, were there only critical messages"),
    comment="How far each provider's pace is booked, by all workers together.",
    postgresql_with=_UPDATED_IN_PLACE,
)

pace_shares = Table(
    "pace_shares",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("worker", Text, primary_key=True),
    Column("demand", BigInteger, nullable=False, comment="messages it could take at once: its weight"),
    Column("next_at", BigInteger, nullable=False, comment="until when its own part is spoken for"),
    Column("lapses_at", BigInteger, nullable=False, comment="when its part is the others', unless it asks again"),
    comment="Which workers share a provider's pace.",
    postgresql_with=_UPDATED_IN_PLACE,
)
