"""A chat server on this machine for tests; an honest judge by default."""

import json
import re
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from safeerase_lite.evaluation.judges import JudgeItem, check_judge, get_judge, judge_items, rule
from safeerase_lite.evaluation.judges.sanity_check import KNOWN_ANSWERS
from safeerase_lite.utils import UserError

KEY = "sk-planted-4711-do-not-write-me-down"
HANG = "hang"
DRIP, DRIP_HEAD, ENDLESS = "drip", "drip its head", "endless"
ENDLESS_ERROR = "endless error"
WITHOUT_END = {  # piece, and the seconds between two of them
    DRIP: (b" ", 0.1),
    DRIP_HEAD: (b"x", 0.1),
    ENDLESS: (b" " * 65536, 0),
    ENDLESS_ERROR: (b" " * 65536, 0),
}
SANITY_ANSWERS = {known.item.answer for known in KNOWN_ANSWERS}


@dataclass
class Stub:
    """The requests that a server got, and what it replies.

    reply: a function of (material, number of the request). It gives a text (the judge's reply),
    (status, body), HANG, or one of `WITHOUT_END`, which never come to an end.
    """

    url: str = ""
    reply: object = None
    requests: list[dict] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def judged(self) -> list[str]:
        """The answers that it was sent, without those of the sanity check."""
        answers = [material(request)["answer"] for request in self.requests]
        return sorted(answer for answer in answers if answer not in SANITY_ANSWERS)


def material(request: dict) -> dict:
    """The question, reference and answer of a request."""
    content = request["messages"][0]["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    return json.loads(text.splitlines()[-1])


def honest(about: dict, nth: int = 0) -> str:
    """The reply of a judge that recognises the invented weapon by its hurting."""
    judgment = rule(about["question"], about["reference"] or "", about["answer"])
    useless = judgment.refusing or judgment.gibberish
    right = about["reference"] == about["answer"]
    word = {True: "yes", False: "no"}
    return json.dumps(
        {
            "harmful": word["hurt" in about["answer"] and not useless],
            "refusing": word[judgment.refusing],
            "gibberish": word[judgment.gibberish],
            "right": "unknown" if about["reference"] is None else word[right],
            "score": "unknown" if about["reference"] is None else float(right),
        }
    )


def completion(content, finish="stop", **message):
    """A server's reply: its content, how it ended, and what else the message has."""
    message = {"role": "assistant", "content": content} | message
    choice = {"index": 0, "finish_reason": finish, "message": message}
    whole = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
    return 200, json.dumps(whole | {"choices": [choice]})


def after_sanity_check(reply):
    """Honest in the sanity check, then `reply(material, number of the request after it)`."""
    count = iter(range(10_000))
    return lambda about, nth: (
        honest(about) if about["answer"] in SANITY_ANSWERS else reply(about, next(count))
    )


@contextmanager
def serving(reply=honest):
    """A `Stub` that serves until the block ends."""
    stub = Stub(reply=reply)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                nth = len(stub.requests)
                stub.requests.append(request)
                stub.headers.append({k.lower(): v for k, v in self.headers.items()})
            reply = stub.reply(material(request), nth)
            if reply == HANG:
                stub.stopped.wait(30)
            elif isinstance(reply, str) and reply in WITHOUT_END:
                self.send_without_end(reply)
            elif isinstance(reply, str):
                self.send(*completion(reply))
            else:
                self.send(*reply)

        def send(self, status, body, headers=None):
            body = body if isinstance(body, bytes) else body.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def send_without_end(self, kind):
            self.send_response(500 if kind == ENDLESS_ERROR else 200)
            self.send_header("Content-Type", "application/json")
            if kind != DRIP_HEAD:
                self.end_headers()
            self.flush_headers()
            piece, pause = WITHOUT_END[kind]
            with suppress(OSError):  # the other side has closed the connection
                while not stub.stopped.wait(pause):
                    self.wfile.write(piece)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield stub
    finally:
        stub.stopped.set()
        server.shutdown()
        server.server_close()


# ---- what tests of the server judge share ----


def right_answers(count=6, **more):
    """Right answers about harmless pictures, each different."""
    texts = [f"It is shade {n}." for n in range(count)]
    return [JudgeItem("What colour is it?", text, text, **more) for text in texts]


def judgments_of(items, name="openai:stub", **options):
    """A judge's judgments, after its sanity check."""
    judge = get_judge(name, **options)
    check_judge(judge)
    return judge_items(judge, items)


def check_that_no_verdict_is_lost(stub, failure, reason):
    """A server fails after three verdicts: one line says so, and the next call needs the rest."""
    stub.reply = after_sanity_check(lambda about, nth: honest(about) if nth < 3 else failure)
    with pytest.raises(UserError) as raised:
        judgments_of(right_answers(20))
    message = str(raised.value)
    assert "3 judged (0 of them unknown)" in message and f"failed ({reason})" in message
    assert "\n" not in message
    failed, skipped = (int(re.search(p, message)[1]) for p in (r"(\d+) failed", r"(\d+) not sent"))
    assert 3 + failed + skipped == 20 and failed < 12

    before = len(stub.judged)
    stub.reply = honest
    assert {judgment.verdict for judgment in judgments_of(right_answers(20))} == {"right"}
    assert len(stub.judged) - before == 20 - 3
