"""The page in a notebook."""

import sys

import pytest

from analysis.studio import widget


def test_without_anywidget_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(ValueError, match=r'pip install "scene-programs\[studio\]"'):
        widget.studio("vae-mnist4")


@pytest.mark.filterwarnings("default")  # of other packages
def test_messages_are_answered_by_number(monkeypatch):
    pytest.importorskip("anywidget")
    made, sent = widget.studio("vae-mnist4"), []
    monkeypatch.setattr(type(made), "send", lambda self, content: sent.append(content))
    made._handle_custom_msg({"do": "nothing", "number": 7}, [])
    assert sent == [{"number": 7, "answer": {"error": "The studio cannot do 'nothing'."}}]
    assert "export default" in made._esm
