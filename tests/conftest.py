"""What all tests share: folders, the environment of a reader without network, processes, the site in a browser, counted faults."""
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "nbs").glob("[!._]*.ipynb"))
CHAPTERS = [path for path in NOTEBOOKS if path.name[0].isdigit()]
ROOMS = [path for path in NOTEBOOKS if re.match(r"e\d", path.name)]       # of the engine room
LESSONS = CHAPTERS + ROOMS

# Every test runs on the embedded sample, unless it says otherwise: none waits for a download.
os.environ["VAE_TUTORIAL_SOURCE"] = "sample"
os.environ["TQDM_DISABLE"] = "1"
# Pages that run here check their own claims.
os.environ["VAE_TUTORIAL_PUBLISHED"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
# Two workers with one thread each are faster than two that fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Files of tests that need Linux (limits of memory, signals, sh, several processes in one folder), and more that are left out on Windows.
LINUX = ["test_repository.py", "test_faults_*.py", "test_*distributed.py", "test_wheel.py"]
NOT_WINDOWS = [*LINUX, "test_code.py", "test_notebooks.py", "test_*site.py", "test_jupyterlab.py"]
collect_ignore_glob = {"linux": [], "win32": NOT_WINDOWS}.get(sys.platform, LINUX)
# The tests are for the CPU: a Mac's GPU is hidden from them. (Those that GitHub lends offer one without memory.)
if sys.platform == "darwin":
    import torch

    torch.backends.mps.is_available = lambda: False

# Examples are drawn the same way on each run, so that a failure in CI is seen again at home; a slow machine may be slow.
settings.register_profile("course", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("course")

# `make faults` asks for as many trials as the reliability page tells of, and for the file in which they are counted.
LONG = "VAE_TUTORIAL_TRIALS" in os.environ


def tries(short, full):
    """Return how often to try something: `full` times for the reliability page, `short` times in every test run."""
    return full if LONG else short

sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "book" / "_ext")]

# A machine may be slow and busy: what takes longer than this many seconds hangs, be it a process or one step of it.
HANG, STEP_HANGS = 1800, 300

PHONE = (390, 844)        # width and height of the window
DESK = (1280, 1000)       # where a line of code of 88 columns must fit
Visit = namedtuple("Visit", "page complaints")


# The files that take long, and each notebook by itself; what makes the wheel and its environment comes first, for the notebooks wait for it.
LONGEST = ["test_wheel", "test_explorers_site", "test_jupyterlab", "notebooks", "test_site", "test_training"]


class OneWorkerPerFile(LoadFileScheduling):
    """Keeps the tests of a file on one worker, and all that look at the site, so that what they share is made once; notebooks run side by side.

    (Marks for `--dist=loadgroup` do nothing with pytest 9.2 and pytest-xdist 3.8.)
    """

    def _split_scope(self, nodeid):
        path, test = nodeid.split("::", 1)
        return nodeid if test.startswith("test_notebook_runs") else "the site" if path.endswith(("site.py", "pages.py")) else path


def pytest_xdist_make_scheduler(config, log):
    return OneWorkerPerFile(config, log)


def pytest_collection_modifyitems(items):
    """Begin with what takes long, so that both workers end together."""
    def place(item):
        name = "notebooks" if item.name.startswith("test_notebook_runs") else item.path.stem
        return LONGEST.index(name) if name in LONGEST else len(LONGEST)
    items.sort(key=place)


class Fault:
    """Counts the trials of one row of the reliability page; call it as `for trial in fault("row", short=3, full=20)`.

    A trial says with `saw` whether work was lost and whether a result was wrong; either fails the test once all is counted.
    """

    def __init__(self):
        self.counts = {}

    def __call__(self, row, short, full):
        self.row = row
        for number in range(tries(short, full)):
            self.number = number
            yield self

    def saw(self, lost=False, wrong=False, row=None):
        """Count a trial, of the row that is being tried or of the one named."""
        tried, lost_before, wrong_before = self.counts.get(row or self.row, (0, 0, 0))
        self.counts[row or self.row] = tried + 1, lost_before + bool(lost), wrong_before + bool(wrong)

    def write(self, file):
        for row, (tried, lost, wrong) in self.counts.items():
            file.write(json.dumps({"row": row, "tried": tried, "lost": lost, "wrong": wrong}) + "\n")

    def check(self):
        for row, (tried, lost, wrong) in self.counts.items():
            assert not lost and not wrong, f"{row}: of {tried} trials, {lost} lost work and {wrong} gave a wrong result"


@pytest.fixture
def fault():
    """Return a `Fault` whose counts are kept and checked when the test is over."""
    counted = Fault()
    yield counted
    if LONG:
        with open(os.environ["VAE_TUTORIAL_TRIALS"], "a", encoding="utf-8") as file:
            counted.write(file)
    counted.check()


