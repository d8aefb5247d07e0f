"""Work is shared through a folder: everything once, by whoever is alive."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mstrack import claims
from mstrack.claims import LOST, Claims, alone, anybody_at_work
from mstrack.errors import UserError
from mstrack.evaluation import _claim, evaluate
from mstrack.foreign import open_tracker
from mstrack.results import read_json

TESTS = Path(__file__).parent
SEQUENCES = 9
NAMES = ["plain", "a/b", "ünï [1]*.2", *(f"s{i}" for i in range(20))]


def claim_of_the_dead(folder: Path, name: str) -> None:
    """Let a process claim a name and be killed."""
    code = "import os, sys; from pathlib import Path; from mstrack.claims import Claims;"
    code += "c = Claims(Path(sys.argv[1])); c.take(sys.argv[2]); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code, str(folder), name])
    assert done.returncode == -signal.SIGKILL


def take_all(folder: Path, names: list[str], takers: int = 6) -> Counter[str]:
    """How often each name is had by several who try at the same time."""

    def try_all(_: int) -> list[str]:
        mine = Claims(folder)
        return [name for name in names if mine.take(name)]

    with ThreadPoolExecutor(takers) as pool:
        return Counter(name for taken in pool.map(try_all, range(takers)) for name in taken)


def test_every_name_is_had_once(tmp_path: Path) -> None:
    assert take_all(tmp_path, NAMES) == Counter(NAMES)
    assert take_all(tmp_path, NAMES) == Counter()


def test_what_a_dead_process_had_is_had_again_once(tmp_path: Path) -> None:
    for name in ("first", "second", "first"):
        claim_of_the_dead(tmp_path, name)
    assert not anybody_at_work(tmp_path)
    assert Claims(tmp_path).is_free("first")
    assert take_all(tmp_path, ["first", "second"]) == Counter(["first", "second"])
    assert anybody_at_work(tmp_path)
    assert not Claims(tmp_path).is_free("first")


def test_a_claim_that_a_full_disk_cuts_short_is_none(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from mstrack.claims import Claims\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "Claims(Path(sys.argv[1])).take('a')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert f"{tmp_path / '.claims' / 'a.1'} cannot be written: File too large" in done.stderr
    assert Claims(tmp_path).take("a")


HOLDER = """
import os, sys, time
from pathlib import Path
from mstrack.claims import alone
with alone(Path(sys.argv[1]), "work"):
    if os.fork():
        print("held", flush=True)
    time.sleep(600)
