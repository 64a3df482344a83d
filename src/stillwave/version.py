"""Stillwave's version, which pyproject.toml reads from here: a checkout knows it without installation."""

VERSION = "0.1.0"
