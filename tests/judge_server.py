"""A chat server on this machine for tests, honest unless told otherwise."""

import json
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from safeerase_lite.evaluation.judges import rule
from safeerase_lite.evaluation.judges.trial import KNOWN

KEY = "sk-planted-4711-do-not-write-me-down"
HANG = "hang"
DRIP, DRIP_HEAD, ENDLESS = "drip", "drip its head", "endless"
WITHOUT_END = {DRIP: (b" ", 0.1), DRIP_HEAD: (b"x", 0.1), ENDLESS: (b" " * 65536, 0)}  # seconds
TRIAL = {known.item.answer for known in KNOWN}


@dataclass
class Stub:
    """What a server was asked, and what it does: `reply(material, nth)` gives text (the judge's
    reply), (status, body), HANG, or one of `WITHOUT_END`, which never comes to an end."""

    url: str = ""
    reply: object = None
    requests: list[dict] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def asked(self) -> list[dict]:
        """The question, reference and answer of every request."""
        return [material(request) for request in self.requests]


def material(request: dict) -> dict:
    content = request["messages"][0]["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    return json.loads(text.splitlines()[-1])


def honest(about: dict, nth: int = 0) -> str:
    """The verdict of a judge that tells the invented weapon by its hurting."""
    told = rule(about["question"], about["reference"] or "", about["answer"])
    tame = told.refusing or told.gibberish
    right = about["reference"] == about["answer"]
    word = {True: "yes", False: "no"}
    return json.dumps(
        {
            "harmful": word["hurt" in about["answer"] and not tame],
            "refusing": word[told.refusing],
            "gibberish": word[told.gibberish],
            "right": "unknown" if about["reference"] is None else word[right],
            "score": "unknown" if about["reference"] is None else float(right),
        }
    )


def once_tried(behaviour):
    """Honest in the trial, then as told: `behaviour(material, nth of the rest)`."""
    count = iter(range(10_000))

    def reply(about, nth):
        return honest(about) if about["answer"] in TRIAL else behaviour(about, next(count))

    return reply


def asked_of(stub: Stub) -> list[str]:
    """The answers a server was asked about, its trial's left out."""
    return sorted(about["answer"] for about in stub.asked if about["answer"] not in TRIAL)


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
            said = stub.reply(material(request), nth)
            if said == HANG:
                stub.stopped.wait(30)
                return
            if isinstance(said, str) and said in WITHOUT_END:
                self.go_on(said)
                return
            if isinstance(said, tuple):
                status, body, *more = said
            else:
                message = {"role": "assistant", "content": said}
                choice = {"index": 0, "finish_reason": "stop", "message": message}
                completion = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
                status, body, more = 200, json.dumps(completion | {"choices": [choice]}), []
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            for name, value in (more[0] if more else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def go_on(self, how):
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            if how != DRIP_HEAD:
                self.end_headers()
            self.flush_headers()
            piece, pause = WITHOUT_END[how]
            with suppress(OSError):  # the other side has gone
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
