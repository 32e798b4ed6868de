"""The default declaration without the tables by windows of time, which the peers do not compute."""

import pipeline
from contract.declaration import Pipeline

TABLES = tuple(table for table in pipeline.PIPELINE.tables if table.key.window is None)
PIPELINE = Pipeline(pipeline.INTERACTION, tables=TABLES, overview=pipeline.PIPELINE.overview)
