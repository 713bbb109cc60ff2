"""A skeleton decides its split, and a stream that runs dry is told."""

from itertools import count, cycle

import pytest

from stillroom.errors import DataError
from stillroom.tasks.skeletons import home, take
from toys import problem


def test_splits_have_their_shares() -> None:
    homes = [home(str(i)) for i in range(20_000)]
    shares = {name: homes.count(name) / len(homes) for name in ("train", "validation", "test")}
    assert shares == pytest.approx({"train": 217 / 256, "validation": 13 / 256, "test": 26 / 256}, abs=0.01)


def test_each_skeleton_is_taken_once_and_only_at_home() -> None:
    draws = (problem("", ("1 + 1", 2), skeleton=str(i // 2)) for i in count())
    found = take(50, "longer", "test", draws)
    assert len({p.skeleton for p in found}) == 50
    assert {home(p.skeleton) for p in found} == {"test"}
    assert [p.id for p in found[:2]] == ["longer-1-1", "longer-1-2"]


def test_a_stream_without_enough_different_problems_is_told() -> None:
    draws = cycle([problem("", ("1 + 1", 2), skeleton=str(i)) for i in range(30)])
    with pytest.raises(DataError, match=r"task toy: 40 problems with 1 steps are wanted for 'train', and only \d+"):
        take(40, "train", "train", draws)
