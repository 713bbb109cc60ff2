"""A dictionary whose training was killed from outside, in a process of its own, ends with the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from safetensors.torch import load_file

from crosscoder_toys import planted
from stillroom.crosscoder import interchange
from stillroom.crosscoder.fitting import fit_crosscoder
from stillroom.crosscoder.model import CrosscoderConfig
from stillroom.training import FitConfig
from toys import workplace


def train(folder: Path) -> None:
    """The whole training, with a checkpoint after every update."""
    config = CrosscoderConfig(expansion=2, k=3, k_first=8, anneal=40 * 256, dead_after=1000)
    settings = FitConfig(updates=60, batch_size=256, learning_rate=3e-3, threads=1, warmup=5, log_every=1)
    made = fit_crosscoder(planted()[0], config, settings, workplace(folder, checkpoint_seconds=1e-9))
    interchange.save(made.crosscoder, folder / "crosscoder")


def begin(folder: Path) -> subprocess.Popen[bytes]:
    code = f"import sys, {Path(__file__).stem} as here; here.train(here.Path(sys.argv[1]))"
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], env=environment, stderr=subprocess.DEVNULL)


def test_kill_9_and_taking_it_up_again_give_the_same_dictionary(tmp_path: Path) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    with begin(killed) as process:
        partial = killed / "partial"
        while not (partial.is_dir() and any(partial.rglob("*.safetensors"))):
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "crosscoder").exists()
    with begin(killed) as process:
        assert process.wait() == 0
    train(alone)
    found, wanted = (load_file(folder / "crosscoder" / "model.safetensors") for folder in (killed, alone))
    assert found.keys() == wanted.keys()
    assert all(found[name].equal(wanted[name]) for name in wanted)
    assert (killed / "metrics.jsonl").read_text() == (alone / "metrics.jsonl").read_text()
