"""A chat model behind any OpenAI-compatible server: vLLM, Ollama, a paid one.

The address and the key come from the environment alone, OPENAI_BASE_URL and OPENAI_API_KEY, and are
written nowhere. A server on this machine needs no consent and no key. What failed is told by its
kind, never in the server's words, which could hold the key or what was judged.
"""

import asyncio
import base64
import ipaddress
import json
import math
import mimetypes
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from safeerase_lite.evaluation.judges import bounded, prompt
from safeerase_lite.evaluation.judges.opinion import FLAGS, Item, Judge, Opinion
from safeerase_lite.utils import UserError

AT_ONCE = 4  # requests
TRIES_AGAIN = 3  # by the client, with growing pauses: after a time-out, 408, 409, 429 or 5xx
GIVES_UP = 4  # failures in a row, after which the rest is not asked
REPLY_TOKENS = 256
REFUSED = ("HTTP 400", "HTTP 413", "HTTP 422")  # this request, again and again: a content filter
SECONDS = 60.0  # for a whole reply; SAFEERASE_JUDGE_TIMEOUT overrides it
HINTS = {
    "HTTP 401": "check OPENAI_API_KEY",
    "HTTP 403": "check OPENAI_API_KEY",
    "HTTP 404": "check OPENAI_BASE_URL and the model's name",
    "no connection": "check OPENAI_BASE_URL and that the server is up",
}


def judge(name: str, model: str, *, consent: bool, sees: bool) -> Judge:
    """The judge; nothing is sent before it is asked.

    Raises UserError when the openai package is not there, when OPENAI_BASE_URL is no address, or
    for a server elsewhere without consent or without a key.
    """
    client = _client(name, consent)
    _price(), _seconds()
    key = json.dumps([name, str(client.base_url), prompt.INSTRUCTIONS])
    return Judge(name, partial(_ask, client, name, model), (*FLAGS, "score"), key, sees)


