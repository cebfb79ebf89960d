"""What is made ahead comes in its order, once, and no further ahead than by one."""

import threading
import time

import pytest

from fastzss.base.background import in_order, made_ahead


def test_items_come_in_order_and_are_made_while_others_are_used():
    made, closed = [], []

    def items():
        try:
            for number in range(5):
                made.append((number, threading.current_thread().name))
                yield number
        finally:
            closed.append(True)

    for number in made_ahead(items()):
        time.sleep(0.02)
        assert len(made) == min(5, number + 2)
    assert [number for number, _ in made] == list(range(5)) and closed
    assert threading.current_thread().name not in {name for _, name in made}


def test_closing_it_closes_what_it_draws_from():
    closed = []

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    ahead = made_ahead(items())
    next(ahead)
    ahead.close()
    assert closed and not any(t.name.startswith("ahead") for t in threading.enumerate())


def test_a_failure_is_raised_where_the_item_is_wanted():
    def items():
        yield 1
        raise ValueError("broken")

    ahead = made_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)


@pytest.mark.parametrize("threads", [1, 3])
def test_what_several_make_comes_in_order_and_a_problem_where_it_was(threads):
    begun = []

    def work(number):
        begun.append(number)
        time.sleep(0.02 * (number % 3 == 0))
        if number == 7:
            raise ValueError("seven")
        return number * number

    made = in_order(work, iter(range(100)), threads)
    with pytest.raises(ValueError, match="seven"):
        assert [next(made) for _ in range(7)] == [0, 1, 4, 9, 16, 25, 36] and next(made)
    assert max(begun) <= 7 + threads, "no more is begun than can be worked on"
