"""One config class per kind of backbone; pipeline/config/backbone.py is their union."""
