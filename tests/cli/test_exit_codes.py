"""How a command ends."""

import subprocess
import sys


def test_a_mistake_of_ours_is_one_line_with_a_traceback_in_a_file(tmp_path, monkeypatch):
    code = (
        "import sys; sys.argv = ['aims-PAX', 'report']\nimport aims_pax.report.html_page as page\n"
        "def broken(folder): raise ZeroDivisionError('so it is')\npage.write_report = broken\n"
        "from aims_pax.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "ZeroDivisionError: so it is" in done.stderr
    assert "so it is" in (tmp_path / "logs" / "traceback.log").read_text()
