"""Whoever waits for the lock gets it next."""

import threading
import time

from ddnn.fair_lock import FairLock


def test_thread_that_lets_go_and_takes_it_again_does_not_overtake_who_waits():
    lock, order = FairLock(), []

    def wait_for_it():
        with lock:
            order.append("waited")

    waiting = threading.Thread(target=wait_for_it)
    with lock:
        waiting.start()
        while not lock._turn.locked():
            time.sleep(0.001)
    with lock:
        order.append("again")
    waiting.join()
    assert order == ["waited", "again"]


def test_lock_is_free_after_an_exception():
    lock = FairLock()
    try:
        with lock:
            raise ValueError
    except ValueError:
        pass
    with lock:
        pass
