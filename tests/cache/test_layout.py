import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwave.cache.layout import Item, Spec, plan_units

lengths_lists = st.lists(st.integers(1, 60), max_size=40)


@given(lengths_lists, st.integers(0, 5))
def test_units_own_whole_shards_and_every_item_once(lengths: list[int], first_shard: int) -> None:
    items = [Item(f"{i:03d}", 0) for i in range(len(lengths))]
    units = plan_units(items, np.array(lengths, dtype=np.int64), 16, first_shard=first_shard, number=7)
    assert sorted(item for unit in units for item in unit.items) == items
    shard = first_shard
    for number, unit in enumerate(units, start=7):
        assert (unit.number, unit.first_shard) == (number, shard)
        position = shard * 16
        for item, offset, length in zip(unit.items, unit.offsets, unit.lengths, strict=True):
            assert offset == position
            assert length == lengths[int(item.content_key)]
            position += length
        shard += unit.num_shards
        assert position <= shard * 16
        assert list(unit.lengths) == sorted(unit.lengths)
        assert unit.num_shards == -(-unit.lengths[0] // 16)


@given(lengths_lists, st.randoms())
def test_the_plan_does_not_depend_on_the_order_of_the_rows(lengths: list[int], random: object) -> None:
    items = [Item(f"{i:03d}", 0) for i in range(len(lengths))]
    order = list(range(len(lengths)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = plan_units(
        [items[i] for i in order], np.array([lengths[i] for i in order], dtype=np.int64), 16
    )
    assert shuffled == plan_units(items, np.array(lengths, dtype=np.int64), 16)


def test_default_shards_hold_16k_frames_but_never_more_than_32_mib() -> None:
    assert Spec(dim=768).shard_frames == 16_384
    all_layers = Spec(dim=768, layers=13)
    assert all_layers.shard_frames * all_layers.frame_bytes <= 32 * 2**20
    assert all_layers.shard_frames % all_layers.chunk_frames == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim >= 1"),
        ({"dim": 3, "dtype": "int8"}, "float16 or float32"),
        ({"dim": 3, "chunk_frames": 10, "shard_frames": 25}, "25 % 10 = 5"),
        ({"dim": 3, "compressor": "lz4"}, "zstd"),
    ],
)
def test_a_spec_that_cannot_be_stored_says_why(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spec(**arguments)  # type: ignore[arg-type]
