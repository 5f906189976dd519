"""The project's Markdown files, and the code and commands in them."""

import re

from inference.loading import ROOT

FILES = ("README.md", "CONTRIBUTING.md", "inference/README.md", "analysis/README.md")
FILES += ("programs/worlds/README.md",)
FILES += tuple(f"analysis/papers/{p}/README.md" for p in ("gsgn", "gnm", "econ", "air", "denf"))
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in FILES}


def code(name, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", TEXTS[name], re.S)


USING, OWN = code("README.md")
CLASSIC, READING = code("inference/README.md")
(TRUSTING,) = code("analysis/README.md")
(FLOW,) = code("analysis/papers/denf/README.md")
(SNOW,) = code("programs/worlds/README.md")


def commands(module):
    """Arguments of all commands of a module, without those that only show its options."""
    found = set()
    for text in TEXTS.values():
        lines = re.findall(rf"python -m {re.escape(module)}(?![.\w])([^`\n#&]*)", text)
        found |= {line.strip() for line in lines if not re.search(r"\b[A-Z]{2,}\b|…", line)}
    return sorted(found)


def modules():
    return sorted({m for text in TEXTS.values() for m in re.findall(r"python -m ([\w.]+\w)", text)})
