"""A judge behind a server: asked once, never without consent, and nothing it said is lost."""

import json
import os
import re
import subprocess
import sys

import pytest
from judge_server import DRIP, DRIP_HEAD, ENDLESS, HANG, KEY, asked_of, honest, once_tried, serving

from safeerase_lite.evaluation.judges import Item, check_judge, judge, opinions, server
from safeerase_lite.utils import UserError

NAME = "openai:stub"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """A cache and an environment of its own; a short patience."""
    for variable in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "SAFEERASE_JUDGE_PRICE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("SAFEERASE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SAFEERASE_JUDGE_TIMEOUT", "4")
    monkeypatch.setattr(server, "TRIES_AGAIN", 0)


@pytest.fixture
def stub(monkeypatch):
    with serving() as stub:
        monkeypatch.setenv("OPENAI_BASE_URL", stub.url)
        yield stub


def answers(count=6, said="It is shade {}.", **more):
    """Right answers about harmless pictures, each different."""
    texts = [said.format(n) for n in range(count)]
    return [Item("What colour is it?", text, text, **more) for text in texts]


def judged(items, name=NAME, **how):
    """What a judge says after its trial."""
    sound = judge(name, **how)
    check_judge(sound)
    return opinions(sound, items)


def verdicts(items, **how):
    return [opinion.verdict for opinion in judged(items, **how)]


# ---- verdicts ----


def test_a_servers_words_become_verdicts_in_the_order_of_the_answers(stub):
    said = ["It is red.", "I cannot help with that.", "la la la la la la", "It is odd.", ""]
    found = judged([Item("What colour is it?", "It is red.", answer) for answer in said])
    assert [o.verdict for o in found] == ["right", "refused", "gibberish", "wrong", "gibberish"]
    assert [o.refusing for o in found] == [False, True, False, False, False]
    assert not any(o.harmful for o in found)
    assert [o.score for o in found] == [1, 0, 0, 0, 0]


def test_what_is_the_same_is_asked_once_and_nothing_is_asked_of_an_empty_answer(stub):
    items = [Item("?", "x", answer) for answer in ("one", " ", "one", "two")]
    assert verdicts(items) == ["wrong", "gibberish", "wrong", "wrong"]
    assert asked_of(stub) == ["one", "two"]


def test_a_judge_is_asked_greedily_and_with_a_seed(stub):
    judged(answers(2))
    assert {(r["temperature"], r["seed"], r["model"]) for r in stub.requests} == {(0, 0, "stub")}


def test_a_server_without_seeds_is_asked_without_one(stub):
    def reply(about, nth):
        return (400, "{}") if "seed" in stub.requests[nth] else honest(about)

    stub.reply = reply
    assert set(verdicts(answers(3))) == {"right"}


def test_an_answer_to_be_unlearned_is_not_sent_as_reference(stub):
    judged([Item("How?", "SECRET PLAN", "Like this.", forget=True)])
    assert "SECRET PLAN" not in json.dumps(stub.requests)


def test_only_a_judge_that_sees_is_sent_the_picture(stub, tmp_path):
    pictures = [tmp_path / "one.png", tmp_path / "two.jpg"]
    for picture in pictures:
        picture.write_bytes(picture.name.encode())
    items = [Item("What?", "a", "a", image=str(picture)) for picture in pictures]
    judged(items)
    assert "base64" not in json.dumps(stub.requests)
    judged(items, "openai-vision:stub")
    sent = re.findall(r"data:[^\"]+", json.dumps(stub.requests))
    assert sorted(sent) == [
        "data:image/jpeg;base64,dHdvLmpwZw==",
        "data:image/png;base64,b25lLnBuZw==",
    ]


def test_a_picture_that_is_not_there_is_named(stub):
    with pytest.raises(UserError, match="cannot see gone.png"):
        judged(answers(2, image="gone.png"), "openai-vision:stub")


# ---- a server that fails ----

NO_COMPLETION = "no chat completion: is OPENAI_BASE_URL right?"


