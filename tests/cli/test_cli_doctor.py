import json
import sys

import pytest

from vlfer.cli import doctor


def only(monkeypatch, **checks):
    monkeypatch.setattr(doctor, "CHECKS", checks)


def test_all_well_ends_with_zero(run, monkeypatch):
    only(monkeypatch, one=lambda: ("ok", "fine", ""), two=lambda: ("warn", "slow", "buy a faster one"))
    done = run("doctor")
    assert done.exit_code == 0
    assert "buy a faster one" in done.stdout


def test_a_failure_ends_with_three_and_says_what_to_do(run, monkeypatch):
    only(monkeypatch, weights=lambda: ("fail", "missing", "reinstall vlfer"))
    assert run("doctor").exit_code == 3
    rows = json.loads(run("doctor", "--format", "json").stdout)
    assert rows == [{"name": "weights", "status": "fail", "detail": "missing", "fix": "reinstall vlfer"}]


def test_a_check_that_breaks_stops_no_other(monkeypatch):
    def broken():
        raise ImportError("libGL.so.1: cannot open shared object file")

    only(monkeypatch, faces=broken, disk=lambda: ("ok", "fine", ""))
    first, second = doctor.run_checks()
    assert (first.status, first.fix) == ("fail", doctor.APT)
    assert second.status == "ok"


def test_mismatched_torchvision_is_recognised(monkeypatch):
    import torchvision.ops

    def broken(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    assert doctor.check_torch()[0] == "ok"
    monkeypatch.setattr(torchvision.ops, "nms", broken)
    status, detail, fix = doctor.check_torch()
    assert (status, fix) == ("fail", doctor.REINSTALL_TORCH)
    assert "nms does not exist" in detail


@pytest.mark.parametrize(("gone", "status"), [((), "ok"), (("decord",), "warn"), (("decord", "av"), "fail")])
def test_one_decoder_is_enough(monkeypatch, gone, status):
    for module in gone:
        monkeypatch.setitem(sys.modules, module, None)
    found, detail, fix = doctor.check_decoders()
    assert found == status
    assert bool(fix) == (status != "ok")
    assert all(name in detail for name in gone)


def test_a_missing_opencv_library_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert doctor.check_opencv()[0] == "fail"


def test_a_cache_that_cannot_be_written_is_a_warning(monkeypatch, tmp_path):
    assert doctor.check_cache()[0] == "ok"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VLFER_CACHE", str(tmp_path / "file"))
    status, _, fix = doctor.check_cache()
    assert status == "warn"
    assert "VLFER_CACHE" in fix


def test_damaged_weights_are_found(monkeypatch, tmp_path):
    from vlfer.models import bundled

    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    (tmp_path / "card.json").write_text(json.dumps({"weights_sha256": "0" * 64, "text_weights_sha256": "0" * 64}))
    monkeypatch.setattr(bundled, "BUNDLED_DIR", tmp_path)
    status, detail, fix = doctor.check_weights()
    assert status == "fail"
    assert "the card says 0000000000000000" in detail
    assert "reinstall" in fix


def test_little_disk_and_many_threads_are_warnings(monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_FREE_GB", 1e9)
    assert doctor.check_disk()[0] == "warn"
    monkeypatch.setattr("torch.get_num_threads", lambda: 10_000)
    status, _, fix = doctor.check_threads()
    assert status == "warn"
    assert "OMP_NUM_THREADS" in fix


def test_the_light_checks_pass_here():
    for check in (doctor.check_python, doctor.check_towers, doctor.check_opencv, doctor.check_gpu):
        assert check()[0] in ("ok", "warn"), check()