def run_process(*command, timeout=HANG, cwd=ROOT, python=sys.executable, **environment):
    """Run a command of an interpreter's environment to its end; fail with its output unless it succeeds.

    The command gets its own process group and all of it is killed when the time is up, so that no worker of it is left.
    """
    # As in a fresh shell: a backend set for the tests must not decide how notebooks draw.
    inherited = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    with subprocess.Popen([python, *map(str, command)], cwd=cwd, env=inherited | environment, text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          start_new_session=True) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            output, _ = process.communicate()
            pytest.fail(f"no end after {timeout} s: {' '.join(map(str, command))}\n{output}", pytrace=False)
    if process.returncode:
        pytest.fail(f"exit status {process.returncode}: {' '.join(map(str, command))}\n{output}", pytrace=False)
    return output


def until(answer, what):
    """Wait until `answer()` gives something true, and return that."""
    end = time.monotonic() + STEP_HANGS
    while not (given := answer()):
        if time.monotonic() > end:
            pytest.fail(f"there is still no {what}", pytrace=False)
        time.sleep(0.05)
    return given


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Return a function that makes a folder, unless another worker has made it or is about to."""
    import fcntl

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name, make):
        path, done = shared / name, shared / f"{name}.done"
        with open(shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(path, ignore_errors=True)
                make(path)
                done.touch()
        return path
    return folder


@pytest.fixture(scope="session")
def data():
    """Return 300 training and 70 validation images; no batch size of the tests divides either number."""
    from factories import small_data

    return small_data()


@pytest.fixture(autouse=True)
def figures_are_closed():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def tree_copy(tmp_path):
    """Return a copy of the files that nbdev reads and writes, to let its commands loose on."""
    for name in ("nbs", "vae_tutorial"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True,
                        ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "runs"))
    for name in ("settings.ini", "_quarto.yml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture(scope="session")
def browser():
    """Return a headless Chromium."""
    import chromium
    from playwright.sync_api import sync_playwright

    try:
        path = chromium.find_or_install()
    except chromium.NoChromium as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI must look at the site: {error}", pytrace=False)
        pytest.skip(str(error))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=chromium.FLAGS)
        yield browser
        browser.close()


# Canvases that are read again and again, as tests do; and what JupyterLab and anywidget (which draws it when it has come) say on a slow machine.
HARMLESS = re.compile("willReadFrequently|taking too long to activate|ms to activate|Failed to initialize model")


def watched_page(browser, address, viewport=DESK, scheme="light", **options):
    """Return an empty page that reaches no other address, with the list of everything that goes wrong on it."""
    def fulfil(route):
        if route.request.url.startswith((address, "data:", "blob:")):
            return route.continue_()
        complaints.append(f"a request to another host: {route.request.url}")
        return route.abort()

    size = dict(zip(("width", "height"), viewport))
    context, complaints = browser.new_context(viewport=size, color_scheme=scheme, **options), []
    context.set_default_timeout(1000 * STEP_HANGS)
    page = context.new_page()
    context.route("**/*", fulfil)
    page.on("console", lambda message: message.type in ("error", "warning") and not HARMLESS.search(message.text)
            and complaints.append(message.text))
    page.on("pageerror", lambda error: HARMLESS.search(str(error)) or complaints.append(f"script error: {error}"))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.on("response", lambda answer: answer.status >= 400 and complaints.append(f"{answer.status}: {answer.url}"))
    return Visit(page, complaints)


@pytest.fixture(scope="session")
def site(once):
    """Return the folder of a freshly built site."""
    return once("html", lambda folder: run_process(ROOT / "tools" / "build_site.py", "--out", folder, SOURCE_DATE_EPOCH="86400"))


@contextmanager
def served(folder):
    """Serve a folder, and give its address."""
    from serve_site import make_server

    server = make_server(folder, port=0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="session")
def address(site):
    """Return the address at which the site is served."""
    with served(site) as address:
        yield address


@pytest.fixture(scope="session")
def visit(browser, address):
    """Return a function that opens a page of the site and records everything that goes wrong on it."""
    def open_page(name, viewport=DESK, scheme="light", base=address):
        page, complaints = watched_page(browser, base, viewport, scheme)
        page.goto(f"{base}{name}.html")
        page.wait_for_load_state("networkidle")
        page.wait_for_function("document.querySelectorAll('.explorer').length === document.querySelectorAll('.vae-explorer').length")
        return Visit(page, complaints)

    return open_page


@pytest.fixture(scope="session")
def opened(visit):
    """Return a function like `visit` that opens each page once; for tests that only look."""
    return lru_cache(maxsize=None)(visit)


def width_of_overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
