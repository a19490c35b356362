"""A judge behind a server: paid once, never used without consent, and no verdict is lost."""

import base64
import gzip
import json
import re
from io import BytesIO

import pytest
from judge_server import (
    KEY,
    after_sanity_check,
    check_that_no_verdict_is_lost,
    completion,
    honest,
    judgments_of,
    right_answers,
    serving,
)
from PIL import Image

from safeerase_lite.evaluation.judges import (
    JudgeItem,
    check_judge,
    get_judge,
    server,
)
from safeerase_lite.utils import UserError

NAME = "openai:stub"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """A cache and variables of the test's own, and no second try."""
    for variable in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "SAFEERASE_JUDGE_PRICE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SAFEERASE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(server, "MAX_RETRIES", 0)


@pytest.fixture
def stub(monkeypatch):
    with serving() as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        yield stub


def verdicts_of(items):
    return [judgment.verdict for judgment in judgments_of(items)]


# ---- verdicts ----


def test_replies_become_judgments_in_the_order_of_the_answers(stub):
    answers = ["It is red.", "I cannot help with that.", "la la la la la la", "It is odd.", ""]
    judgments = judgments_of([JudgeItem("What colour?", "It is red.", text) for text in answers])
    assert [(j.verdict, j.refusing, j.harmful, j.score) for j in judgments] == [
        ("right", False, False, 1),
        ("refused", True, False, 0),
        ("gibberish", False, False, 0),
        ("wrong", False, False, 0),
        ("gibberish", False, False, 0),
    ]


def test_equal_answers_are_sent_once_and_empty_ones_never(stub):
    items = [JudgeItem("?", "x", answer) for answer in ("one", " ", "one", "two")]
    assert verdicts_of(items) == ["wrong", "gibberish", "wrong", "wrong"]
    assert stub.judged == ["one", "two"]


def test_decoding_is_greedy_and_seeded(stub):
    judgments_of(right_answers(2))
    assert {(r["temperature"], r["seed"], r["model"]) for r in stub.requests} == {(0, 0, "stub")}


def test_a_server_that_refuses_seeds_gets_none(stub):
    def reply(about, nth):
        return (400, "{}") if "seed" in stub.requests[nth] else honest(about)

    stub.reply = reply
    assert set(verdicts_of(right_answers(3))) == {"right"}


@pytest.mark.parametrize("says", [True, False])
def test_a_server_that_refuses_parameters_is_asked_without_them(stub, capsys, says):
    def reply(about, nth):
        refused = [name for name in ("max_tokens", "temperature") if name in stub.requests[nth]]
        body = json.dumps({"error": {"message": f"Unsupported: {refused[0]!r}"}}) if refused else ""
        return (400, body if says else "{}") if refused else honest(about)

    stub.reply = reply
    assert set(verdicts_of(right_answers(3))) == {"right"}
    assert "max_tokens, temperature; asked without" in capsys.readouterr().out
    last = stub.requests[-1]  # what was accepted once is kept
    assert last["max_completion_tokens"] == 256 and ("response_format" in last) is says


def test_a_filter_does_not_change_what_is_asked_of_others(stub):
    def reply(about, nth):
        return (400, "{}") if about["answer"] == "It is shade 1." else honest(about)

    stub.reply = reply
    assert verdicts_of(right_answers(3)) == ["right", "unknown", "right"]
    assert all("response_format" in request for request in stub.requests)


def test_a_verdict_after_reasoning_is_read(stub):
    def reply(about, nth):
        wrong = honest(about).replace("yes", "no")
        return f"<think>{{so}} like {wrong}</think>\n```json\n{honest(about)}\n```"

    stub.reply = reply
    assert set(verdicts_of(right_answers(3))) == {"right"}


def test_a_reply_may_have_more_tokens(stub, monkeypatch):
    monkeypatch.setenv("SAFEERASE_JUDGE_TOKENS", "4000")
    judgments_of(right_answers(1))
    assert {request["max_tokens"] for request in stub.requests} == {4000}


def test_an_answer_to_be_unlearned_is_not_sent_as_reference(stub):
    judgments_of([JudgeItem("How?", "SECRET PLAN", "Like this.", forget=True)])
    assert "SECRET PLAN" not in json.dumps(stub.requests)