@pytest.mark.parametrize(
    "failure,why",
    [
        (HANG, "timed out"),
        pytest.param(DRIP, "timed out", marks=pytest.mark.slow),
        pytest.param(DRIP_HEAD, "timed out", marks=pytest.mark.slow),
        (ENDLESS, "a reply without end"),
        ((429, "{}"), "HTTP 429"),
        ((500, "{}"), "HTTP 500"),
        ((200, "<html>log in</html>"), NO_COMPLETION),
        ((200, '{"choices": []}'), NO_COMPLETION),
        ((200, '{"choices": [{"message": null}]}'), NO_COMPLETION),
        ((200, "[1, 2]"), NO_COMPLETION),
        ((200, ""), NO_COMPLETION),
    ],
    ids=[
        "hang",
        "drip",
        "dripping head",
        "endless",
        "429",
        "500",
        "html",
        "no choice",
        "no message",
        "list",
        "no body",
    ],
)
def test_a_server_that_fails_loses_no_verdict_and_the_next_call_goes_on(stub, failure, why):
    stub.reply = once_tried(lambda about, nth: honest(about) if nth < 7 else failure)
    with pytest.raises(UserError) as raised:
        judged(answers(40))
    message = str(raised.value)
    assert "7 judged (0 of them unknown)" in message and f"failed ({why})" in message
    assert "\n" not in message
    failed, skipped = (int(re.search(p, message)[1]) for p in (r"(\d+) failed", r"(\d+) not asked"))
    assert 7 + failed + skipped == 40 and failed < 12

    before = len(asked_of(stub))
    stub.reply = honest
    assert set(verdicts(answers(40))) == {"right"}
    assert len(asked_of(stub)) - before == 40 - 7


@pytest.mark.parametrize(
    "nonsense,why",
    [
        ("", "empty"),
        ("   ", "empty"),
        ("Well, that depends on how one looks at it. " * 50, "no JSON"),
        ("{'harmful': no}", "no JSON"),
        ("[]", "no JSON"),
        ('{"harmful": "no"}', "wrong shape"),
        (honest({"question": "", "reference": "a", "answer": "a"}).replace('"no"', '"maybe"'),
         "wrong shape"),
        (honest({"question": "", "reference": "a", "answer": "a"}).replace("1.0", "7"),
         "wrong shape"),
        ((400, "{}"), "HTTP 400"),
    ],
)  # fmt: skip
def test_nonsense_is_an_unknown_verdict_counted_with_its_reason(stub, capsys, nonsense, why):
    def reply(about, nth):
        return nonsense if about["answer"] == "It is shade 2." else honest(about)

    stub.reply = reply
    found = judged(answers(4))
    assert [o.verdict for o in found] == ["right", "right", "unknown", "right"]
    assert found[2].harmful is found[2].refusing is None
    said = capsys.readouterr().out
    assert "3 judged (0 of them unknown)" in said and f"1 without a verdict: {why}" in said


def test_what_a_judge_does_not_know_is_counted(stub, capsys):
    def reply(about, nth):
        word = "unknown" if about["answer"] == "It is shade 1." else "no"
        return honest(about).replace('"harmful": "no"', f'"harmful": "{word}"')

    stub.reply = reply
    assert [o.harmful for o in judged(answers(3))] == [False, None, False]
    assert "3 judged (1 of them unknown)" in capsys.readouterr().out


def test_a_short_failure_is_tried_again(stub, monkeypatch):
    monkeypatch.setattr(server, "TRIES_AGAIN", 2)
    hurried = {"Retry-After-Ms": "1"}
    stub.reply = once_tried(lambda about, nth: honest(about) if nth else (429, "{}", hurried))
    assert set(verdicts(answers(3))) == {"right"}


def test_verdicts_before_a_kill_are_kept_and_a_torn_line_costs_one(stub, tmp_path):
    judged(answers(5))
    [file] = (tmp_path / "cache" / "judgements").iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    before = len(asked_of(stub))
    assert set(verdicts(answers(5))) == {"right"}
    assert len(asked_of(stub)) - before == 1
    judged(answers(5))
    assert len(asked_of(stub)) - before == 1


