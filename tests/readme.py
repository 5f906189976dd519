"""The README, and the code in it."""

import re

from inference.loading import ROOT

TEXT = (ROOT / "README.md").read_text()
READING, INFERRING, TRUSTING, OWN = re.findall(r"```python\n(.*?)```", TEXT, re.S)
