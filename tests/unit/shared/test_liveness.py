from shared.liveness import Liveness


def test_nobody_watched_means_no_deadline() -> None:
    assert Liveness[str]().next_deadline() is None
    assert Liveness[str]().expire(1e9) == []


def test_the_first_late_peer_sets_the_deadline() -> None:
    liveness = Liveness[str]()
    liveness.watch("slow", 5.0, now=0.0)
    liveness.watch("quick", 1.0, now=2.0)
    assert liveness.next_deadline() == 3.0


def test_a_peer_expires_once_and_only_when_late() -> None:
    liveness = Liveness[str]()
    liveness.watch("a", 1.0, now=0.0)
    liveness.watch("b", 2.0, now=0.0)
    assert liveness.expire(0.9) == []
    assert liveness.expire(1.0) == ["a"]
    assert liveness.expire(1.0) == []
    assert liveness.next_deadline() == 2.0


def test_hearing_from_a_peer_renews_its_deadline() -> None:
    liveness = Liveness[str]()
    liveness.watch("a", 1.0, now=0.0)
    liveness.heard_from("a", now=0.8)
    assert liveness.expire(1.5) == []


def test_a_new_timeout_replaces_the_old_one() -> None:
    liveness = Liveness[str]()
    liveness.watch("a", 1.0, now=0.0)
    liveness.watch("a", 10.0, now=0.5)
    assert liveness.next_deadline() == 10.5


def test_strangers_are_ignored() -> None:
    liveness = Liveness[str]()
    liveness.heard_from("x", now=1.0)
    liveness.forget("x")
    assert liveness.next_deadline() is None
