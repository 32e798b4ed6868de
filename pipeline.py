"""The pipeline's business: what an event is, and which tables there are. Everything else is derived from this file.

`python -m contract check` reports every error by line; docs/adapting.md explains each word.
"""

from contract.declaration import (
    Event,
    Overview,
    Pipeline,
    Table,
    choice,
    count,
    epoch_seconds,
    latest,
    least_choice,
    mean_per_choice,
    most_choice,
    ratio,
    rows_of,
    text,
)

KIND = choice("interaction_type", "click", "like", "view", "purchase")

INTERACTION = Event(
    "interactions",
    text("user_id"),
    text("item_id"),
    KIND,
    epoch_seconds("timestamp"),
    time="timestamp",
    partition_by="user_id",
)

USERS = Table(
    "agg_interactions_user",
    INTERACTION,
    key=("user_id",),
    title="Users",
    measures={
        **{f"total_{kind}": count(where={KIND: kind}) for kind in KIND.choices},
        "total_interactions": count(),
        "avg_interactions": mean_per_choice(KIND),
        "last_interaction": latest("timestamp"),
    },
)

ITEMS = Table(
    "agg_interactions_item",
    INTERACTION,
    key=("item_id",),
    title="Items",
    measures={
        "min_interactions": least_choice(KIND),
        "max_interactions": most_choice(KIND),
        "last_interaction": latest("timestamp"),
    },
)

OVERALL = Table(
    "avg_interactions",
    INTERACTION,
    key=(),
    measures={"avg_interactions": ratio(count(), rows_of(USERS)), "last_interaction": latest("timestamp")},
)

PIPELINE = Pipeline(
    INTERACTION,
    tables=(USERS, ITEMS, OVERALL),
    overview=Overview(
        total=USERS["total_interactions"], by=KIND, mean=OVERALL["avg_interactions"], mean_title="Average per user"
    ),
)