def test_only_a_vision_judge_is_sent_the_picture(stub, tmp_path):
    pictures = [tmp_path / "one.png", tmp_path / "two.jpg"]
    exif = Image.Exif()
    exif[0x010F] = "Acme cameras"
    for picture, colour in zip(pictures, ("red", "blue"), strict=True):
        Image.new("RGB", (16, 8), colour).save(picture, "PNG", exif=exif)  # also under a wrong name
    items = [JudgeItem("What?", "a", "a", image=str(picture)) for picture in pictures]
    judgments_of(items)
    assert "base64" not in json.dumps(stub.requests)
    judgments_of(items, "openai-vision:stub")
    sent = re.findall(r"data:image/jpeg;base64,([^\"]+)", json.dumps(stub.requests))
    shown = [Image.open(BytesIO(base64.b64decode(text))) for text in sent]
    assert [(image.format, image.size, len(image.getexif())) for image in shown] == [
        ("JPEG", (16, 8), 0)
    ] * 2
    red, _, blue = zip(*(image.getpixel((3, 3)) for image in shown), strict=True)
    assert max(red) > 250 and max(blue) > 250


def test_a_picture_that_is_none_is_named(stub, tmp_path):
    (tmp_path / "one.png").write_bytes(b"no picture")
    items = right_answers(1, image=str(tmp_path / "one.png"))
    with pytest.raises(UserError, match=r"cannot see .*one.png: it is no picture"):
        judgments_of(items, "openai-vision:stub")


def test_a_picture_that_is_not_there_is_named(stub):
    with pytest.raises(UserError, match="cannot see gone.png"):
        judgments_of(right_answers(2, image="gone.png"), "openai-vision:stub")


# ---- a server that fails ----

NO_COMPLETION = "no chat completion: is OPENAI_BASE_URL right?"


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ((429, "{}"), "HTTP 429"),
        ((500, "{}"), "HTTP 500"),
        ((200, "<html>log in</html>"), NO_COMPLETION),
        ((200, '{"choices": null}'), NO_COMPLETION),
        ((200, "[1, 2]"), NO_COMPLETION),
        ((200, ""), NO_COMPLETION),
    ],
)
def test_a_server_that_fails_loses_no_verdict_and_the_next_call_goes_on(stub, failure, reason):
    check_that_no_verdict_is_lost(stub, failure, reason)


VERDICT = honest({"question": "", "reference": "a", "answer": "a"})


@pytest.mark.parametrize(
    ("nonsense", "reason"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("Well, that depends on how one looks at it. " * 50, "no JSON"),
        ("{'harmful': no}", "no JSON"),
        ("[]", "no JSON"),
        ('{"harmful": "no"}', "wrong shape"),
        (VERDICT.replace('"no"', '"maybe"'), "wrong shape"),
        (VERDICT.replace("1.0", "7"), "wrong shape"),
        ((400, "{}"), "HTTP 400"),
        ((403, "{}"), "HTTP 403"),
        ((200, '{"choices": []}'), "empty"),
        ((200, '{"choices": [{"message": null}]}'), "empty"),
        (completion(None), "empty"),
        (completion(None, "tool_calls", tool_calls=[]), "stopped before its end"),
        (completion(VERDICT, "content_filter"), "stopped before its end"),
        (completion(VERDICT, "length"), "cut at 256 tokens, raise SAFEERASE_JUDGE_TOKENS"),
        (f"<think>I reply like {VERDICT} so let", "reasoning without an end"),
        (completion(None, "length", reasoning_content=VERDICT), "cut at 256 tokens"),
    ],
)  # fmt: skip
def test_nonsense_is_an_unknown_verdict_counted_with_its_reason(stub, capsys, nonsense, reason):
    def reply(about, nth):
        return nonsense if about["answer"] == "It is shade 2." else honest(about)

    stub.reply = reply
    judgments = judgments_of(right_answers(4))
    assert [j.verdict for j in judgments] == ["right", "right", "unknown", "right"]
    assert judgments[2].harmful is judgments[2].refusing is None
    output = capsys.readouterr().out
    assert "3 judged (0 of them unknown)" in output and f"1 without a verdict: {reason}" in output


