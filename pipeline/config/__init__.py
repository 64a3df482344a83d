"""Typed configs: a stage reads each YAML file into one frozen object."""
