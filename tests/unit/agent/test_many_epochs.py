"""An agent that is restarted again and again while its Xray and its spool live on."""

from pathlib import Path

from xfleet_agent import outbox, reconcile
from xfleet_agent.spool import Spool
from xfleet_contracts import codec
from xfleet_contracts.traffic import BatchName, LedgerAnswer


def test_a_question_fits_into_a_message_after_thousands_of_restarts(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", now_ms=0)
    spool.begin_start("x1", 0)
    first = spool.epoch
    spool.add_reading("x1", 1, {"c:1.10": (5, 5)})
    spool.seal(now_ms=1, instance="i")
    spool.db.execute("BEGIN")
    for number in range(5000):
        epoch = f"{number:024x}"
        spool.db.execute("INSERT INTO epochs (epoch, sealed_through) VALUES (?, 3)", (epoch,))
        spool.db.execute("INSERT INTO epoch_starts VALUES (?, 'x1')", (epoch,))
    spool.db.execute("COMMIT")
    spool.begin_epoch()

    question = reconcile.question(spool, instance="i", starts=("x1",))
    assert len(codec.encode(question)) < 64 * 1024
    asked = [mark.epoch for mark in question.known]
    assert asked[-1] == first, "what waits for its receipt is asked about first of all"
    assert asked[-2] == f"{4999:024x}"
    assert len(asked) == outbox.MAX_KNOWN_EPOCHS
    ours, theirs = BatchName(epoch=f"{7:024x}", seq=3), BatchName(epoch=f"{7:024x}", seq=4)
    findings = reconcile.digest_answer(spool, LedgerAnswer(pending_count=0, foreign=(ours, theirs)), now_ms=2)
    assert findings.subtract == (theirs,), "an epoch nobody had room to name is still ours"