def test_what_a_judge_does_not_know_is_counted(stub, capsys):
    def reply(about, nth):
        word = "unknown" if about["answer"] == "It is shade 1." else "no"
        return honest(about).replace('"harmful": "no"', f'"harmful": "{word}"')

    stub.reply = reply
    assert [j.harmful for j in judgments_of(right_answers(3))] == [False, None, False]
    assert "3 judged (1 of them unknown)" in capsys.readouterr().out


def test_a_short_failure_is_tried_again(stub, monkeypatch):
    monkeypatch.setattr(server, "MAX_RETRIES", 2)
    busy = (429, "{}", {"Retry-After-Ms": "1"})
    stub.reply = after_sanity_check(lambda about, nth: honest(about) if nth else busy)
    assert set(verdicts_of(right_answers(3))) == {"right"}


def test_verdicts_before_a_kill_are_stored_and_a_torn_line_costs_one(stub, tmp_path):
    judgments_of(right_answers(5))
    [file] = (tmp_path / "cache" / "verdicts").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    before = len(stub.judged)
    assert set(verdicts_of(right_answers(5))) == {"right"}
    assert len(stub.judged) - before == 1
    judgments_of(right_answers(5))
    assert len(stub.judged) - before == 1


def test_another_model_or_server_judges_anew(stub, monkeypatch):
    judgments_of(right_answers(3))
    judgments_of(right_answers(3), "openai:other")
    assert len(stub.judged) == 6
    with serving() as second:
        monkeypatch.setenv("OPENAI_BASE_URL", second.url)
        judgments_of(right_answers(3))
        assert len(second.judged) == 3


def test_the_cache_of_verdicts_holds_no_text_and_is_closed_to_others(stub, tmp_path):
    judgments_of([JudgeItem("QUESTION", "EXPECTED", "ANSWER")])
    [file] = (tmp_path / "cache" / "verdicts").iterdir()
    assert not re.search(r"QUESTION|EXPECTED|ANSWER|stub|127\.0", file.name + file.read_text())
    [_, judgment, _] = json.loads(file.read_text())
    assert judgment["refusing"] is False
    assert file.parent.stat().st_mode & 0o077 == 0


# ---- the sanity check ----


def test_a_server_that_gets_a_known_answer_wrong_is_refused_in_one_line(stub):
    stub.reply = lambda about, nth: honest(about).replace('"refusing": "yes"', '"refusing": "no"')
    with pytest.raises(UserError, match="for a refusal it gave refusing: no, and") as raised:
        judgments_of(right_answers(30))
    assert "\n" not in str(raised.value)
    assert not stub.judged


def test_a_server_that_talks_nonsense_is_refused(stub):
    stub.reply = lambda about, nth: "What a lovely question!"
    with pytest.raises(UserError, match=r"6 of 6 replies hold no readable verdict \(no JSON\)"):
        judgments_of(right_answers(30))


def test_one_known_answer_without_a_verdict_is_named_with_the_reason(stub):
    stub.reply = lambda about, nth: "{}" if "blue" in about["answer"] else honest(about)
    with pytest.raises(
        UserError, match=r"a wrong answer it gave no readable verdict \(wrong shape"
    ):
        judgments_of(right_answers(3))


@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_server_that_refuses_all_is_said_so_in_its_own_words_without_the_key(
    stub, monkeypatch, status
):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    body = json.dumps({"error": {"message": f"no model 'stub'\nfor {KEY}"}})
    stub.reply = lambda about, nth: (status, body)
    reason = rf"6 of 6 replies .*\(HTTP {status}, the server says: no model 'stub' for \*\*\*\)"
    with pytest.raises(UserError, match=reason) as raised:
        judgments_of(right_answers(3))
    assert KEY not in str(raised.value) and "\n" not in str(raised.value)


def test_a_servers_words_about_answers_are_not_repeated(stub, capsys):
    body = json.dumps({"error": {"message": "It is shade 1"}})
    stub.reply = after_sanity_check(lambda about, nth: (400, body))
    assert set(verdicts_of(right_answers(3))) == {"unknown"}
    output = capsys.readouterr().out
    assert "HTTP 400" in output and "shade" not in output


def test_true_and_false_are_yes_and_no(stub):
    def reply(about, nth):
        return honest(about).replace('"yes"', "true").replace('"no"', "false")

    stub.reply = reply
    assert set(verdicts_of(right_answers(3))) == {"right"}


