import pytest
from hypothesis import given
from hypothesis import strategies as st

from timfuse.runtime.schedules import cosine, warmed_cosine


@given(start=st.floats(0.1, 10), end=st.floats(0.001, 0.1), steps=st.integers(2, 200))
def test_it_falls_from_start_to_end(start, end, steps):
    values = [cosine(start, end, step, steps) for step in range(steps)]
    assert values[0] == pytest.approx(start)
    assert values[-1] == pytest.approx(end)
    assert values == sorted(values, reverse=True)
    assert [a + b for a, b in zip(values, values[::-1], strict=True)] == pytest.approx([start + end] * steps)


def test_one_step_stays_at_the_start():
    assert cosine(0.3, 0.1, 0, 1) == 0.3


@given(highest=st.floats(0.01, 10), steps=st.integers(1, 100), data=st.data())
def test_it_rises_in_a_line_and_falls_to_a_hundredth(highest, steps, data):
    warmup = data.draw(st.integers(0, steps - 1))
    values = [warmed_cosine(highest, step, steps, warmup) for step in range(steps)]
    assert values[:warmup] == pytest.approx([highest * (step + 1) / warmup for step in range(warmup)])
    assert values[warmup] == pytest.approx(highest)
    assert values[warmup:] == sorted(values[warmup:], reverse=True)
    if steps - warmup > 1:
        assert values[-1] == pytest.approx(highest / 100)
