from timfuse.runtime.html_text import escaped, filled


def test_parts_may_hold_anything_even_the_names_of_others(tmp_path):
    (tmp_path / "page.html").write_text("<p>{{first}}</p><p>{{second}}</p>{{first}} { {third} }", encoding="utf-8")
    page = filled(tmp_path / "page.html", {"first": r"\1 {{second}}", "second": "ü"})
    assert page == r"<p>\1 {{second}}</p><p>ü</p>\1 {{second}} { {third} }"


def test_texts_are_neither_elements_nor_the_end_of_an_attribute():
    assert escaped("<b>\"&'\x1b</b>") == "&lt;b&gt;&quot;&amp;&#x27;\\x1b&lt;/b&gt;"
    assert escaped(0.5) == "0.5"
