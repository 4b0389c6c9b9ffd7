"""Work on another thread: what it returns and raises arrives at who asks."""

import threading
import time

import pytest

from cfsbuild.begun import Begun, at_once


def raising(error):
    raise error


def test_what_was_begun_goes_on_meanwhile_and_its_value_arrives():
    go = threading.Event()
    begun = Begun(lambda: go.wait(10), name="test")
    go.set()
    assert begun.result() is True


def test_what_it_raises_is_raised_where_it_is_asked_for():
    begun = Begun(lambda: raising(KeyError("lost")), name="test")
    begun.settle()
    with pytest.raises(KeyError, match="lost"):
        begun.result()


def test_calls_made_at_once_wait_for_each_other_and_return_in_order():
    together = threading.Barrier(3)

    def call(number):
        together.wait(10)
        return number

    assert at_once([lambda number=number: call(number) for number in range(3)], name="test") == [0, 1, 2]
    assert at_once([], name="test") == []


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_is_raised_when_all_have_ended(failing):
    ended = []

    def call(number):
        if number == failing:
            raise OSError(number)
        time.sleep(0.05)
        ended.append(number)

    with pytest.raises(OSError, match=str(failing)):
        at_once([lambda number=number: call(number) for number in range(3)], name="test")
    assert sorted(ended) == [number for number in range(3) if number != failing]
