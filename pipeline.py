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
    days,
    distinct,
    epoch_seconds,
    every,
    latest,
    least_choice,
    mean_per_choice,
    minutes,
    most_choice,
    ratio,
    rows_of,
    text,
)

KIND = choice("interaction_type", "click", "like", "view", "purchase", weights=(25, 10, 60, 5))

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

MINUTES = Table(
    "agg_interactions_minute",
    INTERACTION,
    key=(every(minutes=1, closes_after=minutes(10)),),
    title="Minutes",
    keep=days(7),
    measures={
        **{f"total_{kind}": count(where={KIND: kind}) for kind in KIND.choices},
        "total_interactions": count(),
        "users": distinct("user_id"),
    },
)

ITEM_HOURS = Table(
    "agg_interactions_item_hour",
    INTERACTION,
    key=("item_id", every(hours=1, closes_after=minutes(10))),
    title="Items by hour",
    keep=days(30),
    measures={
        "total_interactions": count(),
        "total_purchase": count(where={KIND: "purchase"}),
        "last_interaction": latest("timestamp"),
    },
)

PIPELINE = Pipeline(
    INTERACTION,
    tables=(USERS, ITEMS, OVERALL, MINUTES, ITEM_HOURS),
    overview=Overview(
        total=USERS["total_interactions"], by=KIND, mean=OVERALL["avg_interactions"], mean_title="Average per user"
    ),
)
