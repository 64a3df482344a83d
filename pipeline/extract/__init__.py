"""Stage one: from a manifest to a store of frames."""