# ---- consent, cost ----


@pytest.mark.parametrize(
    "url",
    ["http://judge.example/v1", "https://127.0.0.1.example/v1", "http://192.0.2.7:8000/v1",
     "http://0.0.0.0:8000/v1", "http://localhost.example/v1", None],
)  # fmt: skip
def test_elsewhere_is_refused_without_consent_before_anything_is_sent(monkeypatch, url):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    if url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
    sent = []
    monkeypatch.setattr("socket.socket.connect", lambda *a: sent.append(a))
    monkeypatch.setattr("socket.getaddrinfo", lambda *a, **k: sent.append(a))
    with pytest.raises(UserError, match="judge_consent=True") as raised:
        judgments_of(right_answers())
    assert not sent and KEY not in str(raised.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_this_machine_needs_neither_consent_nor_key(monkeypatch, host):
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://{host}:8000/v1")
    assert get_judge(NAME).cache_key


def test_with_consent_a_server_elsewhere_still_needs_a_key(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "https://judge.example/v1")
    with pytest.raises(UserError, match="set OPENAI_API_KEY"):
        get_judge(NAME, consent=True)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert get_judge(NAME, consent=True).name == NAME


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://localhost/v1", "/v1", "http://u:p@h/"])
def test_what_is_no_address_is_said_so_and_not_repeated(monkeypatch, url):
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(UserError, match="is no address") as raised:
        get_judge(NAME)
    assert "u:p" not in str(raised.value)


def test_an_address_that_changes_after_consent_is_not_used(stub, monkeypatch):
    judge = get_judge(NAME)
    with serving() as elsewhere:
        monkeypatch.setenv("OPENAI_BASE_URL", elsewhere.url)
        check_judge(judge)
        assert stub.requests and not elsewhere.requests


def test_a_compressed_reply_is_read(stub):
    def reply(about, nth):
        body = json.dumps({"choices": [{"message": {"content": honest(about)}}]}).encode()
        return 200, gzip.compress(body), {"Content-Encoding": "gzip"}

    stub.reply = reply
    assert set(verdicts_of(right_answers(2))) == {"right"}


@pytest.mark.parametrize("status", [200, 500])
def test_a_small_reply_that_unpacks_to_a_huge_one_is_not_unpacked(stub, monkeypatch, status):
    bomb = status, gzip.compress(b" " * (server.MAX_REPLY_BYTES + 1)), {"Content-Encoding": "gzip"}
    stub.reply = lambda about, nth: bomb
    with pytest.raises(UserError, match=r"failed \(a reply without end\)"):
        judgments_of(right_answers(2))


def test_a_server_here_that_sends_one_elsewhere_is_not_followed(stub):
    with serving() as elsewhere:
        to = {"Location": f"{elsewhere.url}/chat/completions"}
        stub.reply = lambda about, nth: (307, "", to)
        with pytest.raises(UserError, match="HTTP 307"):
            judgments_of(right_answers(3))
        assert not elsewhere.requests


def test_no_proxy_stands_between_this_machine_and_itself(stub, monkeypatch):
    with serving() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        judgments_of(right_answers(2))
        assert stub.requests and not proxy.requests


def test_calls_and_cost_are_printed_before_the_first_call(stub, capsys, monkeypatch):
    before = []
    stub.reply = lambda about, nth: before.append(capsys.readouterr().out) or honest(about)
    monkeypatch.setattr(server, "is_loopback", lambda host: False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("SAFEERASE_JUDGE_PRICE", "2,10")
    judgments_of(right_answers(3), consent=True)
    assert re.search(r"6 calls, about [\d,]+ tokens in .* at your price", before[0])
    assert any("3 calls" in output for output in before)


@pytest.mark.parametrize("price", ["cheap", "1", "1,2,3", "-1,2"])
def test_a_price_that_is_none_stops_before_anything_is_sent(stub, monkeypatch, price):
    monkeypatch.setenv("SAFEERASE_JUDGE_PRICE", price)
    with pytest.raises(UserError, match="SAFEERASE_JUDGE_PRICE"):
        judgments_of(right_answers(3))
    assert not stub.requests
