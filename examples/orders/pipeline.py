"""Orders: an event with money, an optional field and a time as text, and tables by two columns, one by day."""

from contract.declaration import (
    Event,
    Overview,
    Pipeline,
    Table,
    choice,
    count,
    decimal,
    distinct,
    earliest,
    every,
    hours,
    iso_datetime,
    latest,
    mean,
    most,
    ratio,
    rows_of,
    text,
    total,
    whole,
)

CATEGORY = choice("category", "books", "music", "toys")

ORDER = Event(
    "orders",
    text("customer_id"),
    CATEGORY,
    whole("quantity", at_least=1, at_most=1000),
    decimal("price", places=2, at_least=0),
    text("coupon", optional=True),
    iso_datetime("ordered_at"),
    time="ordered_at",
    partition_by="customer_id",
)

CUSTOMERS = Table(
    "customers",
    ORDER,
    key=("customer_id",),
    title="Customers",
    measures={
        "orders": count(),
        **{f"{category}_orders": count(where={CATEGORY: category}) for category in CATEGORY.choices},
        "items": total("quantity"),
        "revenue": total("price"),
        "mean_price": mean("price"),
        "with_coupon": count("coupon"),
        "first_order": earliest("ordered_at"),
        "last_order": latest("ordered_at"),
    },
)

CATEGORIES = Table(
    "customer_categories",
    ORDER,
    key=("customer_id", "category"),
    title="Customers by category",
    measures={"orders": count(), "revenue": total("price"), "highest_price": most("price")},
)

CATEGORY_DAYS = Table(
    "category_days",
    ORDER,
    key=("category", every(days=1, closes_after=hours(2))),
    title="Categories by day",
    measures={
        "orders": count(),
        "customers": distinct("customer_id"),
        "revenue": total("price"),
        "mean_price": mean("price"),
    },
)

SHOP = Table(
    "shop",
    ORDER,
    key=(),
    measures={
        "orders": count(),
        "revenue": total("price"),
        "orders_per_customer": ratio(count(), rows_of(CUSTOMERS)),
    },
)

PIPELINE = Pipeline(
    ORDER,
    tables=(CUSTOMERS, CATEGORIES, CATEGORY_DAYS, SHOP),
    overview=Overview(total=CUSTOMERS["orders"], by=CATEGORY, mean=SHOP["orders_per_customer"]),
)
