"""Stand-alone script: run in the environment of a peer, it needs NumPy and the peer alone and knows nothing of vlfer.

    python runner.py PEER FACES.npz OUT.npz [--speed THREADS]

FACES.npz holds ``pixels`` (all images one after another, uint8 RGB) and ``shapes`` (N, 2). OUT.npz gets ``probability``
(N, K), ``classes`` (K,) and ``facts`` (JSON); with ``--speed`` the times are in the facts.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Predict = Callable[[list[Any]], Any]


def build_fer(threads: int) -> tuple[Predict, tuple[str, ...], dict[str, Any]]:
    """The classifier of ``fer``: mini-XCEPTION (Arriaga et al., 2017), quantised, as it runs by default."""
    cv2 = importlib.import_module("cv2")
    interpreter_class = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    file = _package_folder("fer") / "data" / "emotion_model_quantized.tflite"
    interpreter = interpreter_class(model_path=str(file), num_threads=threads)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def predict(images: list[Any]) -> Any:
        rows = []
        for image in images:  # one at a time, as the package does
            grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (64, 64)).astype("float32")
            interpreter.set_tensor(source, ((grey / 255.0 - 0.5) * 2.0)[None, ..., None])
            interpreter.invoke()
            rows.append(interpreter.get_tensor(target)[0].copy())
        return np.array(rows)

    return predict, ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"), {
        "weights_bytes": file.stat().st_size, "parameters": None,
    }  # fmt: skip


def build_facial_emotion_recognition(threads: int) -> tuple[Predict, tuple[str, ...], dict[str, Any]]:
    """The classifier of ``facial-emotion-recognition``; its sigmoids are divided by their sum."""
    torch = importlib.import_module("torch")
    functional = importlib.import_module("torchvision.transforms.functional")
    torch.set_num_threads(threads)
    folder = _package_folder("facial_emotion_recognition")
    network = _module(folder / "networks.py").NetworkV2(in_c=1, nl=32, out_f=7)
    file = folder / "model" / "model.pkl"
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["network"])
    network.eval()
    image_class = importlib.import_module("PIL.Image")

    def predict(images: list[Any]) -> Any:
        batch = torch.stack([
            functional.to_tensor(functional.resize(image_class.fromarray(image).convert("L"), [48, 48]))
            for image in images
        ])  # fmt: skip
        with torch.inference_mode():
            output = network((batch - 0.5) / 0.5).numpy()
        return output / output.sum(axis=1, keepdims=True)

    return predict, ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"), {
        "weights_bytes": file.stat().st_size, "parameters": sum(p.numel() for p in network.parameters()),
    }  # fmt: skip


def build_facemood(threads: int) -> tuple[Predict, tuple[str, ...], dict[str, Any]]:
    """The classifier of ``facemood``: a Keras network on 170 px colour images."""
    tensorflow = importlib.import_module("tensorflow")
    image_class = importlib.import_module("PIL.Image")
    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    file = _package_folder("facemood") / "model__version1.0.0__.h5"
    network = tensorflow.keras.models.load_model(file, compile=False)

    def predict(images: list[Any]) -> Any:
        batch = np.stack([np.asarray(image_class.fromarray(image).resize((170, 170))) for image in images])
        return np.asarray(network(batch / np.float32(255.0), training=False))

    return predict, ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"), {
        "weights_bytes": file.stat().st_size, "parameters": int(network.count_params()),
    }  # fmt: skip


BUILDERS = {
    "fer": build_fer,
    "facial-emotion-recognition": build_facial_emotion_recognition,
    "facemood": build_facemood,
}


def main() -> None:
    """Run one peer over a file of faces."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=sorted(BUILDERS))
    parser.add_argument("faces", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--speed", type=int, default=0, metavar="THREADS")
    arguments = parser.parse_args()
    with np.load(arguments.faces, allow_pickle=False) as archive:
        images = _unpack(archive["pixels"], archive["shapes"])
    began = time.perf_counter()
    predict, classes, facts = BUILDERS[arguments.peer](max(1, arguments.speed))
    predict(images[:1])
    facts["load_s"] = time.perf_counter() - began
    if arguments.speed:
        facts["ms_per_face"] = {str(size): _ms_per_face(predict, images, size) for size in (1, 32)}
        probability = predict(images[:1])
    else:
        probability = np.concatenate([predict(images[i : i + 64]) for i in range(0, len(images), 64)])
    np.savez(arguments.out, probability=probability.astype(np.float32), classes=classes, facts=json.dumps(facts))


def _ms_per_face(predict: Predict, images: list[Any], size: int) -> float:
    """Return the median time of a face in batches of ``size``, pixels being in memory."""
    batch = [images[i % len(images)] for i in range(size)]
    for _ in range(3):
        predict(batch)
    times: list[float] = []
    until = time.perf_counter() + 3.0
    while time.perf_counter() < until or len(times) < 5:
        began = time.perf_counter()
        predict(batch)
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times)) / size


def _unpack(pixels: Any, shapes: Any) -> list[Any]:
    ends = np.cumsum([int(h) * int(w) * 3 for h, w in shapes])
    return [
        pixels[end - int(h) * int(w) * 3 : end].reshape(int(h), int(w), 3)
        for end, (h, w) in zip(ends, shapes, strict=True)
    ]


def _package_folder(name: str) -> Path:
    """Return where a package lies, without importing it: it may ask for libraries that its weights do not need."""
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"{name} is not installed")
    return Path(next(iter(found.submodule_search_locations)))


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
