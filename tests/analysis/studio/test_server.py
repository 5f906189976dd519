"""The page over HTTP: what is served, to whom, and what is refused."""

import http.client
import json
import re
import threading

import pytest

from analysis.studio import __main__ as command
from analysis.studio.server import FILES, PAGE, SCRIPT, address, read, serve


@pytest.fixture
def server():
    made = serve(lambda message: {"got": message})
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def request(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection(*server.server_address)
    named = {name.capitalize(): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def test_it_listens_on_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address(server))


@pytest.mark.parametrize("path", FILES)
def test_files_of_the_page_are_served(server, path):
    answer, text = request(server, "GET", path)
    assert answer.status == 200 and text == read(FILES[path][0])
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


def test_a_message_is_answered(server):
    answer, text = request(server, "POST", "/ask", json.dumps({"do": "show"}))
    assert answer.status == 200 and json.loads(text) == {"got": {"do": "show"}}
    _, text = request(server, "POST", "/ask", "no JSON")
    assert json.loads(text) == {"error": "The message is no JSON."}


def test_other_sites_are_refused(server):
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
        for method, path in (("POST", "/ask"), ("GET", "/")):
            assert request(server, method, path, "{}", **headers)[0].status == 403
    own = address(server).rstrip("/")
    assert request(server, "POST", "/ask", "{}", origin=own)[0].status == 200
    assert request(server, "GET", "/../desk.py")[0].status == 404
    assert request(server, "POST", "/other", "{}")[0].status == 403
    for length in ("-1", "many", "999999999999"):
        refused = request(server, "POST", "/ask", "{}", **{"content-length": length})[0]
        assert refused.status == 403


def test_a_port_that_is_taken_is_said(server, capsys):
    port = server.server_address[1]
    assert command.main(["gsgn-shapes2d", "--no-browser", "--port", str(port)]) == 2
    assert f"port {port} cannot be used" in capsys.readouterr().err
    assert command.main(["nowhere"]) == 2
    assert "'nowhere' is no run" in capsys.readouterr().err


def test_the_page_names_no_other_site():
    """Only the name space of SVG, which nothing fetches, is an address."""
    for path in PAGE.iterdir():
        found = set(re.findall(r"https?://[^\s\"'`]+|@import|url\(", path.read_text()))
        assert found <= {"http://www.w3.org/2000/svg"}, path
    assert "import " not in re.sub("//.*", "", read(SCRIPT))
