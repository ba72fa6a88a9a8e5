"""`aims-PAX test` and `export` from the command line: refusals come before torch is loaded."""

from tests.projects import command


def test_test_needs_models_and_a_dataset(tmp_path):
    for words in ((), ("only.model",)):
        done = command("test", *words, folder=tmp_path)
        assert done.returncode == 2
        assert "expected models and a dataset: aims-PAX test MODEL... DATA.xyz" in done.stderr


def test_an_option_of_the_md_test_without_md_is_refused(tmp_path):
    done = command("test", "a.model", "data.xyz", "--ps", "2", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "aims-PAX: --ps: only with --md\n"
