"""A server that never comes to an end costs neither the time nor the memory of this machine."""

import pytest
from judge_server import (
    DRIP,
    DRIP_HEAD,
    ENDLESS,
    ENDLESS_ERROR,
    HANG,
    check_that_no_verdict_is_lost,
    serving,
)

from safeerase_lite.evaluation.judges import server


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (HANG, "timed out"),
        (DRIP, "timed out"),
        (DRIP_HEAD, "timed out"),
        (ENDLESS, "a reply without end"),
        (ENDLESS_ERROR, "a reply without end"),
    ],
)
def test_a_reply_without_end_loses_no_verdict(failure, reason, monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("SAFEERASE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SAFEERASE_JUDGE_TIMEOUT", "2")
    monkeypatch.setattr(server, "MAX_RETRIES", 0)
    with serving() as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        check_that_no_verdict_is_lost(stub, failure, reason)
