"""The commands info and warmup."""


def test_info_and_warmup(command):
    code, output, errors = command("info")
    assert code == 0, errors
    for word in ("CPU", "lanes", "threads", "they are", "cache directory"):
        assert word in output
    code, output, errors = command("warmup")
    assert code == 0, errors
    assert "ready" in output
