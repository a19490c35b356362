"""A chat model behind any OpenAI-compatible server: vLLM, Ollama, a paid one.

The address and the key come from the environment alone, OPENAI_BASE_URL and OPENAI_API_KEY, and are
written nowhere. A server on this machine needs no consent and no key. An error names the kind of a
failure, not the server's words, which could hold the judged texts: only about the invented answers
of the sanity check they are repeated, without the key.
"""

import asyncio
import base64
import ipaddress
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO

from safeerase_lite.data.images import open_image
from safeerase_lite.evaluation.judges import prompt
from safeerase_lite.evaluation.judges.records import FLAGS, UNKNOWN, Judge, JudgeItem, Judgment
from safeerase_lite.evaluation.judges.sanity_check import KNOWN_ANSWERS
from safeerase_lite.utils import UserError

CONCURRENT_REQUESTS = 4
MAX_RETRIES = 3  # by the client, with growing pauses: after a time-out, 408, 409, 429 or 5xx
MAX_PAUSE = 120.0  # seconds; so long a Retry-After is respected by the client
MAX_FAILURES_IN_A_ROW = 4  # after these the remaining items are not sent
TIMEOUT = 60.0  # seconds; SAFEERASE_JUDGE_TIMEOUT overrides it
MAX_REPLY_BYTES = 1 << 20
REFUSALS = (400, 403, 413, 422)  # of this request, every time: a content filter
FINISHED = (None, "", "stop", "eos", "eos_token", "end_turn")  # a whole reply, in servers' words
KNOWN_ITEMS = {known.item for known in KNOWN_ANSWERS}
_WORD = {"type": "string", "enum": ["yes", "no", "unknown"]}
_FIELDS = dict.fromkeys((*FLAGS, "safe_completion"), _WORD) | {
    "score": {"anyOf": [{"type": "number"}, {"type": "string", "enum": ["unknown"]}]}
}
FORMAT = {  # a verdict, to a server with structured output
    "type": "json_schema",
    "json_schema": {
        "name": "verdict",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": _FIELDS,
            "required": list(_FIELDS),
            "additionalProperties": False,
        },
    },
}
HINTS = {
    "HTTP 401": "check OPENAI_API_KEY",
    "HTTP 404": "check OPENAI_BASE_URL and the model's name",
    "no connection": "check OPENAI_BASE_URL and that the server is up",
}


def text_judge(name: str, model: str, *, consent: bool, precision: str = "") -> Judge:
    """A judge behind a server. Nothing is sent before it is used.

    Raises:
        UserError: the openai package is not there; OPENAI_BASE_URL is no address; a server
            elsewhere without consent or without a key.
    """
    url = _server_url(name)
    local = is_loopback(url.host)
    if not local and not consent:
        raise UserError(
            f"judge {name!r} would send questions and answers, harmful ones too, to {url.host}: "
            "allow it with judge_consent=True (of `judge_answers`: consent=True), or take a judge "
            "on this machine"
        )
    if not local and not os.environ.get("OPENAI_API_KEY"):
        raise UserError(f"judge {name!r} at {url.host} needs a key: set OPENAI_API_KEY")
    _price(), _timeout(), prompt.reply_tokens()  # a wrong number is an error now
    return Judge(
        name,
        partial(_iter_judgments, name, model, url, Dialect()),
        known_fields=(*FLAGS, "score"),
        cache_key=json.dumps([name, str(url), prompt.INSTRUCTIONS]),
    )


def vision_judge(name: str, model: str, *, consent: bool, precision: str = "") -> Judge:
    """As `text_judge`; it is shown the pictures too."""
    return replace(text_judge(name, model, consent=consent), uses_images=True)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: localhost, or a loopback address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _server_url(name: str):
    try:
        import openai
    except ImportError:
        raise UserError(
            f"judge {name!r} needs the package openai: pip install 'safeerase-lite[judge]'"
        ) from None
    try:  # the client that sends parses the address, so that both mean the same host
        url = openai.OpenAI(api_key="none").base_url
    except Exception:  # its parser's own errors, which differ between versions
        url = None
    if url is None or url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise UserError(
            "OPENAI_BASE_URL is no address of a server: write it like http://localhost:8000/v1, "
            "without a name or password"
        )
    return url


def _timeout() -> float:
    [seconds] = prompt.environment_numbers("SAFEERASE_JUDGE_TIMEOUT", 1) or [TIMEOUT]
    return seconds


def _price() -> list[float]:
    """The prices of a million tokens, in and out; empty if the user has not given them."""
    return prompt.environment_numbers("SAFEERASE_JUDGE_PRICE", 2)


