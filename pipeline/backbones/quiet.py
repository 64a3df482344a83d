"""Silencing third-party libraries' logs and warnings."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """In the block, no warnings, no log messages below ERROR, and no progress bars from transformers."""
    before = logging.root.manager.disable
    bars = sys.modules.get("transformers.utils.logging")  # not imported for this
    shown = bars is not None and bars.is_progress_bar_enabled()
    logging.disable(logging.WARNING)
    try:
        if bars and shown:
            bars.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        if bars and shown:
            bars.enable_progress_bar()
