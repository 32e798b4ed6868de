-- The rows of all aggregate tables, each table a changelog of its own in the one output topic.
CREATE TABLE interactions (user_id STRING, item_id STRING, interaction_type STRING, `timestamp` BIGINT) WITH (
  'connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{broker}',
  'properties.group.id' = '{topic}', 'scan.startup.mode' = 'earliest-offset', 'format' = 'json'
);

CREATE TABLE user_rows (
  row_key STRING, user_id STRING, total_click BIGINT, total_like BIGINT, total_view BIGINT, total_purchase BIGINT,
  total_interactions BIGINT, avg_interactions DOUBLE, last_interaction TIMESTAMP_LTZ(3),
  PRIMARY KEY (row_key) NOT ENFORCED
) WITH ({output});

CREATE TABLE item_rows (
  row_key STRING, item_id STRING, min_interactions BIGINT, max_interactions BIGINT, last_interaction TIMESTAMP_LTZ(3),
  PRIMARY KEY (row_key) NOT ENFORCED
) WITH ({output});

CREATE TABLE overall_rows (
  row_key STRING, avg_interactions DOUBLE, last_interaction TIMESTAMP_LTZ(3), PRIMARY KEY (row_key) NOT ENFORCED
) WITH ({output});

-- Grouped by the key of the row, so that it is the key of the changelog too.
CREATE TEMPORARY VIEW users AS SELECT *, total_click + total_like + total_view + total_purchase AS total FROM (
  SELECT row_key,
    COUNT(*) FILTER (WHERE interaction_type = 'click') AS total_click,
    COUNT(*) FILTER (WHERE interaction_type = 'like') AS total_like,
    COUNT(*) FILTER (WHERE interaction_type = 'view') AS total_view,
    COUNT(*) FILTER (WHERE interaction_type = 'purchase') AS total_purchase,
    MAX(`timestamp`) AS latest
  FROM (SELECT 'agg_interactions_user-' || user_id AS row_key, interaction_type, `timestamp` FROM interactions)
  GROUP BY row_key
);

CREATE TEMPORARY VIEW items AS SELECT *, total_click + total_like + total_view + total_purchase AS total FROM (
  SELECT row_key,
    COUNT(*) FILTER (WHERE interaction_type = 'click') AS total_click,
    COUNT(*) FILTER (WHERE interaction_type = 'like') AS total_like,
    COUNT(*) FILTER (WHERE interaction_type = 'view') AS total_view,
    COUNT(*) FILTER (WHERE interaction_type = 'purchase') AS total_purchase,
    MAX(`timestamp`) AS latest
  FROM (SELECT 'agg_interactions_item-' || item_id AS row_key, interaction_type, `timestamp` FROM interactions)
  GROUP BY row_key
);

-- Ratios are rounded half up to two places, in whole numbers.
INSERT INTO user_rows SELECT row_key, SUBSTRING(row_key FROM CHAR_LENGTH('agg_interactions_user-') + 1),
  total_click, total_like, total_view, total_purchase, total,
  CAST((200 * total + types) / (2 * types) AS DOUBLE) / 100, TO_TIMESTAMP_LTZ(latest, 0)
FROM (SELECT *, SIGN(total_click) + SIGN(total_like) + SIGN(total_view) + SIGN(total_purchase) AS types FROM users);

-- A type that was not seen counts as all of them for the least.
INSERT INTO item_rows SELECT row_key, SUBSTRING(row_key FROM CHAR_LENGTH('agg_interactions_item-') + 1),
  LEAST(IF(total_click > 0, total_click, total), IF(total_like > 0, total_like, total),
        IF(total_view > 0, total_view, total), IF(total_purchase > 0, total_purchase, total)),
  GREATEST(total_click, total_like, total_view, total_purchase), TO_TIMESTAMP_LTZ(latest, 0)
FROM items;

INSERT INTO overall_rows SELECT 'avg_interactions',
  CAST((200 * total + users) / (2 * users) AS DOUBLE) / 100, TO_TIMESTAMP_LTZ(latest, 0)
FROM (SELECT SUM(total) AS total, COUNT(*) AS users, MAX(latest) AS latest FROM users);
