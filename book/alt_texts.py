"""A chart's alternative text, which the notebook keeps beside the picture, in the page too.

MyST-NB takes over width and height alone. It names a picture by the hash of its bytes.
"""

import json
from base64 import b64decode
from hashlib import sha256
from pathlib import Path

from docutils import nodes


def add_alt_texts(app, doctree):
    """Set the `alt` of every picture that a notebook's cell has drawn."""
    file = Path(app.env.doc2path(app.env.current_document.docname))
    if file.suffix == ".ipynb":
        known = alt_texts(json.loads(file.read_text(encoding="utf-8")))
        for image in doctree.findall(nodes.image):
            image["alt"] = known.get(Path(image["uri"]).stem, image.get("alt", ""))


def alt_texts(notebook: dict) -> dict[str, str]:
    """The alternative text of every picture, by the SHA-256 of its bytes."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return {
        sha256(b64decode(output["data"]["image/png"])).hexdigest(): alt
        for output in outputs
        if (alt := output.get("metadata", {}).get("image/png", {}).get("alt"))
    }


def setup(app):
    app.connect("doctree-read", add_alt_texts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
