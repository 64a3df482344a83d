"""What libraries say while they load or export a model is neither seen nor lost for later."""

import contextlib
import logging
import warnings

import pytest
import transformers
from transformers.utils import logging as bars

from stillwave.pipeline.backbones.quiet import quiet


@pytest.mark.parametrize("shown", [True, False])
def test_warnings_notes_and_bars_are_silenced_and_come_back(
    shown: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert transformers.utils.logging is bars
    was = bars.is_progress_bar_enabled()
    (bars.enable_progress_bar if shown else bars.disable_progress_bar)()
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with contextlib.suppress(RuntimeError), quiet():
                assert not bars.is_progress_bar_enabled()
                warnings.warn("own workings", stacklevel=1)
                logging.getLogger("some.library").warning("own workings")
                logging.getLogger("some.library").error("a fault")
                raise RuntimeError("of the block")
            warnings.warn("after it", stacklevel=1)
            logging.getLogger("some.library").warning("after it")
        assert bars.is_progress_bar_enabled() is shown
    finally:
        (bars.enable_progress_bar if was else bars.disable_progress_bar)()
    assert [str(warning.message) for warning in seen] == ["after it"]
    assert caplog.messages == ["a fault", "after it"]
