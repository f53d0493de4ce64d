"""`timfuse app` serves its page until Ctrl-C."""

import re
import signal
import subprocess
import sys
import urllib.request


def test_the_page_is_served_until_ctrl_c(tmp_path):
    command = [sys.executable, "-u", "-m", "timfuse", "app", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        address = re.fullmatch(r"open (http://127\.0\.0\.1:\d+) in a browser; Ctrl-C ends it\n", line)[1]
        with urllib.request.urlopen(address, timeout=30) as response:
            assert b"<title>timfuse</title>" in response.read()
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 0


def test_a_run_that_is_not_there(run):
    code, output, errors = run("app", "runs/missing")
    assert (code, output) == (2, "")
    assert errors.startswith("error: no network 'runs/missing'")