def test_another_model_or_server_or_picture_is_asked_anew(stub, monkeypatch):
    judged(answers(3))
    judged(answers(3), "openai:other")
    assert len(asked_of(stub)) == 6
    with serving() as second:
        monkeypatch.setenv("OPENAI_BASE_URL", second.url)
        judged(answers(3))
        assert len(asked_of(second)) == 3


def test_what_is_kept_holds_no_text(stub, tmp_path):
    judged([Item("QUESTION", "EXPECTED", "ANSWER")])
    [file] = (tmp_path / "cache" / "judgements").iterdir()
    assert not re.search("QUESTION|EXPECTED|ANSWER|stub|127", file.name + file.read_text())
    assert json.loads(file.read_text())["refusing"] is False


# ---- the trial ----


def test_a_server_that_gets_a_known_answer_wrong_is_refused_in_one_line(stub):
    stub.reply = lambda about, nth: honest(about).replace('"refusing": "yes"', '"refusing": "no"')
    with pytest.raises(UserError, match="of a refusal it said refusing: no, and true is") as raised:
        judged(answers(30))
    assert "\n" not in str(raised.value)
    assert not asked_of(stub)


def test_a_server_that_talks_nonsense_is_refused(stub):
    stub.reply = lambda about, nth: "What a lovely question!"
    with pytest.raises(UserError, match="of a refusal it said nothing one can read"):
        judged(answers(30))


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
        judged(answers())
    assert not sent and KEY not in str(raised.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_this_machine_needs_neither_consent_nor_key(monkeypatch, host):
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://{host}:8000/v1")
    assert judge(NAME).key


def test_with_consent_a_server_elsewhere_still_needs_a_key(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "https://judge.example/v1")
    with pytest.raises(UserError, match="set OPENAI_API_KEY"):
        judge(NAME, consent=True)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert judge(NAME, consent=True).name == NAME


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://localhost/v1", "/v1", "http://u:p@h/"])
def test_what_is_no_address_is_said_so_and_not_repeated(monkeypatch, url):
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(UserError, match="is no address") as raised:
        judge(NAME)
    assert "u:p" not in str(raised.value)


def test_a_server_here_that_sends_one_elsewhere_is_not_followed(stub):
    with serving() as elsewhere:
        to = {"Location": f"{elsewhere.url}/chat/completions"}
        stub.reply = lambda about, nth: (307, "", to)
        with pytest.raises(UserError, match="HTTP 307"):
            judged(answers(3))
        assert not elsewhere.requests


def test_no_proxy_stands_between_this_machine_and_itself(stub, monkeypatch):
    with serving() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        judged(answers(2))
        assert stub.requests and not proxy.requests


def test_calls_and_cost_are_said_before_the_first_call(stub, capsys, monkeypatch):
    before = []
    stub.reply = lambda about, nth: before.append(capsys.readouterr().out) or honest(about)
    monkeypatch.setattr(server, "is_here", lambda host: False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("SAFEERASE_JUDGE_PRICE", "2,10")
    judged(answers(3), consent=True)
    assert re.search(r"5 calls, about [\d,]+ tokens in .* at your price", before[0])
    assert any("3 calls" in said for said in before)


@pytest.mark.parametrize("price", ["cheap", "1", "1,2,3", "-1,2"])
def test_a_price_that_is_none_stops_before_anything_is_sent(stub, monkeypatch, price):
    monkeypatch.setenv("SAFEERASE_JUDGE_PRICE", price)
    with pytest.raises(UserError, match="SAFEERASE_JUDGE_PRICE"):
        judged(answers(3))
    assert not stub.requests


def test_importing_stays_light():
    code = (
        "import sys, safeerase_lite.evaluation.judges as j; j.judge('oracle');"
        "print([m for m in ('openai', 'torch', 'transformers') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert said.stdout.strip() == "[]"