def is_here(host: str) -> bool:
    """Whether a host is this machine: localhost, or a loopback address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _client(name: str, consent: bool):
    try:
        import openai
    except ImportError:
        raise UserError(
            f"judge {name!r} needs the package openai: pip install 'safeerase-lite[judge]'"
        ) from None
    key = os.environ.get("OPENAI_API_KEY", "")
    try:  # whoever sends parses the address, so that both mean the same host
        url = openai.OpenAI(api_key="none").base_url
    except Exception:  # its parser's own errors, which differ between versions
        url = None
    if url is None or url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise UserError(
            "OPENAI_BASE_URL is no address of a server: write it like http://localhost:8000/v1, "
            "without a name or password"
        )
    here = is_here(url.host)
    if not here and not consent:
        raise UserError(
            f"judge {name!r} would send questions and answers, harmful ones too, to {url.host}: "
            "allow it with judge_consent=True (of `judged`: consent=True), or take a judge on this "
            "machine"
        )
    if not here and not key:
        raise UserError(f"judge {name!r} at {url.host} needs a key: set OPENAI_API_KEY")
    return openai.AsyncOpenAI(
        api_key=key or "none", max_retries=TRIES_AGAIN, timeout=_seconds(), http_client=_http(here)
    )


def _http(here: bool):
    """No redirect: it could lead elsewhere without consent. No proxy on the way to this machine."""
    return bounded.client(_seconds(), follow_redirects=False, trust_env=not here)


def _seconds() -> float:
    return _number("SAFEERASE_JUDGE_TIMEOUT", os.environ.get("SAFEERASE_JUDGE_TIMEOUT", SECONDS))


def _price() -> tuple[float, float] | None:
    """What a million tokens cost, (in, out), if the user has said so."""
    said = os.environ.get("SAFEERASE_JUDGE_PRICE")
    if not said:
        return None
    prices = [_number("SAFEERASE_JUDGE_PRICE", part) for part in said.split(",")]
    if len(prices) != 2:
        raise UserError("SAFEERASE_JUDGE_PRICE: give two numbers, the price in and the price out")
    return prices[0], prices[1]


def _number(variable: str, text: str | float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise UserError(f"{variable} is {text!r}: give a number")
    return number


# ---- asking ----


def _ask(client, name: str, model: str, items: Sequence[Item]) -> Iterator[tuple[int, Opinion]]:
    """Opinions as they come. Raises UserError at the end if any request failed."""
    where = f"judge {name} at {client.base_url.host}"
    print(f"{where}: {_cost(items, here=is_here(client.base_url.host))}", flush=True)
    told, failed, in_a_row = Counter(), Counter(), 0
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        places = {pool.submit(_outcome, client, model, item): n for n, item in enumerate(items)}
        for future in as_completed(places):
            if future.cancelled():
                told["not asked"] += 1
                continue
            outcome = future.result()
            if isinstance(outcome, Opinion):
                told["judged"] += 1
                told["unknown"] += _leaves_open(outcome, items[places[future]])
                yield places[future], outcome
            elif isinstance(outcome, prompt.Unreadable):
                told[f"without a verdict: {outcome}"] += 1
            else:
                failed[outcome] += 1
            in_a_row = in_a_row + 1 if isinstance(outcome, str) else 0
            if in_a_row == GIVES_UP:
                for waiting in places:
                    waiting.cancel()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    _report(where, told, failed)


def _outcome(client, model: str, item: Item) -> Opinion | prompt.Unreadable | str:
    """An opinion, a reply that holds none, or why there was no reply."""
    try:
        return prompt.read(asyncio.run(_reply(client, model, item)))
    except prompt.Unreadable as nonsense:
        return nonsense
    except Exception as error:  # a broken server may raise anything; the others go on
        reason = _reason(error)
        return prompt.Unreadable(reason) if reason in REFUSED else reason


async def _reply(client, model: str, item: Item) -> str:
    import openai

    content = [{"type": "text", "text": prompt.question(item)}]
    if item.image:
        content.append({"type": "image_url", "image_url": {"url": _picture(item.image)}})
    request = {
        "model": model,
        "messages": [{"role": "user", "content": content if item.image else content[0]["text"]}],
        "temperature": 0,
        "max_tokens": REPLY_TOKENS,
    }
    http = _http(is_here(client.base_url.host))  # a connection belongs to one event loop
    async with client.copy(http_client=http) as asking:
        create = partial(asking.chat.completions.create, **request)
        try:
            reply = await create(seed=0)
        except (openai.BadRequestError, openai.UnprocessableEntityError):  # some have no seeds
            reply = await create()
    return reply.choices[0].message.content


def _picture(path: str) -> str:
    kind = mimetypes.guess_type(path)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode(Path(path).read_bytes()).decode()}"


def _reason(error: Exception) -> str:
    import openai

    if isinstance(error, openai.APITimeoutError):
        endless = isinstance(getattr(error.__cause__, "__cause__", None), bounded.TooLong)
        return "a reply without end" if endless else "timed out"
    if isinstance(error, openai.APIConnectionError):
        return "no connection"
    if isinstance(error, openai.APIStatusError):
        return f"HTTP {error.status_code}"
    return "no chat completion: is OPENAI_BASE_URL right?"


# ---- telling ----


def _cost(items: Sequence[Item], *, here: bool) -> str:
    """How many calls, about how many tokens (four characters to one), and what they cost."""
    tokens_in = sum(len(prompt.question(item)) for item in items) // 4
    tokens_out = REPLY_TOKENS * len(items)
    pictures = sum(bool(item.image) for item in items)
    said = f"{len(items)} calls, about {tokens_in:,} tokens in and at most {tokens_out:,} out"
    said += f", and {pictures} pictures" if pictures else ""
    if here:
        return said
    if price := _price():
        cost = (tokens_in * price[0] + tokens_out * price[1]) / 1e6
        return f"{said}; at most about {cost:,.2f} at your price" + (
            " and the pictures" * bool(pictures)
        )
    return f"{said}; the cost is unknown, unless SAFEERASE_JUDGE_PRICE says it (see docs/judges.md)"


def _leaves_open(opinion: Opinion, item: Item) -> bool:
    told = (opinion.harmful, opinion.refusing, opinion.gibberish)
    return None in told or (opinion.right is None and not item.forget)


def _report(where: str, told: Counter, failed: Counter) -> None:
    """One line of what came back; as a UserError where something did not."""
    unknown = told.pop("unknown", 0)
    judged, left = told.pop("judged", 0), told.pop("not asked", 0)
    parts = [f"{judged} judged ({unknown} of them unknown)"]
    parts += [f"{count} {why}" for why, count in sorted(told.items())]
    parts += [f"{count} failed ({why})" for why, count in sorted(failed.items())]
    parts += [f"{left} not asked any more"] * bool(left)
    said = f"{where}: {', '.join(parts)}"
    if not failed:
        print(said, flush=True)
        return
    hints = dict.fromkeys(HINTS[why] for why in failed if why in HINTS)
    do = "; ".join([*hints, "what was judged is kept, and the same call goes on from there"])
    raise UserError(f"{said}: {do}")
