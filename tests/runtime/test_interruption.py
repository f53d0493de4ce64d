import os
import signal
import threading

import pytest

from timfuse.runtime.interruption import deferred_interrupt


@pytest.fixture(autouse=True)
def _usual_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press():
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_is_noted_and_the_second_interrupts():
    with deferred_interrupt() as interrupted:
        assert not interrupted()
        press()
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_afterwards_ctrl_c_interrupts_again_whatever_happened_inside():
    with pytest.raises(ZeroDivisionError), deferred_interrupt():
        raise ZeroDivisionError
    with pytest.raises(KeyboardInterrupt):
        press()


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_a_caller_who_ignores_or_handles_it_goes_on_to(handler):
    signal.signal(signal.SIGINT, handler)
    with deferred_interrupt() as interrupted:
        assert signal.getsignal(signal.SIGINT) is handler
        press()
        assert not interrupted()
    assert signal.getsignal(signal.SIGINT) is handler


def test_other_threads_leave_it_alone():
    seen = []

    def work():
        with deferred_interrupt() as interrupted:
            seen.append(interrupted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