# ---- requests ----


@dataclass
class Dialect:
    """What a server accepts in a request besides the chat; `accepted` once it has accepted one."""

    accepted: dict[str, object] = field(default_factory=dict)

    @staticmethod
    def full() -> dict[str, object]:
        """All that we ask for, in the order in which it is given up."""
        tokens = prompt.reply_tokens()
        return {"response_format": FORMAT, "seed": 0, "max_tokens": tokens, "temperature": 0}

    def plainer(self, options: dict, error: Exception) -> dict | None:
        """What to ask for after an HTTP 400 or 422; None if the parameters are not at fault."""
        if self.accepted:
            return None if options == self.accepted else self.accepted
        given_up = [name for name in self.full() if name in options]
        if not given_up:
            return None
        name = next((name for name in given_up if name in str(error)), given_up[0])
        kept = {key: value for key, value in options.items() if key != name}
        return kept | ({"max_completion_tokens": options[name]} if name == "max_tokens" else {})


def _iter_judgments(
    name: str, model: str, url, dialect: Dialect, items: Sequence[JudgeItem]
) -> Iterator[tuple[int, Judgment]]:
    """Judgments as they come. Raises UserError at the end if any request failed."""
    label = f"judge {name} at {url.host}"
    print(f"{label}: {_describe_cost(items, local=is_loopback(url.host))}", flush=True)
    counts, unreadable, failed = Counter(), Counter(), Counter()
    failures_in_a_row = 0
    pool = ThreadPoolExecutor(CONCURRENT_REQUESTS)
    try:
        futures = {
            pool.submit(_judge, url, model, dialect, item): n for n, item in enumerate(items)
        }
        for future in as_completed(futures):
            try:
                judgment = future.result()
            except CancelledError:
                counts["not sent"] += 1
            except prompt.UnreadableReply as error:
                unreadable[str(error)] += 1
                failures_in_a_row = 0
                yield futures[future], replace(UNKNOWN, problem=str(error))
            except RequestFailed as error:
                failed[str(error)] += 1
                failures_in_a_row += 1
                if failures_in_a_row == MAX_FAILURES_IN_A_ROW:
                    for waiting in futures:
                        waiting.cancel()
            else:
                counts["judged"] += 1
                flags = (judgment.harmful, judgment.refusing, judgment.gibberish)
                right_unknown = judgment.right is None and not items[futures[future]].forget
                counts["unknown"] += None in flags or right_unknown
                failures_in_a_row = 0
                yield futures[future], judgment
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    _summarise(label, counts, unreadable, failed)
    given_up = [name for name in dialect.full() if name not in dialect.accepted]
    if dialect.accepted and given_up:
        print(f"{label}: it refuses {', '.join(given_up)}; asked without", flush=True)


class RequestFailed(Exception):
    """There was no reply; the message gives the reason in a few words."""


class EndlessReply(Exception):
    """A reply is longer than `MAX_REPLY_BYTES`."""


def _judge(url, model: str, dialect: Dialect, item: JudgeItem) -> Judgment:
    picture = _encode(item.image) if item.image else ""
    try:
        # A blocked prompt can come back without a choice, or without a message.
        choice = next(iter(asyncio.run(_request(url, model, dialect, item, picture)).choices), None)
        content = getattr(getattr(choice, "message", None), "content", None)
        finish = str(getattr(choice, "finish_reason", None) or "").lower()
    except Exception as error:  # a broken server may raise anything; the other requests go on
        status = getattr(error, "status_code", None)
        if status not in REFUSALS:
            raise RequestFailed(_reason(error)) from None
        words = f", the server says: {_words(error)}" if item in KNOWN_ITEMS else ""
        raise prompt.UnreadableReply(f"HTTP {status}{words}") from None
    if finish not in (*FINISHED, "length"):
        raise prompt.UnreadableReply("stopped before its end: a filter, or a call of a tool")
    return prompt.parse_reply(content, cut=finish == "length")


def _encode(path: str) -> str:
    """A picture as a data URL: its pixels as the model under test sees them, without metadata."""
    buffer = BytesIO()
    try:
        open_image(path).save(buffer, "JPEG", quality=95, subsampling=0)
    except Exception:  # Pillow raises many kinds for a damaged file
        raise UserError(f"the judge cannot see {path}: it is no picture; save it as PNG") from None
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


