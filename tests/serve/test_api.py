"""Every route, asked as a client asks it."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from vlfer.pipeline import EmotionPipeline
from vlfer.search import SearchIndex, find_moments
from vlfer.video.images import load_image


def ask_image(client: TestClient, data: bytes, **fields: Any) -> Any:
    return client.post("/v1/image", files={"file": ("photo.jpg", data, "image/jpeg")}, data=fields)


def test_image_has_the_answer_of_the_pipeline(
    serving: TestClient, portrait: bytes, bundled_pipeline: EmotionPipeline
) -> None:
    answer = ask_image(serving, portrait).json()
    (face,) = answer["faces"]
    (expected,) = bundled_pipeline.predict(load_image(portrait)).predictions
    assert (face["label"], answer["status"]) == (expected.label, "ok") == ("happiness", "ok")
    found = {one["label"]: one["probability"] for one in face["top"]}
    assert found == pytest.approx({**dict(expected.top), **{k: v for k, v in found.items() if v < 1e-3}}, abs=1e-5)
    assert face["box"] == pytest.approx(expected.box, abs=0.1)
    assert answer["space"] == bundled_pipeline.encoder.space
    assert "not felt" in answer["reading"]


def test_labels_of_ones_own_in_every_form(serving: TestClient, portrait: bytes) -> None:
    typed = ask_image(serving, portrait, labels="a broad smile, weeping").json()
    listed = ask_image(serving, portrait, labels='["a broad smile", "weeping"]').json()
    assert typed["faces"] == listed["faces"]
    described = [{"name": "a broad smile", "descriptors": ["teeth are shown, cheeks raised"]}, "weeping"]
    third = ask_image(serving, portrait, labels=json.dumps(described)).json()
    assert third["labels"] == typed["labels"] == ["a broad smile", "weeping"]
    assert third["faces"][0]["top"][0]["similarity"] != typed["faces"][0]["top"][0]["similarity"]
    assert len(ask_image(serving, portrait, top="1").json()["faces"][0]["top"]) == 1
    assert ask_image(serving, portrait, threshold="1.0").json()["faces"][0]["label"] is None


def test_an_image_is_explained_if_asked(serving: TestClient, two_portraits: bytes, monkeypatch: Any) -> None:
    plain = ask_image(serving, two_portraits, labels="ekman7").json()
    assert [face["explanation"] for face in plain["faces"]] == [None, None]
    answer = ask_image(serving, two_portraits, labels="ekman7", explain="true").json()
    for face, before in zip(answer["faces"], plain["faces"], strict=True):
        why = face["explanation"]
        assert (why["label"], why["rival"]) == (face["label"], face["top"][1]["label"])
        assert all(pull["label"] == why["label"] and pull["pull"] > 0 for pull in why["pulled_for"])
        odds = np.log(face["top"][0]["probability"] / face["top"][1]["probability"])
        assert why["lead"] == pytest.approx(odds, abs=1e-2)
        assert np.shape(why["relevance"]) == (7, 7)
        assert sum(why["where"].values()) == pytest.approx(1.0, abs=0.01)
        assert {**face, "explanation": None} == before
    engine = serving.app.state.service.engine
    monkeypatch.setattr(engine, "settings", engine.settings.model_copy(update={"max_explained": 1}))
    first, second = ask_image(serving, two_portraits, explain="true", top="1").json()["faces"]
    assert first["explanation"]
    assert second["explanation"] is None


def test_explaining_leaves_other_requests_alone(serving: TestClient, portrait: bytes) -> None:
    """Hooks on the tower and faces of others at the same time."""
    alone = [ask_image(serving, portrait, explain=flag).json() for flag in ("true", "false")]
    with ThreadPoolExecutor(6) as pool:
        flags = ["true", "false"] * 9
        found = list(pool.map(lambda flag: ask_image(serving, portrait, explain=flag).json(), flags))
    for one, flag in zip(found, flags, strict=True):
        (face,), (expected,) = one["faces"], alone[flag == "false"]["faces"]
        assert face["top"][0]["probability"] == pytest.approx(expected["top"][0]["probability"], abs=1e-5)
        if flag == "true":
            assert np.allclose(face["explanation"]["relevance"], expected["explanation"]["relevance"], atol=2e-3)


def test_image_without_a_face_says_so(serving: TestClient, png: Any) -> None:
    answer = ask_image(serving, png(np.full((480, 640, 3), 90, np.uint8)))
    assert answer.status_code == 200
    assert answer.json()["status"] == "no_face"
    assert answer.json()["faces"] == []


def test_vectors_are_scored_as_their_pictures(
    serving: TestClient, two_portraits: bytes, bundled_pipeline: EmotionPipeline
) -> None:
    pipeline = bundled_pipeline
    pixels = load_image(two_portraits).pixels[0]
    faces, _ = pipeline.find(pixels, effort="thorough")
    vectors = pipeline.encode(np.stack([pipeline.crop(pixels, face) for face in faces])).vectors
    full = ask_image(serving, two_portraits, labels="ferplus8").json()
    assert len(full["faces"]) == 2
    for sent in (base64.b64encode(vectors.astype("<f4").tobytes()).decode(), vectors.tolist()):
        question = {"space": pipeline.encoder.space, "vectors": sent, "labels": "ferplus8"}
        edge = serving.post("/v1/score", json=question).json()
        for one, other in zip(full["faces"], edge["faces"], strict=True):
            assert [t["label"] for t in one["top"]] == [t["label"] for t in other["top"]]
            for a, b in zip(one["top"], other["top"], strict=True):
                assert a["probability"] == pytest.approx(b["probability"], abs=1e-4)
                assert a["similarity"] == pytest.approx(b["similarity"], abs=1e-4)


def test_text_gives_unit_vectors(serving: TestClient) -> None:
    answer = serving.post("/v1/text", json={"sentences": ["a smile", "tears", "a smile"]}).json()
    vectors = np.array(answer["vectors"])
    assert vectors.shape == (3, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-4)
    assert np.abs(vectors[0] - vectors[2]).max() < 1e-6 < np.abs(vectors[0] - vectors[1]).max()


def test_video_from_upload_to_forgetting(serving: TestClient, film: bytes, wait_for_job: Any) -> None:
    scratch = serving.app.state.service.scratch.folder
    sent = serving.post("/v1/video", files={"file": ("film.mp4", film)}, data={"labels": "joy, grief"})
    assert sent.status_code == 202
    job = sent.json()
    assert wait_for_job(serving, job)["state"] == "done"
    assert list(scratch.iterdir()) == []
    result = serving.get(job["links"]["result"]).json()
    assert result["labels"] == ["joy", "grief"]
    assert {segment["label"] for segment in result["segments"]} == {"joy"}
    (track,) = result["tracks"]
    assert len(track["probability"]) == len(track["start_s"]) > 1
    assert track["end_s"][-1] == pytest.approx(1.0, abs=0.1)

    events = serving.get(job["links"]["events"]).text
    assert events.startswith("event: end\ndata: ")
    assert serving.delete(job["links"]["self"]).json()["state"] == "cancelled"
    assert serving.get(job["links"]["result"]).status_code == 409


def test_video_is_cancelled_while_it_runs(serving: TestClient, film: bytes, wait_for_job: Any) -> None:
    jobs = [serving.post("/v1/video", files={"file": film}, data={"fps": "60"}).json() for _ in range(3)]
    for job in jobs:
        serving.delete(job["links"]["self"])
    assert {wait_for_job(serving, job)["state"] for job in jobs} == {"cancelled"}
    assert list(serving.app.state.service.scratch.folder.iterdir()) == []


def test_events_tell_progress_and_the_end(serving: TestClient, film: bytes) -> None:
    job = serving.post("/v1/video", files={"file": film}).json()
    with serving.stream("GET", job["links"]["events"]) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in stream.iter_lines() if line]
    assert lines[-2] == "event: end"
    last = json.loads(lines[-1].removeprefix("data: "))
    assert (last["state"], last["done"]) == ("done", 6)  # every second frame of twelve


def test_micro_expression_of_a_pair_and_a_clip(serving: TestClient, portrait: bytes, film: bytes) -> None:
    pair = serving.post("/v1/mie", files={"onset": portrait, "apex": portrait}, data={"picture": "true"}).json()
    assert pair["label"] is None
    assert "noise" in pair["reason"]
    assert base64.b64decode(pair["picture"]).startswith(b"\x89PNG")
    clip = serving.post("/v1/mie", files={"clip": film})
    assert clip.status_code == 200, clip.text
    assert set(clip.json()["labels"]) == {"positive", "negative", "surprise"}
    wrong = serving.post("/v1/mie", files={"onset": portrait})
    assert (wrong.status_code, "an onset and an apex" in wrong.json()["why"]) == (422, True)
    assert list(serving.app.state.service.scratch.folder.iterdir()) == []


def test_search_needs_an_index(
    serving: TestClient, bundled_pipeline: EmotionPipeline, portrait: bytes, tmp_path: Path, monkeypatch: Any
) -> None:
    assert serving.post("/v1/search", json={"query": "a smile"}).status_code == 501
    (tmp_path / "portrait.jpg").write_bytes(portrait)
    with SearchIndex.open(tmp_path / "index", encoder_space=bundled_pipeline.encoder.space) as index:
        index.add_source("portrait.jpg", find_moments(bundled_pipeline, tmp_path / "portrait.jpg"))
    engine = serving.app.state.service.engine
    monkeypatch.setattr(engine, "settings", engine.settings.model_copy(update={"index_dir": tmp_path / "index"}))
    (hit,) = serving.post("/v1/search", json={"query": "a smile", "thumbnails": True}).json()["hits"]
    assert hit["source"] == "portrait.jpg"
    assert base64.b64decode(hit["thumbnail"]).startswith(b"\xff\xd8")
    assert serving.post("/v1/search", json={"query": "a smile"}).json()["hits"][0]["thumbnail"] is None


def test_what_there_is(serving: TestClient, bundled_pipeline: EmotionPipeline) -> None:
    sets = serving.get("/v1/labels").json()
    assert {"ekman7", "ferplus8"} <= {one["name"] for one in sets}
    assert serving.get("/v1/labels/ekman7").json()["labels"][0]
    (model,) = serving.get("/v1/models").json()
    assert (model["space"], model["dimension"]) == (bundled_pipeline.encoder.space, 384)
    assert serving.get("/healthz").json() == {"status": "ok"}
    assert "vlfer_batch_faces_count" in serving.get("/metrics").text


def test_openapi_describes_every_route_with_examples(serving: TestClient) -> None:
    schema = serving.get("/openapi.json").json()
    operations = {
        (method, path): operation for path, item in schema["paths"].items() for method, operation in item.items()
    }
    wanted = {
        ("post", "/v1/image"), ("post", "/v1/video"), ("post", "/v1/text"), ("post", "/v1/mie"), ("post", "/v1/search"),
        ("post", "/v1/score"), ("get", "/v1/labels"), ("get", "/v1/models"), ("get", "/healthz"), ("get", "/readyz"),
        ("get", "/metrics"), ("get", "/v1/video/{job_id}"), ("delete", "/v1/video/{job_id}"),
        ("get", "/v1/video/{job_id}/events"), ("get", "/v1/video/{job_id}/result"),
    }  # fmt: skip
    assert wanted <= set(operations)
    for name, operation in operations.items():
        assert operation["description"], name
        assert "application/problem+json" in operation["responses"]["422"]["content"], name
    answers = ("ImageAnswer", "ExplanationAnswer", "MieAnswer", "JobAnswer")
    for name in (*answers, "ScoreQuestion", "TextQuestion", "SearchQuestion"):
        assert schema["components"]["schemas"][name]["examples"], name
