"""The glossary in every page: where a page first uses a term, the term links to the glossary and
carries its meaning (`title`, which `terms.js` shows as a hover).

A term is a heading of the third level in glossary.md; the paragraph below it is its meaning. An
*emphasised name* that opens the paragraph is another name of the term.
"""

import re
from pathlib import Path

from docutils import nodes

GLOSSARY = "book/glossary"
# Words of everyday English: a term only where they are emphasised or set as code.
EVERYDAY = {
    "attention", "batch", "board", "bounded", "calibration", "cosine", "dense", "guard", "hook",
    "judge", "kind", "leak", "marginal", "matched", "neighbour", "official", "plan", "processor",
    "profile", "record", "reference", "requested", "run", "seen", "split", "stamp", "unknown",
    "utility",
}  # fmt: skip
PAGES = re.compile(r"(README|index|play)$|notebooks/|docs/")
CLOSED = nodes.reference, nodes.title, nodes.math, nodes.math_block, nodes.raw, nodes.literal_block
ENTRY = re.compile(r"^### (.+)\n\n((?:.+\n?)+)", re.MULTILINE)
OTHER_NAME = re.compile(r"\*([^*]+?)\.?\*[.:,]? ")
MARKUP = re.compile(r"\[([^\]]+)\]\([^)]+\)|[*`$]")


def entries(text: str) -> dict[str, tuple[str, str]]:
    """Heading and plain meaning of every term, by each of its names."""
    found = {}
    for heading, paragraph in ENTRY.findall(text):
        meaning = MARKUP.sub(r"\1", " ".join(paragraph.split()))
        found[heading] = heading, meaning
        if other := OTHER_NAME.match(paragraph):
            found.setdefault(" ".join(other[1].split()), (heading, meaning))
    return found


def forms(name: str) -> set[str]:
    """A name as it stands within a sentence and at its beginning; an abbreviation as it is."""
    word = name[1:2].islower()
    return {name, name[0].lower() + name[1:], name[0].upper() + name[1:]} if word else {name}


def pattern(names) -> re.Pattern:
    """Any of the names as whole words, longest first, or its plural."""
    longest = sorted(names, key=len, reverse=True)
    words = "|".join(r"\s+".join(map(re.escape, name.split())) for name in longest)
    return re.compile(rf"(?<![\w-])({words})(?:s\b|(?![\w-]))")


def link_terms(app, doctree, page):
    """Link the first use of each term of a page."""
    if not PAGES.match(page):
        return
    known = entries((Path(app.srcdir) / f"{GLOSSARY}.md").read_text(encoding="utf-8"))
    to = app.builder.get_relative_uri(page, GLOSSARY)
    seen = set()
    for link in doctree.findall(nodes.reference):
        for heading, meaning in known.values():
            if link.get("refuri") == f"{to}#{nodes.make_id(heading)}":
                link["reftitle"] = meaning
                link["classes"].append("term")
                seen.add(heading)
    plain = {form: name for name in known if name not in EVERYDAY for form in forms(name)}
    inside = pattern(plain)
    for text in list(doctree.findall(nodes.Text)):
        closed = next((up for up in parents(text) if isinstance(up, CLOSED)), None)
        if closed is not None or not within(text, nodes.paragraph):
            continue
        whole = (
            " ".join(text.split())
            if within(text, (nodes.emphasis, nodes.strong, nodes.literal))
            else ""
        )
        if (name := whole.lower() if whole.lower() in known else whole) in known:
            if known[name][0] not in seen:
                seen.add(known[name][0])
                styled = text.parent
                styled.parent.replace(styled, reference(to, known[name], styled.deepcopy()))
        elif not within(text, nodes.literal):
            parts = linked(text.astext(), inside, plain, known, seen, to)
            if len(parts) > 1:
                text.parent.replace(text, parts)


def linked(text, inside, plain, known, seen, to):
    """`text` as nodes, with a reference for each term that is not in `seen` yet."""
    parts, end = [], 0
    for match in inside.finditer(text):
        entry = known[plain[" ".join(match[1].split())]]
        if entry[0] not in seen:
            seen.add(entry[0])
            parts += [
                nodes.Text(text[end : match.start()]),
                reference(to, entry, nodes.Text(match[0])),
            ]
            end = match.end()
    return [*parts, nodes.Text(text[end:])]


def reference(to, entry, shown):
    """A link to a term of the glossary."""
    heading, meaning = entry
    uri = f"{to}#{nodes.make_id(heading)}"
    return nodes.reference(
        "", "", shown, internal=True, refuri=uri, reftitle=meaning, classes=["term"]
    )


def parents(node):
    """Every node around a node."""
    while node.parent is not None:
        node = node.parent
        yield node


def within(node, kind):
    """Whether a node of that kind is around it."""
    return any(isinstance(up, kind) for up in parents(node))


def setup(app):
    app.connect("doctree-resolved", link_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
