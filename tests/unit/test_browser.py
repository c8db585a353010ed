"""Where the browser of the page tests comes from."""

import pytest

from tests.browser import NoBrowser, find_chromium


def program(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_chosen_program_comes_first(tmp_path):
    chosen = program(tmp_path / "mine")
    program(tmp_path / "private/usr/lib/chromium/chromium")
    environ = {"CHROMIUM": str(chosen)}
    assert find_chromium(environ, tmp_path / "private").path == chosen


def test_chosen_program_that_is_none_is_an_error_that_names_it(tmp_path):
    with pytest.raises(NoBrowser, match="CHROMIUM=/nowhere"):
        find_chromium({"CHROMIUM": "/nowhere"}, tmp_path)


def test_unpacked_program_is_run_with_its_own_libraries(tmp_path):
    private = program(tmp_path / "usr/lib/chromium/chromium")
    library = program(tmp_path / "usr/lib/x86_64-linux-gnu/libnss3.so")
    found = find_chromium({"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/own"}, tmp_path)
    assert found.path == private
    folders = found.env["LD_LIBRARY_PATH"].split(":")
    assert str(library.parent) in folders
    assert folders[-1] == "/own"


def test_program_on_the_path_is_found(tmp_path):
    there = program(tmp_path / "bin/google-chrome")
    assert find_chromium({"PATH": str(tmp_path / "bin")}, tmp_path / "none").path == there


def test_no_browser_at_all_says_what_to_do(tmp_path):
    with pytest.raises(NoBrowser, match="make setup-dev"):
        find_chromium({"PATH": str(tmp_path)}, tmp_path / "none")