"""


def test_one_process_is_alone_in_a_folder_until_it_dies_whatever_it_has_started(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"another work is under way in {tmp_path}"), alone(tmp_path, "work"):
            pass
        holder.kill()
        holder.wait()
        with alone(tmp_path, "work"), pytest.raises(UserError, match="another work"), alone(tmp_path, "work"):
            pass
    finally:
        os.killpg(holder.pid, signal.SIGKILL)


def test_names_of_any_length_and_writing_are_claimed(tmp_path: Path) -> None:
    names = ["目" * 70, "目" * 71, "a" * 250, "\udcff"]
    with Claims(tmp_path) as mine:
        assert [mine.take(name) for name in names] == [True] * 4
        assert [Claims(tmp_path).is_free(name) for name in names] == [False] * 4


def test_what_is_held_ends_with_the_context_and_nothing_is_left(tmp_path: Path) -> None:
    claim_of_the_dead(tmp_path, "a")
    with Claims(tmp_path) as mine:
        assert mine.take("a")
        assert mine.take("b")
        assert not Claims(tmp_path).take("b")
        mine.release("b")
        assert Claims(tmp_path).is_free("b")
    assert list(tmp_path.iterdir()) == []


def test_a_process_on_another_machine_lives_as_long_as_it_gives_signs(tmp_path: Path) -> None:
    mine = Claims(tmp_path)
    assert mine.take("a")
    path = mine.held["a"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "elsewhere"}))
    assert not Claims(tmp_path).is_free("a")
    os.utime(path, (time.time() - LOST - 5,) * 2)
    assert Claims(tmp_path).is_free("a")


def test_claims_that_go_while_they_are_looked_at_are_looked_at_again(tmp_path: Path) -> None:
    class Late(Claims):
        def _now(self) -> float:
            shutil.rmtree(self.folder)  # between two lines, the last owner ends
            return super()._now()

    mine = Claims(tmp_path)
    assert mine.take("a")
    mine.held["a"].write_text(json.dumps({"machine": "elsewhere", "pid": 1, "started": ""}))
    assert not Late(tmp_path).is_free("a")
    assert Claims(tmp_path).is_free("a")


@pytest.mark.parametrize("text", ["", '{"machine": "x"', "[]"])
def test_a_claim_that_cannot_be_read_lasts_only_for_a_while(tmp_path: Path, text: str) -> None:
    mine = Claims(tmp_path)
    assert mine.take("a")
    mine.held["a"].write_text(text)
    assert not Claims(tmp_path).is_free("a")
    os.utime(mine.held["a"], (time.time() - LOST - 5,) * 2)
    assert Claims(tmp_path).is_free("a")


def test_the_number_of_a_process_that_is_used_again_claims_nothing(tmp_path: Path) -> None:
    mine = Claims(tmp_path)
    assert mine.take("a")
    path = mine.held["a"]
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": "1"}))
    assert Claims(tmp_path).is_free("a")


def test_who_holds_a_claim_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT", 0.02)
    with Claims(tmp_path) as mine:
        mine.take("a")
        os.utime(mine.held["a"], (0, 0))
        deadline = time.monotonic() + 20
        while mine.held["a"].stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert mine.held["a"].stat().st_mtime > 0


@pytest.mark.parametrize("ranks", [False, True], ids=["started one by one", "by torchrun"])
def test_several_processes_share_an_evaluation_and_survive_one(tmp_path: Path, ranks: bool) -> None:
    """One of three is killed in the middle of a sequence: the others end its work, and nothing else is done twice."""
    log = tmp_path / "log.txt"
    arguments = {"log": str(log), "fellows": 3}
    line = [sys.executable, "-m", "mstrack", "eval", "--tracker", "slow_tracker:Slow", "--out", str(tmp_path / "out")]
    line += ["--on", "moving_squares:load", "--root", str(tmp_path / "squares"), "--modality", "thermal"]
    line += [part for key, value in arguments.items() for part in ("--tracker-argument", f"{key}={value}")]
    line += ["--argument", f"sequences={SEQUENCES}"]
    processes = []
    for rank in range(3):
        environment = {**os.environ, "PYTHONPATH": str(TESTS), **({"SLOW_DIES": "1"} if rank == 2 else {})}
        environment |= {"RANK": str(rank), "WORLD_SIZE": "3"} if ranks else {}
        processes.append(subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path))
    ends = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, -signal.SIGKILL], ends
    begun = Counter(log.read_text().split())
    assert set(begun) == {str(process.pid) for process in processes}
    assert begun.total() == SEQUENCES + 1
    assert begun[str(processes[2].pid)] == 2
    assert not (tmp_path / "out" / ".claims").exists()
    scores = read_json(tmp_path / "out" / "scores.json")
    log.write_text("1 2 3 1 2 3\n")
    sys.path.insert(0, str(TESTS))
    options = {"on": "moving_squares:load", "root": tmp_path / "squares", "modality": "thermal"}
    alone = evaluate(
        open_tracker("slow_tracker:Slow", arguments), **options, out=tmp_path / "alone", arguments={"sequences": SEQUENCES}
    )
    assert read_json(alone.folder / "scores.json")["sequences"] == scores["sequences"]
    for sequence in alone.sequences:
        texts = [(folder / f"{sequence.name}.txt").read_text() for folder in (alone.folder, tmp_path / "out")]
        assert texts[0] == texts[1]


def test_the_same_call_goes_on_whatever_types_its_arguments_are_of(tmp_path: Path) -> None:
    given = {"dataset": "a", "dataset arguments": {"sizes": (160, 120), "place": Path("here"), "names": ["x"]}}
    _claim(tmp_path, given)
    (tmp_path / "x.txt").write_text("1,2,3,4\n")
    _claim(tmp_path, given)
    with pytest.raises(UserError, match=r"dataset arguments: .*120.* there, .*121.* now"):
        _claim(tmp_path, {**given, "dataset arguments": {**given["dataset arguments"], "sizes": (160, 121)}})


def test_an_evaluation_starts_while_others_claim_and_release(tmp_path: Path) -> None:
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            with Claims(tmp_path) as mine:
                mine.take("a")

    with ThreadPoolExecutor(1) as others:
        done = others.submit(work)
        try:
            for _ in range(300):
                _claim(tmp_path, {"dataset": "a"})
        finally:
            over.set()
        done.result()