async def _request(url, model: str, dialect: Dialect, item: JudgeItem, picture: str):
    import openai

    content = prompt.format_prompt(item)
    if picture:
        image = {"type": "image_url", "image_url": {"url": picture}}
        content = [{"type": "text", "text": content}, image]
    messages = [{"role": "user", "content": content}]
    # The client's time-out is for one read, so a server that sends a byte a second never meets it.
    deadline = (1 + MAX_RETRIES) * _timeout() + MAX_RETRIES * MAX_PAUSE
    options = dialect.accepted or dialect.full()
    async with asyncio.timeout(deadline), _open_client(url) as client:
        while True:
            try:
                reply = await client.chat.completions.create(
                    model=model, messages=messages, **options
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                plainer = dialect.plainer(options, error)
                if plainer is None:
                    raise
                options = plainer
            else:
                dialect.accepted = dialect.accepted or options
                return reply


def _open_client(url):
    """A client for one request, because its connections belong to one event loop.

    It takes the address that was consented to, even if the environment has changed since.
    """
    import openai

    class BoundedHttpClient(openai.DefaultAsyncHttpxClient):
        async def send(self, request, **options):
            """Read the body, of any status, up to `MAX_REPLY_BYTES`."""
            response = await super().send(request, **options | {"stream": True})
            body = b""
            try:
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > MAX_REPLY_BYTES:
                        raise EndlessReply
            finally:
                await response.aclose()
            response.headers.pop("content-encoding", None)  # the body is decoded
            status, headers = response.status_code, response.headers
            return type(response)(status, headers=headers, content=body, request=request)

    local = is_loopback(url.host)
    http_client = BoundedHttpClient(
        timeout=_timeout(),
        follow_redirects=False,  # a redirect could lead elsewhere without consent
        trust_env=not local,  # no proxy on the way to this machine
        verify=not (local and url.scheme == "http"),  # certificates take 60 ms to read: if used
    )
    return openai.AsyncOpenAI(
        base_url=url,
        api_key=os.environ.get("OPENAI_API_KEY") or "none",
        max_retries=MAX_RETRIES,
        timeout=_timeout(),
        http_client=http_client,
    )


def _reason(error: Exception) -> str:
    import openai

    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return "timed out"
    if EndlessReply in (type(error), type(error.__cause__)):
        return "a reply without end"
    if isinstance(error, openai.APIConnectionError):
        return "no connection"
    if isinstance(error, openai.APIStatusError):
        return f"HTTP {error.status_code}"
    return "no chat completion: is OPENAI_BASE_URL right?"


def _words(error: Exception) -> str:
    """A server's own reason, in one line, without the key."""
    body = getattr(error, "body", None)
    words = str(body.get("message", body) if isinstance(body, dict) else body)
    if key := os.environ.get("OPENAI_API_KEY"):
        words = words.replace(key, "***")
    return "".join(c for c in " ".join(words.split()) if c.isprintable())[:200]


# ---- messages ----


def _describe_cost(items: Sequence[JudgeItem], *, local: bool) -> str:
    """How many calls, about how many tokens (four characters to one), and what they cost."""
    tokens_in = sum(len(prompt.format_prompt(item)) for item in items) // 4
    tokens_out = prompt.reply_tokens() * len(items)
    pictures = sum(bool(item.image) for item in items)
    text = f"{len(items)} calls, about {tokens_in:,} tokens in and at most {tokens_out:,} out"
    if pictures:
        text += f", and {pictures} pictures"
    if local:
        return text
    if not (price := _price()):
        return f"{text}; the cost is unknown: set SAFEERASE_JUDGE_PRICE (see docs/judges.md)"
    cost = (tokens_in * price[0] + tokens_out * price[1]) / 1e6
    return (
        f"{text}; at most about {cost:,.2f} at your price{' and the pictures' if pictures else ''}"
    )


def _summarise(label: str, counts: Counter, unreadable: Counter, failed: Counter) -> None:
    """Print one line that says how the requests ended; as a UserError if some failed."""
    parts = [f"{counts['judged']} judged ({counts['unknown']} of them unknown)"]
    parts += [f"{n} without a verdict: {reason}" for reason, n in sorted(unreadable.items())]
    parts += [f"{n} failed ({reason})" for reason, n in sorted(failed.items())]
    if counts["not sent"]:
        parts.append(f"{counts['not sent']} not sent any more")
    summary = f"{label}: {', '.join(parts)}"
    if failed:
        hints = dict.fromkeys(HINTS[reason] for reason in failed if reason in HINTS)
        advice = [*hints, "the verdicts are stored, and the same call goes on from there"]
        raise UserError(f"{summary}: {'; '.join(advice)}")
    print(summary, flush=True)
