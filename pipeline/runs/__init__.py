"""A run: its folder, its model, and the rows that it reads."""
