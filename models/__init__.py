"""The whole models of the descriptions, under their names."""
