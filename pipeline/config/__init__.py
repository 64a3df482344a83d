"""Typed configs: one YAML file becomes one frozen object, at the edge of a stage."""
