"""The live page: the pipeline's state, data and controls in the browser."""
