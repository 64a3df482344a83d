"""The complete models, under the names of their descriptions."""
