import pytest
from hypothesis import given
from hypothesis import strategies as st

from timfuse.runtime.schedules import cosine


@given(start=st.floats(0.1, 10), end=st.floats(0.001, 0.1), steps=st.integers(2, 200))
def test_it_falls_from_start_to_end(start, end, steps):
    values = [cosine(start, end, step, steps) for step in range(steps)]
    assert values[0] == pytest.approx(start)
    assert values[-1] == pytest.approx(end)
    assert values == sorted(values, reverse=True)
    assert [a + b for a, b in zip(values, values[::-1], strict=True)] == pytest.approx([start + end] * steps)


def test_one_step_stays_at_the_start():
    assert cosine(0.3, 0.1, 0, 1) == 0.3
