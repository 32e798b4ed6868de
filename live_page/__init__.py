"""The pipeline in the browser: what it does now, what it holds, and its controls."""
